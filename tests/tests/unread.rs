//! Columns that no step reads: not decoded, not stored, and available for display and export.

use crate::sandbox::Sandbox;

const ROWS: usize = 400;

/// Eight row groups would be one part each; here there are two parts of one group.
const PIPELINE: &str = "[sources.s]\npath = \"in.EXT\"\npart_rows = 200\n
[steps.f]\nuses = \"std:filter\"\ninput = \"s\"\nparams = { where = \"a % 2 = 0\" }
[steps.d]\nuses = \"std:derive\"\ninput = \"f\"\nparams = { columns = { twice = \"a * 2\" } }\n";

/// Incompressible text.
fn noise(row: usize) -> String {
    let number = |word: u64| (row as u64 * 8 + word + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    (0..8).map(|word| format!("{:016x}", number(word).wrapping_mul(0xBF58_476D_1CE4_E5B9))).collect()
}

/// A file of three columns, `a` from 0 and two of text; nearly all of its bytes are those of `b`.
fn with_file(extension: &str) -> Sandbox {
    let sandbox = Sandbox::with(&PIPELINE.replace("EXT", extension));
    let rows: String = (0..ROWS).map(|row| format!("{row},{},c{row}\n", noise(row))).collect();
    sandbox.write("in.csv", format!("a,b,c\n{rows}"));
    if extension == "csv" {
        return sandbox;
    }
    let make = format!("[sources.s]\npath = \"in.csv\"\n[exports]\n\"in.{extension}\" = \"s\"\n");
    sandbox.write("make.toml", make).run(&["make.toml"]);
    std::fs::remove_dir_all(sandbox.path("store")).expect("a store");
    sandbox
}

/// Corrupts bytes of `b`, in the middle of the file.
fn corrupt(sandbox: &Sandbox, extension: &str) {
    let name = format!("in.{extension}");
    let mut bytes = std::fs::read(sandbox.path(&name)).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 256].fill(0xff);
    sandbox.write(&name, bytes);
}

/// The digest of an output, by the last line of a run.
fn digest(sandbox: &Sandbox, step: &str, port: &str) -> String {
    let run = sandbox.run(&[]);
    run.last["outputs"][step][port].as_str().expect("a digest").to_owned()
}

#[test]
fn a_column_that_no_step_reads_is_never_decoded() {
    for extension in ["parquet", "arrow"] {
        let sandbox = with_file(extension);
        corrupt(&sandbox, extension);
        assert_eq!(sandbox.run(&[]).ran(), 4, "{extension}");
        // It is corrupt, which is reported when it is read for display.
        let shown = sandbox.host(&["show", "d"]);
        assert_eq!(shown.code, 1, "{extension}: {}", shown.stdout);
        sandbox.write("more.toml", format!("{}[exports]\n\"out.csv\" = \"d\"\n", sandbox.read("pipeline.toml")));
        assert_ne!(sandbox.try_run(&["more.toml"]).code, 0, "{extension}");
        sandbox.write("only.toml", "[sources.s]\npath = \"in.EXT\"\ncolumns = [\"b\"]\n".replace("EXT", extension));
        assert_eq!(sandbox.run(&["only.toml"]).total(), 0, "{extension}: a source that no step reads");
    }
}

#[test]
fn an_unread_column_can_be_shown_and_exported() {
    for extension in ["parquet", "arrow", "csv", "ndjson"] {
        let sandbox = with_file(extension);
        sandbox.run(&[]);
        let shown = sandbox.host(&["show", "d", "--rows", "150", "--json"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
        let row =
            |row: usize| serde_json::json!([row.to_string(), noise(row), format!("c{row}"), (row * 2).to_string()]);
        assert_eq!(shown["head"][149], row(298), "{extension}");
        assert_eq!(shown["head"][1], row(2), "{extension}");
        let written = sandbox.host(&["show", "d", "--export", "out.csv"]);
        assert_eq!(written.code, 0, "{}", written.stderr);
        assert_eq!(sandbox.read("out.csv").lines().nth(200), Some(&*format!("398,{},c398,796", noise(398))));
    }
}

/// As long as its file is there. Computed columns are in the store in any case.
#[test]
fn it_is_gone_with_its_file() {
    let sandbox = with_file("parquet");
    sandbox.run(&[]);
    std::fs::rename(sandbox.path("in.parquet"), sandbox.path("other.parquet")).expect("a file");
    let shown = sandbox.host(&["show", "d"]);
    assert_eq!(shown.code, 1, "{}", shown.stdout);
    insta::assert_snapshot!(sandbox.clean(&shown.stderr));
    // It is searched at the paths that its record has.
    sandbox.write("pipeline.toml", PIPELINE.replace("in.EXT", "other.parquet"));
    assert_eq!(sandbox.run(&[]).cached(), 4);
    assert_eq!(sandbox.host(&["show", "d"]).code, 0);
    sandbox.write("other.parquet", "something else");
    let shown = sandbox.host(&["show", "d"]);
    assert!(shown.stderr.contains("`b`") && shown.stderr.contains("has changed"), "{}", shown.stderr);
}

/// Digests of outputs follow from the pipeline and the file, not from the content of the store.
#[test]
fn results_do_not_depend_on_what_was_read_before() {
    for extension in ["parquet", "csv", "ndjson"] {
        check_independence(extension);
    }
}

fn check_independence(extension: &str) {
    let sandbox = with_file(extension);
    let first = digest(&sandbox, "d", "output");
    let more = PIPELINE.replace("EXT", extension)
        + "[steps.lower]\nuses = \"std:derive\"\ninput = \"s\"\nparams = { columns = { l = \"concat(b, '-')\" } }\n";
    sandbox.write("more.toml", more);
    let run = sandbox.run(&["more.toml"]);
    // The columns that `f` and `d` read are unchanged: only the step that reads `b` runs.
    assert_eq!((run.steps_that_ran(), run.cached()), (vec!["lower".to_owned()], 4));
    let read = run.lines.iter().find(|line| line["event"] == "source-finished").expect("its source");
    assert_eq!(read["status"], "ran", "`b` was read in addition");
    // A change without an effect makes the run schedule instead of replaying its trace.
    sandbox.write("pipeline.toml", PIPELINE.replace("EXT", extension) + "# again\n");
    let again = sandbox.run(&[]);
    assert_eq!((again.ran(), again.cached()), (0, 4));
    assert_eq!(again.last["outputs"]["d"]["output"].as_str(), Some(first.as_str()));
    // Under another name it has no index of its own, and finds the columns that the other pipeline
    // has read.
    sandbox.write("other.toml", PIPELINE.replace("EXT", extension));
    let other = sandbox.run(&["other.toml"]);
    assert_eq!(other.last["outputs"]["d"]["output"].as_str(), Some(first.as_str()));
    let read = again.lines.iter().find(|line| line["event"] == "source-finished").expect("its source");
    assert_eq!(read["status"], "cached");
}

/// A pipeline that reads an additional column reads it once.
#[test]
fn an_additional_column_is_read_once() {
    let sandbox = with_file("parquet");
    let lower =
        "[steps.lower]\nuses = \"std:derive\"\ninput = \"s\"\nparams = { columns = { l = \"concat(b, '-')\" } }\n";
    let less = PIPELINE.replace("EXT", "parquet");
    let status = |pipeline: &str| {
        let run = sandbox.write("pipeline.toml", pipeline).run(&[]);
        let read = run.lines.iter().find(|line| line["event"] == "source-finished").expect("its source");
        read["status"].as_str().expect("a status").to_owned()
    };
    assert_eq!(status(&less), "ran");
    assert_eq!(status(&format!("{less}{lower}")), "ran");
    assert_eq!(status(&format!("{less}{lower}# again\n")), "cached");
    assert_eq!(status(&less), "cached");
}

/// All columns are needed where only the run knows the schema: `encode` adds a column for each
/// value.
#[test]
fn all_columns_are_read_before_a_schema_of_the_run() {
    let sandbox = with_file("parquet");
    let pipeline = "[sources.s]\npath = \"in.parquet\"\n
[steps.fit]\nuses = \"std:encode-fit\"\ninput = \"s\"\nparams = { columns = [\"c\"] }
[steps.e]\nuses = \"std:encode\"\ninputs = { input = \"s\", categories = \"fit\" }\nparams = { columns = [\"c\"], method = \"one-hot\" }
[steps.f]\nuses = \"std:filter\"\ninput = \"e\"\nparams = { where = \"b <> ''\" }\n";
    sandbox.write("pipeline.toml", pipeline);
    let run = sandbox.try_run(&[]);
    assert!(run.code == 0, "{}", run.stdout);
}

/// The same content under several paths: available as long as one of them exists.
#[test]
fn a_removed_copy_of_a_source_does_not_matter() {
    let sandbox = with_file("parquet");
    let pipeline = PIPELINE.replace("EXT", "parquet");
    sandbox.write("x/p.toml", &pipeline).write("y/p.toml", &pipeline);
    for folder in ["x", "y"] {
        std::fs::copy(sandbox.path("in.parquet"), sandbox.path(folder).join("in.parquet")).expect("a copy");
    }
    sandbox.run(&["x/p.toml"]);
    assert_eq!(sandbox.run(&["y/p.toml"]).ran(), 0);
    std::fs::remove_file(sandbox.path("y/in.parquet")).expect("a file");
    let shown = sandbox.host(&["show", "d", "--pipeline", "x/p.toml"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
}

/// A run ensures that the records that `show` needs exist.
#[test]
fn a_run_restores_the_records_that_show_needs() {
    let sandbox = with_file("parquet");
    sandbox.run(&[]);
    std::fs::remove_dir_all(sandbox.path("store/sources")).expect("the sources of the store");
    assert_eq!(sandbox.host(&["show", "d"]).code, 1);
    sandbox.run(&[]);
    let shown = sandbox.host(&["show", "d"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
}

/// A file with corruption anywhere is read, or its error is reported.
#[test]
fn corrupt_files_are_reported() {
    for extension in ["parquet", "arrow"] {
        let sandbox = with_file(extension);
        let name = format!("in.{extension}");
        let intact = std::fs::read(sandbox.path(&name)).expect("the file");
        let mut state = 88_172_645_463_325_252_u64;
        for _ in 0..60 {
            let mut bytes = intact.clone();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Half of them in the metadata of the files.
                let size = if state.is_multiple_of(2) { bytes.len() } else { 1200.min(bytes.len()) };
                let offset = bytes.len() - 1 - (state >> 8) as usize % size;
                bytes[offset] ^= (state >> 40) as u8 | 1;
            }
            sandbox.write(&name, &bytes);
            let run = sandbox.host(&["run"]);
            // A step may fail at the values that it reads then.
            assert!(matches!(run.code, 0..=2), "{}", run.stderr);
            if run.code == 0 {
                let shown = sandbox.host(&["show", "d", "--export", "out.csv"]);
                assert!(matches!(shown.code, 0 | 1), "{}", shown.stderr);
            }
        }
    }
}

/// Bytes of all packs of the store.
fn packs(sandbox: &Sandbox) -> u64 {
    let folders = std::fs::read_dir(sandbox.path("store/packs")).expect("packs").flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
    files.map(|file| file.metadata().expect("a file").len()).sum()
}

/// Nearly all bytes are those of `b`, which is stored when it is first displayed.
#[test]
fn text_that_no_step_reads_is_not_stored() {
    for (extension, other) in [("csv", "a,b,c\n1,2,3\n"), ("ndjson", "{\"a\":1}\n")] {
        let sandbox = with_file(extension);
        assert_eq!(sandbox.run(&[]).ran(), 4);
        assert!(packs(&sandbox) < 20_000, "{extension}: {}", packs(&sandbox));
        assert_eq!(sandbox.host(&["show", "d"]).code, 0);
        assert!(packs(&sandbox) > 50_000, "{extension}: {}", packs(&sandbox));
        sandbox.write(&format!("in.{extension}"), other);
        let shown = sandbox.host(&["show", "s"]);
        assert_ne!(shown.code, 0, "{}", shown.stdout);
    }
}

/// The type of a column is that of all its values, even if no step reads it and the beginning of
/// the file suggests another; the results of a run do not depend on earlier runs.
#[test]
fn the_types_of_a_text_file_are_those_of_all_its_rows() {
    let late = |kind: &str, late: &str| {
        let value = |row: usize| if row < 1500 { kind.replace('#', &row.to_string()) } else { late.to_owned() };
        let rows: String = (0..2000).map(|row| format!("{row},{},{}\n", value(row), row % 7)).collect();
        let sandbox = Sandbox::with(&PIPELINE.replace("EXT", "csv").replace("part_rows = 200", "part_rows = 600"));
        sandbox.write("in.csv", format!("a,b,c\n{rows}"));
        sandbox
    };
    let cases = [
        ("#", "1.5", "float64"),
        ("#", "x", "utf8"),
        ("", "7", "int64"),
        ("#.5", "1e400", "utf8"),
        ("2020-01-01", "2020-01-01T10:00:00", "timestamp[us]"),
        ("2020-01-01", "7", "utf8"),
        ("true", "7", "utf8"),
        ("\"#\"", "0.25", "float64"),
        ("x", "é", "utf8"),
    ];
    for (kind, value, expected) in cases {
        let sandbox = late(kind, value);
        let first = digest(&sandbox, "d", "output");
        let schema = |sandbox: &Sandbox| {
            let shown = sandbox.host(&["show", "d", "--json"]);
            let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
            shown["schema"].clone()
        };
        assert!(
            schema(&sandbox).to_string().contains(&format!("\"{expected}\"")),
            "{} {kind} {value}",
            schema(&sandbox)
        );
        // Known by now, and with a changed pipeline file, so that no trace is replayed.
        sandbox.write("pipeline.toml", format!("{}# again\n", sandbox.read("pipeline.toml")));
        let run = sandbox.run(&[]);
        assert_eq!((run.ran(), run.last["outputs"]["d"]["output"].as_str()), (0, Some(&*first)), "{kind} {value}");
        // With all columns read, the schema is the same.
        let all = late(kind, value);
        all.write("pipeline.toml", format!("{}[exports]\n\"out.csv\" = \"d\"\n", all.read("pipeline.toml")));
        all.run(&[]);
        assert_eq!(schema(&all), schema(&sandbox), "{kind} {value}");
    }
}

/// A lost pack is rewritten unchanged, with the columns that are not needed now: other records
/// refer to it, too.
#[test]
fn a_lost_pack_of_a_source_is_rewritten_unchanged() {
    for extension in ["csv", "ndjson", "parquet"] {
        let sandbox = with_file(extension);
        let less = PIPELINE.replace("EXT", extension);
        let more =
            format!("{less}[steps.g]\nuses = \"std:filter\"\ninput = \"s\"\nparams = {{ where = \"c <> 'c7'\" }}\n");
        sandbox.write("more.toml", &more).run(&["more.toml"]);
        sandbox.run(&[]);
        let shown = |step: &str, pipeline: &str| {
            let shown = sandbox.host(&["show", step, "--json", "--pipeline", pipeline]);
            assert_eq!(shown.code, 0, "{extension}: {}", shown.stderr);
            shown.stdout
        };
        let before = (shown("d", "pipeline.toml"), shown("g", "more.toml"));
        for folder in std::fs::read_dir(sandbox.path("store/packs")).expect("packs").flatten() {
            std::fs::remove_dir_all(folder.path()).expect("a folder");
        }
        sandbox.run(&[]);
        assert_eq!(shown("d", "pipeline.toml"), before.0, "{extension}");
        sandbox.run(&["more.toml"]);
        assert_eq!(shown("g", "more.toml"), before.1, "{extension}");
        assert_eq!(shown("d", "pipeline.toml"), before.0, "{extension}");
    }
}

/// `predict` may read every numeric column: one whose numbers come late is one of them.
#[test]
fn a_column_that_turns_out_to_be_needed_is_read() {
    let pipeline = "[sources.s]\npath = \"in.csv\"\n
[steps.train]\nuses = \"std:train-logistic\"\ninput = \"s\"\nparams = { label = \"y\", features = [\"x\"] }
[steps.p]\nuses = \"std:predict\"\ninputs = { table = \"s\", model = \"train.model\" }
params = { exclude = [\"y\"] }\n";
    let sandbox = Sandbox::with(pipeline);
    let write = |more: usize| {
        let number = |row: usize| if row < 1500 { String::new() } else { (row + more).to_string() };
        let rows: String = (0..2000).map(|row| format!("{row},{},{}\n", row % 2, number(row))).collect();
        sandbox.write("in.csv", format!("x,y,late\n{rows}"));
    };
    write(0);
    let first = digest(&sandbox, "p", "output");
    sandbox.write("pipeline.toml", format!("{pipeline}# again\n"));
    let run = sandbox.run(&[]);
    assert_eq!((run.ran(), run.last["outputs"]["p"]["output"].as_str()), (0, Some(&*first)));
    write(1);
    assert_eq!(sandbox.run(&[]).steps_that_ran(), ["p"], "it may read `late`");
}

/// The columns of NDJSON are known once all lines are read, and the beginning allows only a guess:
/// the results of a run do not depend on it.
#[test]
fn the_columns_of_an_ndjson_file_are_those_of_all_lines() {
    let late = |members: &str| {
        let more = |row: usize| if row < 1500 { "\"c\":1" } else { members };
        let rows: String = (0..2000).map(|row| format!("{{\"a\":{row},\"b\":\"x{row}\",{}}}\n", more(row))).collect();
        let sandbox = Sandbox::with(&PIPELINE.replace("EXT", "ndjson").replace("part_rows = 200", "part_rows = 600"));
        sandbox.write("in.ndjson", rows);
        sandbox
    };
    for members in ["\"c\":2", "\"c\":2.5", "\"c\":null", "\"c\":3,\"0\":true", "\"z\":{\"q\":1}"] {
        let sandbox = late(members);
        if members.contains('{') {
            // No step reads it, and it cannot be a column.
            assert!(sandbox.refused().contains("column `z` is an object here"));
            continue;
        }
        let first = digest(&sandbox, "d", "output");
        sandbox.write("pipeline.toml", format!("{}# again\n", sandbox.read("pipeline.toml")));
        let run = sandbox.run(&[]);
        assert_eq!((run.ran(), run.last["outputs"]["d"]["output"].as_str()), (0, Some(&*first)), "{members}");
        let schema = |sandbox: &Sandbox| {
            let shown = sandbox.host(&["show", "d", "--json"]);
            assert_eq!(shown.code, 0, "{}", shown.stderr);
            serde_json::from_str::<serde_json::Value>(&shown.stdout).expect("JSON")["schema"].clone()
        };
        let all = late(members);
        all.write("pipeline.toml", format!("{}[exports]\n\"out.csv\" = \"d\"\n", all.read("pipeline.toml")));
        all.run(&[]);
        assert_eq!(schema(&all), schema(&sandbox), "{members}");
    }
    // A step may read a column that the beginning does not have; a column that no line has is
    // reported.
    let sandbox = late("\"zed\":7");
    let pipeline = sandbox.read("pipeline.toml").replace("a * 2", "zed * 2");
    assert_eq!(sandbox.write("pipeline.toml", &pipeline).run(&[]).total(), 8);
    sandbox.write("pipeline.toml", pipeline.replace("zed * 2", "zet * 2"));
    assert!(sandbox.refused().contains("did you mean `zed`?"), "{}", sandbox.refused());
}

/// `types` mean the same in every format, and never lose data.
#[test]
fn given_types_are_applied_or_are_errors() {
    for extension in ["parquet", "arrow", "csv"] {
        let sandbox = with_file(extension);
        let source =
            |more: &str| format!("[sources.s]\npath = \"in.{extension}\"\n{more}\n[exports]\n\"out.csv\" = \"s\"\n");
        sandbox.write("pipeline.toml", source("columns = [\"a\"]\nwhere = \"a = '7'\"\ntypes = { a = \"utf8\" }"));
        sandbox.run(&[]);
        assert_eq!(sandbox.read("out.csv"), "a\n7\n", "{extension}");
        sandbox.write("pipeline.toml", source("types = { c = \"int64\" }"));
        assert!(sandbox.refused().contains("column `c`"), "{extension}");
        sandbox.write("pipeline.toml", source("types = { zz = \"int64\" }"));
        assert!(sandbox.refused().contains("has no column `zz`"), "{extension}");
    }
}
