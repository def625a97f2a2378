//! Shorter names for the functions of a module.
//!
//! A failure reports where the guest was, so names are retained. As the compiler writes them,
//! mangled and with every generic argument, they are a sixth of a component.

use std::borrow::Cow;

use wasm_encoder::{CustomSection, Module, NameMap, NameSection, RawSection};
use wasmparser::{KnownCustom, Name, Parser, Payload};

/// Crates that are linked into every step: the exact function in them that failed does not matter.
const LINKED: [&str; 9] =
    ["alloc", "arrow_array", "arrow_buffer", "arrow_schema", "core", "dlmalloc", "serde_core", "serde_json", "std"];

/// `<a::B<T> as c::D>::e::h0123…` becomes `a::B::e`; of a long path the crate and the last three
/// parts remain, and of the crates that every step links only the crate and the last part.
fn short(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    let mut plain = String::with_capacity(name.len());
    push_plain(&name, &mut plain);
    let segments: Vec<&str> = plain.split("::").filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [of, .., last] if LINKED.contains(of) => format!("{of}::{last}"),
        [of, rest @ ..] if rest.len() > 3 => format!("{of}::{}", rest[rest.len() - 3..].join("::")),
        all => all.join("::"),
    }
}

/// The index of the `>` that closes the `<` at the start.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        before = c;
    }
    None
}

/// Appends a name without its generic arguments, and of `<A as B>` only the `A`.
fn push_plain(name: &str, out: &mut String) {
    let mut rest = name;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = closing(from) else {
            out.push_str(from);
            return;
        };
        // At the start of a name there is a qualified path; after a name there are arguments.
        if before.is_empty() && out.is_empty() {
            let inner = &from[1..end];
            let of = top_level_as(inner).map_or(inner, |at| &inner[..at]);
            push_plain(
                of.trim_start_matches(['&', '*', '(', '[']).trim_start_matches("mut ").trim_start_matches("dyn "),
                out,
            );
        }
        rest = &from[end + 1..];
    }
    out.push_str(rest);
}

/// The index of ` as ` outside of any `<…>`.
fn top_level_as(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && text[at..].starts_with(" as ") => return Some(at),
            _ => {}
        }
        None
    })
}

fn span(range: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    range.start as usize..range.end as usize
}

/// Returns the module with short names, and without the sections that only a debugger would use.
///
/// # Errors
/// When the bytes are not a module.
pub(crate) fn shorten(module: &[u8]) -> Result<Vec<u8>, wasmparser::BinaryReaderError> {
    let mut out = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Payload::CustomSection(section) = &payload {
            match section.as_known() {
                KnownCustom::Name(names) => {
                    let mut section = NameSection::new();
                    for name in names {
                        if let Name::Function(functions) = name? {
                            let mut map = NameMap::new();
                            for function in functions {
                                let function = function?;
                                map.append(function.index, &short(function.name));
                            }
                            section.functions(&map);
                        }
                    }
                    out.section(&section);
                }
                // `target_features` and the like state what validation determines itself.
                _ if section.name() == "producers" || section.name() == "target_features" => {}
                _ => {
                    let data = Cow::Borrowed(section.data());
                    out.section(&CustomSection { name: Cow::Borrowed(section.name()), data });
                }
            }
        } else if let Some((id, range)) = payload.as_section() {
            out.section(&RawSection { id, data: module.get(span(&range)).unwrap_or_default() });
        }
    }
    Ok(out.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_the_end_of_its_path() {
        for (long, expected) in [
            (
                "_ZN13millrace_expr4eval9Evaluator7compare28_$u7b$$u7b$closure$u7d$$u7d$17he78113e535243154E",
                "millrace_expr::Evaluator::compare::{{closure}}",
            ),
            (
                "_ZN70_$LT$alloc..vec..Vec$LT$T$C$A$GT$$u20$as$u20$core..ops..drop..Drop$GT$4drop17h6cf9015d4fc82253E",
                "alloc::drop",
            ),
            (
                "_ZN68_$LT$millrace_filter..Filter$u20$as$u20$millrace_sdk..step..Step$GT$4plan17he5d2e99f62d00bedE",
                "millrace_filter::Filter::plan",
            ),
            ("_RNvNtCs5cOc02OMXlo_5alloc3fmt6format", "alloc::format"),
            ("millrace:step/step@0.4.0#run", "millrace:step/step@0.4.0#run"),
            ("a::b<fn(u8) -> c<d>>::e", "a::b::e"),
            ("<", "<"),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(short(long), expected, "{long}");
        }
    }
}
