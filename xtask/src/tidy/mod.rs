//! What no compiler checks: the direction of imports, the length of files and lines, names of
//! files that say nothing, and words.

mod cycles;
mod words;

use std::path::Path;

use anyhow::{Result, bail};

use crate::workspace::root;

/// Which of our crates a crate may import. `ARCHITECTURE.md` has the same table.
const IMPORTS: [(&str, &[&str]); 12] = [
    ("host/types", &[]),
    ("host/platform", &[]),
    ("host/threads", &[]),
    ("host/store", &["types", "platform", "threads"]),
    ("host/tables", &["types", "platform", "threads", "expr"]),
    ("host/registry", &["types"]),
    ("host/plugin", &["platform"]),
    ("host/wasm", &["types", "platform", "threads", "tables"]),
    ("host/engine", &["types", "platform", "threads", "expr", "tables", "store", "registry", "plugin", "wasm"]),
    ("host/cli", &["engine", "platform", "store"]),
    ("sdk/expr", &[]),
    ("sdk", &["expr", "sdk-macros"]),
];

/// Crates whose files must not import each other in a cycle.
const CRATES: [&str; 15] = [
    "host/types",
    "host/platform",
    "host/threads",
    "host/store",
    "host/tables",
    "host/registry",
    "host/plugin",
    "host/wasm",
    "host/engine",
    "host/cli",
    "sdk/expr",
    "sdk/macros",
    "sdk",
    "benches",
    "xtask",
];

/// Lines of a file, unless its head says why it is longer.
const LINES: usize = 500;

/// Checks the tree.
pub fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for (folder, allowed) in IMPORTS {
        let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml"))?;
        let table = text.split("[dev-dependencies]").next().unwrap_or_default();
        for line in table.lines() {
            let Some(name) = line.strip_prefix("millrace-") else { continue };
            let name = name.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&name) {
                wrong.push(format!("{folder} must not import millrace-{name}"));
            }
        }
    }
    for plugin in std::fs::read_dir(root().join("plugins"))? {
        let text = std::fs::read_to_string(plugin?.path().join("Cargo.toml"))?;
        for line in text.lines().filter(|line| line.starts_with("millrace-") && !line.starts_with("millrace-sdk.")) {
            wrong.push(format!("a plugin knows only the SDK: {line}"));
        }
    }
    for folder in CRATES {
        for cycle in cycles::find(&root().join(folder).join("src"))? {
            let name = |path: &std::path::PathBuf| path.strip_prefix(root()).unwrap_or(path).display().to_string();
            wrong.push(format!(
                "files that import each other: {}",
                cycle.iter().map(name).collect::<Vec<_>>().join(", ")
            ));
        }
    }
    for top in ["host", "sdk", "plugins", "benches", "xtask", "tests", "examples"] {
        files(&root().join(top), &mut wrong)?;
    }
    words::check(root(), &mut wrong)?;
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("not tidy:\n  {}", wrong.join("\n  "))
}

/// Reports types that do not say what their values are: digests as bytes, errors as text.
fn bare_types(path: &Path, text: &str, wrong: &mut Vec<String>) {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    for (line, number) in code.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with("//")) {
        let mut report = |what: &str| wrong.push(format!("{}:{number}: {what}", path.display()));
        if line.contains(concat!("[u8;", " 32]")) {
            report("32 bytes without a name: use or add a type of `types/src/digest.rs`");
        }
        if line.split("Result<").skip(1).any(|rest| rest.contains(concat!(", ", "String>"))) {
            report("an error that is a text: give it a type");
        }
    }
}

fn files(folder: &Path, wrong: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files(&path, wrong)?;
            }
            continue;
        }
        let Some(stem) = name.strip_suffix(".rs") else { continue };
        if ["utils", "util", "common", "helpers", "imp", "manager", "misc"].contains(&stem) {
            wrong.push(format!("{}: a name that says nothing", path.display()));
        }
        let text = std::fs::read_to_string(&path)?;
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if text.lines().count() > LINES && !head.contains("Long because") {
            wrong.push(format!(
                "{}: more than {LINES} lines, and its head does not say `Long because …`",
                path.display()
            ));
        }
        let is_test = path.components().any(|part| part.as_os_str() == "tests") || name.ends_with("tests.rs");
        if !is_test && !path.ends_with("types/src/digest.rs") {
            bare_types(&path, &text, wrong);
        }
        if !text.starts_with("//!") && !path.ends_with("tests.rs") && !name.ends_with("tests.rs") {
            wrong.push(format!("{}: no purpose at its head", path.display()));
        }
    }
    Ok(())
}
