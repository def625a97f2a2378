//! What the outputs of all nodes are called, and that they can be shown: the record
//! of each table is kept under its digest.

use millrace_types::wire::Kind;
use millrace_types::{Artifact, PortName, TableDigest};

use super::{Mode, Options};

/// Nodes that a thread takes at a time, when their tables are kept.
const KEPT_AT_ONCE: usize = 256;

/// An output by its name.
pub(super) struct Kept {
    pub(super) port: String,
    pub(super) digest: String,
    /// Of a table: what its record is kept under.
    pub(super) table: Option<TableDigest>,
}

/// What all outputs are called, by node. The record of each table is kept, so that it can
/// be shown by its digest.
pub(super) fn kept(options: &Options, nodes: &[Vec<(PortName, Artifact)>]) -> Vec<Vec<Kept>> {
    let of_node = |made: &Vec<(PortName, Artifact)>| -> Vec<Kept> {
        made.iter().map(|(port, artifact)| keep(options, port.to_string(), artifact)).collect()
    };
    if nodes.len() <= KEPT_AT_ONCE || options.jobs == 1 {
        return nodes.iter().map(of_node).collect();
    }
    let pieces: Vec<&[_]> = nodes.chunks(nodes.len().div_ceil(options.jobs).max(KEPT_AT_ONCE)).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = pieces
            .iter()
            .map(|piece| (piece, scope.spawn(move || piece.iter().map(of_node).collect::<Vec<_>>())))
            .collect();
        // A thread that was lost has its part done here.
        let join = |(piece, thread): (&&[_], std::thread::ScopedJoinHandle<'_, Vec<_>>)| {
            thread.join().unwrap_or_else(|_| piece.iter().map(of_node).collect())
        };
        threads.into_iter().flat_map(join).collect()
    })
}

fn keep(options: &Options, port: String, artifact: &Artifact) -> Kept {
    if let Artifact::Table(table) = artifact {
        let digest = table.digest();
        let store = &options.store;
        if options.mode == Mode::Run && !store.has_record(Kind::Table, digest.as_bytes()) {
            let _ = store.put_record(Kind::Table, digest.as_bytes(), &**table);
        }
        return Kept { port, digest: digest.to_string(), table: Some(digest) };
    }
    Kept { port, digest: artifact.digest_text(), table: None }
}
