//! `host schema`

use crate::{exit, render};

/// Prints the JSON Schema of the pipeline file.
pub fn run() -> u8 {
    let schema = millrace_engine::json_schema();
    render::out(&serde_json::to_string_pretty(&schema).unwrap_or_default());
    exit::DONE
}
