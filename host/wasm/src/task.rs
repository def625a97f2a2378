//! A task: what it is given, and what it holds while it runs.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::sync::Arc;

use bytes::Bytes;
use millrace_tables::ColumnBytes;
use millrace_tables::pack::{self, Pack};
use millrace_types::{BlobRef, Chunk, Field, Limits, LogLine, PackDigest, Phase, PortName, StoredChunk, bounds};

use crate::limits::Limiter;
use crate::output::{OutputPlan, Outputs};
use crate::wasi::Wasi;

/// Something that the host needed for a task did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DataError(pub String);

/// Where columns come from and where they go.
pub trait Data: Send + Sync {
    /// The bytes of a column chunk.
    ///
    /// # Errors
    /// When they are not there.
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, DataError>;

    /// The bytes of a blob.
    ///
    /// # Errors
    /// When they are not there.
    fn blob(&self, blob: &BlobRef) -> Result<Bytes, DataError>;

    /// A file for a pack that is about to be written. Dropped, it is gone.
    ///
    /// # Errors
    /// When it cannot be made.
    fn new_pack(&self) -> Result<Box<dyn PackFile>, DataError>;

    /// Keeps a blob.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, DataError>;
}

/// A file that a pack is written to.
pub trait PackFile: Write + Seek + Send {
    /// Keeps it under its name. When it returns, the chunks can be read.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn keep(self: Box<Self>, digest: &PackDigest, chunks: &[Arc<StoredChunk>]) -> Result<(), DataError>;
}

impl dyn Data + '_ {
    /// Writes columns of one length as a pack, and keeps it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_pack(&self, fields: &[Field], columns: &[ColumnBytes]) -> Result<Vec<Arc<StoredChunk>>, DataError> {
        let pack = pack::write(fields, columns, self.new_pack()?);
        keep_pack(pack.map_err(|error| DataError(error.to_string()))?)
    }
}

/// Keeps a pack that was written.
///
/// # Errors
/// When it cannot be kept.
pub fn keep_pack(pack: Pack<Box<dyn PackFile>>) -> Result<Vec<Arc<StoredChunk>>, DataError> {
    let Pack { digest, chunks, out } = pack;
    out.keep(&digest, &chunks)?;
    Ok(chunks)
}

/// Hears how far a task is.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// One part of a table that a task sees.
#[derive(Debug, Clone)]
pub struct TablePart {
    /// Rows in it.
    pub rows: u64,
    /// The columns of the read set.
    pub columns: Vec<Chunk>,
}

/// One item on an input port.
#[derive(Debug, Clone)]
pub enum InputItem {
    /// A table, cut down to what the task may see.
    Table {
        /// Matrix values, canonical JSON; `{}` where ports do not gather.
        instance: String,
        /// The read set.
        fields: Vec<Field>,
        /// What it sees of the table.
        parts: Vec<TablePart>,
    },
    /// A blob.
    Blob {
        /// As above.
        instance: String,
        /// Its bytes.
        blob: BlobRef,
    },
}

/// One input port.
#[derive(Debug, Clone)]
pub struct TaskInput {
    /// Its name.
    pub port: PortName,
    /// One, or several where instances are gathered.
    pub items: Vec<InputItem>,
}

/// What a component with WASI may see, besides what every task is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Folders to read: the name under which the guest sees it, and where it is.
    pub read: Vec<(String, std::path::PathBuf)>,
    /// Variables: name and value.
    pub env: Vec<(String, String)>,
}

/// All that a task is given.
#[derive(Clone)]
pub struct TaskSpec {
    /// Of the key: random bytes that a component with WASI asks for follow from it.
    pub seed: [u8; 32],
    /// What else it may see.
    pub grants: Grants,
    /// Canonical JSON.
    pub params: String,
    /// Which function of the step.
    pub phase: Phase,
    /// By port.
    pub inputs: Vec<TaskInput>,
    /// The port that is cut into parts.
    pub mapped: Option<PortName>,
    /// For `merge`, in the order of parts.
    pub partials: Vec<BlobRef>,
    /// What must come out.
    pub outputs: Vec<OutputPlan>,
    /// What it may use.
    pub limits: Limits,
    /// Who hears how far it is.
    pub progress: Option<Progress>,
}

/// What the host holds for a running guest.
pub(crate) struct TaskState {
    pub(crate) limiter: Limiter,
    /// None while a component describes itself or plans.
    pub(crate) task: Option<Running>,
    pub(crate) panic: Option<String>,
    /// Of a component that imports it.
    pub(crate) wasi: Option<Box<Wasi>>,
}

impl TaskState {
    /// What the guest sees of the world: nothing, unless something was put there.
    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::closed(&[0; 32])))
    }
}

/// A task while it runs.
pub(crate) struct Running {
    pub(crate) spec: TaskSpec,
    pub(crate) data: Arc<dyn Data>,
    /// Where tables and blobs are found by the number of their handle.
    pub(crate) handles: Vec<(usize, usize)>,
    pub(crate) outputs: Outputs,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
}

/// Text of a guest, cut to a length.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    // It goes to terminals, which take some of it for commands.
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_command) {
        let shown = |c: char| if is_command(c) { c.escape_default().collect() } else { String::from(c) };
        text = text.chars().take(most).map(shown).collect();
    }
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Running {
    /// Of several guests the first keeps what all of them come to.
    pub(crate) fn new(spec: TaskSpec, data: Arc<dyn Data>, is_first: bool) -> Self {
        let handles = spec.inputs.iter().enumerate().flat_map(|(i, input)| (0..input.items.len()).map(move |j| (i, j)));
        let handles = handles.collect();
        let outputs = Outputs::new(&spec, !is_first);
        Self {
            spec,
            data,
            handles,
            outputs,
            metrics: BTreeMap::new(),
            log: Vec::new(),
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    pub(crate) fn item(&self, handle: u32) -> Option<&InputItem> {
        let (input, item) = self.handles.get(handle as usize)?;
        Some(&self.spec.inputs[*input].items[*item])
    }

    /// Handles of the items on a port, of one kind.
    pub(crate) fn handles_of(&self, port: &str, tables: bool) -> Vec<u32> {
        let is = |(_, (input, item)): &(u32, &(usize, usize))| {
            let input = &self.spec.inputs[*input];
            input.port == *port && matches!(input.items[*item], InputItem::Table { .. }) == tables
        };
        (0u32..).zip(&self.handles).filter(is).map(|(handle, _)| handle).collect()
    }

    pub(crate) fn log(&mut self, level: millrace_types::Level, message: String) {
        if self.log.len() < bounds::LOG_LINES {
            self.log.push(LogLine { level, message: cut(message, bounds::LOG_LINE_BYTES) });
        }
    }
}

/// The rows and the place of a stored selection.
pub(crate) type StoredSelection = Arc<StoredChunk>;
