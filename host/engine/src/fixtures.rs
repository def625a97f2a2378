//! Record files as earlier versions wrote them: each is read, or refused with its version.
//!
//! A fixture is the file of one record of a real store, in `fixtures/records/KIND-VERSION/NAME`.
//! When the encoding of a kind changes, its version in [`millrace_types::wire`] changes, too:
//! the old fixtures stay and must be refused with that version, and new ones join them.

use std::path::{Path, PathBuf};

use millrace_store::FileMemo;
use millrace_types::wire::{self, Kind, Refusal};
use millrace_types::{ActionRecord, ComponentDigest, Manifest, RecordName, StoredChunk};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::components::BuiltPlugin;
use crate::event_log::LogFile;
use crate::execute::TraceRecord as Trace;
use crate::export::ExportMemo;
use crate::history::RunRecord;
use crate::source::record::{SourceRecord, SourceTable};

/// A fixture.
struct Fixture {
    path: PathBuf,
    kind: Kind,
    version: u8,
    /// The name that the checksum of the record covers.
    name: Vec<u8>,
    bytes: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/records");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let fixture = |folder: &PathBuf, path: PathBuf| {
        let (kind, version) = folder.file_name().unwrap().to_str().unwrap().rsplit_once('-').unwrap();
        let kind = Kind::ALL.into_iter().find(|known| known.as_str().replace(' ', "-") == kind).unwrap();
        let text = path.file_name().unwrap().to_str().unwrap();
        // Runs and compiled code are named by text, the others by digests.
        let digest = format!("b3:{text}").parse::<RecordName>().ok().filter(|_| kind != Kind::Code);
        let name = digest.map_or_else(|| text.as_bytes().to_vec(), |digest| digest.as_bytes().to_vec());
        let bytes = std::fs::read(&path).unwrap();
        Fixture { kind, version: version.parse().unwrap(), name, bytes, path }
    };
    let folders = entries(&root);
    folders.iter().flat_map(|folder| entries(folder).into_iter().map(move |path| fixture(folder, path))).collect()
}

/// Decodes a record, and encodes it to the same bytes.
fn reads<T: Serialize + DeserializeOwned>(fixture: &Fixture) -> Result<(), Refusal> {
    let Fixture { kind, name, bytes, path, .. } = fixture;
    let value: T = wire::read(*kind, name, bytes)?;
    assert!(wire::encode(*kind, name, &value) == *bytes, "{}: written differently", path.display());
    for end in [0, 5, bytes.len() - 1] {
        assert!(wire::read::<T>(*kind, name, &bytes[..end]).is_err(), "{}: truncated at {end}", path.display());
    }
    Ok(())
}

#[test]
fn every_record_of_an_earlier_version_is_read_or_refused_with_its_version() {
    let mut seen = std::collections::BTreeSet::new();
    for fixture in fixtures() {
        let read = match fixture.kind {
            Kind::Action => reads::<ActionRecord>(&fixture),
            Kind::Gathered => reads::<StoredChunk>(&fixture),
            Kind::Memo => {
                // The memo of an export has the digest of the artifact as text.
                let is_export = fixture.bytes.windows(3).any(|window| window == b"b3:");
                if is_export { reads::<ExportMemo>(&fixture) } else { reads::<FileMemo>(&fixture) }
            }
            Kind::Manifest => reads::<Manifest>(&fixture),
            Kind::Plugin => reads::<BuiltPlugin>(&fixture),
            Kind::Run => reads::<RunRecord>(&fixture),
            Kind::Trace => reads::<Trace>(&fixture),
            Kind::Events => reads::<LogFile>(&fixture),
            Kind::Columns => reads::<SourceRecord>(&fixture),
            Kind::Code => reads::<ComponentDigest>(&fixture),
            // These are never files of their own: `millrace-store` has their fixtures.
            Kind::Table | Kind::Plan | Kind::Tables | Kind::Task => panic!("{} has no files", fixture.kind.as_str()),
            Kind::Source => reads::<SourceTable>(&fixture),
        };
        let Fixture { kind, version, path, .. } = fixture;
        if version == kind.version() {
            assert_eq!(read, Ok(()), "{}", path.display());
            seen.insert(kind);
        } else {
            assert_eq!(read, Err(Refusal::Version { kind, found: version }), "{}", path.display());
        }
    }
    let files = [
        Kind::Action,
        Kind::Gathered,
        Kind::Memo,
        Kind::Manifest,
        Kind::Run,
        Kind::Trace,
        Kind::Events,
        Kind::Code,
        Kind::Columns,
    ];
    for kind in files {
        assert!(seen.contains(&kind), "no fixture of {} records of version {}", kind.as_str(), kind.version());
    }
}
