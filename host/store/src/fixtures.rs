//! Files of many records as earlier versions wrote them: each record is read, or refused by
//! its version. See the fixtures of `millrace-engine` for records in files of their own.

use std::path::{Path, PathBuf};

use millrace_types::wire::{self, Kind};
use millrace_types::{ActionRecord, Manifest, StepPlan, Table};

use crate::bundle::Bundle;
use crate::table_file::TableFile;

fn bundles(folder: &str) -> Vec<(PathBuf, Bundle)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let paths = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), Bundle::new(std::fs::read(path).unwrap().into()))).collect()
}

/// The kinds in a file, each with the number of its records that were read.
fn read(path: &Path, bundle: &Bundle) -> Vec<(Kind, usize)> {
    let mut read: Vec<(Kind, usize)> = Vec::new();
    assert!(bundle.len() > 0, "{}", path.display());
    for entry in 0..bundle.len() {
        let (number, name) = bundle.name_of(entry).split_first().unwrap();
        let (kind, bytes) = (Kind::of(*number).unwrap(), bundle.bytes_of(entry));
        let is_same = match kind {
            Kind::Action => same::<ActionRecord>(kind, name, bytes),
            Kind::Manifest => same::<Manifest>(kind, name, bytes),
            Kind::Plan => same::<StepPlan>(kind, name, bytes),
            Kind::Table => same::<Table>(kind, name, bytes),
            Kind::Tables => same::<Vec<TableFile>>(kind, name, bytes),
            other => panic!("{}: a {} record", path.display(), other.as_str()),
        };
        let is_refused = bytes[5] != kind.version() && wire::check(kind, name, bytes).is_err();
        assert!(is_same || is_refused, "{}: a {} record", path.display(), kind.as_str());
        match read.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += usize::from(is_same),
            None => read.push((kind, usize::from(is_same))),
        }
    }
    read
}

fn same<T: serde::Serialize + serde::de::DeserializeOwned>(kind: Kind, name: &[u8], bytes: &[u8]) -> bool {
    wire::decode::<T>(kind, name, bytes).is_some_and(|value| wire::encode(kind, name, &value) == bytes)
}

#[test]
fn tables_of_an_earlier_version_are_read_or_refused() {
    let read: Vec<_> = bundles("tables").iter().flat_map(|(path, bundle)| read(path, bundle)).collect();
    assert!(read.iter().any(|(kind, count)| *kind == Kind::Table && *count > 0), "{read:?}");
}

#[test]
fn an_index_of_an_earlier_version_is_read_or_refused() {
    let read: Vec<_> = bundles("index").iter().flat_map(|(path, bundle)| read(path, bundle)).collect();
    for kind in [Kind::Action, Kind::Manifest, Kind::Plan, Kind::Tables] {
        assert!(read.iter().any(|(known, count)| *known == kind && *count > 0), "no {} record", kind.as_str());
    }
}
