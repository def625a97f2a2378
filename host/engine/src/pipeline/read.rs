//! TOML to a [`Pipeline`]. All errors are reported together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_tables::read::Format;
use millrace_types::limits::parse_duration;
use millrace_types::uses::SCHEMES;
use millrace_types::{DataType, DeclaredLimits, PortName, StepName, Uses, UsesError, bounds};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::{CachePolicy, Export, Param, Pipeline, Source, Step, StepGrants};
use super::value::{Entry, Located, Reader};
use crate::diagnostic::{Diagnostic, PipelineFile, Span};

/// Reads a pipeline file and the files it includes.
///
/// # Errors
/// Everything that is wrong with it, each with its span.
pub fn read(path: &Path) -> Result<Pipeline, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let file = load(path, None).map_err(|error| vec![error])?;
    let mut pipeline = Pipeline {
        name: path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        file: file.clone(),
        files: Vec::new(),
        params: Vec::new(),
        sources: Vec::new(),
        steps: Vec::new(),
        exports: Vec::new(),
    };
    read_file(&file, &mut pipeline, &mut errors, &mut Vec::new());
    check_names(&pipeline, &mut errors);
    if errors.is_empty() { Ok(pipeline) } else { Err(errors) }
}

fn load(path: &Path, from: Option<&Span>) -> Result<Arc<PipelineFile>, Diagnostic> {
    let fail = |what: String| {
        let error = Diagnostic::new(format!("cannot read the pipeline `{}`: {what}", path.display()));
        match from {
            Some(span) => error.at(span, "included here"),
            None if path == Path::new("pipeline.toml") && !path.exists() => {
                error.help("name the file: `host run PIPELINE.toml`")
            }
            None => error,
        }
    };
    let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > bounds::PIPELINE_BYTES {
        return Err(fail(format!("it has {size} bytes, and a pipeline has at most {}", bounds::PIPELINE_BYTES)));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        fail(format!("it is not UTF-8 in line {line}"))
    })?;
    Ok(Arc::new(PipelineFile { path: path.to_owned(), text }))
}

const TOP: [&str; 6] = ["pipeline", "include", "params", "sources", "steps", "exports"];
const PIPELINE: [&str; 2] = ["name", "doc"];
const PARAM: [&str; 5] = ["type", "default", "min", "max", "doc"];
const SOURCE: [&str; 10] =
    ["path", "format", "columns", "where", "missing", "types", "part_rows", "delimiter", "allow_empty", "doc"];
const STEP: [&str; 9] = ["uses", "input", "inputs", "params", "matrix", "limits", "grants", "cache", "doc"];
const GRANTS: [&str; 2] = ["read", "env"];
const LIMITS: [&str; 3] = ["memory", "fuel", "time"];

fn read_file(file: &Arc<PipelineFile>, pipeline: &mut Pipeline, errors: &mut Vec<Diagnostic>, open: &mut Vec<PathBuf>) {
    open.push(file.path.clone());
    pipeline.files.push(file.clone());
    let table = match DeTable::parse(&file.text) {
        Ok(table) => table,
        Err(error) => {
            let range = error.span().unwrap_or(0..0);
            let span = Span { file: file.clone(), range };
            errors.push(Diagnostic::new(format!("not valid TOML: {}", error.message().trim())).at(&span, "here"));
            return;
        }
    };
    let mut reader = Reader { file, errors };
    let mut includes = Vec::new();
    for (key, value) in table.get_ref() {
        match key.get_ref().as_ref() {
            "pipeline" => {
                for (key, value) in reader.table("`pipeline`", value).into_iter().flatten() {
                    match key.get_ref().as_ref() {
                        "name" => pipeline.name = reader.text("a name", value).map_or(String::new(), |(name, _)| name),
                        "doc" => {}
                        _ => reader.unknown("[pipeline]", key, &PIPELINE),
                    }
                }
            }
            "include" => includes = reader.texts("`include`", value).unwrap_or_default(),
            "params" => {
                for entry in reader.table("`params`", value).into_iter().flatten() {
                    read_param(&mut reader, entry, &mut pipeline.params);
                }
            }
            "sources" => {
                for entry in reader.table("`sources`", value).into_iter().flatten() {
                    pipeline.sources.extend(read_source(&mut reader, entry));
                }
            }
            "steps" => {
                let steps = reader.table("`steps`", value);
                pipeline.steps.reserve(steps.map_or(0, DeTable::len));
                for entry in steps.into_iter().flatten() {
                    pipeline.steps.extend(read_step(&mut reader, entry));
                }
            }
            "exports" => {
                for (key, value) in reader.table("`exports`", value).into_iter().flatten() {
                    let Some((reference, span)) = reader.text("an export", value) else { continue };
                    let path = key.get_ref().to_string();
                    pipeline.exports.push(Export { path, folder: folder(file), reference, span });
                }
            }
            _ => reader.unknown("the pipeline file", key, &TOP),
        }
    }
    for (path, span) in includes {
        let path = folder(file).join(path);
        if open.contains(&path) {
            errors.push(Diagnostic::new(format!("`{}` includes itself", path.display())).at(&span, "included here"));
            continue;
        }
        match load(&path, Some(&span)) {
            Ok(included) => {
                let name = pipeline.name.clone();
                read_file(&included, pipeline, errors, open);
                pipeline.name = name;
            }
            Err(error) => errors.push(error),
        }
    }
    open.pop();
}

fn folder(file: &PipelineFile) -> PathBuf {
    file.path.parent().map_or_else(PathBuf::new, Path::to_owned)
}

fn name(reader: &mut Reader<'_>, key: &Spanned<std::borrow::Cow<'_, str>>) -> Option<StepName> {
    match StepName::new(key.get_ref()) {
        Ok(name) => Some(name),
        Err(error) => {
            reader.error(key.span(), error.to_string(), "not a name");
            None
        }
    }
}

fn read_param(reader: &mut Reader<'_>, (key, value): Entry<'_, '_>, params: &mut Vec<Param>) {
    let span = reader.span(key.span());
    let mut param =
        Param { name: key.get_ref().to_string(), span, ty: None, default: None, min: None, max: None, doc: None };
    // A table with a key of a definition is a definition; any other value is the default.
    let definition = match value.get_ref() {
        DeValue::Table(table) if table.iter().any(|(key, _)| PARAM.contains(&key.get_ref().as_ref())) => Some(table),
        _ => None,
    };
    match definition {
        None => param.default = Some(reader.located(value).value),
        Some(table) => {
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    "type" => param.ty = reader.text("a type", value).map(|(ty, _)| ty),
                    "default" => param.default = Some(reader.located(value).value),
                    "min" => param.min = reader.located(value).value.as_f64(),
                    "max" => param.max = reader.located(value).value.as_f64(),
                    "doc" => param.doc = reader.text("a doc", value).map(|(doc, _)| doc),
                    _ => reader.unknown("a param", key, &PARAM),
                }
            }
            const TYPES: [&str; 6] = ["float", "int", "string", "bool", "list", "table"];
            if let Some(ty) = param.ty.as_deref().filter(|ty| !TYPES.contains(ty)) {
                let error = Diagnostic::new(format!("`{ty}` is not a type of a param")).at(&param.span, "here");
                reader.errors.push(error.suggest(ty, TYPES));
            }
        }
    }
    params.push(param);
}

fn read_source(reader: &mut Reader<'_>, (key, value): Entry<'_, '_>) -> Option<Source> {
    let name = name(reader, key)?;
    let table = reader.table("a source", value)?;
    let mut path = None;
    let mut source = Source {
        name,
        span: reader.span(key.span()),
        path: (String::new(), reader.span(value.span())),
        folder: folder(reader.file),
        format: None,
        columns: None,
        filter: None,
        missing: None,
        types: BTreeMap::new(),
        part_rows: None,
        delimiter: None,
        allow_empty: false,
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "path" => path = reader.text("`path`", value),
            "format" => {
                if let Some((text, span)) = reader.text("`format`", value) {
                    source.format = Format::named(&text);
                    if source.format.is_none() {
                        let error = Diagnostic::new(format!("`{text}` is not a format")).at(&span, "not known");
                        reader.errors.push(error.suggest(&text, ["csv", "ndjson", "parquet", "arrow"]));
                    }
                }
            }
            "columns" => source.columns = reader.texts("`columns`", value),
            "where" => source.filter = reader.text("`where`", value),
            "missing" => {
                let texts = reader.texts("`missing`", value);
                source.missing = texts.map(|texts| texts.into_iter().map(|(text, _)| text).collect());
            }
            "types" => {
                for (key, value) in reader.table("`types`", value).into_iter().flatten() {
                    let Some((text, span)) = reader.text("a type", value) else { continue };
                    match text.parse::<DataType>() {
                        Ok(data_type) => drop(source.types.insert(key.get_ref().to_string(), (data_type, span))),
                        Err(error) => reader.errors.push(Diagnostic::new(error.to_string()).at(&span, "not a type")),
                    }
                }
            }
            "part_rows" => match reader.located(value).value.as_u64() {
                Some(rows @ 1..=bounds::PART_ROWS) => source.part_rows = Some(rows as usize),
                _ => reader.error(
                    value.span(),
                    format!("`part_rows` is an integer from 1 to {}", bounds::PART_ROWS),
                    "here",
                ),
            },
            "delimiter" => match reader.text("`delimiter`", value) {
                Some((text, _)) if text.len() == 1 && !text.contains(['"', '\n', '\r']) => {
                    source.delimiter = text.bytes().next()
                }
                Some(_) => reader.error(
                    value.span(),
                    "a delimiter is one ASCII character, no quote and no line end",
                    "this is not",
                ),
                None => {}
            },
            "allow_empty" => source.allow_empty = reader.bool("`allow_empty`", value).unwrap_or_default(),
            "doc" => {}
            _ => reader.unknown("a source", key, &SOURCE),
        }
    }
    match path {
        Some(path) => source.path = path,
        None => {
            let message = format!("the source `{}` has no `path`", source.name);
            reader.error(key.span(), message, "this source");
        }
    }
    Some(source)
}

fn read_step(reader: &mut Reader<'_>, (key, value): Entry<'_, '_>) -> Option<Step> {
    let name = name(reader, key)?;
    let table = reader.table("a step", value)?;
    let span = reader.span(key.span());
    let mut uses = None;
    let mut step = Step {
        name,
        span: span.clone(),
        uses: (Uses::Std(String::new()), span.clone()),
        folder: folder(reader.file),
        inputs: Vec::new(),
        params: Located { value: serde_json::json!({}), spans: [(String::new(), span)].into() },
        matrix: Vec::new(),
        limits: DeclaredLimits::default(),
        grants: StepGrants::default(),
        cache: CachePolicy::On,
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "uses" => uses = reader.text("`uses`", value),
            "input" => {
                step.inputs.extend(reader.text("`input`", value).map(|(text, span)| (None, text, span)));
            }
            "inputs" => {
                for (key, value) in reader.table("`inputs`", value).into_iter().flatten() {
                    let Some((text, span)) = reader.text("an input", value) else { continue };
                    match PortName::new(key.get_ref()) {
                        Ok(port) => step.inputs.push((Some(port), text, span)),
                        Err(error) => reader.error(key.span(), error.to_string(), "not a port"),
                    }
                }
            }
            "params" => {
                if reader.table("`params`", value).is_some() {
                    step.params = reader.located(value);
                }
            }
            "matrix" => read_matrix(reader, value, &mut step.matrix),
            "limits" => read_limits(reader, value, &mut step.limits),
            "grants" => read_grants(reader, value, &mut step.grants),
            "cache" => step.cache = read_cache(reader, value),
            "doc" => {}
            _ => reader.unknown("a step", key, &STEP),
        }
    }
    match uses {
        Some((text, span)) => match text.parse() {
            Ok(uses) => step.uses = (uses, span),
            Err(error) => reader.errors.push(uses_error(&text, error, &span)),
        },
        None => {
            let message = format!("the step `{}` has no `uses`", step.name);
            reader.error(key.span(), message, "this step");
        }
    }
    Some(step)
}

fn uses_error(text: &str, error: UsesError, span: &Span) -> Diagnostic {
    let message = error.to_string();
    match error {
        UsesError::NoScheme(_) => {
            let help = format!("write `std:{text}` for a standard step, or `path:{text}` for one of yours");
            Diagnostic::new(message).at(span, "no scheme").help(help)
        }
        UsesError::Scheme(scheme) => Diagnostic::new(message).at(span, "not known").suggest(&scheme, SCHEMES),
        UsesError::Folder(_) | UsesError::Name(_) | UsesError::Version(_) => Diagnostic::new(message).at(span, "here"),
    }
}

fn read_grants(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>, grants: &mut StepGrants) {
    for (key, value) in reader.table("`grants`", value).into_iter().flatten() {
        let granted = match key.get_ref().as_ref() {
            "read" => &mut grants.read,
            "env" => &mut grants.env,
            _ => {
                reader.unknown("`grants`", key, &GRANTS);
                continue;
            }
        };
        *granted = reader.texts(&format!("`{}`", key.get_ref()), value).unwrap_or_default();
        let twice = (1..granted.len()).find(|i| granted[..*i].iter().any(|(name, _)| *name == granted[*i].0));
        if let Some((name, span)) = twice.map(|i| &granted[i]) {
            reader.error(span.range.clone(), format!("`{name}` is granted twice"), "here");
        }
    }
}

fn read_matrix(
    reader: &mut Reader<'_>,
    value: &Spanned<DeValue<'_>>,
    matrix: &mut Vec<(String, Vec<serde_json::Value>, Span)>,
) {
    for (key, value) in reader.table("`matrix`", value).into_iter().flatten() {
        let span = reader.span(value.span());
        match reader.located(value).value {
            serde_json::Value::Array(mut values) if !values.is_empty() => {
                let all = values.len();
                let mut seen = Vec::new();
                values.retain(|value| {
                    !seen.contains(value) && {
                        seen.push(value.clone());
                        true
                    }
                });
                if values.len() < all {
                    reader.error(value.span(), format!("the matrix value `{}` occurs twice", key.get_ref()), "here");
                }
                matrix.push((key.get_ref().to_string(), values, span));
            }
            _ => reader.error(value.span(), "a matrix has a list of values for each name", "this is not"),
        }
    }
    matrix.sort_by(|a, b| a.0.cmp(&b.0));
}

fn read_limits(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>, limits: &mut DeclaredLimits) {
    for (key, value) in reader.table("`limits`", value).into_iter().flatten() {
        let Some((text, span)) = reader.text("a limit", value) else { continue };
        let error = match key.get_ref().as_ref() {
            "memory" => text.parse().map(|memory| limits.memory = Some(memory)).err(),
            "fuel" => text.parse().map(|fuel| limits.fuel = Some(fuel)).err(),
            "time" => parse_duration(&text).map(|time| limits.time_ms = Some(time.as_millis() as u64)).err(),
            _ => {
                reader.unknown("`limits`", key, &LIMITS);
                None
            }
        };
        if let Some(error) = error {
            reader.errors.push(Diagnostic::new(error.to_string()).at(&span, "here"));
        }
    }
}

fn read_cache(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> CachePolicy {
    match value.get_ref() {
        DeValue::String(text) if text == "on" => return CachePolicy::On,
        DeValue::String(text) if text == "off" => return CachePolicy::Off,
        DeValue::Table(table) => {
            let mut policy = CachePolicy::On;
            for (key, value) in table {
                if key.get_ref() != "max-age" {
                    reader.unknown("`cache`", key, &["max-age"]);
                    continue;
                }
                let Some((text, span)) = reader.text("`max-age`", value) else { continue };
                match parse_duration(&text) {
                    Ok(age) => policy = CachePolicy::MaxAge(age),
                    Err(error) => reader.errors.push(Diagnostic::new(error.to_string()).at(&span, "here")),
                }
            }
            return policy;
        }
        _ => {}
    }
    let span = reader.span(value.span());
    let error = Diagnostic::new("`cache` is \"on\", \"off\" or { max-age = \"7d\" }").at(&span, "this is none of them");
    reader.errors.push(error);
    CachePolicy::On
}

/// Sources and steps share one name space: a reference does not state which of them it means.
fn check_names(pipeline: &Pipeline, errors: &mut Vec<Diagnostic>) {
    let sources = pipeline.sources.iter().map(|source| (source.name.as_str(), &source.span));
    let steps = pipeline.steps.iter().map(|step| (step.name.as_str(), &step.span));
    let params = pipeline.params.iter().map(|param| (param.name.as_str(), &param.span));
    let exports = pipeline.exports.iter().map(|export| (export.path.as_str(), &export.span));
    for (what, names) in [
        ("source or step", sources.chain(steps).collect::<Vec<_>>()),
        ("param", params.collect()),
        ("export", exports.collect()),
    ] {
        let mut seen: BTreeMap<&str, &Span> = BTreeMap::new();
        for (name, span) in names {
            match seen.get(name) {
                Some(first) => errors.push(
                    Diagnostic::new(format!("two definitions of the {what} `{name}`"))
                        .at(first, "the first")
                        .at(span, "the second"),
                ),
                None => drop(seen.insert(name, span)),
            }
        }
    }
}
