use millrace_types::wire::Kind;
use millrace_types::{IndexName, MemoName, PlanName, Record, Reference};
use serde::{Deserialize, Serialize};

use super::*;

/// Defines a record of a kind, for tests.
macro_rules! text {
    ($type:ident, $kind:expr, $name:ty) => {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct $type(String);

        impl Record for $type {
            const KIND: Kind = $kind;
            type Name = $name;

            fn references(&self) -> Vec<Reference> {
                Vec::new()
            }
        }
    };
}

text!(Plan, Kind::Plan, PlanName);
text!(Action, Kind::Action, ActionKey);
text!(Memo, Kind::Memo, MemoName);

fn plan(byte: u8) -> PlanName {
    PlanName::from_bytes([byte; 32])
}

fn action(byte: u8) -> ActionKey {
    ActionKey::from_bytes([byte; 32])
}

fn found(store: &Store, byte: u8) -> Option<String> {
    store.record::<Plan>(&plan(byte)).map(|Plan(text)| text)
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

const MEMO: MemoName = MemoName::from_bytes([3; 32]);
const RUN: IndexName = IndexName::from_bytes([7; 32]);

#[test]
fn a_record_of_the_index_needs_no_file() {
    let (folder, store) = store();
    store.put_record(&plan(1), &Plan("one".to_owned())).unwrap();
    let first = store.with_index(&RUN);
    assert_eq!(found(&first, 1).as_deref(), Some("one"));
    first.put_record(&action(2), &Action("two".to_owned())).unwrap();
    first.keep_index().unwrap();
    for kind in ["plans", "actions"] {
        std::fs::remove_dir_all(folder.path().join(kind)).unwrap();
    }
    let second = store.with_index(&RUN);
    assert_eq!(found(&second, 1).as_deref(), Some("one"));
    assert_eq!(second.record(&action(2)), Some(Action("two".to_owned())));
    assert_eq!(second.record::<Action>(&action(1)), None);
    // A record that changes under its name is never copied.
    second.put_record(&MEMO, &Memo("old".to_owned())).unwrap();
    second.keep_index().unwrap();
    store.put_record(&MEMO, &Memo("new".to_owned())).unwrap();
    assert_eq!(store.with_index(&RUN).record(&MEMO), Some(Memo("new".to_owned())));
}

#[test]
fn an_unused_record_leaves_the_index() {
    let (folder, store) = store();
    let first = store.with_index(&RUN);
    first.put_record(&plan(1), &Plan("one".to_owned())).unwrap();
    first.put_record(&plan(2), &Plan("two".to_owned())).unwrap();
    first.keep_index().unwrap();
    let second = store.with_index(&RUN);
    assert!(found(&second, 1).is_some());
    second.keep_index().unwrap();
    assert!(!folder.path().join("plans").exists(), "a plan has no file of its own");
    let third = store.with_index(&RUN);
    assert!(found(&third, 1).is_some());
    assert_eq!(found(&third, 2), None);
}

#[test]
fn a_corrupt_index_returns_correct_records_or_none() {
    let (folder, store) = store();
    let first = store.with_index(&RUN);
    first.put_record(&plan(1), &Plan("one".to_owned())).unwrap();
    first.put_record(&plan(2), &Plan("two".to_owned())).unwrap();
    first.keep_index().unwrap();
    let path = folder.path().join("index/0").join(RUN.hex());
    let intact = std::fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let store = store.with_index(&RUN);
        [1, 2].map(|name| found(&store, name))
    };
    let stored = [Some("one".to_owned()), Some("two".to_owned())];
    assert_eq!(read(&intact), stored);
    // Each record is intact and has the other's name.
    let offset = |name: u8| intact.windows(32).position(|window| window == [name; 32]).unwrap();
    let mut swapped = intact.clone();
    (0..32).for_each(|byte| swapped.swap(offset(1) + byte, offset(2) + byte));
    assert_eq!(read(&swapped), [None, None]);
    for at in 0..intact.len() {
        let mut flipped = intact.clone();
        flipped[at] ^= 1;
        for bytes in [&intact[..at], &flipped] {
            read(bytes).into_iter().zip(&stored).for_each(|(found, text)| assert!(found.is_none() || found == *text));
        }
    }
}
