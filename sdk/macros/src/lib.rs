//! `#[derive(Params)]` and `#[derive(Choice)]`, documented in `millrace-sdk`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Expr, Fields, Lit, Meta, Type};

/// Reads a struct from the params of a step, and describes it as JSON Schema.
///
/// The doc comment of a field becomes its description. `#[param(default = …)]`
/// makes it optional, `min` and `max` bound a number; an `Option` is optional by
/// itself.
#[proc_macro_derive(Params, attributes(param))]
pub fn params(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    syn::parse(input).and_then(|input| expand_params(&input)).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// A param that is one of several words: the variants, in kebab-case.
#[proc_macro_derive(Choice)]
pub fn choice(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    syn::parse(input).and_then(|input| expand_choice(&input)).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

#[derive(Default)]
struct Settings {
    default: Option<Expr>,
    min: Option<Expr>,
    max: Option<Expr>,
}

fn settings(attributes: &[Attribute]) -> syn::Result<Settings> {
    let mut settings = Settings::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("param")) {
        attribute.parse_nested_meta(|meta| {
            let slot = if meta.path.is_ident("default") {
                &mut settings.default
            } else if meta.path.is_ident("min") {
                &mut settings.min
            } else if meta.path.is_ident("max") {
                &mut settings.max
            } else {
                return Err(meta.error("a param can have only `default`, `min` and `max`"));
            };
            *slot = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(settings)
}

fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == "Option"))
}

fn or_none(expr: Option<&Expr>) -> TokenStream {
    match expr {
        Some(expr) => quote!(::core::option::Option::Some((#expr) as f64)),
        None => quote!(::core::option::Option::None),
    }
}

fn expand_params(input: &DeriveInput) -> syn::Result<TokenStream> {
    let name = &input.ident;
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => fields.named.iter().collect(),
            Fields::Unit => Vec::new(),
            Fields::Unnamed(_) => return Err(syn::Error::new_spanned(input, "params must have names")),
        },
        _ => return Err(syn::Error::new_spanned(input, "params must be a struct; a choice of words is `Choice`")),
    };
    let mut schemas = Vec::new();
    let mut reads = Vec::new();
    let mut idents = Vec::new();
    for field in fields {
        let Some(ident) = &field.ident else { continue };
        let ty = &field.ty;
        let key = ident.to_string().trim_start_matches("r#").to_owned();
        let doc = doc(&field.attrs);
        let Settings { default, min, max } = settings(&field.attrs)?;
        let (min, max) = (or_none(min.as_ref()), or_none(max.as_ref()));
        let missing = match &default {
            Some(default) => quote!(::core::option::Option::Some(<#ty as ::core::convert::From<_>>::from(#default))),
            None if is_option(ty) => quote!(::core::option::Option::Some(::core::option::Option::None)),
            None => quote!(::core::option::Option::None),
        };
        schemas.push(quote! {
            schema.field::<#ty>(#key, #doc, #missing, #min, #max);
        });
        reads.push(quote! {
            let #ident: ::core::option::Option<#ty> = reader.field(#key, #missing, #min, #max);
        });
        idents.push(ident);
    }
    Ok(quote! {
        impl ::millrace_sdk::Params for #name {
            fn schema() -> ::millrace_sdk::json::Value {
                let mut schema = ::millrace_sdk::params::SchemaWriter::default();
                #(#schemas)*
                schema.finish()
            }

            fn read(reader: &mut ::millrace_sdk::params::Reader<'_>) -> ::core::option::Option<Self> {
                #(#reads)*
                ::core::option::Option::Some(Self { #(#idents: #idents?),* })
            }
        }
    })
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_uppercase() && i > 0 {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn expand_choice(input: &DeriveInput) -> syn::Result<TokenStream> {
    let name = &input.ident;
    let Data::Enum(data) = &input.data else {
        return Err(syn::Error::new_spanned(input, "a choice must be an enum"));
    };
    if let Some(variant) = data.variants.iter().find(|variant| !matches!(variant.fields, Fields::Unit)) {
        return Err(syn::Error::new_spanned(variant, "the variants of a choice must not have fields"));
    }
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let words: Vec<_> = variants.iter().map(|variant| kebab(&variant.to_string())).collect();
    Ok(quote! {
        impl ::millrace_sdk::params::Param for #name {
            fn schema() -> ::millrace_sdk::json::Value {
                ::millrace_sdk::json::json!({ "type": "string", "enum": [#(#words),*] })
            }

            fn read(value: &::millrace_sdk::json::Value) -> ::core::result::Result<Self, ::millrace_sdk::Error> {
                match value.as_str() {
                    #(::core::option::Option::Some(#words) => ::core::result::Result::Ok(Self::#variants),)*
                    found => ::core::result::Result::Err(::millrace_sdk::params::not_a_choice(found, value, &[#(#words),*])),
                }
            }

            fn to_json(&self) -> ::millrace_sdk::json::Value {
                match self {
                    #(Self::#variants => ::millrace_sdk::json::Value::from(#words),)*
                }
            }
        }
    })
}
