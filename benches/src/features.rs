//! The feature workload (`peers/SPEC.md`): `examples/features-3m` beside Polars,
//! DuckDB and pandas.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::measure::{Measured, Table, process};
use crate::{Place, peers};

/// A store whose components are compiled, and nothing else.
fn cold(warm: &Path, store: &Path) -> Result<()> {
    if store.exists() {
        std::fs::remove_dir_all(store)?;
    }
    for folder in ["tmp", "claims"] {
        std::fs::create_dir_all(store.join(folder))?;
    }
    std::fs::copy(warm.join("LAYOUT"), store.join("LAYOUT"))?;
    for folder in ["compiled", "manifests"] {
        copy(&warm.join(folder), &store.join(folder))?;
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

struct Bench<'a> {
    place: &'a Place,
    data: PathBuf,
    store: PathBuf,
}

impl Bench<'_> {
    fn host(&self, pipeline: &str, format: &str, more: &[&str]) -> Result<Measured> {
        let data = self.data.join(format!("events.{format}"));
        let mut command = Command::new(&self.place.host);
        command.args(["run", "--json", "--set", &format!("data={}", data.display())]).args(more);
        command.arg("--store").arg(&self.store);
        process(command.arg(self.place.root.join("examples/features-3m").join(pipeline)))
    }

    fn cold(&self, pipeline: &str, format: &str, more: &[&str]) -> Result<Measured> {
        cold(&self.place.work.join("warm"), &self.store)?;
        self.host(pipeline, format, more)
    }

    fn peer(&self, python: &Path, name: &str, format: &str) -> Result<(f64, f64)> {
        let mut command = Command::new(python);
        command.arg(self.place.root.join("benches/peers/feat.py")).args([name]).arg(&self.data);
        let measured = process(command.args([format, "--no-train"]))?;
        let report: Value = serde_json::from_str(&measured.stdout).context("what feat.py says")?;
        // Its own clock: the digests for the comparison come after.
        Ok((report["wall"].as_f64().context("wall")?, report["rss_feat_mib"].as_f64().context("rss")?))
    }
}

/// Measures.
pub fn run(place: &Place, rounds: usize) -> Result<()> {
    let data = peers::events(place)?;
    let python = peers::python(place)?;
    let warm = Bench { place, data: data.clone(), store: place.work.join("warm") };
    warm.host("pipeline.toml", "parquet", &[])?;
    let bench = Bench { place, data, store: place.work.join("cold") };
    let (mut wall, mut memory, mut csv, mut again) =
        (Table::default(), Table::default(), Table::default(), Table::default());
    let mib = |measured: &Measured| measured.peak as f64 / (1 << 20) as f64;
    for _ in 0..rounds {
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
        let nothing = bench.host("features.toml", "parquet", &[])?;
        again.add("nothing changed", nothing.wall.as_secs_f64());
        let seed = bench.host("features.toml", "parquet", &["--set", "seed=43"])?;
        again.add("another seed of the split", seed.wall.as_secs_f64());
        bench.host("pipeline.toml", "parquet", &[])?;
        let rate = bench.host("pipeline.toml", "parquet", &["--set", "learning_rate=0.4"])?;
        again.add("another learning rate: train, predict, evaluate", rate.wall.as_secs_f64());
        let (seconds, _) = bench.peer(&python, "polars", "csv")?;
        csv.add("polars", seconds);
        let ours = bench.cold("features.toml", "csv", &[])?;
        csv.add("millrace", ours.wall.as_secs_f64());
    }
    wall.print("Features 1 to 8 from Parquet, cold but compiled", "s", Some("polars"));
    memory.print("The same: peak resident memory", "MiB", Some("polars"));
    csv.print("The same from CSV", "s", Some("polars"));
    again.print("Again", "s", None);
    let all =
        json!({ "parquet_s": wall.json(), "memory_mib": memory.json(), "csv_s": csv.json(), "again_s": again.json() });
    std::fs::write(place.work.join("features.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}
