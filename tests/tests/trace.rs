//! A run with the same result as the last one is replayed from its trace: everything that a run
//! reads is checked again, and the events are those that the run would have emitted.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;

use crate::sandbox::{Run, Sandbox, host};

const PIPELINE: &str = r#"
include = ["more.toml"]

[params]
least = 0

[sources.rows]
path = "rows/*.csv"
part_rows = 2

[steps.kept]
uses = "path:step.wasm"
input = "rows"
matrix = { least = [0, 1] }
params = { where = "x > ${matrix.least} + ${params.least}" }

[steps.best]
uses = "std:best"
inputs = { candidates = "kept.metrics[*]" }
params = { by = "rows_out" }

[exports]
"out/kept.csv" = "kept[best]"
"#;

/// Another step, and a fold whose output is a blob.
const MORE: &str =
    "[steps.scale]\nuses = \"std:normalise-fit\"\ninput = \"kept[best]\"\nparams = { columns = [\"x\"] }\n";

fn component() -> Vec<u8> {
    let folder = host().parent().and_then(std::path::Path::parent).expect("target").join("components");
    fs::read(folder.join("filter.wasm")).expect("`cargo xtask test` builds it")
}

/// The compiled code of these components, which is the same for every store.
fn compiled() -> &'static [(PathBuf, Vec<u8>)] {
    static FILES: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let first = bare();
        first.run(&[]);
        let read = |file: PathBuf| {
            let bytes = fs::read(&file).unwrap();
            (file.strip_prefix(first.path("")).unwrap().to_owned(), bytes)
        };
        files(&first, "compiled").into_iter().map(read).collect()
    })
}

fn sandbox() -> Sandbox {
    let sandbox = bare();
    // A folder is a store if it has a LAYOUT file.
    sandbox.write("store/LAYOUT", "millrace-store 2").write("store/tmp/.keep", "").write("store/claims/.keep", "");
    for (file, bytes) in compiled() {
        sandbox.write(file.to_str().unwrap(), bytes);
    }
    sandbox.run(&[]);
    sandbox
}

fn bare() -> Sandbox {
    let sandbox = Sandbox::with(PIPELINE);
    sandbox.write("more.toml", MORE).write("step.wasm", component());
    sandbox.write("rows/a.csv", "x\n1\n2\n3\n").write("rows/b.csv", "x\n4\n5\n");
    sandbox.write("params.toml", "least = 0\n");
    // Stamps of files that were written a moment ago prove nothing.
    std::thread::sleep(std::time::Duration::from_millis(50));
    sandbox
}

/// The files below a folder of the store.
fn files(sandbox: &Sandbox, folder: &str) -> Vec<PathBuf> {
    let shards = fs::read_dir(sandbox.path("store").join(folder)).into_iter().flatten().flatten();
    shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap()).map(|entry| entry.unwrap().path()).collect()
}

/// Runs, and returns whether the run was replayed: then the trace is the same file as before.
fn replayed(sandbox: &Sandbox, arguments: &[&str]) -> (bool, Run) {
    use std::os::unix::fs::MetadataExt;
    let inode = || files(sandbox, "traces").first().map(|trace| fs::metadata(trace).unwrap().ino());
    let before = inode();
    let run = sandbox.run(arguments);
    (before.is_some() && inode() == before, run)
}

/// The lines of a run without its name and times.
fn lines(run: &Run) -> Vec<Value> {
    let mut lines = run.lines.clone();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.remove("run");
        line.remove("elapsed_ms");
        if line["event"] != "task-finished" {
            line.remove("wall_ms");
        }
    }
    lines
}

#[test]
fn a_replayed_run_emits_the_events_of_a_scheduled_run() {
    let sandbox = sandbox();
    let (was_replayed, from_trace) = replayed(&sandbox, &[]);
    assert!(was_replayed);
    fs::remove_dir_all(sandbox.path("store/traces")).unwrap();
    let (was_replayed, from_loop) = replayed(&sandbox, &[]);
    assert!(!was_replayed);
    assert_eq!(from_trace.ran() + from_loop.ran(), 0);
    let sorted = |run: &Run| {
        let mut lines: Vec<String> = lines(run).iter().map(Value::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&from_trace), sorted(&from_loop));
    assert!(
        lines(&from_trace).iter().any(|line| line["log"][0]["message"].is_string()),
        "the log of a step is replayed"
    );
    // It is in the history like any other run.
    assert_eq!(fs::read_dir(sandbox.path("store/runs")).unwrap().count(), 3);
    let (was_replayed, again) = replayed(&sandbox, &[]);
    assert!(was_replayed);
    assert_eq!(lines(&again), lines(&from_trace));
}

/// Each change is detected, and then the run is the same as without a trace.
#[test]
fn everything_that_a_run_read_is_checked_again() {
    type Change = (&'static str, fn(&Sandbox), &'static [&'static str], bool);
    let changes: [Change; 11] = [
        (
            "the pipeline file",
            |s| {
                s.write("pipeline.toml", format!("# new\n{PIPELINE}"));
            },
            &[],
            false,
        ),
        (
            "an included file",
            |s| {
                s.write("more.toml", format!("{MORE}# new\n"));
            },
            &[],
            false,
        ),
        ("a param", |_| {}, &["--set", "least=1"], true),
        ("a params file", |_| {}, &["--params", "params.toml"], false),
        (
            "the same number of bytes in a source",
            |s| {
                s.write("rows/a.csv", "x\n1\n2\n7\n");
            },
            &[],
            true,
        ),
        (
            "a file more",
            |s| {
                s.write("rows/c.csv", "x\n9\n");
            },
            &[],
            true,
        ),
        ("a file less", |s| fs::remove_file(s.path("rows/b.csv")).unwrap(), &[], true),
        ("another name", |s| fs::rename(s.path("rows/b.csv"), s.path("rows/c.csv")).unwrap(), &[], false),
        // A custom section with a name of one letter and no content.
        (
            "a component",
            |s| {
                s.write("step.wasm", [component(), vec![0, 2, 1, b'x']].concat());
            },
            &[],
            true,
        ),
        ("an export that was removed", |s| fs::remove_file(s.path("out/kept.csv")).unwrap(), &[], false),
        (
            "an export that was edited",
            |s| {
                s.write("out/kept.csv", "mine");
            },
            &[],
            false,
        ),
    ];
    for (what, change, arguments, runs) in changes {
        let (with, without) = (sandbox(), sandbox());
        assert!(replayed(&with, &[]).0, "{what}: there is no trace to begin with");
        fs::remove_dir_all(without.path("store/traces")).unwrap();
        change(&with);
        change(&without);
        let (was_replayed, run) = replayed(&with, arguments);
        assert!(!was_replayed, "{what} was not detected");
        let other = without.run(arguments);
        assert_eq!((run.ran(), run.cached()), (other.ran(), other.cached()), "{what}");
        assert_eq!(run.last["outputs"], other.last["outputs"], "{what}");
        assert_eq!(with.read("out/kept.csv"), without.read("out/kept.csv"), "{what}");
        assert_eq!(run.ran() > 0, runs, "{what}");
        assert!(replayed(&with, arguments).0, "{what}: it is not replayed from then on");
    }
}

#[test]
fn a_trace_is_not_used_if_anything_in_the_store_is_missing() {
    let sandbox = sandbox();
    let first = sandbox.run(&[]);
    for folder in ["packs", "blobs", "tables"] {
        let all = files(&sandbox, folder);
        assert!(!all.is_empty(), "{folder}");
        for file in all {
            let intact = fs::read(&file).unwrap();
            fs::write(&file, &intact[..intact.len() - 1]).unwrap();
            let noticed = !replayed(&sandbox, &[]).0;
            fs::remove_file(&file).unwrap();
            let (was_replayed, run) = replayed(&sandbox, &[]);
            assert!(noticed && !was_replayed, "{}", file.display());
            assert_eq!(run.last["outputs"], first.last["outputs"]);
            assert!(replayed(&sandbox, &[]).0, "{}", file.display());
        }
    }
}

/// An export does not count as current if it has become a file that is read, or vice versa: a run
/// refuses that.
#[test]
fn the_targets_of_links_are_checked() {
    let changes: [fn(&Sandbox); 3] = [
        |s| {
            fs::rename(s.path("rows/a.csv"), s.path("out/kept.csv")).unwrap();
            std::os::unix::fs::symlink("../out/kept.csv", s.path("rows/a.csv")).unwrap();
        },
        |s| {
            fs::rename(s.path("out"), s.path("store/out")).unwrap();
            std::os::unix::fs::symlink("store/out", s.path("out")).unwrap();
        },
        |s| {
            fs::rename(s.path("more.toml"), s.path("out/kept.csv")).unwrap();
            std::os::unix::fs::symlink("out/kept.csv", s.path("more.toml")).unwrap();
        },
    ];
    for (i, change) in changes.iter().enumerate() {
        let sandbox = sandbox();
        // So that both could be the same file.
        let kept = sandbox.read("out/kept.csv");
        sandbox.write("rows/a.csv", "x\n1\n2\n3\n");
        assert!(replayed(&sandbox, &[]).0 && kept.starts_with("x\n1"));
        change(&sandbox);
        let with = sandbox.host(&["run"]);
        let _ = fs::remove_dir_all(sandbox.path("store/traces"));
        let without = sandbox.host(&["run"]);
        assert_eq!((with.code, with.stderr), (without.code, without.stderr), "{i}");
        assert_ne!(without.code, 0, "{i}");
    }
}

/// A renamed pipeline file has its own history.
#[test]
fn a_replayed_run_belongs_to_the_file_that_its_path_leads_to() {
    let sandbox = sandbox();
    fs::rename(sandbox.path("pipeline.toml"), sandbox.path("other.toml")).unwrap();
    std::os::unix::fs::symlink("other.toml", sandbox.path("pipeline.toml")).unwrap();
    sandbox.run(&[]);
    let shown = sandbox.host(&["show", "scale.scaling", "--pipeline", "other.toml"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
}

#[test]
fn a_touched_file_counts_as_unchanged() {
    let sandbox = sandbox();
    fs::File::options()
        .append(true)
        .open(sandbox.path("rows/a.csv"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    let (was_replayed, run) = replayed(&sandbox, &[]);
    assert!(was_replayed && run.ran() == 0);
}

/// Another program may compute other keys.
#[test]
fn another_program_does_not_use_the_trace() {
    let sandbox = sandbox();
    let other = sandbox.path("host");
    fs::copy(host(), &other).unwrap();
    let trace = || files(&sandbox, "traces").into_iter().map(|file| (fs::read(&file).unwrap(), file)).next().unwrap();
    let before = trace();
    let mut command = std::process::Command::new(other);
    let command = command.current_dir(sandbox.path("")).args(["run"]).env("MILLRACE_STORE", sandbox.path("store"));
    assert!(command.output().unwrap().status.success());
    assert_ne!(trace(), before);
}

#[test]
fn a_corrupt_trace_counts_as_absent() {
    let sandbox = sandbox();
    let trace = files(&sandbox, "traces").remove(0);
    let intact = fs::read(&trace).unwrap();
    for offset in (0..intact.len()).step_by(intact.len() / 20 + 1) {
        let mut flipped = intact.clone();
        flipped[offset] ^= 0x10;
        for bytes in [&flipped[..], &intact[..offset]] {
            fs::write(&trace, bytes).unwrap();
            let (was_replayed, run) = replayed(&sandbox, &[]);
            assert!(!was_replayed && run.ran() == 0, "at {offset}");
        }
    }
    fs::remove_file(&trace).unwrap();
    fs::create_dir(&trace).unwrap();
    assert_eq!(sandbox.run(&[]).ran(), 0, "a folder at its path");
    assert!(replayed(&sandbox, &[]).0);
}

/// A pipeline that has to run each time, has results that expire, or reads more than a trace
/// covers, has no trace.
#[test]
fn not_every_pipeline_has_a_trace() {
    let plain = "[sources.s]\npath = \"in.csv\"\n[steps.f]\nuses = \"std:filter\"\ninput = \"s\"\nparams = { where = \"x > 0\" }\n";
    for (more, has_one) in [("", true), ("cache = \"off\"\n", false), ("cache = { max-age = \"1h\" }\n", false)] {
        let sandbox = Sandbox::with(&format!("{plain}{more}"));
        sandbox.write("in.csv", "x\n1\n");
        sandbox.run(&[]);
        assert_eq!(!files(&sandbox, "traces").is_empty(), has_one, "{more}");
    }
    // A failed run has no trace either, and leaves none that could be replayed.
    let sandbox = sandbox();
    sandbox.write("more.toml", MORE.replace("\"x\"", "\"y\""));
    for _ in 0..2 {
        assert_eq!(sandbox.host(&["run"]).code, 1);
    }
}
