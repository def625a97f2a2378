//! plan, why, show, graph, schema, runs, and interrupted runs.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::Sandbox;

const PIPELINE: &str = r#"
[params]
least = 1

[sources.rows]
path = "rows.csv"

[steps.kept]
uses = "std:filter"
input = "rows"
params = { where = "x > ${params.least}" }

[steps.derived]
uses = "std:derive"
input = "kept"
params = { columns = { z = "x + 1" } }
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with(PIPELINE);
    sandbox.write("rows.csv", "x,t\n1,a\n2,b\n3,c\n");
    sandbox
}

#[test]
fn a_plan_reports_what_would_run_and_runs_nothing() {
    let sandbox = sandbox();
    let plan = sandbox.host(&["plan"]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    assert!(plan.stdout.contains("would run  kept") && plan.stdout.contains("unknown  derived"), "{}", plan.stdout);
    assert_eq!(sandbox.run(&[]).ran(), 2);
    let plan = sandbox.host(&["plan"]);
    assert!(plan.stdout.contains("0 tasks would run, 2 are cached"), "{}", plan.stdout);
}

#[test]
fn why_reports_the_changed_param_with_both_values() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    let why = |arguments: &[&str]| {
        let why = sandbox.host(&[&["why"], arguments].concat());
        assert_eq!(why.code, 0, "{}", why.stderr);
        why.stdout
    };
    assert!(why(&["kept"]).contains("comes from the cache"));
    let text = why(&["kept", "--set", "least=2"]);
    assert!(text.contains("the param `where` changed from \"x > 1\" to \"x > 2\""), "{text}");
    sandbox.run(&["--set", "least=2"]);
    let text = why(&["derived", "--set", "least=2"]);
    assert!(
        text.contains("last ran in") && text.contains("`input` had 2 rows in 1 parts, and now has 1 in 1"),
        "{text}"
    );
    assert_eq!(sandbox.host(&["why", "kpt"]).code, 2);
}

#[test]
fn why_reports_the_changed_column() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    sandbox.write("rows.csv", "x,t\n1,a\n2,b\n4,c\n");
    let text = sandbox.host(&["why", "kept"]).stdout;
    assert!(text.contains("the column `x` of `input` changed in 1 of 1 parts"), "{text}");
}

#[test]
fn show_finds_outputs_by_name_and_by_digest() {
    let sandbox = sandbox();
    let run = sandbox.run(&[]);
    let digest = run.last["outputs"]["derived"]["output"].as_str().unwrap().to_owned();
    for name in ["derived", "derived.output", &digest] {
        let show = sandbox.host(&["show", name, "--json"]);
        assert_eq!(show.code, 0, "{name}: {}", show.stderr);
        let shown: Value = serde_json::from_str(&show.stdout).unwrap();
        assert_eq!(shown["rows"], 2);
        assert_eq!(shown["head"][0], serde_json::json!(["2", "b", "3"]));
    }
    let table = sandbox.host(&["show", "derived"]).stdout;
    assert!(table.contains("2 rows × 3 columns in 1 part") && table.contains("int64"), "{table}");
    assert_eq!(sandbox.host(&["show", "derived", "--export", "d.csv"]).code, 0);
    assert_eq!(sandbox.read("d.csv"), "x,t,z\n2,b,3\n3,c,4\n");
    let wrong = sandbox.host(&["show", "derivd"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("did you mean `derived`?"), "{}", wrong.stderr);
}

#[test]
fn a_graph_is_drawn_in_three_formats() {
    let sandbox = sandbox();
    for (format, holds) in [("mermaid", "flowchart TD"), ("dot", "digraph"), ("svg", "<svg")] {
        let graph = sandbox.host(&["graph", "--format", format]);
        assert_eq!(graph.code, 0, "{}", graph.stderr);
        assert!(graph.stdout.contains(holds) && graph.stdout.contains("kept"), "{}", graph.stdout);
    }
}

#[test]
fn a_graph_as_json_is_an_object() {
    let graph = sandbox().host(&["graph", "--json"]);
    let graph: Value = serde_json::from_str(&graph.stdout).unwrap();
    assert_eq!(graph["sources"][0]["name"], "rows");
    assert!(graph["connections"].as_array().unwrap().iter().any(|one| one["from"] == "rows" && one["to"] == "kept"));
}

/// Editors read the schema in the folder of the examples.
#[test]
fn the_schema_in_the_examples_is_that_of_this_program() {
    let kept = std::fs::read_to_string(crate::sandbox::repository().join("examples/pipeline.schema.json")).unwrap();
    assert_eq!(
        kept.trim(),
        Sandbox::new().host(&["schema"]).stdout.trim(),
        "`host schema > examples/pipeline.schema.json`"
    );
}

/// The schema has every key that the reader knows, and no other.
#[test]
fn the_schema_and_the_reader_have_the_same_keys() {
    let sandbox = sandbox();
    let schema: Value = serde_json::from_str(&sandbox.host(&["schema"]).stdout).unwrap();
    for (table, definition) in [("sources", "SourceFile"), ("steps", "StepFile")] {
        let keys: Vec<&String> = schema["$defs"][definition]["properties"].as_object().unwrap().keys().collect();
        let toml = format!("[{table}.a]\nzzzz = 1\n");
        sandbox.write("bad.toml", toml);
        for key in keys {
            sandbox.write("bad.toml", format!("[{table}.a]\n{key} = {{ zzzz = 1 }}\n"));
            let text = sandbox.host(&["run", "bad.toml"]).stderr;
            assert!(!text.contains(&format!("unknown key `{key}`")), "{key}: {text}");
        }
    }
}

#[test]
fn runs_are_listed_newest_first() {
    let sandbox = sandbox();
    sandbox.run(&[]);
    sandbox.run(&[]);
    let lines: Vec<Value> =
        sandbox.host(&["runs", "--json"]).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cached: Vec<&Value> = lines.iter().map(|line| &line["tasks"]["cached"]).collect();
    assert_eq!(cached, [2, 0]);
}

#[test]
fn the_lines_of_a_run_have_their_stable_names() {
    let sandbox = sandbox();
    let run = sandbox.run(&[]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
    for name in
        ["event", "ok", "tasks", "wall_ms", "fuel", "peak_memory_bytes", "bytes_read", "bytes_written", "metrics"]
    {
        assert!(keys(&run.last).contains(name), "{name}");
    }
    let names = ["total", "ran", "cached", "failed", "skipped"].map(str::to_owned);
    assert_eq!(keys(&run.last["tasks"]), names.into_iter().collect());
    let task = run.lines.iter().find(|line| line["event"] == "task-finished").unwrap();
    for name in ["step", "part", "key", "status", "fuel", "peak_memory_bytes", "wall_ms"] {
        assert!(keys(task).contains(name), "{name}");
    }
}

#[cfg(unix)]
/// Files below a folder.
fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// One of two workers may wait for the output while it holds a task. The other continues.
#[test]
fn blocked_output_does_not_stop_the_run() {
    const STEPS: usize = 600;
    let step = |i: usize| {
        format!("[steps.s{i}]\nuses = \"std:select\"\ninput = \"rows\"\nparams = {{ rename = {{ x = \"x{i}\" }} }}\n")
    };
    let steps: String = (0..STEPS).map(step).collect();
    let sandbox = Sandbox::with(&format!("[sources.rows]\npath = \"rows.csv\"\n{steps}"));
    sandbox.write("rows.csv", "x\n1\n");
    let mut command = sandbox.command(&["run", "--json", "--jobs", "2"]);
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    // By then the events exceed the size of the pipe.
    while files(&sandbox.path("store/actions")) < STEPS - 1 && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let kept = files(&sandbox.path("store/actions"));
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), kept), (Some(0), STEPS - 1));
    assert!(output.stdout.len() > 2 * 65_536, "it all fits into the pipe");
    // No event is lost, and every task starts before it ends.
    let mut begun = std::collections::HashSet::new();
    let mut ended = 0;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        match event["event"].as_str().unwrap() {
            "task-started" => assert!(begun.insert(event["step"].to_string())),
            "task-finished" => {
                assert!(begun.contains(&event["step"].to_string()), "{line}");
                ended += 1;
            }
            _ => {}
        }
    }
    assert_eq!((begun.len(), ended), (STEPS, STEPS));
}

#[test]
fn an_interrupted_run_stops_soon_and_stores_finished_tasks() {
    let pipeline = r#"
[sources.rows]
path = "rows.csv"
[steps.quick]
uses = "std:filter"
input = "rows"
params = { where = "x > 0" }
[steps.long]
uses = "std:train-logistic"
input = "quick"
params = { label = "y", features = ["x"], epochs = 100000000, validation = 0.0 }
"#;
    let sandbox = Sandbox::with(pipeline);
    sandbox.write("rows.csv", "x,y\n1,0\n2,1\n3,0\n");
    let mut command = sandbox.command(&["run", "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    // Until the long step runs.
    lines
        .find(|line| line.as_ref().unwrap().contains("\"task-started\"") && line.as_ref().unwrap().contains("long"))
        .unwrap()
        .unwrap();
    let asked = Instant::now();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let last = lines.map(Result::unwrap).last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // Not a measurement: a run that does not stop would take hours.
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert!(last.contains("\"ok\":false"), "{last}");
    let plan = sandbox.host(&["plan"]).stdout;
    assert!(plan.contains("cached  quick"), "{plan}");
}

/// The settings are in a static that no code refers to: the linker could drop it unnoticed.
#[cfg(target_os = "linux")]
#[test]
fn the_allocator_has_its_settings() {
    let sandbox = Sandbox::new();
    let stats = sandbox.command(&["--version"]).env("_RJEM_MALLOC_CONF", "stats_print:true").output().unwrap();
    let stats = String::from_utf8(stats.stderr).unwrap();
    for setting in ["opt.narenas: 1\n", "opt.thp: \"always\"\n", "opt.metadata_thp: \"always\"\n"] {
        assert!(stats.contains(setting), "{setting}{stats}");
    }
}
