//! A remote store as a second level of the local one, and tasks that other processes run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sandbox::{Outcome, Sandbox, repository};

/// A folder with a copy of `examples/churn`.
fn churn() -> Sandbox {
    let sandbox = Sandbox::new();
    for file in ["pipeline.toml", "telco_churn.csv"] {
        let content = std::fs::read(repository().join("examples/churn").join(file)).expect("the example");
        sandbox.write(file, content);
    }
    sandbox
}

/// Runs the pipeline in a store of the sandbox.
fn run(sandbox: &Sandbox, store: &str, arguments: &[&str]) -> Vec<Value> {
    let outcome = sandbox.host(&[&["run", "--json", "--store", store], arguments].concat());
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    lines(&outcome)
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn url(sandbox: &Sandbox, folder: &str) -> String {
    format!("file://{}", sandbox.path(folder).display())
}

/// The key and the fuel of each task, by step, part and phase.
fn tasks(events: &[Value]) -> BTreeMap<(String, Option<u64>, String), (String, u64)> {
    let finished = events.iter().filter(|event| event["event"] == "task-finished");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let name = |event: &Value| (text(&event["step"]), event["part"].as_u64(), text(&event["phase"]));
    finished.map(|event| (name(event), (text(&event["key"]), event["fuel"].as_u64().expect("fuel")))).collect()
}

fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("there is no `{name}`"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn an_empty_store_takes_every_task_from_the_remote_store() {
    let sandbox = churn();
    let remote = url(&sandbox, "remote");
    let first = run(&sandbox, "a", &["--remote", &remote]);
    assert_eq!(event(&first, "run-finished")["tasks"]["ran"], 76);
    let written = std::fs::read(sandbox.path("out/model.json")).expect("an export");
    std::fs::remove_dir_all(sandbox.path("out")).expect("the exports");
    let second = run(&sandbox, "b", &["--remote", &remote]);
    let last = event(&second, "run-finished");
    assert_eq!((&last["tasks"]["ran"], &last["tasks"]["cached"]), (&0.into(), &76.into()));
    assert_eq!(last["outputs"], event(&first, "run-finished")["outputs"]);
    assert_eq!(std::fs::read(sandbox.path("out/model.json")).expect("an export"), written);
    assert_eq!(event(&second, "remote-finished")["error"], Value::Null);
    // Nothing had to be compiled either: plans and manifests were shared, too.
    assert!(!sandbox.path("b/compiled").exists() || files(&sandbox.path("b/compiled")).is_empty());
}

/// A team that begins to share has results already.
#[test]
fn results_of_runs_without_the_remote_store_are_uploaded_by_the_next_run_with_it() {
    let sandbox = churn();
    let remote = url(&sandbox, "remote");
    run(&sandbox, "a", &[]);
    run(&sandbox, "a", &[]);
    let second = run(&sandbox, "a", &["--remote", &remote]);
    assert_eq!(event(&second, "run-finished")["tasks"]["cached"], 76);
    assert!(event(&second, "remote-finished")["uploaded"].as_u64() >= Some(76), "{second:?}");
    // From now on it is replayed, and uploads nothing.
    let third = run(&sandbox, "a", &["--remote", &remote]);
    assert!(third.iter().all(|event| event["event"] != "remote-finished"), "{third:?}");
    let elsewhere = run(&sandbox, "a", &["--remote", &url(&sandbox, "elsewhere")]);
    assert!(event(&elsewhere, "remote-finished")["uploaded"].as_u64() >= Some(76), "{elsewhere:?}");
    let other = run(&sandbox, "b", &["--remote", &remote]);
    let last = event(&other, "run-finished");
    assert_eq!((&last["tasks"]["ran"], &last["tasks"]["cached"]), (&0.into(), &76.into()));
}

#[test]
fn objects_of_a_remote_store_that_do_not_match_their_digests_are_not_used() {
    let sandbox = churn();
    let remote = url(&sandbox, "remote");
    let first = run(&sandbox, "a", &["--remote", &remote]);
    let mut changed = 0;
    for folder in ["remote/blobs", "remote/packs"] {
        for file in files(&sandbox.path(folder)) {
            let mut bytes = std::fs::read(&file).expect("an object");
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 1;
                changed += 1;
                std::fs::write(&file, bytes).expect("an object");
            }
        }
    }
    assert!(changed > 20, "{changed} objects");
    // The run that finds a corrupt object reports it, and the next one recomputes what it needs: it
    // uploads what it computes, so that a third store can use all of it.
    let second = sandbox.host(&["run", "--json", "--store", "b", "--remote", &remote]);
    let second = lines(&second);
    let error = event(&second, "remote-finished")["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("does not match the digest"), "{error}");
    let third = run(&sandbox, "b", &["--remote", &remote]);
    assert_eq!(event(&third, "run-finished")["outputs"], event(&first, "run-finished")["outputs"]);
    assert_eq!(event(&third, "run-finished")["metrics"], event(&first, "run-finished")["metrics"]);
    let other = run(&sandbox, "c", &["--remote", &remote]);
    let last = event(&other, "run-finished");
    assert_eq!((&last["tasks"]["ran"], &last["outputs"]), (&0.into(), &event(&first, "run-finished")["outputs"]));
    assert_eq!(event(&other, "remote-finished")["error"], Value::Null);
}

#[test]
fn a_remote_store_that_cannot_be_written_changes_no_result() {
    let sandbox = churn();
    let alone = run(&sandbox, "a", &[]);
    run(&sandbox, "seed", &["--remote", &url(&sandbox, "remote"), "--set", "seed=2"]);
    // No object can be stored below a file.
    for folder in ["remote/blobs", "remote/packs"] {
        std::fs::remove_dir_all(sandbox.path(folder)).expect("a folder");
        sandbox.write(folder, "");
    }
    let with = run(&sandbox, "b", &["--remote", &url(&sandbox, "remote")]);
    assert_eq!(tasks(&with), tasks(&alone));
    assert_eq!(event(&with, "run-finished")["outputs"], event(&alone, "run-finished")["outputs"]);
    assert!(event(&with, "remote-finished")["error"].is_string());
}

#[test]
fn tasks_in_processes_of_their_own_have_equal_keys_fuel_and_outputs() {
    let sandbox = churn();
    let local = run(&sandbox, "a", &[]);
    let process = run(&sandbox, "b", &["--executor", "process"]);
    assert_eq!(tasks(&process), tasks(&local));
    let (process, local) = (event(&process, "run-finished"), event(&local, "run-finished"));
    assert_eq!((&process["outputs"], &process["metrics"]), (&local["outputs"], &local["metrics"]));
    assert_eq!(process["tasks"]["ran"], 76);
}

#[test]
fn a_second_store_runs_a_task_of_the_first_by_its_key_with_equal_digests() {
    let sandbox = churn();
    let events = run(&sandbox, "a", &["--executor", "process"]);
    let remote = url(&sandbox, "a");
    for step in ["scale", "train[l2=0.0,learning_rate=0.1]", "best"] {
        let (_, (key, fuel)) = tasks(&events).into_iter().find(|((name, ..), _)| name == step).expect("the step");
        let exec = |arguments: &[&str]| {
            let outcome = sandbox.host(&[&["exec", key.as_str(), "--json"], arguments].concat());
            assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
            lines(&outcome).remove(0)
        };
        let known = exec(&["--store", "a"]);
        let again = exec(&["--store", "b", "--remote", &remote, "--again"]);
        assert_eq!((&known["status"], &again["status"]), (&"cached".into(), &"ran".into()));
        assert_eq!(again["outputs"], known["outputs"], "{step}");
        assert_eq!(again["cost"]["fuel"], fuel, "{step}");
        assert_ne!(again["outputs"], Value::Array(Vec::new()), "{step}");
    }
}

#[test]
fn a_task_fails_alike_in_this_process_and_in_its_own() {
    let pipeline = r#"
[sources.s]
path = "s.csv"
[steps.d]
uses = "std:derive"
input = "s"
params = { columns = { y = "x + 1" } }
limits = { fuel = "1k" }
"#;
    let sandbox = Sandbox::with(pipeline);
    sandbox.write("s.csv", "x\n1\n0\n");
    let outcomes = ["local", "process"].map(|executor| {
        let outcome = sandbox.host(&["run", "--json", "--store", executor, "--executor", executor]);
        (outcome.code, event(&lines(&outcome), "task-finished")["error"].clone())
    });
    assert_eq!(outcomes[0], outcomes[1]);
    assert!(outcomes[0].0 == 1 && outcomes[0].1.is_string(), "{outcomes:?}");
}

#[test]
fn a_key_without_a_task_and_a_url_without_a_store_are_refused() {
    let sandbox = Sandbox::with("");
    let key = format!("b3:{}", "0".repeat(64));
    let url = url(&sandbox, "store");
    let cases: [&[&str]; 6] = [
        &["exec", "b3:12"],
        &["exec", &key],
        &["run", "--remote", "s3://bucket"],
        &["run", "--remote", "file://relative/folder"],
        &["run", "--remote", "file:///with%20escape"],
        &["run", "--remote", &url],
    ];
    let mut shown = String::new();
    for arguments in cases {
        let outcome = sandbox.host(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        shown += &outcome.stderr.replace(&sandbox.path("").display().to_string(), "/project/");
    }
    insta::assert_snapshot!(shown);
}
