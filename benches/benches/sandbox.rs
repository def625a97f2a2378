//! The same step code in the sandbox and as a native program: `cargo xtask bench sandbox`.
//!
//! A task in the sandbox is all that the host does for it except the cache: a fresh guest, columns
//! in, columns checked, digested and out. The native one is the step in the harness of its tests,
//! compiled for this processor, and in a second run without flags, as programs usually are. It does
//! not digest its columns; the last two columns of the output include digests of the results, and
//! of the partial of a fold, which any store of results by content needs, so that the difference is
//! the sandbox alone. All take turns; medians are compared.
//!
//! `cargo xtask bench sandbox FOLDER…` compares components of several folders, and `--step NAME`
//! runs one step. Compiled code is stored in files, so that `perf record` shows the functions of
//! guests.

#![expect(clippy::print_stdout, reason = "a program for people")]

/// The allocator of `host`, for both sides.
#[cfg(unix)]
#[path = "../../host/cli/src/allocator.rs"]
mod allocator;
mod memory;

use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::record_batch::RecordBatch;
use millrace_sdk::Entry;
use millrace_sdk::testing::{Harness, Outcome, table};
use millrace_tables::pack;
use millrace_tables::{ColumnBytes, PackSink};
use millrace_threads::Slots;
use millrace_types::{
    ActionKey, BlobRef, ByteSize, Chunk, ColumnName, DataType, Field, Fuel, Grants, InputItem, Limits, Manifest, Mode,
    OutputPlan, Phase, PlanInput, PortKind, PortName, Produced, Schema, StepPlan, TablePart, TaskInput, TaskSpec,
};
use millrace_wasm::{Cancel, Component, Engine, TaskContext};
use serde_json::{Value, json};

use memory::Memory;

/// Rows of a part, as in sources.
const ROWS: usize = 131_072;
/// Number of turns of each.
const ROUNDS: usize = 15;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// A use of a step: its table, and possibly a blob.
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

/// A step in the sandbox, with all that a task of it receives.
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
    /// The component of a step in a folder.
    fn new(engine: &Engine, folder: &Path, name: &str, of: &Use) -> Self {
        let bytes = std::fs::read(folder.join(format!("{name}.wasm"))).expect("components: `cargo xtask build`");
        // In a file, since profilers find functions by it.
        let code = root().join("target/bench-code").join(engine.fingerprint());
        let code = code.join(blake3::hash(&bytes).to_hex().as_str());
        let component = engine.component(bytes, None, Some(code)).expect("a component");
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
            key: ActionKey::from_bytes([0; 32]),
            grants: Grants::default(),
            params: self.params.clone(),
            phase,
            inputs,
            mapped: Some(port(self.port)),
            partials,
            outputs: outputs.collect(),
            limits: Limits { memory: ByteSize(1 << 30), fuel: Fuel(1 << 50), time: Duration::from_secs(60) },
        };
        let (cancel, slot) = (Cancel::default(), self.slots.take());
        let context = TaskContext { chunks: self.data.clone(), cancel: &cancel, slot, progress: None };
        self.component.run(spec, context).result.expect("the task succeeds")
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

    /// Digests what the step computed natively, as the host does with the output of a guest.
    fn digest(&self, outcome: &Outcome) {
        for partial in &outcome.partials {
            black_box(blake3::hash(partial));
        }
        for (port, fields) in self.plan.outputs.iter().filter_map(|(port, fields)| Some((port, fields.as_ref()?))) {
            let computed = fields.iter().filter(|output| output.source.is_none()).map(|output| output.field.clone());
            let fields: Vec<Field> = computed.collect();
            for part in outcome.parts(port.as_str()) {
                let array = |field: &Field| part.column_by_name(field.name.as_str()).expect("its column");
                let columns: Vec<ColumnBytes> =
                    fields.iter().map(|field| ColumnBytes::from_array(array(field)).expect("a column")).collect();
                black_box(pack::write(&fields, &columns, io::empty()).expect("a pack"));
            }
        }
    }
}

/// Steps with sums of products, each rounded once. Without flags native code calls a function for
/// each, since x86-64 has had an instruction for it only since 2013; a guest always has it.
const FUSED: [&str; 2] = ["train-logistic", "predict"];

/// The ratios of a step to native code, and to native code with digests.
struct Ratio {
    is_fused: bool,
    native: f64,
    digested: f64,
}

/// The options of the benchmark, and the results so far.
struct Bench {
    engine: Engine,
    /// The folders of components, if several are compared.
    folders: Vec<PathBuf>,
    only: Option<String>,
    ratios: Vec<Ratio>,
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

impl Bench {
    /// From the arguments of `cargo xtask bench sandbox`.
    fn new() -> Self {
        let (mut folders, mut only) = (Vec::new(), None);
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            match word.as_str() {
                "--step" => only = words.next(),
                folder => folders.push(root().join(folder)),
            }
        }
        Self { engine: Engine::new().expect("an engine"), folders, only, ratios: Vec::new() }
    }

    /// Compares one step, and returns its native output, which a later step may need.
    fn step<S: Entry>(&mut self, name: &str, of: &Use) -> Outcome {
        let harness = Harness::<S>::new(of.params.clone()).table(of.port, of.rows.clone());
        let harness = match &of.blob {
            Some((port, bytes)) => harness.blob(port, bytes.clone()),
            None => harness,
        };
        let outcome = harness.run().expect("it ends well");
        match &self.only {
            Some(only) if only != name => {}
            _ if self.folders.is_empty() => self.beside_native(name, of, &harness),
            _ => self.in_turn(name, of),
        }
        outcome
    }

    fn beside_native<S: Entry>(&mut self, name: &str, of: &Use, harness: &Harness<S>) {
        let sandboxed = Sandboxed::new(&self.engine, &root().join("target/components"), name, of);
        sandboxed.run();
        let (mut inside, mut native, mut digested) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            inside.push(timed(|| sandboxed.run()));
            native.push(timed(|| drop(black_box(harness.run()))));
            digested.push(timed(|| sandboxed.digest(&harness.run().expect("it ends well"))));
        }
        let (inside, native, digested) = (median(inside), median(native), median(digested));
        let (ratio, with_digest) = (inside / native, inside / digested);
        self.ratios.push(Ratio { is_fused: FUSED.contains(&name), native: ratio, digested: with_digest });
        println!("{name:<16} {inside:>10.2} {native:>10.2} {ratio:>8.2} {digested:>14.2} {with_digest:>8.2}");
    }

    fn in_turn(&self, name: &str, of: &Use) {
        let all: Vec<_> = self.folders.iter().map(|folder| Sandboxed::new(&self.engine, folder, name, of)).collect();
        let mut times = vec![Vec::new(); all.len()];
        for _ in 0..4 * ROUNDS {
            all.iter().zip(&mut times).for_each(|(one, times)| times.push(timed(|| one.run())));
        }
        let best = |times: &[Duration]| times.iter().min().map_or(0.0, |best| best.as_secs_f64() * 1e3);
        let columns = times.into_iter().map(|times| format!("{:>8.2} ({:.2})", best(&times), median(times)));
        println!("{name:<16} {}", columns.collect::<Vec<_>>().join(" "));
    }

    fn head(&self) {
        if !self.folders.is_empty() {
            return println!("the best (and the median) in ms, by folder in turn");
        }
        let flags = if cfg!(target_feature = "avx") { "for this processor" } else { "without flags" };
        println!("native code compiled {flags}");
        println!(
            "{:<16} {:>10} {:>10} {:>8} {:>14} {:>8}",
            "step", "sandbox ms", "native ms", "ratio", "and digest ms", "ratio"
        );
    }

    fn tail(&self) {
        if !self.folders.is_empty() {
            return;
        }
        let print = |what: &str, of: &dyn Fn(&Ratio) -> bool| {
            let some: Vec<&Ratio> = self.ratios.iter().filter(|ratio| of(ratio)).collect();
            let mean = |of: fn(&Ratio) -> f64| {
                (some.iter().map(|ratio| of(ratio).ln()).sum::<f64>() / some.len().max(1) as f64).exp()
            };
            let (native, digested) = (mean(|ratio| ratio.native), mean(|ratio| ratio.digested));
            println!("{what:<27} {:>10} {native:>8.2} {:>14} {digested:>8.2}", "", "");
        };
        print("geometric mean", &|_| true);
        if !cfg!(target_feature = "fma") {
            print("of those without fused sums", &|ratio| !ratio.is_fused);
        }
    }
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
    let of = |params: Value| Use { params, port: "input", rows: rows.clone(), blob: None };
    let mut bench = Bench::new();
    bench.head();
    let params = json!({ "columns": { "a": "log1p(x0)", "b": "x1 / (1 + x2)", "c": "x3 * (1 - x4)", "d": "exp(x5)" } });
    bench.step::<millrace_derive::Derive>("derive", &of(params));
    let scale = json!({ "columns": names });
    let fitted = bench.step::<millrace_normalise_fit::NormaliseFit>("normalise-fit", &of(scale.clone()));
    let blob = Some(("scaling", fitted.blob("scaling").to_vec()));
    bench.step::<millrace_normalise::Normalise>("normalise", &Use { blob, ..of(scale) });
    let bins = json!({ "columns": ["x0", "x1", "x2"], "bins": 10 });
    let fitted = bench.step::<millrace_bins_fit::BinsFit>("bins-fit", &of(bins));
    let blob = Some(("edges", fitted.blob("edges").to_vec()));
    let bins = Use { blob, ..of(json!({ "columns": ["x0", "x1", "x2"] })) };
    bench.step::<millrace_bins::Bins>("bins", &bins);
    let sums = json!({ "n": "count()", "s": "sum(x0)", "m": "mean(x1)", "top": "max(x2)" });
    bench.step::<millrace_group::Group>("group", &of(json!({ "by": ["k"], "columns": sums })));
    let train = json!({ "label": "y", "features": names, "epochs": 20, "validation": 0 });
    let trained = bench.step::<millrace_train_logistic::TrainLogistic>("train-logistic", &of(train));
    let blob = Some(("model", trained.blob("model").to_vec()));
    let predict = Use { port: "table", blob, ..of(json!({ "features": names, "output": "p" })) };
    bench.step::<millrace_predict::Predict>("predict", &predict);
    bench.step::<millrace_evaluate::Evaluate>("evaluate", &of(json!({ "label": "y" })));
    bench.tail();
}
