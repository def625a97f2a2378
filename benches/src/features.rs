//! The feature workload (`peers/SPEC.md`): `examples/features-3m` compared with Polars, DuckDB and
//! pandas. Each round needs 17 GB of disk until all rounds have ended. Also by itself, with ten
//! times the rows: 15 GB per round, and 4 GB of data.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::measure::{Measured, Table, process, settle};
use crate::peers;
use crate::workspace::Workspace;

/// Creates a store that has compiled components, and nothing else.
fn cold(warm: &Path, store: &Path) -> Result<()> {
    for folder in ["tmp", "claims"] {
        std::fs::create_dir_all(store.join(folder))?;
    }
    std::fs::copy(warm.join("LAYOUT"), store.join("LAYOUT"))?;
    for folder in ["compiled", "manifests"] {
        copy(&warm.join(folder), &store.join(folder))?;
    }
    Ok(())
}

/// Frees the page cache of the files of a store: the runs after it would wait for that, each longer
/// than the one before.
fn forget(store: &Path) -> Result<()> {
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget(&entry.path())?;
        } else {
            rustix::fs::fadvise(std::fs::File::open(entry.path())?, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The map stages of `features.toml` alone: `derive`, `filter` and the columns they read.
const MAPS: &str = r#"
[params]
data = "events.parquet"
end = 1735689600

[sources.events]
path = "${params.data}"
columns = ["row_id", "user_id", "ts", "price", "qty", "category", "country", "session_len", "discount", "n00", "n01",
    "n02", "n03", "n04", "n05", "n06"]

[steps.kept]
uses = "std:filter"
input = "events"
params = { where = "ts >= 1733097600 and price > 0" }

[steps.numbers]
uses = "std:derive"
input = "kept"
[steps.numbers.params.columns]
x0 = "log1p(price)"
x1 = "log1p(session_len)"
x2 = "log1p(n00)"
x3 = "log1p(n01)"
x4 = "log1p(n02)"
x5 = "price / qty"
x6 = "price * (1 - discount)"
x7 = "n03 / (1 + n04)"
x8 = "n05 / (1 + n06)"

[steps.times]
uses = "std:derive"
input = "numbers"
[steps.times.params.columns]
hour = "div(ts, 3600) % 24"
dow = "(div(ts, 86400) + 3) % 7"
cross = "bucket(concat(category, '|', country), 1024)"

[steps.recent]
uses = "std:derive"
input = "times"
params.columns = { age = "(${params.end} - ts) / 86400" }
"#;

struct Bench<'a> {
    workspace: &'a Workspace,
    data: PathBuf,
    /// A store for each cold run, since file systems are slow where many files were removed
    /// recently. In the first one everything was run once.
    stores: tempfile::TempDir,
    store: Cell<usize>,
}

impl Bench<'_> {
    fn store(&self) -> PathBuf {
        self.stores.path().join(self.store.get().to_string())
    }

    /// Switches to a new store, with compiled components in it.
    fn fresh(&self) -> Result<()> {
        let before = self.store();
        self.store.set(self.store.get() + 1);
        cold(&self.stores.path().join("0"), &self.store())?;
        settle()?;
        forget(&before)
    }

    fn host(&self, pipeline: &str, format: &str, more: &[&str]) -> Result<Measured> {
        self.host_over(pipeline, &self.data.join(format!("events.{format}")), more)
    }

    fn host_over(&self, pipeline: &str, data: &Path, more: &[&str]) -> Result<Measured> {
        let mut command = Command::new(&self.workspace.host);
        command.args(["run", "--json", "--set", &format!("data={}", data.display())]).args(more);
        command.arg("--store").arg(self.store());
        process(command.arg(self.workspace.root.join("examples/features-3m").join(pipeline)))
    }

    fn maps_command(&self, data: &str, more: &[&str]) -> Result<Command> {
        let pipeline = self.workspace.work.join("maps.toml");
        std::fs::write(&pipeline, MAPS)?;
        let mut command = Command::new(&self.workspace.host);
        command.args(["run", "--json", "--set", &format!("data={data}")]).args(more);
        command.arg("--store").arg(self.store()).arg(pipeline);
        Ok(command)
    }

    /// The map stages over these files, in the current store.
    fn maps(&self, data: &str, more: &[&str]) -> Result<Measured> {
        process(&mut self.maps_command(data, more)?)
    }

    /// Two independent runs of the map stages, on one processor each: the speed of the machine at
    /// twice the work.
    fn maps_twice(&self, data: &str) -> Result<f64> {
        let one = ["--jobs", "1"];
        let mut commands = Vec::new();
        for _ in 0..2 {
            self.fresh()?;
            commands.push(self.maps_command(data, &one)?);
        }
        let started = std::time::Instant::now();
        let ended = std::thread::scope(|scope| {
            let running: Vec<_> = commands.iter_mut().map(|command| scope.spawn(|| process(command))).collect();
            running.into_iter().map(|run| run.join().is_ok_and(|run| run.is_ok())).collect::<Vec<_>>()
        });
        anyhow::ensure!(ended.iter().all(|is_well| *is_well), "one of two runs at once failed");
        Ok(started.elapsed().as_secs_f64())
    }

    /// The hand-written training script, on arrays that were saved before.
    fn script(&self, python: &Path, rate: f64) -> Result<f64> {
        let saved = self.workspace.work.join("arrays");
        let feat = self.workspace.root.join("benches/peers/feat.py");
        if !saved.join("y.npy").is_file() {
            std::fs::create_dir_all(&saved)?;
            let mut command = Command::new(python);
            command.arg(&feat).arg("polars").arg(&self.data).args(["parquet", "--no-train", "--save"]);
            process(command.arg(&saved))?;
        }
        let mut command = Command::new(python);
        command.arg(&feat).arg("train").arg(&saved).args(["npy", "--lr", &rate.to_string()]);
        Ok(process(command.current_dir(&self.workspace.work))?.wall.as_secs_f64())
    }

    fn cold(&self, pipeline: &str, format: &str, more: &[&str]) -> Result<Measured> {
        self.fresh()?;
        self.host(pipeline, format, more)
    }

    fn peer(&self, python: &Path, name: &str, format: &str) -> Result<(f64, f64)> {
        settle()?;
        let mut command = Command::new(python);
        command.arg(self.workspace.root.join("benches/peers/feat.py")).args([name]).arg(&self.data);
        let measured = process(command.args([format, "--no-train"]))?;
        let report: Value = serde_json::from_str(&measured.stdout).context("the report of feat.py")?;
        // Its own clock: the digests for the comparison are computed afterwards.
        Ok((report["wall"].as_f64().context("wall")?, report["rss_feat_mib"].as_f64().context("rss")?))
    }
}

/// Peak resident memory with the rows of the workload and with ten times as many, in turn.
pub fn tenfold(workspace: &Workspace, rounds: usize) -> Result<()> {
    let (data, ten) = (peers::events(workspace)?, peers::tenfold(workspace)?);
    let bench = Bench { workspace, data, stores: tempfile::tempdir_in(&workspace.work)?, store: Cell::new(0) };
    bench.host("features.toml", "parquet", &[])?;
    let (mut wall, mut again, mut memory) = (Table::default(), Table::default(), Table::default());
    for _ in 0..rounds {
        let events = bench.data.join("events.parquet");
        for (name, data) in [("3 M rows", &events), ("30 M rows", &ten)] {
            bench.fresh()?;
            let cold = bench.host_over("features.toml", data, &[])?;
            wall.add(name, cold.wall.as_secs_f64());
            memory.add(name, cold.peak as f64 / (1 << 20) as f64);
            for _ in 0..5 {
                let nothing = bench.host_over("features.toml", data, &[])?;
                again.add(name, nothing.wall.as_secs_f64() * 1e3);
            }
        }
    }
    wall.print("Features 1 to 8 from Parquet, cold but compiled", "s", Some("3 M rows"));
    again.print("Nothing changed", "ms", Some("3 M rows"));
    memory.print("The same: peak resident memory", "MiB", Some("3 M rows"));
    let all = json!({ "wall_s": wall.json(), "again_ms": again.json(), "memory_mib": memory.json() });
    std::fs::write(workspace.work.join("tenfold.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}

/// Runs the benchmark.
pub fn run(workspace: &Workspace, rounds: usize) -> Result<()> {
    let data = peers::events(workspace)?;
    let python = peers::python(workspace)?;
    let bench = Bench { workspace, data, stores: tempfile::tempdir_in(&workspace.work)?, store: Cell::new(0) };
    bench.host("pipeline.toml", "parquet", &[])?;
    let (mut wall, mut memory, mut csv, mut again) =
        (Table::default(), Table::default(), Table::default(), Table::default());
    let mib = |measured: &Measured| measured.peak as f64 / (1 << 20) as f64;
    let (mut rates, mut maps, mut ndjson) = (Table::default(), Table::default(), Table::default());
    for round in 0..rounds {
        for peer in ["polars", "duckdb", "pandas"] {
            let (seconds, peak) = bench.peer(&python, peer, "parquet")?;
            wall.add(peer, seconds);
            memory.add(peer, peak);
        }
        let one = bench.cold("features.toml", "parquet", &["--jobs", "1"])?;
        wall.add("millrace --jobs 1", one.wall.as_secs_f64());
        let ours = bench.cold("features.toml", "parquet", &[])?;
        wall.add("millrace", ours.wall.as_secs_f64());
        memory.add("millrace", mib(&ours));
        for _ in 0..5 {
            let nothing = bench.host("features.toml", "parquet", &[])?;
            again.add("nothing changed", nothing.wall.as_secs_f64());
        }
        let seed = bench.host("features.toml", "parquet", &["--set", "seed=43"])?;
        again.add("another seed of the split", seed.wall.as_secs_f64());
        bench.host("pipeline.toml", "parquet", &[])?;
        for turn in 0..3 {
            let learning_rate = 0.3 + f64::from(turn) / 100.0 + round as f64 / 1000.0;
            rates.add("the script by hand", bench.script(&python, learning_rate)?);
            let set = format!("learning_rate={learning_rate}");
            let rate = bench.host("pipeline.toml", "parquet", &["--set", &set])?;
            rates.add("millrace: train, predict, evaluate", rate.wall.as_secs_f64());
        }
        peers::pieces(workspace)?;
        let (eleven, twelve) = ("pieces/{0*,10}.parquet", "pieces/*.parquet");
        for _ in 0..3 {
            bench.fresh()?;
            maps.add("cold, --jobs 1", bench.maps(twelve, &["--jobs", "1"])?.wall.as_secs_f64());
            maps.add("two at once, --jobs 1 each", bench.maps_twice(twelve)?);
            bench.fresh()?;
            maps.add("cold", bench.maps(twelve, &[])?.wall.as_secs_f64());
        }
        for end in 1_735_689_601..1_735_689_604 {
            let param = bench.maps(twelve, &["--set", &format!("end={end}")])?;
            maps.add("one derived column's parameter changed", param.wall.as_secs_f64());
        }
        for _ in 0..3 {
            bench.fresh()?;
            bench.maps(eleven, &[])?;
            settle()?;
            maps.add("one part of twelve appended", bench.maps(twelve, &[])?.wall.as_secs_f64());
        }
        let (seconds, _) = bench.peer(&python, "polars", "csv")?;
        csv.add("polars", seconds);
        let ours = bench.cold("features.toml", "csv", &[])?;
        csv.add("millrace", ours.wall.as_secs_f64());
        for peer in ["polars", "duckdb"] {
            ndjson.add(peer, bench.peer(&python, peer, "ndjson")?.0);
        }
        let ours = bench.cold("features.toml", "ndjson", &[])?;
        ndjson.add("millrace", ours.wall.as_secs_f64());
    }
    let mut digest = Table::default();
    let (b3sum, file) = (peers::b3sum(workspace)?, bench.data.join("events.csv"));
    bench.fresh()?;
    bench.host("features.toml", "csv", &[])?;
    for _ in 0..rounds * 3 {
        digest.add("b3sum", process(Command::new(&b3sum).arg(&file))?.wall.as_secs_f64());
        // The memo of a touched file is not valid: its content is digested again.
        std::fs::File::options().append(true).open(&file)?.set_modified(std::time::SystemTime::now())?;
        std::thread::sleep(std::time::Duration::from_millis(50));
        digest.add("millrace, everything else cached", bench.host("features.toml", "csv", &[])?.wall.as_secs_f64());
    }
    digest.print("The digest of 1.1 GB, for the first time", "s", Some("b3sum"));
    wall.print("Features 1 to 8 from Parquet, cold but compiled", "s", Some("polars"));
    memory.print("The same: peak resident memory", "MiB", Some("polars"));
    csv.print("The same from CSV", "s", Some("polars"));
    ndjson.print("The same from NDJSON", "s", Some("polars"));
    again.print("Again", "s", None);
    rates.print("Another learning rate, 2.1 M rows, 20 epochs", "s", Some("the script by hand"));
    maps.print("The map stages alone, twelve files", "s", Some("cold"));
    let all = json!({ "parquet_s": wall.json(), "memory_mib": memory.json(), "csv_s": csv.json(), "ndjson_s": ndjson.json(),
        "again_s": again.json(), "rates_s": rates.json(), "maps_s": maps.json(), "digest_s": digest.json() });
    std::fs::write(workspace.work.join("features.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}
