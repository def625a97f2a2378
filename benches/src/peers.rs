//! What the peers need: a Python environment with pinned packages, and the data.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::Place;

fn must(command: &mut Command) -> Result<()> {
    ensure!(command.status()?.success(), "{command:?} failed");
    Ok(())
}

/// A Python with the packages of `peers/requirements.txt`.
pub fn python(place: &Place) -> Result<PathBuf> {
    let folder = place.work.join("python");
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(place.root.join("benches/peers/requirements.txt"))?;
    let marker = folder.join("installed.txt");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    must(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let requirements = place.root.join("benches/peers/requirements.txt");
    must(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    std::fs::write(marker, wanted)?;
    Ok(python)
}

/// The folder with `events.parquet`, `events.csv` and `events.arrow`.
pub fn events(place: &Place) -> Result<PathBuf> {
    let folder = place.work.join("data");
    if !folder.join("events.json").is_file() {
        std::fs::create_dir_all(&folder)?;
        must(Command::new(python(place)?).arg(place.root.join("benches/peers/gen_data.py")).arg(&folder))?;
    }
    Ok(folder)
}
