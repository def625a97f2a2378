//! The requirements of the peers: a Python environment with pinned packages, and the data.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;

fn must(command: &mut Command) -> Result<()> {
    ensure!(command.status()?.success(), "{command:?} failed");
    Ok(())
}

/// A Python with the packages of `peers/requirements.txt`.
pub fn python(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.work.join("python");
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(workspace.root.join("benches/peers/requirements.txt"))?;
    let marker = folder.join("installed.txt");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    must(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let requirements = workspace.root.join("benches/peers/requirements.txt");
    must(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    std::fs::write(marker, wanted)?;
    Ok(python)
}

/// The folder with `events.parquet`, `events.csv`, `events.arrow` and `events.ndjson`.
pub fn events(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.work.join("data");
    if !folder.join("events.json").is_file() {
        std::fs::create_dir_all(&folder)?;
        must(Command::new(python(workspace)?).arg(workspace.root.join("benches/peers/gen_data.py")).arg(&folder))?;
    }
    if !folder.join("events.ndjson").is_file() {
        let write = "import sys, polars as pl\npl.read_parquet(sys.argv[1]).write_ndjson(sys.argv[2])\n";
        let mut command = Command::new(python(workspace)?);
        command.args(["-c", write]).arg(folder.join("events.parquet"));
        must(command.arg(folder.join("events.ndjson")))?;
    }
    Ok(folder)
}

/// A file with ten times the rows of `events.parquet`, of ten seeds.
pub fn tenfold(workspace: &Workspace) -> Result<PathBuf> {
    let file = workspace.work.join("data/tenfold.parquet");
    if !file.is_file() {
        // Renamed when it is complete.
        let part = file.with_extension("part");
        let mut command = Command::new(python(workspace)?);
        must(command.arg(workspace.root.join("benches/peers/gen_tenfold.py")).arg(&part))?;
        std::fs::rename(part, &file)?;
    }
    Ok(file)
}

/// A folder with the rows of `events.parquet` in twelve files.
pub fn pieces(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.work.join("pieces");
    if !folder.join("11.parquet").is_file() {
        std::fs::create_dir_all(&folder)?;
        let split = "import sys, pyarrow.parquet as pq\n\
            t = pq.read_table(sys.argv[1]); n = -(-t.num_rows // 12)\n\
            for i in range(12): pq.write_table(t.slice(i * n, n), f'{sys.argv[2]}/{i:02}.parquet')\n";
        let mut command = Command::new(python(workspace)?);
        must(command.args(["-c", split]).arg(events(workspace)?.join("events.parquet")).arg(&folder))?;
    }
    Ok(folder)
}

/// `b3sum`, built here if the machine has none.
pub fn b3sum(workspace: &Workspace) -> Result<PathBuf> {
    let program = workspace.work.join("tools/bin/b3sum");
    if !program.is_file() {
        let root = workspace.work.join("tools");
        must(Command::new("cargo").args(["install", "b3sum", "--locked", "--quiet", "--root"]).arg(root))?;
    }
    Ok(program)
}
