//! The digests of the outputs of all nodes: those of many tables take time.

use std::sync::Arc;

use millrace_threads::in_chunks;
use millrace_types::{Artifact, PortName, Table, TableDigest};

/// Minimum number of nodes for one thread.
const MIN_CHUNK: usize = 256;

/// An output with its digest.
pub(super) struct Named {
    pub(super) port: String,
    pub(super) digest: String,
    /// The table, if it is one.
    pub(super) table: Option<(TableDigest, Arc<Table>)>,
}

/// The outputs with their digests, by node.
pub(super) fn named(nodes: &[Vec<(PortName, Artifact)>], threads: usize) -> Vec<Vec<Named>> {
    let of_node = |outputs: &Vec<(PortName, Artifact)>| -> Vec<Named> { outputs.iter().map(of_output).collect() };
    let chunks = in_chunks(nodes, threads, MIN_CHUNK, |chunk| chunk.iter().map(of_node).collect::<Vec<_>>());
    chunks.into_iter().flatten().collect()
}

fn of_output((port, artifact): &(PortName, Artifact)) -> Named {
    match artifact {
        Artifact::Table(table) => {
            let digest = table.digest();
            Named { port: port.to_string(), digest: digest.to_string(), table: Some((digest, table.clone())) }
        }
        Artifact::Blob(blob) => Named { port: port.to_string(), digest: blob.digest.to_string(), table: None },
    }
}
