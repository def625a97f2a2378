//! The diagnostics of invalid pipelines and data.

use crate::sandbox::Sandbox;

const GOOD: &str = r#"[sources.customers]
path = "customers.csv"

[steps.active]
uses = "std:filter"
input = "customers"
params = { where = "tenure > 12" }
"#;

fn sandbox(pipeline: &str) -> Sandbox {
    let sandbox = Sandbox::with(pipeline);
    sandbox.write("customers.csv", "name,tenure\nAda,3\nBob,30\n");
    sandbox
}

fn edited(from: &str, to: &str) -> String {
    let changed = GOOD.replace(from, to);
    assert_ne!(changed, GOOD, "`{from}` is not in the pipeline");
    sandbox(&changed).refused()
}

#[test]
fn the_unedited_pipeline_runs() {
    assert_eq!(sandbox(GOOD).run(&[]).ran(), 1);
}

#[test]
fn an_unknown_key_offers_the_nearest() {
    insta::assert_snapshot!(edited("input =", "inptu ="));
}

#[test]
fn an_unknown_step_offers_the_nearest() {
    insta::assert_snapshot!(edited("std:filter", "std:filtre"));
}

#[test]
fn an_unknown_column_offers_the_nearest_where_it_stands() {
    insta::assert_snapshot!(edited("tenure > 12", "tenur > 12"));
}

#[test]
fn a_wrong_type_is_shown_where_it_stands() {
    insta::assert_snapshot!(edited("tenure > 12", "tenure > 'a'"));
}

#[test]
fn a_type_that_the_data_do_not_have_is_shown_where_it_is_given() {
    insta::assert_snapshot!(edited("\"customers.csv\"\n", "\"customers.csv\"\ntypes = { name = \"int64\" }\n"));
}

#[test]
fn a_pipeline_that_is_no_text_is_told_with_its_line() {
    let sandbox = sandbox(GOOD);
    sandbox.write("pipeline.toml", [GOOD.as_bytes(), b"# \xff\n"].concat());
    insta::assert_snapshot!(sandbox.refused());
}

#[test]
fn an_unknown_source_offers_the_nearest() {
    insta::assert_snapshot!(edited("input = \"customers\"", "input = \"customer\""));
}

#[test]
fn a_param_of_a_wrong_type_says_what_is_needed() {
    insta::assert_snapshot!(edited("where = \"tenure > 12\"", "where = 12"));
}

#[test]
fn a_param_that_is_not_there_offers_the_nearest() {
    insta::assert_snapshot!(edited("where =", "wehre ="));
}

#[test]
fn a_param_out_of_range_says_the_range() {
    let pipeline =
        GOOD.replace("std:filter", "std:split").replace("where = \"tenure > 12\"", "key = \"name\", test = 1.5");
    insta::assert_snapshot!(sandbox(&pipeline).refused());
}

#[test]
fn a_cycle_is_shown_as_one() {
    let more = "\n[steps.again]\nuses = \"std:filter\"\ninput = \"active\"\nparams = { where = \"tenure > 1\" }\n";
    let pipeline = format!("{}{more}", GOOD.replace("input = \"customers\"", "input = \"again\""));
    insta::assert_snapshot!(sandbox(&pipeline).refused());
}

#[test]
fn two_of_a_name_are_both_shown() {
    let pipeline = GOOD.replace("[steps.active]", "[steps.customers]");
    insta::assert_snapshot!(sandbox(&pipeline).refused());
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    insta::assert_snapshot!(edited("path = \"customers.csv\"", "path = \"customers.csv"));
}

#[test]
fn a_missing_file_is_named() {
    insta::assert_snapshot!(edited("customers.csv", "nobody.csv"));
}

#[test]
fn an_input_that_is_not_connected_is_named() {
    insta::assert_snapshot!(edited("input = \"customers\"\n", ""));
}

#[test]
fn several_outputs_ask_which_one() {
    let pipeline = format!(
        "{}\n[steps.split]\nuses = \"std:split\"\ninput = \"active\"\nparams = {{ key = \"name\" }}\n\n[exports]\n\"a.csv\" = \"split\"\n",
        GOOD
    );
    insta::assert_snapshot!(sandbox(&pipeline).refused());
}

#[test]
fn all_errors_are_reported_together() {
    let pipeline = GOOD.replace("input =", "inptu =").replace("path =", "pth =");
    let text = sandbox(&pipeline).refused();
    assert_eq!(text.matches("unknown key").count(), 2, "{text}");
}

#[test]
fn params_that_cannot_be_set_are_refused() {
    let pipeline = format!("[params]\nrate = {{ default = 0.5, min = 0.0, max = 1.0 }}\n{GOOD}");
    let sandbox = sandbox(&pipeline);
    for set in ["rate=2", "rate=fast", "rte=0.1", "rate"] {
        assert_eq!(sandbox.host(&["run", "--set", set]).code, 2, "{set}");
    }
    assert_eq!(sandbox.host(&["run", "--set", "rate=0.25"]).code, 0);
}

#[test]
fn data_that_is_not_as_it_should_be_is_named_with_its_line() {
    let cases: [(&str, &[u8]); 6] = [
        ("ragged", b"name,tenure\nAda,3\nBob\n"),
        ("not UTF-8", b"name,tenure\nAda,3\nB\xffb,4\n"),
        ("empty", b""),
        ("no rows", b"name,tenure\n"),
        ("a header twice", b"name,name\n1,2\n"),
        ("an open quote", b"name,tenure\n\"Ada,3\n"),
    ];
    let mut said = Vec::new();
    for (what, bytes) in cases {
        let sandbox = sandbox(GOOD);
        sandbox.write("customers.csv", bytes);
        let text = sandbox.refused();
        let message: Vec<&str> = text.lines().take_while(|line| !line.contains("╭─")).collect();
        said.push(format!("{what}: {}", message.join(" ")));
    }
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_failure_in_the_data_names_step_part_column_and_row() {
    let pipeline = GOOD
        .replace("std:filter", "std:derive")
        .replace("where = \"tenure > 12\"", "columns = { n = \"cast(name as int64)\" }");
    let sandbox = sandbox(&format!("{pipeline}\n[exports]\n\"out.csv\" = \"active\"\n"));
    let text = sandbox.failed();
    assert!(
        text.contains("active · part 0  the text `Ada` is not an integer (column `n`, row 0 of the part)"),
        "{text}"
    );
    assert!(!sandbox.path("out.csv").exists());
}

#[test]
fn steps_after_a_failure_are_skipped_and_the_others_run() {
    let more = r#"
[steps.bad]
uses = "std:derive"
input = "customers"
params = { columns = { n = "cast(name as int64)" } }

[steps.behind]
uses = "std:filter"
input = "bad"
params = { where = "n > 1" }
"#;
    let sandbox = sandbox(&format!("{more}{GOOD}"));
    let outcome = sandbox.try_run(&[]);
    assert_eq!(outcome.code, 1);
    let run = crate::sandbox::Run::of(&outcome);
    let tasks = &run.last["tasks"];
    assert_eq!((&tasks["failed"], &tasks["skipped"], &tasks["ran"]), (&1.into(), &1.into(), &1.into()), "{}", run.last);
    assert_eq!(run.last["ok"], false);
}

/// A large file is not read if a name is misspelt.
#[test]
fn an_unknown_column_is_reported_before_the_source_is_read() {
    let pipeline = "[sources.s]\npath = \"in.csv\"\n[steps.f]\nuses = \"std:filter\"\ninput = \"s\"\nparams = { where = \"tenur > 1\" }\n";
    let sandbox = Sandbox::with(pipeline);
    // The second line is ragged, which a reader reports.
    sandbox.write("in.csv", "tenure,b\n1\n");
    let text = sandbox.refused();
    assert!(text.contains("did you mean `tenure`?") && !text.contains("fields"), "{text}");
    sandbox.write("pipeline.toml", pipeline.replace("tenur ", "tenure "));
    assert!(sandbox.refused().contains("1 fields, and the header has 2"));
}

/// Errors that do not depend on the rest of a file are reported before it is read, and no others.
#[test]
fn types_that_cannot_fit_are_reported_before_the_source_is_read() {
    let pipeline = |step: &str, path: &str| {
        format!(
            "[sources.s]\npath = \"{path}\"\n[sources.other]\npath = \"rows.ndjson\"\n[steps.f]\ninput = \"s\"\n{step}\n"
        )
    };
    let needs = |column: &str| format!("uses = \"std:normalise-fit\"\nparams = {{ columns = [\"{column}\"] }}");
    let sandbox = Sandbox::with("");
    sandbox.write("rows.ndjson", "{\"x\": 1}\n");
    // The third line is ragged, which a reader reports.
    sandbox.write("in.csv", "name,n,none\nAda,1,\n1\n");
    sandbox.write("pipeline.toml", pipeline(&needs("name"), "in.csv"));
    let text = sandbox.refused();
    assert!(text.contains("column `name` is utf8, but a number is needed") && !text.contains("fields"), "{text}");
    // A column of numbers may turn out to be text, and one without values may have any type.
    let upper = |column: &str| format!("uses = \"std:derive\"\nparams = {{ columns = {{ y = \"upper({column})\" }} }}");
    for step in [needs("n"), upper("n"), needs("none"), upper("none")] {
        sandbox.write("pipeline.toml", pipeline(&step, "in.csv"));
        let text = sandbox.refused();
        assert!(text.contains("the header has 3"), "{step}: {text}");
    }
    // Unless the pipeline declares the type.
    let typed = pipeline(&upper("n"), "in.csv\"\ntypes = { n = \"int64\" }\nformat = \"csv");
    sandbox.write("pipeline.toml", typed);
    let text = sandbox.refused();
    assert!(text.contains("upper") && !text.contains("fields"), "{text}");
}
