//! Which tasks run again when something changes, and which do not.

use std::fmt::Write as _;

use crate::sandbox::Sandbox;

/// 9 rows in parts of 3, two steps by part, then a fold and a step on all parts.
pub const PIPELINE: &str = r#"
[params]
rate = 0.5

[sources.rows]
path = "rows.csv"
part_rows = 3

[steps.kept]
uses = "std:filter"
input = "rows"
params = { where = "x > 0" }

[steps.derived]
uses = "std:derive"
input = "kept"
params = { columns = { z = "x * 2 + y" } }

[steps.scale]
uses = "std:normalise-fit"
input = "derived"
params = { columns = ["z"] }

[steps.train]
uses = "std:train-logistic"
input = "derived"
params = { label = "label", features = ["z"], learning_rate = "${params.rate}" }

[exports]
"out/derived.csv" = "derived"
"#;

pub fn rows(range: std::ops::Range<i64>, note: &str) -> String {
    let mut text = String::from("x,y,label,note\n");
    for i in range {
        writeln!(text, "{},{},{},{note}", i + 1, i * i % 7, i % 2).expect("a string");
    }
    text
}

pub fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with(PIPELINE);
    sandbox.write("rows.csv", rows(0..9, "a"));
    sandbox
}

#[test]
fn a_second_run_is_cached_to_the_last_task() {
    let sandbox = sandbox();
    let first = sandbox.run(&[]);
    assert_eq!((first.ran(), first.cached()), (3 + 3 + 4 + 1, 0));
    let second = sandbox.run(&[]);
    assert_eq!((second.ran(), second.cached()), (0, first.total()));
    assert_eq!(first.last["outputs"], second.last["outputs"]);
    assert_eq!(first.last["metrics"], second.last["metrics"]);
}

#[test]
fn a_changed_param_of_training_runs_only_training_again() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    let run = sandbox.run(&["--set", "rate=0.25"]);
    assert_eq!(run.steps_that_ran(), ["train"]);
    let back = sandbox.run(&[]);
    assert_eq!(back.ran(), 0, "the results of the former value are still cached");
}

#[test]
fn a_column_that_no_step_reads_runs_nothing_again() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    assert!(sandbox.read("out/derived.csv").contains(",a,"));
    sandbox.write("rows.csv", rows(0..9, "b"));
    let run = sandbox.run(&[]);
    assert_eq!(run.ran(), 0);
    let export = sandbox.read("out/derived.csv");
    assert!(export.contains(",b,") && !export.contains(",a,"), "the column itself is passed on:\n{export}");
}

#[test]
fn appended_rows_run_their_parts_only() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    sandbox.write("rows.csv", rows(0..11, "a"));
    let run = sandbox.run(&[]);
    assert_eq!(run.parts_that_ran("kept"), [3]);
    assert_eq!(run.parts_that_ran("derived"), [3]);
    assert_eq!(run.parts_that_ran("scale"), [3]);
    assert_eq!(run.steps_that_ran(), ["derived", "kept", "scale", "train"]);
}

#[test]
fn a_touched_source_runs_nothing_again() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    sandbox.write("rows.csv", rows(0..9, "a"));
    assert_eq!(sandbox.run(&[]).ran(), 0);
}

#[test]
fn a_renamed_step_hits() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    sandbox.write("pipeline.toml", PIPELINE.replace("derived", "enriched"));
    assert_eq!(sandbox.run(&[]).ran(), 0);
}

#[test]
fn a_renamed_source_file_hits() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    std::fs::rename(sandbox.path("rows.csv"), sandbox.path("other.csv")).unwrap();
    sandbox.write("pipeline.toml", PIPELINE.replace("rows.csv", "other.csv"));
    assert_eq!(sandbox.run(&[]).ran(), 0);
}

#[test]
fn a_step_with_an_unchanged_output_stops_the_change() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    // Another condition that selects the same rows.
    sandbox.write("pipeline.toml", PIPELINE.replace("x > 0", "x >= 1"));
    assert_eq!(sandbox.run(&[]).steps_that_ran(), ["kept"]);
}

#[test]
fn limits_and_jobs_are_not_in_the_key() {
    let sandbox = sandbox();
    sandbox.run(&["--jobs", "1"]);
    let limits = "params = { where = \"x > 0\" }\nlimits = { memory = \"64MiB\", fuel = \"1G\", time = \"9s\" }";
    sandbox.write("pipeline.toml", PIPELINE.replace("params = { where = \"x > 0\" }", limits));
    assert_eq!(sandbox.run(&["--jobs", "2"]).ran(), 0);
}

#[test]
fn a_step_without_cache_runs_each_time_and_later_steps_hit() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    sandbox.write("pipeline.toml", PIPELINE.replace("input = \"kept\"", "input = \"kept\"\ncache = \"off\""));
    for _ in 0..2 {
        assert_eq!(sandbox.run(&[]).steps_that_ran(), ["derived"]);
    }
}

#[test]
fn processes_that_share_a_store_compute_nothing_twice() {
    let sandbox = sandbox();
    let mut children: Vec<_> = (0..3)
        .map(|_| {
            let mut command = sandbox.command(&["run", "--json", "--jobs", "2"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    let mut ran = 0;
    for child in children.drain(..) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        let last: serde_json::Value = serde_json::from_str(&last).unwrap();
        ran += last["tasks"]["ran"].as_u64().unwrap();
    }
    assert_eq!(ran, 11);
}

/// An additional file is read by itself, and the table is the same as that of all files read at
/// once.
#[test]
fn a_new_file_of_a_pattern_adds_one_part() {
    let sandbox = Sandbox::with("");
    for (name, rows) in [("a", "1\n2\n"), ("b", "3\n"), ("c", "4\n5\n")] {
        let make = format!("[sources.s]\npath = \"in.csv\"\n[exports]\n\"in/{name}.parquet\" = \"s\"\n");
        sandbox.write("make.toml", make).write("in.csv", format!("x\n{rows}"));
        assert_eq!(sandbox.host(&["run", "make.toml"]).code, 0);
    }
    let pipeline = "[sources.s]\npath = \"in/*.parquet\"\n[steps.d]\nuses = \"std:derive\"\ninput = \"s\"\n\
                    params = { columns = { y = \"x * 2\" } }\n[exports]\n\"out.csv\" = \"d\"\n";
    sandbox.write("pipeline.toml", pipeline);
    std::fs::rename(sandbox.path("in/c.parquet"), sandbox.path("c.parquet")).unwrap();
    assert_eq!(sandbox.run(&[]).ran(), 2);
    std::fs::rename(sandbox.path("c.parquet"), sandbox.path("in/c.parquet")).unwrap();
    let more = sandbox.run(&[]);
    assert_eq!((more.ran(), more.cached()), (1, 2));
    assert_eq!(sandbox.read("out.csv"), "x,y\n1,2\n2,4\n3,6\n4,8\n5,10\n");
    let fresh = sandbox.run(&["--store", "other"]);
    assert_eq!(fresh.last["outputs"], more.last["outputs"]);
    // A file of another type is reported as before.
    sandbox.write("make.toml", "[sources.s]\npath = \"in.csv\"\n[exports]\n\"in/d.parquet\" = \"s\"\n");
    sandbox.write("in.csv", "x\ntext\n");
    assert_eq!(sandbox.host(&["run", "make.toml"]).code, 0);
    assert!(sandbox.refused().contains("is utf8 here"));
}

/// Two tasks with one key are computed once, but limits are not in the key.
#[test]
fn a_task_that_exceeds_its_limit_does_not_fail_an_equal_task_with_a_higher_limit() {
    let step = |name: &str, more: &str| {
        format!(
            "[steps.{name}]\nuses = \"std:derive\"\ninput = \"rows\"\nparams.columns = {{ z = \"x + 1\" }}\n{more}\n"
        )
    };
    let source = "[sources.rows]\npath = \"rows.csv\"\n";
    for order in [["low", "high"], ["high", "low"]] {
        let steps = order.map(|name| step(name, if name == "low" { "limits = { fuel = \"100\" }" } else { "" }));
        let sandbox = Sandbox::with(&format!("{source}{}", steps.concat()));
        sandbox.write("rows.csv", rows(0..9, "a"));
        let run = sandbox.try_run(&["--jobs", "1"]);
        let run = crate::sandbox::Run::of(&run);
        let status =
            |step: &str| run.lines.iter().find(|line| line["step"] == step && line["event"] == "task-finished");
        assert_ne!(status("high").expect("it ended")["status"], "failed", "{order:?}");
    }
}
