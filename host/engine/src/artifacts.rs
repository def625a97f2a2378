//! Artifacts for display: found by digest or by `STEP.PORT`, and read.

use millrace_store::Store;
use millrace_tables::ChunkSource;
use millrace_types::{Artifact, BlobDigest, Schema, Table, TableDigest};
use std::path::Path;
use std::sync::Arc;

use crate::chunks::StoreChunks;
use crate::diagnostic::nearest;
use crate::history::History;

/// Finds artifacts.
pub struct Artifacts {
    store: Store,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// There is no artifact of this name.
    #[error("{message}")]
    NotFound {
        /// The name, and that it was not found.
        message: String,
        /// Names that exist.
        help: Option<String>,
    },
    /// Its bytes cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// The beginning of a table.
#[derive(Debug, Clone)]
pub struct TableHead {
    /// Its columns.
    pub schema: Schema,
    /// The number of its rows.
    pub rows: u64,
    /// Its parts.
    pub parts: usize,
    /// The first rows as text, with null as `None`.
    pub head: Vec<Vec<Option<String>>>,
}

/// A name with its matrix values in order and directly after the step: `t.model[b=1,a=2]` means
/// `t[a=2,b=1].model`.
fn ordered(name: &str) -> String {
    let Some((before, rest)) = name.split_once('[') else { return name.to_owned() };
    let Some((values, after)) = rest.rsplit_once(']') else { return name.to_owned() };
    let number = |value: &str| value.parse::<f64>().map_or_else(|_| value.to_owned(), |number| number.to_string());
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => format!("{}={}", name.trim(), number(value.trim())),
        None => pair.trim().to_owned(),
    };
    let mut values: Vec<String> = values.split(',').map(pair).collect();
    values.sort();
    let (step, port) =
        before.split_once('.').map_or((before, after.to_owned()), |(step, port)| (step, format!(".{port}{after}")));
    format!("{step}[{}]{port}", values.join(","))
}

impl Artifacts {
    /// For the artifacts of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Finds by digest: a table, else a blob.
    pub fn by_digest(&self, text: &str) -> Option<Artifact> {
        let bytes = text.parse::<BlobDigest>().ok()?;
        let table = TableDigest::from_bytes(*bytes.as_bytes());
        if let Some(table) = self.store.table(&table) {
            return Some(Artifact::Table(Arc::new(table)));
        }
        self.store.find_blob(&bytes).map(Artifact::Blob)
    }

    /// Finds by `STEP`, `STEP.PORT` or `STEP[…].PORT` in the last run of a pipeline, or by digest.
    ///
    /// # Errors
    /// When there is no such artifact.
    pub fn find(&self, name: &str, pipeline: Option<&Path>) -> Result<(String, Artifact), ShowError> {
        let missing = |message: String, help: Option<String>| ShowError::NotFound { message, help };
        if name.starts_with("b3:") {
            let found = self.by_digest(name);
            return found
                .map(|found| (name.to_owned(), found))
                .ok_or_else(|| missing(format!("the store has no artifact {name}"), None));
        }
        let history = History::open(&self.store);
        let run = match pipeline {
            Some(path) => history.last_of(path),
            None => history.runs().next(),
        };
        let run = run.ok_or_else(|| {
            missing("no run is known to this store".to_owned(), Some("`host run PIPELINE.toml` first".to_owned()))
        })?;
        let mut names: Vec<(String, &String)> = Vec::new();
        for (instance, ports) in &*run.outputs {
            for (port, digest) in ports {
                names.push((format!("{instance}.{port}"), digest));
            }
            let outputs: Vec<_> = ports.iter().filter(|(port, _)| *port != "metrics").collect();
            if let [(_, digest)] = outputs.as_slice() {
                names.push((instance.clone(), digest));
            }
        }
        let wanted = ordered(name);
        let found = names.iter().find(|(known, _)| ordered(known) == wanted).map(|(_, digest)| *digest);
        let digest = found.ok_or_else(|| {
            let step = name.split(['.', '[']).next().unwrap_or_default();
            let of_step: Vec<&str> = names
                .iter()
                .map(|(known, _)| known.as_str())
                .filter(|known| known.split(['.', '[']).next() == Some(step) && known.contains('.'))
                .collect();
            let near = nearest(name, names.iter().map(|(known, _)| known.as_str()));
            let help = match near {
                _ if !of_step.is_empty() => format!("of `{step}` there are {}", of_step.join(", ")),
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let known: Vec<&str> = names.iter().map(|(known, _)| known.as_str()).take(24).collect();
                    format!("there are {}", known.join(", "))
                }
            };
            missing(format!("the run {} has no output `{name}`", run.id), Some(help))
        })?;
        let artifact = self.by_digest(digest).ok_or_else(|| {
            missing(format!("the store no longer has {digest}"), Some("run the pipeline again".to_owned()))
        })?;
        Ok((digest.clone(), artifact))
    }

    /// The first rows of a table.
    ///
    /// # Errors
    /// When its bytes cannot be read.
    pub fn head(&self, table: &Table, rows: usize) -> Result<TableHead, ShowError> {
        let chunks = StoreChunks::new(self.store.clone());
        let unreadable = |error: &dyn std::fmt::Display| ShowError::Unreadable(error.to_string());
        let head = Self::rows(&chunks, table, rows);
        // A corrupt store explains more than the errors that follow from it.
        chunks.wait_checked().map_err(|error| unreadable(&error))?;
        Ok(TableHead { schema: table.schema.clone(), rows: table.rows(), parts: table.parts.len(), head: head? })
    }

    fn rows(chunks: &StoreChunks, table: &Table, rows: usize) -> Result<Vec<Vec<Option<String>>>, ShowError> {
        let unreadable = |error: &dyn std::fmt::Display| ShowError::Unreadable(error.to_string());
        let mut head: Vec<Vec<Option<String>>> = Vec::new();
        chunks.prefetch(table);
        for part in &table.parts {
            let wanted = (rows - head.len()).min(part.rows as usize);
            if wanted == 0 {
                break;
            }
            let mut columns = Vec::with_capacity(part.columns.len());
            for chunk in &part.columns {
                let array = chunks.column(chunk).map_err(|error| unreadable(&error))?.to_array();
                let array = array.map_err(|error| unreadable(&error))?.slice(0, wanted);
                columns.push(arrow::compute::cast(&array, &arrow::datatypes::DataType::Utf8).unwrap_or(array));
            }
            for row in 0..wanted {
                use arrow::array::{Array, cast::AsArray};
                let cell = |column: &arrow::array::ArrayRef| {
                    let text = column.as_string_opt::<i32>()?;
                    text.is_valid(row).then(|| text.value(row).to_owned())
                };
                head.push(columns.iter().map(cell).collect());
            }
        }
        Ok(head)
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn blob(&self, blob: &millrace_types::BlobRef) -> Result<bytes::Bytes, ShowError> {
        let chunks = StoreChunks::new(self.store.clone());
        chunks.blob(blob).map_err(|error| ShowError::Unreadable(error.to_string()))
    }
}
