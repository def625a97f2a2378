//! What the outputs of all nodes are called: digests of tables take time where there are
//! many.

use std::sync::Arc;

use millrace_types::{Artifact, PortName, Table, TableDigest};

use super::helper::{helper, joined};

/// Nodes that a thread takes at a time.
const AT_ONCE: usize = 256;

/// An output by its name.
pub(super) struct Named {
    pub(super) port: String,
    pub(super) digest: String,
    /// When it is a table.
    pub(super) table: Option<(TableDigest, Arc<Table>)>,
}

/// What all outputs are called, by node, on as many threads as pay.
pub(super) fn named(nodes: &[Vec<(PortName, Artifact)>], threads: usize) -> Vec<Vec<Named>> {
    let of_node = |made: &Vec<(PortName, Artifact)>| -> Vec<Named> { made.iter().map(of_output).collect() };
    let of_piece = |piece: &[Vec<(PortName, Artifact)>]| -> Vec<Vec<Named>> { piece.iter().map(of_node).collect() };
    std::thread::scope(|scope| {
        let mut pieces = nodes.chunks(nodes.len().div_ceil(threads.max(1)).max(AT_ONCE));
        let first = pieces.next().unwrap_or_default();
        let others: Vec<_> = pieces.map(|piece| (piece, helper(scope, || of_piece(piece)))).collect();
        let mut all = of_piece(first);
        // A thread that was lost has its part done here.
        all.extend(others.into_iter().flat_map(|(piece, other)| joined(other).unwrap_or_else(|| of_piece(piece))));
        all
    })
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
