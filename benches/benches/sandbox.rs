//! The same step code in the sandbox and as a native program: `cargo xtask bench sandbox`.
//!
//! A task in the sandbox is all that the host does for one but its cache: a fresh guest,
//! columns in, columns checked and out. The native one is the step through the harness of
//! its tests, compiled for this very processor, and in a second run without flags, as
//! programs usually are. They take turns; medians are compared.

#![expect(clippy::print_stdout, reason = "a program for people")]

mod memory;

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::record_batch::RecordBatch;
use millrace_sdk::Entry;
use millrace_sdk::testing::{Harness, Outcome, table};
use millrace_tables::ColumnBytes;
use millrace_tables::pack;
use millrace_types::{BlobRef, ByteSize, Chunk, ColumnName, DataType, Field, Fuel, Limits, Phase, PortName, Schema};
use millrace_wasm::{
    Cancel, Component, Data, Engine, Grants, InputItem, Manifest, Mode, OutputPlan, PlanInput, PortKind, Produced,
    Slots, StepPlan, TablePart, TaskInput, TaskSpec,
};
use serde_json::{Value, json};

use memory::Memory;

/// As `host` has it, on both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows of a part, as sources are cut.
const ROWS: usize = 131_072;
/// Turns of each.
const ROUNDS: usize = 15;

/// A use of a step: its table, and a blob beside it.
struct Use {
    params: Value,
    port: &'static str,
    rows: RecordBatch,
    blob: Option<(&'static str, Vec<u8>)>,
}

fn port(name: &str) -> PortName {
    PortName::new(name).expect("a name")
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// A step in the sandbox with all that a task of it is given.
struct Sandboxed {
    component: Component,
    manifest: Manifest,
    plan: StepPlan,
    data: Arc<Memory>,
    params: String,
    port: &'static str,
    table: InputItem,
    blob: Option<(&'static str, BlobRef)>,
    slots: Arc<Slots>,
}

impl Sandboxed {
    fn new(engine: &Engine, name: &str, of: &Use) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let path = root.join("target/components").join(format!("{name}.wasm"));
        let bytes = std::fs::read(&path).expect("components are built: `cargo xtask build`");
        let component = engine.component(&bytes, None).expect("a component");
        let manifest = component.describe().expect("a manifest");

        let columns: Vec<ColumnBytes> =
            of.rows.columns().iter().map(|array| ColumnBytes::from_array(array).expect("a column")).collect();
        let field = |(field, column): (&arrow::datatypes::FieldRef, &ColumnBytes)| Field {
            name: ColumnName::new(field.name()),
            data_type: if field.data_type().is_integer() { DataType::Int64 } else { DataType::Float64 },
            nullable: column.null_count() > 0,
        };
        let fields: Vec<Field> = of.rows.schema().fields().iter().zip(&columns).map(field).collect();
        let mut memory = Memory::default();
        let blob = of.blob.as_ref().map(|(port, bytes)| (*port, memory.put_blob(bytes).expect("kept")));
        let schema = Schema { fields: fields.clone() };
        let mut inputs = vec![PlanInput { port: port(of.port), schema: Some(schema) }];
        inputs.extend(blob.map(|(name, _)| PlanInput { port: port(name), schema: None }));
        inputs.sort_by(|a, b| a.port.cmp(&b.port));
        let params = of.params.to_string();
        let plan = component.plan(&manifest, &params, &inputs).expect("an answer").expect("a plan");

        let pack = pack::write(&fields, &columns, io::empty()).expect("a pack");
        memory.columns.extend(pack.chunks.iter().map(|chunk| chunk.digest).zip(columns));
        let reads = plan.reads.iter().find(|(name, _)| name.as_str() == of.port).map_or(&[][..], |(_, read)| read);
        let read = fields.iter().zip(&pack.chunks).filter(|(field, _)| reads.contains(&field.name));
        let (fields, chunks): (Vec<Field>, Vec<Chunk>) =
            read.map(|(field, chunk)| (field.clone(), Chunk::Stored(chunk.clone()))).unzip();
        let part = TablePart { rows: of.rows.num_rows() as u64, columns: chunks };
        let table = InputItem::Table { instance: "{}".to_owned(), fields, parts: vec![part] };
        let (data, slots) = (Arc::new(memory), Slots::new(1));
        Self { component, manifest, plan, data, params, port: of.port, table, blob, slots }
    }

    fn task(&self, phase: Phase, partials: Vec<BlobRef>) -> Produced {
        let mut inputs = Vec::new();
        if phase != Phase::Merge {
            inputs.push(TaskInput { port: port(self.port), items: vec![self.table.clone()] });
        }
        inputs.extend(self.blob.map(|(name, blob)| {
            let item = InputItem::Blob { instance: "{}".to_owned(), blob };
            TaskInput { port: port(name), items: vec![item] }
        }));
        inputs.sort_by(|a, b| a.port.cmp(&b.port));
        let outputs = self.manifest.outputs.iter().map(|output| match output.kind {
            PortKind::Blob => OutputPlan::Blob { port: output.name.clone() },
            PortKind::Table => {
                let fields = self.plan.outputs.iter().find(|(name, _)| *name == output.name);
                OutputPlan::Table { port: output.name.clone(), fields: fields.and_then(|(_, fields)| fields.clone()) }
            }
        });
        let spec = TaskSpec {
            seed: [0; 32],
            grants: Grants::default(),
            params: self.params.clone(),
            phase,
            inputs,
            mapped: Some(port(self.port)),
            partials,
            outputs: outputs.collect(),
            limits: Limits { memory: ByteSize(1 << 30), fuel: Fuel(1 << 50), time: Duration::from_secs(60) },
            progress: None,
        };
        self.component.run(spec, self.data.clone(), &Cancel::default(), self.slots.take()).result.expect("it ends well")
    }

    fn run(&self) {
        match self.plan.mode {
            Mode::Map => drop(black_box(self.task(Phase::Map, Vec::new()))),
            Mode::Whole => drop(black_box(self.task(Phase::Whole, Vec::new()))),
            Mode::Rounds => drop(black_box(self.task(Phase::Rounds, Vec::new()))),
            Mode::Fold => {
                let partial = self.task(Phase::Partial, Vec::new()).partial.expect("a partial");
                drop(black_box(self.task(Phase::Merge, vec![partial])));
            }
        }
    }
}

/// What one step takes, in milliseconds: in the sandbox, and native.
fn compare<S: Entry>(engine: &Engine, name: &str, of: &Use, ratios: &mut Vec<f64>) -> Outcome {
    let sandboxed = Sandboxed::new(engine, name, of);
    let harness = Harness::<S>::new(of.params.clone()).table(of.port, of.rows.clone());
    let harness = match &of.blob {
        Some((port, bytes)) => harness.blob(port, bytes.clone()),
        None => harness,
    };
    let outcome = harness.run().expect("it ends well");
    sandboxed.run();
    let (mut inside, mut native) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        sandboxed.run();
        inside.push(started.elapsed());
        let started = Instant::now();
        drop(black_box(harness.run()));
        native.push(started.elapsed());
    }
    let (inside, native) = (median(inside), median(native));
    ratios.push(inside / native);
    println!("{name:<16} {inside:>10.2} {native:>10.2} {:>8.2}", inside / native);
    outcome
}

fn main() {
    let noise = |i: usize, salt: u64| {
        let mut bits = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits ^= bits >> 29;
        bits = bits.wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    };
    let floats =
        |salt: u64| -> ArrayRef { Arc::new(Float64Array::from_iter_values((0..ROWS).map(|i| noise(i, salt)))) };
    let integers = |salt: u64, below: f64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(|i| (noise(i, salt) * below) as i64)))
    };
    let names = ["x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"];
    let mut columns: Vec<(&str, ArrayRef)> = names.iter().zip(1..).map(|(name, salt)| (*name, floats(salt))).collect();
    columns.push(("y", integers(20, 2.0)));
    columns.push(("k", integers(21, 20_000.0)));
    columns.push(("probability", floats(22)));
    let rows = table(columns);
    let engine = Engine::new().expect("an engine");
    let mut ratios = Vec::new();
    let of = |params: Value| Use { params, port: "input", rows: rows.clone(), blob: None };

    let flags = if cfg!(target_feature = "avx") { "for this processor" } else { "without flags" };
    println!("native code compiled {flags}");
    println!("{:<16} {:>10} {:>10} {:>8}", "step", "sandbox ms", "native ms", "ratio");
    let params = json!({ "columns": { "a": "log1p(x0)", "b": "x1 / (1 + x2)", "c": "x3 * (1 - x4)", "d": "exp(x5)" } });
    compare::<millrace_derive::Derive>(&engine, "derive", &of(params), &mut ratios);
    let scale = json!({ "columns": names });
    let fitted =
        compare::<millrace_normalise_fit::NormaliseFit>(&engine, "normalise-fit", &of(scale.clone()), &mut ratios);
    let blob = Some(("scaling", fitted.blob("scaling").to_vec()));
    compare::<millrace_normalise::Normalise>(&engine, "normalise", &Use { blob, ..of(scale) }, &mut ratios);
    let bins = json!({ "columns": ["x0", "x1", "x2"], "bins": 10 });
    let fitted = compare::<millrace_bins_fit::BinsFit>(&engine, "bins-fit", &of(bins), &mut ratios);
    let blob = Some(("edges", fitted.blob("edges").to_vec()));
    let bins = Use { blob, ..of(json!({ "columns": ["x0", "x1", "x2"] })) };
    compare::<millrace_bins::Bins>(&engine, "bins", &bins, &mut ratios);
    let sums = json!({ "n": "count()", "s": "sum(x0)", "m": "mean(x1)", "top": "max(x2)" });
    compare::<millrace_group::Group>(&engine, "group", &of(json!({ "by": ["k"], "columns": sums })), &mut ratios);
    let train = json!({ "label": "y", "features": names, "epochs": 20, "validation": 0 });
    let trained = compare::<millrace_train_logistic::TrainLogistic>(&engine, "train-logistic", &of(train), &mut ratios);
    let blob = Some(("model", trained.blob("model").to_vec()));
    let predict = Use { port: "table", blob, ..of(json!({ "features": names, "output": "p" })) };
    compare::<millrace_predict::Predict>(&engine, "predict", &predict, &mut ratios);
    compare::<millrace_evaluate::Evaluate>(&engine, "evaluate", &of(json!({ "label": "y" })), &mut ratios);
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    println!("{:<16} {:>10} {:>10} {mean:>8.2}", "geometric mean", "", "");
}
