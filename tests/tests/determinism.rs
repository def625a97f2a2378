//! The same pipeline gives the same bytes with any number of threads.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sandbox::{Sandbox, repository};

#[test]
fn every_artifact_of_churn_is_the_same_with_one_job_and_two() {
    let mut seen = Vec::new();
    for jobs in ["1", "2", "1", "2"] {
        let sandbox = Sandbox::new();
        for name in ["pipeline.toml", "telco_churn.csv"] {
            let bytes = std::fs::read(repository().join("examples/churn").join(name)).unwrap();
            sandbox.write(name, bytes);
        }
        let run = sandbox.run(&["--jobs", jobs]);
        assert_eq!(run.cached(), 0);
        let file = |name: &str| std::fs::read(sandbox.path(Path::new("out").join(name).to_str().unwrap())).unwrap();
        let fuel = run.last["fuel"].clone();
        seen.push((run.last["outputs"].clone(), fuel, file("predictions.parquet"), file("model.json")));
    }
    assert!(seen.iter().all(|other| *other == seen[0]), "a run differs from the first");
}

/// Whichever worker schedules, each task begins and ends once, in this order, and no task that
/// waits for it is lost.
#[test]
fn many_workers_compute_each_task_once() {
    const PIPELINE: &str = r#"
[params]
k = 0
[sources.rows]
path = "rows*.csv"
[steps.a]
uses = "std:derive"
input = "rows"
params = { columns = { y = "x * 2 + ${params.k}" } }
[steps.b]
uses = "std:filter"
input = "a"
params = { where = "y % 3 != 0" }
[steps.c]
uses = "std:derive"
input = "b"
params = { columns = { z = "x + y" } }
[steps.fit]
uses = "std:normalise-fit"
input = "c"
params = { columns = ["z"] }
[steps.all]
uses = "std:group"
input = "c"
params = { by = ["y"], columns = { n = "count()" } }
"#;
    let sandboxes = [(); 3].map(|()| {
        let sandbox = Sandbox::with(PIPELINE);
        for part in 0..24 {
            sandbox.write(&format!("rows{part:02}.csv"), format!("x\n{part}\n{}\n{}\n", part * 7, part + 100));
        }
        sandbox
    });
    for round in 0..12 {
        let set = format!("k={round}");
        let mut outputs = Vec::new();
        for (sandbox, jobs) in sandboxes.iter().zip(["1", "2", "15"]) {
            let run = sandbox.run(&["--set", &set, "--jobs", jobs]);
            let of = |event: &str| -> Vec<(String, String)> {
                let lines = run.lines.iter().filter(|line| line["event"] == event);
                lines.map(|line| (line["step"].to_string(), line["part"].to_string())).collect()
            };
            let (started, finished) = (of("task-started"), of("task-finished"));
            let once: BTreeSet<_> = finished.iter().collect();
            assert_eq!((once.len(), finished.len() as u64), (finished.len(), run.total()), "{jobs} jobs");
            assert_eq!(started.iter().collect::<BTreeSet<_>>().len(), started.len(), "{jobs} jobs");
            assert!(started.iter().all(|task| once.contains(task)), "{jobs} jobs");
            let open = run.lines.iter().scan(0, |open, line| {
                *open += i32::from(line["event"] == "task-started");
                *open -= i32::from(line["event"] == "task-finished" && line["status"] == "ran");
                Some(*open)
            });
            assert!(open.max() <= jobs.parse().ok(), "more than {jobs} tasks are running");
            assert_eq!(run.total(), run.ran() + run.cached());
            outputs.push(run.last["outputs"].clone());
        }
        assert!(outputs.iter().all(|other| *other == outputs[0]), "a run differs from that of one job");
    }
}

/// A pipeline whose file is read, whose guests run and whose code is compiled by several threads,
/// if available.
#[cfg(target_os = "linux")]
#[test]
fn a_run_without_further_threads_uses_the_existing_ones() {
    use std::fmt::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    const PIPELINE: &str = r#"
[sources.rows]
path = "*.csv"
[steps.kept]
uses = "std:filter"
input = "rows"
params = { where = "a > 10" }
[steps.model]
uses = "std:train-logistic"
input = "kept"
params = { label = "y", features = ["a", "b"], epochs = 3, validation = 0.0 }
"#;
    let mut rows = String::from("a,b,y\n");
    for row in 0..200_000u32 {
        let mixed = row.wrapping_mul(2_654_435_761);
        writeln!(rows, "{},{},{}", mixed % 1000, mixed >> 12, mixed >> 31).unwrap();
    }
    let project = || {
        let sandbox = Sandbox::with(PIPELINE);
        sandbox.write("one.csv", &rows).write("two.csv", &rows);
        sandbox
    };
    let expected = project().run(&[]);
    for limit in [1, 2, 4] {
        let sandbox = project();
        let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        open(&sandbox.path(""), 0o777);
        // Other users may not be able to read the folder of the build.
        std::fs::copy(crate::sandbox::host(), sandbox.path("host")).unwrap();
        open(&sandbox.path("host"), 0o755);
        let mut command = std::process::Command::new("prlimit");
        command.arg(format!("--nproc={limit}")).arg(sandbox.path("host")).args(["run", "--json"]);
        command.arg("--jobs=3").arg("--store").arg(sandbox.path("store")).current_dir(sandbox.path(""));
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            // Root has no such limit.
            command.uid(65_534).gid(65_534);
        }
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(0), "{limit}: {stdout}{stderr}");
        let run = crate::sandbox::Run::of(&crate::sandbox::Outcome { code: 0, stdout, stderr });
        assert_eq!((&run.last["outputs"], run.ran()), (&expected.last["outputs"], expected.ran()), "{limit}");
    }
}
