//! The cost of the operations of every task: `cargo xtask bench micro`.

mod memory;

use std::io;
use std::sync::Arc;

use arrow::array::{BooleanArray, Float64Array, UInt32Array};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use millrace_store::Store;
use millrace_tables::pack;
use millrace_tables::{ColumnBytes, rows};
use millrace_threads::Slots;
use millrace_types::{
    ActionKey, ActionRecord, ByteSize, CanonicalJson, Chunk, ColumnDigest, ColumnName, ColumnParts, ComponentDigest,
    Content, Cost, DataType, Field, Fuel, Grants, InputItem, InputParts, ItemParts, KeyParts, Limits, Phase, PlanInput,
    PortName, Schema, Selection, TablePart, TaskInput, TaskSpec,
};
use millrace_wasm::{Cancel, Component, Engine, TaskContext};

use memory::Memory;

fn main() {
    divan::main();
}

/// Rows of a part.
const ROWS: usize = 131_072;

fn floats(rows: usize) -> ColumnBytes {
    ColumnBytes::from_array(&Float64Array::from_iter_values((0..rows).map(|i| i as f64 * 0.37))).expect("a column")
}

fn field(name: &str) -> Field {
    Field { name: ColumnName::new(name), data_type: DataType::Float64, nullable: true }
}

fn port(name: &str) -> PortName {
    PortName::new(name).expect("a name")
}

fn key_parts() -> KeyParts {
    let column = |i: u8| ColumnParts {
        name: ColumnName::new(&format!("column_{i}")),
        data_type: DataType::Float64,
        nullable: true,
        chunks: (0..12).map(|part| ColumnDigest::from_bytes([i ^ part; 32])).collect(),
    };
    let content = Content::Table { rows: vec![ROWS as u64; 12], columns: (0..20).map(column).collect() };
    KeyParts {
        component: ComponentDigest::from_bytes([1; 32]),
        params: CanonicalJson::new(&serde_json::json!({ "columns": ["a", "b"], "rate": 0.5 })),
        phase: Phase::Map,
        inputs: vec![InputParts { port: port("input"), items: vec![ItemParts { instance: None, content }] }],
        grants: Vec::new(),
    }
}

/// A key of twenty columns in twelve parts.
#[divan::bench]
fn key(bencher: Bencher<'_, '_>) {
    let parts = key_parts();
    bencher.bench(|| black_box(&parts).key());
}

/// The digest of a column of 1 MiB.
#[divan::bench]
fn digest(bencher: Bencher<'_, '_>) {
    let column = floats(ROWS);
    bencher.counter(BytesCount::new(column.bytes())).bench(|| black_box(&column).digest());
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    (folder, store)
}

fn name(i: u64) -> ActionKey {
    ActionKey::of(&i.to_le_bytes())
}

fn record() -> ActionRecord {
    let parts = key_parts();
    ActionRecord {
        key: parts.key(),
        parts,
        outputs: Vec::new(),
        partial: None,
        metrics: Vec::new(),
        log: Vec::new(),
        cost: Cost::default(),
        finished_at: 0,
    }
}

/// Stores an action record.
#[divan::bench]
fn store_put(bencher: Bencher<'_, '_>) {
    let ((_folder, store), record) = (store(), record());
    let next = std::sync::atomic::AtomicU64::new(0);
    bencher
        .with_inputs(|| name(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
        .bench_values(|name| store.put_record(&name, &record));
}

/// Reads an action record.
#[divan::bench]
fn store_get(bencher: Bencher<'_, '_>) {
    let ((_folder, store), record) = (store(), record());
    for i in 0..1000 {
        store.put_record(&name(i), &record).expect("a record");
    }
    let next = std::sync::atomic::AtomicU64::new(0);
    bencher
        .with_inputs(|| name(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 1000))
        .bench_values(|name| store.record::<ActionRecord>(&name));
}

/// A pack of one column of 1 MiB, laid out, hashed and written.
#[divan::bench]
fn pack(bencher: Bencher<'_, '_>) {
    let (_folder, store) = store();
    let column = floats(ROWS);
    bencher.counter(BytesCount::new(column.bytes())).bench(|| {
        let mut file = store.new_file().expect("a file");
        let pack = pack::write(&[field("x")], std::slice::from_ref(&column), file.file()).expect("a pack");
        let digest = pack.digest;
        store.put_pack(&digest, file)
    });
}

/// Half of the rows of a column, by a mask.
#[divan::bench]
fn mask(bencher: Bencher<'_, '_>) {
    let column = floats(ROWS);
    let bits = BooleanArray::from_iter((0..ROWS).map(|i| Some(i * 7 % 13 < 6)));
    let selection = ColumnBytes::from_array(&bits).expect("a mask");
    let sources = [column];
    bencher
        .counter(BytesCount::new(sources[0].bytes()))
        .bench(|| rows::gather(Selection::Mask, &selection, black_box(&sources)));
}

/// All rows of a column in another order.
#[divan::bench]
fn take(bencher: Bencher<'_, '_>) {
    let indices = UInt32Array::from_iter_values((0..ROWS as u32).map(|i| i.wrapping_mul(40_503) % ROWS as u32));
    let selection = ColumnBytes::from_array(&indices).expect("indices");
    let sources = [floats(ROWS)];
    bencher
        .counter(BytesCount::new(sources[0].bytes()))
        .bench(|| rows::gather(Selection::Take, &selection, black_box(&sources)));
}

fn component(engine: &Engine, name: &str) -> Component {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let path = root.join("target/components").join(format!("{name}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|_| panic!("{} is missing: `cargo xtask build`", path.display()));
    engine.component(bytes, None, None).expect("a component")
}

/// Asks a fresh guest for a plan.
#[divan::bench]
fn plan(bencher: Bencher<'_, '_>) {
    let engine = Engine::new().expect("an engine");
    let component = component(&engine, "normalise-fit");
    let manifest = component.describe().expect("a manifest");
    let inputs = [PlanInput { port: port("input"), schema: Some(Schema { fields: vec![field("x0")] }) }];
    bencher.bench(|| component.plan(&manifest, r#"{"columns":["x0"]}"#, &inputs).expect("an answer"));
}

/// Runs a fresh guest that reads `columns` columns of 1,024 rows: the difference is the cost of the
/// boundary.
#[divan::bench(args = [1, 11, 101])]
fn task(bencher: Bencher<'_, '_>, columns: usize) {
    let engine = Engine::new().expect("an engine");
    let component = component(&engine, "normalise-fit");
    let names: Vec<String> = (0..columns).map(|i| format!("x{i}")).collect();
    let fields: Vec<Field> = names.iter().map(|name| field(name)).collect();
    let column = |i: usize| Float64Array::from_iter_values((0..1024).map(|row| (row * (i + 1)) as f64));
    let all: Vec<ColumnBytes> = (0..columns).map(|i| ColumnBytes::from_array(&column(i)).expect("a column")).collect();
    let pack = pack::write(&fields, &all, io::empty()).expect("a pack");
    let mut data = Memory::default();
    data.columns.extend(pack.chunks.iter().map(|chunk| chunk.digest).zip(all));
    let data = Arc::new(data);
    let part = TablePart { rows: 1024, columns: pack.chunks.iter().cloned().map(Chunk::Stored).collect() };
    let item = InputItem::Table { instance: "{}".to_owned(), fields, parts: vec![part] };
    let params = serde_json::json!({ "columns": names }).to_string();
    let spec = || TaskSpec {
        key: ActionKey::from_bytes([0; 32]),
        grants: Grants::default(),
        params: params.clone(),
        phase: Phase::Partial,
        inputs: vec![TaskInput { port: port("input"), items: vec![item.clone()] }],
        mapped: Some(port("input")),
        partials: Vec::new(),
        outputs: Vec::new(),
        limits: Limits { memory: ByteSize(1 << 28), fuel: Fuel(1 << 40), time: std::time::Duration::from_secs(10) },
    };
    bencher.with_inputs(spec).bench_values(|spec| {
        let (cancel, slot) = (Cancel::default(), Slots::new(1).take());
        let context = TaskContext { chunks: data.clone(), cancel: &cancel, slot, progress: None };
        let outcome = component.run(spec, context);
        assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    });
}
