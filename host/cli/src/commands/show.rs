//! `host show`

use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use millrace_engine::types::{Artifact, ByteSize};
use millrace_engine::{Artifacts, ShowError, export_to};
use serde_json::json;

use crate::args::ShowArgs;
use crate::render::{self, words};
use crate::{commands, exit};

/// Shows an artifact, or writes it to a file.
pub fn run(args: &ShowArgs) -> u8 {
    let store = match commands::open(&args.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    let artifacts = Artifacts::new(store.clone());
    let (digest, artifact) = match artifacts.find(&args.artifact, args.pipeline.as_deref()) {
        Ok(found) => found,
        Err(error) => return fail(&error),
    };
    if let Some(path) = &args.export {
        return match export_to(&store, &artifact, path) {
            Ok(()) => {
                render::note(&format!("    wrote  {}", path.display()));
                exit::DONE
            }
            Err(message) => {
                render::note(&format!("error: cannot write `{}`: {message}", path.display()));
                exit::FAILED
            }
        };
    }
    let shown = match &artifact {
        Artifact::Table(table) => artifacts.head(table, args.rows).map(|head| show_table(&digest, &head, args.json)),
        Artifact::Blob(blob) => artifacts.blob(blob).map(|bytes| show_blob(&digest, &bytes, args.json)),
    };
    match shown {
        Ok(()) => exit::DONE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &ShowError) -> u8 {
    render::note(&format!("error: {error}"));
    match error {
        ShowError::NotFound { help, .. } => {
            help.iter().for_each(|help| render::note(&format!("  help: {help}")));
            exit::WRONG
        }
        ShowError::Unreadable(_) => exit::FAILED,
    }
}

fn show_table(digest: &str, head: &millrace_engine::TableHead, as_json: bool) {
    if as_json {
        let fields: Vec<_> = head
            .schema
            .fields
            .iter()
            .map(|field| json!({ "name": field.name, "type": field.data_type.to_string(), "nullable": field.nullable }))
            .collect();
        render::out(&json!({ "kind": "table", "digest": digest, "rows": head.rows, "parts": head.parts, "schema": fields, "head": head.head }).to_string());
        return;
    }
    render::out(&format!("table {digest}"));
    let parts = if head.parts == 1 { "1 part".to_owned() } else { format!("{} parts", head.parts) };
    render::out(&format!("{} rows × {} columns in {parts}", words::count(head.rows), head.schema.fields.len()));
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(head.schema.fields.iter().map(|field| format!("{}\n{}", field.name, field.data_type)));
    for row in &head.head {
        table.add_row(row.iter().map(|cell| plain(cell.as_deref().unwrap_or("·"))));
    }
    render::out(&table.to_string());
}

/// The beginning of a cell. Control characters, which could steer a terminal, are escaped.
fn plain(cell: &str) -> String {
    let mut out = String::new();
    for c in cell.chars().take(40) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn show_blob(digest: &str, bytes: &[u8], as_json: bool) {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    if as_json {
        render::out(&json!({ "kind": "blob", "digest": digest, "bytes": bytes.len(), "text": text }).to_string());
        return;
    }
    render::out(&format!("blob {digest}\n{}", ByteSize(bytes.len() as u64)));
    match text {
        Some(text) if text.len() <= 4096 => render::out(text),
        Some(text) => {
            render::out(&format!("{}… (--export FILE for all of it)", text.chars().take(2000).collect::<String>()))
        }
        None => render::out("not text; --export FILE writes it"),
    }
}
