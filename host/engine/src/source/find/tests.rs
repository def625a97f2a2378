use millrace_tables::ChunkSource;
use millrace_types::{Chunk, ColumnName, Field};

use super::*;
use crate::chunks::StoreChunks;

/// The bytes that are read must be those of the digest: otherwise the table would be stored
/// under the digest of other bytes.
#[test]
fn a_file_that_changes_before_it_is_read_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = Store::open(&path("store")).unwrap();
    let chunks = StoreChunks::shared(&store);
    let to = SourceStore { store: &store, packs: chunks.packs() };
    std::fs::write(path("p.toml"), "[sources.s]\npath = \"*.csv\"\n").unwrap();
    std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
    let pipeline = crate::pipeline::read(&path("p.toml")).unwrap();
    let source = &pipeline.sources[0];
    let found = find(&store, source).unwrap();
    std::fs::write(path("rows.csv"), "x\n2\n").unwrap();
    let error = read(&to, source, &found, &Need::All, &Threads::new(1)).map(|_| ()).unwrap_err();
    assert!(error[0].message.contains("changed while it was read"), "{}", error[0].message);
    std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
    let found = find(&store, source).unwrap();
    assert!(
        matches!(found.peek(), Peek::Candidates(_)),
        "the wrong rows are stored under the digest of the right ones"
    );
    assert!(read(&to, source, &found, &Need::All, &Threads::new(1)).is_ok_and(|read| !read.cached));
    assert!(matches!(find(&store, source).unwrap().peek(), Peek::Certain(_)));
}

/// A cancelled run stops reading, and stores nothing.
#[test]
fn a_cancelled_run_stops_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let stop = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
    let store = Store::open(&path("store")).unwrap().used_by(2, stop.clone());
    let chunks = StoreChunks::shared(&store);
    let to = SourceStore { store: &store, packs: chunks.packs() };
    std::fs::write(path("p.toml"), "[sources.s]\npath = \"*.csv\"\n").unwrap();
    std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
    // Old enough for a memo of its digest: digesting it is not what stops.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let pipeline = crate::pipeline::read(&path("p.toml")).unwrap();
    let source = &pipeline.sources[0];
    let set = |to| stop.store(to, std::sync::atomic::Ordering::Relaxed);
    set(true);
    assert!(find(&store, source).is_err());
    set(false);
    let found = find(&store, source).unwrap_or_else(|_| panic!("it is found"));
    set(true);
    let error = read(&to, source, &found, &Need::All, &Threads::new(1)).map(|_| ()).unwrap_err();
    assert!(error[0].message.contains("stopped"), "{}", error[0].message);
    set(false);
    assert!(read(&to, source, &found, &Need::All, &Threads::new(1)).is_ok_and(|read| !read.cached));
}

/// A table that names a column that its source does not have is corrupt, or of another store.
#[test]
fn a_column_that_its_source_lacks_is_an_error() {
    for (name, content) in [("rows.csv", "x,y\n1,2\n"), ("rows.ndjson", "{\"x\":1,\"y\":2}\n")] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let store = Store::open(&path("store")).unwrap();
        let chunks = StoreChunks::shared(&store);
        let to = SourceStore { store: &store, packs: chunks.packs() };
        std::fs::write(path("p.toml"), format!("[sources.s]\npath = \"{name}\"\n")).unwrap();
        std::fs::write(path(name), content).unwrap();
        let pipeline = crate::pipeline::read(&path("p.toml")).unwrap();
        let found = find(&store, &pipeline.sources[0]).unwrap();
        let read = read(&to, &pipeline.sources[0], &found, &Need::nothing(), &Threads::new(1));
        let table = read.unwrap_or_else(|_| panic!("{name} is read")).table;
        let read_column = |field: &Field| {
            let chunk = Chunk::unread(found.key, 0, field, 1);
            chunks.column(&chunk)
        };
        assert_eq!(read_column(&table.schema.fields[1]).unwrap().rows(), 1, "{name}");
        let lacking = Field { name: ColumnName::new("z"), ..table.schema.fields[1].clone() };
        let error = read_column(&lacking).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("its source does not have it"), "{name}: {error}");
    }
}
