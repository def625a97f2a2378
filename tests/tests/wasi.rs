//! Components with WASI: what they can read is closed, the same everywhere, and in the key.

use std::sync::OnceLock;

use serde_json::Value;

use crate::sandbox::{Sandbox, repository};

fn guest() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        millrace_plugin::build(&repository().join("tests/guests/wasi")).expect("the WASI guest builds").component
    })
}

fn pipeline(more: &str) -> String {
    format!(
        r#"
[sources.rows]
path = "rows.csv"

[steps.look]
uses = "path:look.wasm"
input = "rows"
limits = {{ time = "20s", fuel = "2G" }}
{more}

[exports]
"report.json" = "look.report"
"#
    )
}

fn sandbox(more: &str) -> Sandbox {
    let sandbox = Sandbox::with(&pipeline(more));
    sandbox.write("rows.csv", "x\n1\n").write("look.wasm", guest());
    sandbox
}

fn report(sandbox: &Sandbox) -> Value {
    serde_json::from_str(&sandbox.read("report.json")).unwrap()
}

#[test]
fn nothing_of_the_machine_is_visible() {
    let sandbox = sandbox("");
    assert_eq!(sandbox.run(&[]).ran(), 1);
    let seen = report(&sandbox);
    for (what, expected) in [
        ("environment", serde_json::json!([])),
        ("arguments", serde_json::json!([])),
        ("monotonic", 0.into()),
        ("after", 0.into()),
        ("wall", 0.into()),
        ("stdin", r#"Err("closed")"#.into()),
        ("folders", serde_json::json!({})),
    ] {
        assert_eq!(seen[what], expected, "{what}");
    }
    assert_ne!(seen["random"], seen["insecure"]);
    // Another store with the same key: the same bytes. Another key: other bytes.
    let other = self::sandbox("");
    other.run(&[]);
    assert_eq!(report(&other), seen);
    other.write("rows.csv", "x\n2\n");
    other.run(&[]);
    assert_eq!(report(&other), seen, "no column was read");
    other.write("rows.csv", "x\n2\n3\n");
    other.run(&[]);
    assert_ne!(report(&other)["random"], seen["random"]);
}

#[test]
fn printed_lines_become_the_log() {
    let sandbox = sandbox("");
    let lines = sandbox.host(&["run", "--json", "pipeline.toml"]).stdout;
    let task = lines.lines().find(|line| line.contains("task-finished")).unwrap();
    let task: Value = serde_json::from_str(task).unwrap();
    let log: Vec<(&str, &str)> = task["log"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap()))
        .collect();
    assert_eq!(log, [("info", "one"), ("warn", "an error"), ("info", "two"), ("info", ""), ("info", "no end")]);
}

#[test]
fn a_granted_folder_looks_the_same_everywhere_and_is_in_the_key() {
    let granted = r#"grants = { read = ["dict/"], env = ["MILLRACE_TEST_A", "MILLRACE_TEST_B"] }"#;
    let run = |names: &[&str]| {
        let sandbox = sandbox(granted);
        sandbox.write("secret", "never");
        std::fs::create_dir_all(sandbox.path("dict/inner")).unwrap();
        for name in names {
            sandbox.write(name, format!("of {name}"));
        }
        std::os::unix::fs::symlink("../secret", sandbox.path("dict/link")).unwrap();
        sandbox
    };
    let host = |sandbox: &Sandbox| {
        let mut command = sandbox.command(&["run", "--json", "pipeline.toml"]);
        let output = command.env("MILLRACE_TEST_A", "one").env_remove("MILLRACE_TEST_B").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let last: Value =
            serde_json::from_slice(output.stdout.split(|b| *b == b'\n').rfind(|l| !l.is_empty()).unwrap()).unwrap();
        last["tasks"]["ran"].as_u64().unwrap()
    };
    let first = run(&["dict/b", "dict/a", "dict/inner/c"]);
    assert_eq!(host(&first), 1);
    let seen = report(&first);
    assert_eq!(seen["environment"], serde_json::json!([["MILLRACE_TEST_A", "one"]]));
    insta::assert_snapshot!("a_granted_folder", serde_json::to_string_pretty(&seen["folders"]).unwrap());
    assert!(!first.read("report.json").contains("never"));
    assert!(!first.path("dict/new").exists());
    // Created at another time, in another order.
    let second = run(&["dict/inner/c", "dict/a", "dict/b"]);
    assert_eq!(host(&second), 1);
    assert_eq!(report(&second), seen);

    assert_eq!(host(&first), 0);
    first.write("dict/a", "of dict/a");
    assert_eq!(host(&first), 0, "touched");
    for change in ["dict/a", "dict/inner/new"] {
        first.write(change, "other");
        assert_eq!(host(&first), 1, "{change}");
        assert!(first.read("report.json").contains("other"));
    }
    let why = first.command(&["why", "look"]).env("MILLRACE_TEST_A", "one").output().unwrap();
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("the granted folder `dict/` changed"), "{why}");
    // The variable is not set here.
    let why = first.host(&["why", "look"]).stdout;
    assert!(why.contains("the granted variable `MILLRACE_TEST_A` changed"), "{why}");
    let more = granted.replace("MILLRACE_TEST_B", "HOME");
    first.write("pipeline.toml", pipeline(&more));
    assert_eq!(host(&first), 1, "another variable");
}

#[test]
fn an_invalid_grant_is_refused() {
    let text = |more: &str| sandbox(more).refused();
    assert!(text(r#"grants = { read = ["nowhere"] }"#).contains("`nowhere` cannot be granted"));
    assert!(text(r#"grants = { read = ["rows.csv"] }"#).contains("grant the folder that it is in"));
    assert!(text(r#"grants = { read = ["a", "a"] }"#).contains("`a` is granted twice"));
    assert!(text(r#"grants = { reed = ["a"] }"#).contains("did you mean `read`?"));
}

#[test]
fn a_guest_with_wasi_stays_within_its_bounds() {
    let failed = |then: &str| sandbox(&format!("params = {{ then = \"{then}\" }}")).failed();
    assert!(failed("exit").contains("it ended itself with the exit code 0"), "{}", failed("exit"));
    assert!(failed("socket").contains("wasi:sockets"), "{}", failed("socket"));
    assert!(failed("hoard").contains("too many"), "{}", failed("hoard"));
    let sandbox = sandbox("params = { then = \"print\" }");
    let run = sandbox.run(&[]);
    assert_eq!(run.ran(), 1);
}

/// The value of a granted variable may be a secret.
#[test]
fn a_stored_task_does_not_have_the_values_of_its_variables() {
    let sandbox = sandbox(r#"grants = { env = ["MILLRACE_TEST_B", "MILLRACE_TEST_A"] }"#);
    let run = |arguments: &[&str], value: &str| {
        let mut command = sandbox.command(arguments);
        let output = command.env("MILLRACE_TEST_A", value).env("MILLRACE_TEST_B", "two").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let events = |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let local = events(&run(&["run", "--json", "--store", "local"], "a-secret-value").1);
    let process = events(&run(&["run", "--json", "--store", "process", "--executor", "process"], "a-secret-value").1);
    let outputs = |events: &[Value]| events.last().unwrap()["outputs"].clone();
    assert_eq!(outputs(&process), outputs(&local));
    let finished = process.iter().find(|event| event["event"] == "task-finished").unwrap();
    let key = finished["key"].as_str().unwrap();
    let mut stored = 0;
    for shard in std::fs::read_dir(sandbox.path("process/tasks")).unwrap() {
        for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(14).any(|window| window == b"a-secret-value"));
            stored += 1;
        }
    }
    assert_eq!(stored, 1);
    let exec = ["exec", key, "--again", "--store", "process"];
    let (code, _, stderr) = run(&exec, "another value");
    assert!(code == Some(2) && stderr.contains("`MILLRACE_TEST_A` does not have the value"), "{stderr}");
    assert_eq!(run(&exec, "a-secret-value").0, Some(0));
}
