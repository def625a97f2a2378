//! What a run prints for people, and the event log of a run.

use serde_json::Value;

use crate::cache;
use crate::sandbox::{Sandbox, repository};

/// The standard error of `host run` on a copy of the churn example.
fn churn(sandbox: &Sandbox, arguments: &[&str]) -> String {
    if !sandbox.path("pipeline.toml").exists() {
        for file in ["pipeline.toml", "telco_churn.csv"] {
            let bytes = std::fs::read(repository().join("examples/churn").join(file)).expect("a file of the example");
            sandbox.write(file, bytes);
        }
    }
    let run = sandbox.host(&[&["run"], arguments].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stderr
}

/// Lines without times, which differ from run to run.
fn without_times(text: &str) -> String {
    let is_time = |words: &[&str]| {
        let is_number = words[0].parse::<f64>().is_ok();
        is_number && ["µs", "ms", "s"].contains(&words[1].trim_end_matches(','))
    };
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut out: Vec<&str> = Vec::new();
        let mut at = 0;
        while at < words.len() {
            if at + 1 < words.len() && is_time(&words[at..at + 2]) {
                out.push("TIME");
                at += 2;
            } else {
                out.push(words[at]);
                at += 1;
            }
        }
        // The spaces before a time depend on its digits.
        out.join(" ").split("  ").filter(|part| !part.is_empty()).map(str::trim).collect::<Vec<_>>().join("  ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_run_has_a_line_for_each_step_and_a_table_of_metrics() {
    let sandbox = Sandbox::new();
    let first = churn(&sandbox, &["--jobs", "1"]);
    assert!(first.lines().count() < 25, "{first}");
    insta::assert_snapshot!(without_times(&first));
}

#[test]
fn cached_steps_are_one_list_and_changed_steps_have_a_line_each() {
    let sandbox = Sandbox::new();
    churn(&sandbox, &[]);
    let again = churn(&sandbox, &["--set", "epochs=400", "--jobs", "1"]);
    insta::assert_snapshot!(without_times(&again));
}

/// With `-v` there is a line for each task as well.
#[test]
fn a_verbose_run_has_a_line_for_each_task() {
    let sandbox = Sandbox::new();
    let first = churn(&sandbox, &["-v"]);
    let tasks = first.lines().filter(|line| line.trim_start().starts_with("ran  ") && line.contains(" fuel, "));
    assert_eq!(tasks.count(), 76, "{first}");
}

/// A failure that all parts share is shown once.
#[test]
fn equal_failures_of_a_step_are_shown_once() {
    let sandbox = cache::sandbox();
    sandbox.write("pipeline.toml", cache::PIPELINE.replace("x * 2 + y", "x / 0 + int(x)"));
    let text = cache::PIPELINE.replace("input = \"kept\"", "input = \"kept\"\nlimits = { fuel = \"100\" }");
    sandbox.write("pipeline.toml", text);
    let failed = sandbox.failed();
    assert_eq!(failed.matches("it used up its fuel").count(), 1, "{failed}");
    assert!(failed.contains("FAILED  derived"), "{failed}");
}

/// The events of a run, in the order of its log: all that `host run --json` has printed, and
/// the tasks that came from the cache.
#[test]
fn the_event_log_has_what_the_run_printed() {
    let sandbox = cache::sandbox();
    let events = |id: &str| -> Vec<Value> {
        let shown = sandbox.host(&["runs", id, "--json"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        shown.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    };
    let without_times = |line: &Value| {
        let mut line = line.clone();
        let fields = line.as_object_mut().expect("an object");
        fields.remove("elapsed_ms");
        fields.remove("wall_ms");
        line.to_string()
    };
    let expect = |change: Option<(&str, &str)>| {
        if let Some((old, new)) = change {
            sandbox.write("pipeline.toml", cache::PIPELINE.replace(old, new));
        }
        let run = sandbox.run(&["--jobs", "1"]);
        let id = run.lines[0]["run"].as_str().expect("its name");
        let is_cached = |line: &&Value| line["status"] == "cached" && line["event"] == "task-finished";
        let logged = events(id);
        let split = |lines: &[Value]| {
            let others: Vec<String> = lines.iter().filter(|line| !is_cached(line)).map(without_times).collect();
            let cached = lines
                .iter()
                .filter(is_cached)
                .map(|line| format!("{} {} {}", line["step"], line["part"], line["rows_read"]));
            let mut cached: Vec<String> = cached.collect();
            cached.sort();
            (others, cached)
        };
        assert_eq!(split(&logged).1, split(&run.lines).1);
        assert_eq!(logged.last().map(without_times), run.lines.last().map(without_times));
        // Cached sources of a replayed run are in no log.
        let is_replay = run.ran() == 0;
        if !is_replay {
            assert_eq!(split(&logged).0, split(&run.lines).0);
            let times: Vec<f64> = logged.iter().map(|line| line["elapsed_ms"].as_f64().expect("a time")).collect();
            assert!(times.is_sorted(), "{times:?}");
        }
    };
    expect(None);
    expect(Some(("x > 0", "x > 1")));
    expect(None);
}

#[test]
fn a_corrupt_event_log_is_an_error() {
    let sandbox = cache::sandbox();
    let run = sandbox.run(&[]);
    let id = run.lines[0]["run"].as_str().expect("its name");
    let path = sandbox.path("store/events").join(id);
    let mut bytes = std::fs::read(&path).expect("the log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).expect("the log");
    let shown = sandbox.host(&["runs", id]);
    assert_eq!(shown.code, 1, "{}{}", shown.stdout, shown.stderr);
    assert!(shown.stderr.contains("it is corrupt"), "{}", shown.stderr);
    let missing = sandbox.host(&["runs", "20000101T000000000000-0000"]);
    assert_eq!(missing.code, 2, "{}", missing.stderr);
}
