//! Tasks in rounds: the result does not depend on the number of threads, and guests that break the
//! rules end as a failure with a name.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::sandbox::{Run, Sandbox, repository};

fn guest() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        millrace_plugin::build(&repository().join("tests/guests/rounds")).expect("the guest builds").component
    })
}

/// Parts of 32,768 rows, so that each is worth a guest of its own.
fn sandbox(parts: u32, params: &str, more: &str) -> Sandbox {
    let memory = if parts > 10 { 256 } else { 64 };
    let sandbox = Sandbox::with(&format!(
        r#"
[sources.rows]
path = "rows.csv"
part_rows = {PART}

[steps.sums]
uses = "path:rounds.wasm"
input = "rows"
params = {{ column = "x", {params} }}
limits = {{ memory = "{memory}MiB", fuel = "500M", time = "20s" }}
{more}
"#
    ));
    let lines: String = (0..rows(parts)).map(|row| format!("{}\n", f64::from(row) / 8.0)).collect();
    sandbox.write("rows.csv", format!("x\n{lines}")).write("rounds.wasm", guest());
    sandbox
}

const PART: u32 = 32_768;

/// The last part has seven rows less.
fn rows(parts: u32) -> u32 {
    parts * PART - 7
}

fn sums(sandbox: &Sandbox) -> Value {
    serde_json::from_str(&sandbox.read("sums.json")).unwrap()
}

const EXPORT: &str = "[exports]\n\"sums.json\" = \"sums.sums\"";

/// Fewer parts than there may be guests, as many, and more, so that guests have several.
#[test]
fn the_result_is_the_same_for_any_number_of_threads() {
    for parts in [1, 5, 32, 47] {
        let rows = rows(parts);
        let sandbox = sandbox(parts, "rounds = 20", EXPORT);
        let seen: Vec<(Value, Value)> = ["1", "2", "7", "100"]
            .into_iter()
            .map(|jobs| {
                let _ = std::fs::remove_dir_all(sandbox.path("store"));
                let run = sandbox.run(&["--jobs", jobs]);
                assert_eq!(run.ran(), 1);
                (run.last["outputs"].clone(), run.last["fuel"].clone())
            })
            .collect();
        assert!(seen.iter().all(|other| *other == seen[0]), "{parts} parts: {seen:?}");
        let exact = f64::from(rows) * f64::from(rows - 1) / 16.0;
        let found = sums(&sandbox);
        assert_eq!(found, json!([exact, 0.0, f64::from(rows - 1) / 8.0, f64::from(rows)]));
        assert_eq!(sandbox.run(&[]).cached(), 1);
    }
}

/// One guest cannot be stopped where it is, so all start again where they can be, with the same
/// result.
#[test]
fn a_guest_may_run_long_in_a_loop_without_calls() {
    for jobs in ["1", "2"] {
        let of = |params: &str| {
            let sandbox = sandbox(5, params, EXPORT);
            let pipeline = sandbox.read("pipeline.toml").replace("500M", "20G");
            sandbox.write("pipeline.toml", pipeline);
            let run = sandbox.run(&["--jobs", jobs]);
            (sums(&sandbox), run.last["fuel"].as_u64().unwrap())
        };
        let ((sums, fuel), (quick, _)) = (of("rounds = 2, attack = \"one takes long\""), of("rounds = 2"));
        assert_eq!(sums, quick);
        assert!(fuel > 300_000_000 && fuel < 2_000_000_000, "{fuel}");
    }
}

/// More tasks than there are slots, each of which needs all of its guests at once.
#[test]
fn many_tasks_in_rounds_do_not_block_each_other() {
    let sandbox = sandbox(
        32,
        "rounds = \"${matrix.rounds}\"",
        "matrix = { rounds = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21] }",
    );
    let run = sandbox.run(&["--jobs", "8"]);
    assert_eq!(run.ran(), 12);
}

#[test]
fn a_line_that_all_guests_log_is_logged_once() {
    let sandbox = sandbox(5, "rounds = 2", "");
    let run = sandbox.run(&[]);
    let log = run.lines.iter().find(|line| line["event"] == "task-finished").unwrap()["log"].clone();
    // Each guest logs it twice.
    assert_eq!(log.as_array().map(Vec::len), Some(2), "{log}");
}

#[test]
fn guests_that_do_not_agree_end_as_a_failure_with_its_name() {
    let said = |attack: &&str| {
        let sandbox = sandbox(3, &format!("attack = \"{attack}\""), "");
        let first = sandbox.failed();
        let line = first.lines().find(|line| line.contains("FAILED")).unwrap_or_else(|| panic!("{first}")).trim();
        assert!(!first.contains("please report"), "{attack}: {first}");
        assert!(sandbox.failed().contains("FAILED"), "{attack}: a failure was stored as a result");
        format!("{attack}: {}", line.replace("FAILED  sums  ", ""))
    };
    let attacks = [
        "one ends",
        "all end but one",
        "other length",
        "other reduction",
        "other round",
        "one fails",
        "one panics",
        "one loops",
        "partial",
        "much memory",
        "much fuel",
        "many numbers",
        "other metric",
        "other blob",
    ];
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"it needed [\d.]+MiB", "it needed …MiB");
    settings.add_filter(r"lib\.rs:\d+:\d+", "lib.rs:LINE");
    // If two guests fail by themselves, the first is reported.
    settings.add_filter(r"no, in part [12]", "no, in part 1 or 2");
    let lines = attacks.iter().map(said).collect::<Vec<_>>().join("\n");
    settings.bind(|| insta::assert_snapshot!(lines));
}

/// The error of a failed task, its fuel, and its duration in milliseconds.
fn failed(attack: &str, limits: [&str; 2]) -> (String, u64, f64) {
    let sandbox = sandbox(8, &format!("attack = \"{attack}\""), "");
    let pipeline = sandbox.read("pipeline.toml").replace("500M", limits[0]).replace("20s", limits[1]);
    sandbox.write("pipeline.toml", pipeline);
    let run = sandbox.try_run(&["--jobs", "1"]);
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let run = Run::of(&run);
    let task = run.lines.iter().find(|line| line["event"] == "task-finished").unwrap();
    (task["error"].to_string(), task["fuel"].as_u64().unwrap(), task["wall_ms"].as_f64().unwrap())
}

/// Eight guests, one after the other. The last guest to arrive at a meeting continues first, and of
/// guests that fail by themselves the first is reported: at most two fail.
#[test]
fn limits_are_those_of_the_task_and_a_failure_ends_the_others() {
    let (error, fuel, _) = failed("all loop", ["500M", "20s"]);
    assert!(error.contains("used up its fuel") && fuel < 1_100_000_000, "{error} {fuel}");
    let (error, _, wall) = failed("all loop", ["500G", "1s"]);
    assert!(error.contains("longer than its 1.00 s") && wall < 4_000.0, "{error} {wall}");
    // None of them runs long, and none meets another.
    let (error, _, _) = failed("alone", ["500G", "1s"]);
    assert!(error.contains("longer than its 1.00 s"), "{error}");
    let (error, fuel, _) = failed("one fails at once", ["500M", "20s"]);
    assert!(error.contains("no") && fuel < 600_000_000, "{error} {fuel}");
}

#[test]
fn blobs_may_be_left_to_the_first_guest() {
    let sandbox = sandbox(5, "attack = \"first blob\"", EXPORT);
    assert_eq!(sandbox.run(&[]).ran(), 1);
    assert_eq!(sums(&sandbox)[3], json!(f64::from(rows(5))));
}

/// A guest that waits for another checks the time limit.
#[test]
fn a_time_limit_ends_waiting_guests_too() {
    let sandbox = sandbox(3, "attack = \"one loops\"", "");
    let pipeline = sandbox.read("pipeline.toml").replace("500M", "500G").replace("20s", "500ms");
    sandbox.write("pipeline.toml", pipeline);
    let text = sandbox.failed();
    assert!(text.contains("it took longer than its 500.0 ms"), "{text}");
}
