//! Guests that attack. Each must end as a failure with a name: no panic of the host, no hang,
//! nothing stored.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::sandbox::{Run, Sandbox, repository};

fn evil() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        millrace_plugin::build(&repository().join("tests/guests/evil")).expect("the evil guest builds").component
    })
}

fn sandbox(attack: &str) -> Sandbox {
    let sandbox = Sandbox::with(&format!(
        r#"
[sources.rows]
path = "rows.csv"

[steps.evil]
uses = "path:evil.wasm"
input = "rows"
params = {{ attack = "{attack}" }}
limits = {{ memory = "64MiB", fuel = "500M", time = "20s" }}

[exports]
"out.csv" = "evil"
"#
    ));
    sandbox.write("rows.csv", "x\n1\n2\n3\n").write("evil.wasm", evil());
    sandbox
}

/// Takes a snapshot without what another compiler or an edit of the guest changes.
fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"section range .*", "section range …");
    settings.add_filter(r"it needed [\d.]+MiB", "it needed …MiB");
    settings.add_filter(r"lib\.rs:\d+:\d+", "lib.rs:LINE");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// The first line of the report of an attack.
fn reported(attack: &str) -> String {
    let sandbox = sandbox(attack);
    let text = sandbox.failed();
    assert!(!sandbox.path("out.csv").exists(), "{attack}: something was written");
    assert!(!text.contains("panicked at host/") && !text.contains("please report"), "{attack}: {text}");
    let line = text.lines().find(|line| line.contains("FAILED")).unwrap_or_else(|| panic!("{text}")).trim();
    let again = sandbox.failed();
    assert!(again.contains("FAILED"), "{attack}: a failure was stored as a result");
    line.replace("FAILED  evil · part 0  ", "").replace("the component broke the rules of the step world: ", "rule: ")
}

#[test]
fn a_tame_guest_passes() {
    let sandbox = sandbox("none");
    assert_eq!(sandbox.run(&[]).ran(), 1);
    assert_eq!(sandbox.read("out.csv"), "n,t\n0,a\n0,b\n0,c\n");
}

fn with_limits(sandbox: &Sandbox, fuel: &str, time: &str) {
    let pipeline = sandbox.read("pipeline.toml").replace("500M", fuel).replace("20s", time);
    sandbox.write("pipeline.toml", pipeline);
}

/// It cannot be stopped there, so it starts again where it can be, with the same result.
#[test]
fn a_guest_may_run_long_in_a_loop_without_calls() {
    let sandbox = sandbox("takes long");
    with_limits(&sandbox, "20G", "60s");
    let run = sandbox.run(&[]);
    assert_eq!(run.ran(), 1);
    assert_eq!(sandbox.read("out.csv"), "n,t\n0,a\n0,b\n0,c\n");
    let task = run.lines.iter().find(|line| line["event"] == "task-finished").unwrap();
    assert_eq!(task["log"].as_array().map(Vec::len), Some(1), "{task}");
    assert!(task["fuel"].as_u64().is_some_and(|fuel| fuel > 1_000_000_000 && fuel < 5_000_000_000), "{task}");
}

#[test]
fn a_plan_may_run_long_in_a_loop_without_calls() {
    let sandbox = sandbox("plan takes long");
    assert_eq!(sandbox.run(&[]).ran(), 1);
    assert_eq!(sandbox.read("out.csv"), "n,t\n0,a\n0,b\n0,c\n");
}

#[test]
fn a_guest_in_a_loop_without_calls_is_stopped_by_its_time_limit() {
    let sandbox = sandbox("loops");
    with_limits(&sandbox, "500G", "1s");
    let text = sandbox.failed();
    assert!(text.contains("longer than its 1.00 s"), "{text}");
}

#[test]
fn a_guest_in_a_loop_without_calls_is_stopped_by_an_interrupt() {
    let sandbox = sandbox("loops");
    with_limits(&sandbox, "900G", "500s");
    let mut command = sandbox.command(&["run", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("\"task-started\"")).unwrap();
    // Until it runs in the loop, where it cannot be stopped at once.
    std::thread::sleep(Duration::from_millis(20));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let last = lines.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(last.contains("\"ok\":false"), "{last}");
}

/// Tasks that run when another step fails are finished and stored, and are not reported as skipped.
#[test]
fn after_the_first_failure_nothing_begins_and_running_tasks_are_stored() {
    let sandbox = sandbox("loops");
    let others = r#"
[steps.mapped]
uses = "path:evil.wasm"
input = "rows"
params = { attack = "takes longer" }
limits = { fuel = "50G", time = "100s" }
[steps.model]
uses = "std:train-logistic"
input = "rows"
params = { label = "x", features = ["x"], epochs = 400000, validation = 0.0 }
[steps.after]
uses = "std:filter"
input = "mapped"
params = { where = "n >= 0" }
"#;
    let pipeline = sandbox.read("pipeline.toml").replace("[exports]\n\"out.csv\" = \"evil\"\n", others);
    sandbox.write("pipeline.toml", pipeline).write("rows.csv", "x\n0\n1\n1\n");
    let statuses = |arguments: &[&str]| {
        let run = Run::of(&sandbox.try_run(arguments));
        let lines = run.lines.iter().filter(|line| line["event"] == "task-finished");
        let word = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let mut statuses: Vec<_> = lines.map(|line| (word(line, "step"), word(line, "status"))).collect();
        statuses.sort();
        assert_eq!(run.total(), statuses.len() as u64);
        statuses
    };
    let owned =
        |statuses: [(&str, &str); 4]| statuses.map(|(step, status)| (step.to_owned(), status.to_owned())).to_vec();
    let stopped = [("after", "skipped"), ("evil", "failed"), ("mapped", "ran"), ("model", "ran")];
    assert_eq!(statuses(&["--jobs", "3", "--fail-fast"]), owned(stopped));
    let again = [("after", "ran"), ("evil", "failed"), ("mapped", "cached"), ("model", "cached")];
    assert_eq!(statuses(&[]), owned(again));
}

#[test]
fn every_attack_ends_as_a_failure_with_its_name() {
    let attacks = [
        "nothing",
        "fails",
        "traps",
        "panics",
        "loops",
        "recurses",
        "allocates",
        "logs without end",
        "too few values",
        "too many values",
        "claims a huge length",
        "claims nulls",
        "hides nulls",
        "short validity",
        "offsets on numbers",
        "fewer rows",
        "offsets beyond",
        "offsets backwards",
        "offsets negative",
        "offsets missing",
        "not utf-8",
        "cuts a character",
        "take beyond",
        "mask too short",
        "pass through from nowhere",
        "column before begin",
        "end before begin",
        "begins twice",
        "never ends",
        "column twice",
        "column unknown",
        "column missing",
        "second part",
        "output unknown",
        "input unknown",
        "blob into a table",
        "partial in map",
        "partial of nobody",
        "numbers of nobody",
        "declares what is planned",
        "reads a part that is not there",
        "reads a column that is not there",
        "reads rows that are not there",
        "reads rows beyond all numbers",
        "metric that is none",
        "huge part",
    ];
    let lines: Vec<String> = attacks.iter().map(|attack| format!("{attack}: {}", reported(attack))).collect();
    snapshot("every_attack_ends_as_a_failure_with_its_name", &lines.join("\n"));
}

#[test]
fn a_plan_that_lies_is_refused_before_anything_runs() {
    let attacks = [
        "plan panics",
        "plan loops",
        "plan reads what is not there",
        "plan passes what is not there",
        "plan changes a type",
        "plan repeats a column",
        "plan forgets an output",
        "plan works in rounds",
    ];
    let said = |attack: &&str| {
        let text = sandbox(attack).refused();
        let line = text.lines().find(|line| line.contains("cannot be used")).unwrap_or_else(|| panic!("{text}"));
        format!("{attack}: {}", line.trim_start_matches(['×', ' ', '│', 'e', 'r', 'o']).trim())
    };
    snapshot(
        "a_plan_that_lies_is_refused_before_anything_runs",
        &attacks.iter().map(said).collect::<Vec<_>>().join("\n"),
    );
}

/// A backtrace names the functions of the step.
#[test]
fn a_panic_is_reported_with_its_function() {
    let text = sandbox("panics").failed();
    assert!(text.contains("at the disco") && text.contains("at evil::Evil"), "{text}");
}

#[test]
fn what_is_no_step_is_refused() {
    let newer = {
        let (from, to) = (b"@0.4.0".as_slice(), b"@0.5.0");
        let mut bytes = evil().to_vec();
        let offsets: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
        offsets.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
        bytes
    };
    let half = evil()[..evil().len() / 2].to_vec();
    let cases: [(&str, Vec<u8>); 6] = [
        ("random bytes", vec![7; 1000]),
        ("nothing", Vec::new()),
        ("a core module", b"\0asm\x01\0\0\0".to_vec()),
        ("an empty component", wat::parse_str("(component)").unwrap()),
        ("half a component", half),
        ("another world version", newer),
    ];
    let mut lines = Vec::new();
    for (what, bytes) in cases {
        let sandbox = sandbox("none");
        sandbox.write("evil.wasm", bytes);
        let text = sandbox.refused();
        let from = text.find("`path:evil.wasm`").unwrap_or_else(|| panic!("{what}: {text}"));
        let message: Vec<&str> =
            text[from..].lines().take_while(|line| !line.contains("╭─")).map(|l| l.trim_matches(['│', ' '])).collect();
        lines.push(format!("{what}: {}", message.join(" ").trim()));
    }
    snapshot("what_is_no_step_is_refused", &lines.join("\n"));
}

/// A single task may not use more memory than all guests together.
#[test]
fn the_memory_of_the_run_bounds_a_single_task() {
    let run = sandbox("allocates").host(&["run", "--memory", "8MiB"]);
    assert!(run.code == 1 && run.stderr.contains("8MiB"), "{}", run.stderr);
    assert!(!run.stderr.contains("64MiB"), "{}", run.stderr);
    let run = sandbox("none").host(&["run", "--memory", "8MiB"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}
