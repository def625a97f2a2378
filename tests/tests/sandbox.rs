//! A project in a folder of its own, with its own store, and `host` to run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder with a pipeline and a store.
pub struct Sandbox {
    folder: tempfile::TempDir,
}

/// The result of a call of `host`.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the repository").to_owned()
}

pub fn host() -> PathBuf {
    // target/release/deps/host-HASH → target/release/host
    let here = std::env::current_exe().expect("the test has a path");
    let host = here.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps").join("host");
    assert!(host.is_file(), "{} is missing: run `cargo xtask test`", host.display());
    host
}

/// The folder of the standard steps, as `cargo xtask build` leaves it.
pub fn components() -> PathBuf {
    host().parent().and_then(Path::parent).expect("target").join("components")
}

impl Sandbox {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A sandbox with a pipeline file.
    pub fn with(pipeline: &str) -> Self {
        let sandbox = Self::new();
        sandbox.write("pipeline.toml", pipeline);
        sandbox
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("inside the sandbox")).expect("a folder");
        std::fs::write(path, content).expect("a file");
        self
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(host());
        command.current_dir(self.folder.path()).args(arguments).env("MILLRACE_STORE", self.path("store"));
        command.env("NO_COLOR", "1");
        command
    }

    pub fn host(&self, arguments: &[&str]) -> Outcome {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("host starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("host writes UTF-8");
        Outcome { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs the pipeline, which must succeed, and returns its JSON lines.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let run = self.try_run(arguments);
        assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
        Run::of(&run)
    }

    pub fn try_run(&self, arguments: &[&str]) -> Outcome {
        self.host(&[&["run", "--json"], arguments].concat())
    }

    /// The diagnostics of a run that must not begin, without the sandbox's path.
    pub fn refused(&self) -> String {
        let run = self.host(&["run"]);
        assert_eq!(run.code, 2, "{}{}", run.stdout, run.stderr);
        let text = self.clean(&run.stderr);
        // Lines before the error are not part of the claim, and have times in them.
        text.find("error").map_or(text.clone(), |from| text[from..].to_owned())
    }

    /// The plain lines of a run in which a step fails.
    pub fn failed(&self) -> String {
        let run = self.host(&["run"]);
        assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
        self.clean(&run.stderr)
    }

    pub fn clean(&self, text: &str) -> String {
        let folder = self.folder.path().to_str().expect("a plain path");
        let lines = text.replace(folder, "DIR").lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        lines.trim().to_owned()
    }
}

/// A run, by its JSON lines.
pub struct Run {
    pub lines: Vec<Value>,
    pub last: Value,
}

impl Run {
    pub fn of(outcome: &Outcome) -> Self {
        let lines: Vec<Value> =
            outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        let last = lines.last().cloned().expect("a last line");
        assert_eq!(last["event"], "run-finished", "{}", outcome.stdout);
        Self { lines, last }
    }

    fn count(&self, what: &str) -> u64 {
        self.last["tasks"][what].as_u64().expect("a count")
    }

    pub fn ran(&self) -> u64 {
        self.count("ran")
    }

    pub fn cached(&self) -> u64 {
        self.count("cached")
    }

    pub fn total(&self) -> u64 {
        self.count("total")
    }

    /// Names of the steps of which a task ran, each once, in alphabetical order.
    pub fn steps_that_ran(&self) -> Vec<String> {
        let ran = self.lines.iter().filter(|line| line["event"] == "task-finished" && line["status"] == "ran");
        let mut names: Vec<String> = ran
            .map(|line| line["step"].as_str().expect("a name").split('[').next().expect("a name").to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Parts of a step whose task ran.
    pub fn parts_that_ran(&self, step: &str) -> Vec<u64> {
        let ran = self
            .lines
            .iter()
            .filter(|line| line["event"] == "task-finished" && line["status"] == "ran" && line["step"] == step);
        let mut parts: Vec<u64> = ran.filter_map(|line| line["part"].as_u64()).collect();
        parts.sort_unstable();
        parts
    }
}
