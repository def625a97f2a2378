//! Behaviour that needs connected steps: matrix, gathering, selections.

use crate::sandbox::Sandbox;

const MATRIX: &str = r#"
[sources.rows]
path = "rows.csv"

[steps.shift]
uses = "std:derive"
input = "rows"
matrix = { by = [1, 2], times = [1, 10] }
params = { columns = { z = "x * ${matrix.times} + ${matrix.by}" } }

[steps.kept]
uses = "std:filter"
input = "shift"
params = { where = "z > 12" }

[steps.best]
uses = "std:best"
inputs = { candidates = "kept.metrics[*]" }
params = { by = "rows_out" }

[exports]
"best.csv" = "kept[best]"
"one.csv" = "kept[by=1,times=10]"
"all-${matrix.by}-${matrix.times}.csv" = "shift"
"#;

#[test]
fn a_matrix_is_expanded_and_gathered_and_a_selection_picks_one_instance() {
    let sandbox = Sandbox::with(MATRIX);
    sandbox.write("rows.csv", "x\n1\n2\n3\n");
    let run = sandbox.run(&[]);
    assert_eq!(run.total(), 4 + 4 + 1);
    assert_eq!(sandbox.read("one.csv"), "x,z\n2,21\n3,31\n");
    // Of equal instances the first is selected: by=1 before by=2.
    assert_eq!(sandbox.read("best.csv"), "x,z\n2,21\n3,31\n");
    assert_eq!(sandbox.read("all-2-1.csv"), "x,z\n1,3\n2,4\n3,5\n");
    assert_eq!(run.last["metrics"]["best"]["rows_out"], 2.0);
}

/// Columns of all forms cross into guests in blocks; masks and texts return as a whole.
#[test]
fn parts_of_several_blocks_are_read_to_their_last_row() {
    let sandbox = Sandbox::with(
        r#"
[sources.rows]
path = "rows.csv"

[steps.kept]
uses = "std:filter"
input = "rows"
params = { where = "n is null or n % 3 <> 0" }

[steps.made]
uses = "std:derive"
input = "kept"
params = { keep = false, columns = { n = "n", t = "concat(t, '!')", b = "not b", i = "i" } }

[steps.found]
uses = "std:encode-fit"
input = "kept"
params = { columns = ["t"] }

[steps.coded]
uses = "std:encode"
inputs = { input = "kept", categories = "found" }
params = { columns = ["t"] }

[exports]
"made.csv" = "made"
"coded.csv" = "coded"
"#,
    );
    // The rows end neither with a block nor with a byte of bits, and nulls occur in some blocks
    // only.
    let rows = 50_003;
    let empty = |row: usize, one_in: usize| row % one_in == 1 && !(16_000..33_000).contains(&row);
    let n = |row: usize| if empty(row, 11) { String::new() } else { row.to_string() };
    let t = |row: usize| if empty(row, 7) { String::new() } else { format!("t{}", row % 5) };
    let b = |row: usize| if empty(row, 13) { None } else { Some(row.is_multiple_of(4)) };
    let text = |b: Option<bool>| b.map_or(String::new(), |b| b.to_string());
    let lines = |line: &dyn Fn(usize) -> String| (0..rows).map(line).collect::<String>();
    sandbox.write(
        "rows.csv",
        format!("n,t,b,i\n{}", lines(&|row| format!("{},{},{},{row}\n", n(row), t(row), text(b(row))))),
    );
    sandbox.run(&[]);
    let is_kept = |row: usize| n(row).is_empty() || !row.is_multiple_of(3);
    let of_kept = |line: &dyn Fn(usize) -> String| (0..rows).filter(|row| is_kept(*row)).map(line).collect::<String>();
    let ended = |row: usize| if t(row).is_empty() { String::new() } else { t(row) + "!" };
    let made = of_kept(&|row| format!("{},{row},{},{}\n", text(b(row).map(|b| !b)), n(row), ended(row)));
    assert!(sandbox.read("made.csv") == format!("b,i,n,t\n{made}"));
    let code = |row: usize| t(row).trim_start_matches('t').to_owned();
    let coded = of_kept(&|row| format!("{},{},{},{row}\n", n(row), code(row), text(b(row))));
    assert!(sandbox.read("coded.csv") == format!("n,t,b,i\n{coded}"));
}

#[test]
fn an_additional_matrix_value_runs_only_its_instances() {
    let sandbox = Sandbox::with(MATRIX);
    sandbox.write("rows.csv", "x\n1\n2\n3\n");
    sandbox.run(&[]);
    sandbox.write("pipeline.toml", MATRIX.replace("by = [1, 2]", "by = [1, 2, 3]"));
    let run = sandbox.run(&[]);
    assert_eq!(run.ran(), 2 + 2 + 1);
}

#[test]
fn categories_that_are_known_at_run_time_are_checked_at_run_time() {
    let pipeline = r#"
[sources.rows]
path = "rows.csv"
[steps.categories]
uses = "std:encode-fit"
input = "rows"
params = { columns = ["c"] }
[steps.encoded]
uses = "std:encode"
inputs = { input = "rows", categories = "categories" }
params = { columns = ["c"], method = "one-hot", drop_first = false }
[steps.behind]
uses = "std:derive"
input = "encoded"
params = { columns = { s = "\"c=a\" + \"c=b\"" } }
[exports]
"out.csv" = "behind"
"#;
    let sandbox = Sandbox::with(pipeline);
    sandbox.write("rows.csv", "c,x\na,1\nb,2\na,3\n");
    sandbox.run(&[]);
    assert_eq!(sandbox.read("out.csv"), "x,c=a,c=b,s\n1,1.0,0.0,1.0\n2,0.0,1.0,1.0\n3,1.0,0.0,1.0\n");
    sandbox.write("pipeline.toml", pipeline.replace("c=b", "c=z"));
    let text = sandbox.failed();
    assert!(text.contains("there is no column `c=z`") && text.contains("did you mean"), "{text}");
}

/// A mask selects rows, and the host gathers the columns that were not read.
#[test]
fn a_filter_after_a_filter_keeps_the_matching_rows() {
    let pipeline = r#"
[sources.rows]
path = "rows.csv"
part_rows = 4
[steps.a]
uses = "std:filter"
input = "rows"
params = { where = "x % 2 = 0" }
[steps.b]
uses = "std:filter"
input = "a"
params = { where = "t like '%1%'" }
[exports]
"out.csv" = "b"
"#;
    let sandbox = Sandbox::with(pipeline);
    let rows: String = (0..20).map(|i| format!("{i},t{i},{}\n", if i % 3 == 0 { "" } else { "v" })).collect();
    sandbox.write("rows.csv", format!("x,t,v\n{rows}"));
    sandbox.run(&[]);
    assert_eq!(sandbox.read("out.csv"), "x,t,v\n10,t10,v\n12,t12,\n14,t14,v\n16,t16,v\n18,t18,\n");
}

/// Small components compile and transfer fast. Steps with expressions, hashes of rows or groups are
/// larger.
#[test]
fn a_numeric_step_has_less_than_300_kb() {
    let large = ["derive", "filter", "group", "join", "missing", "select"];
    let mut seen = 0;
    for entry in std::fs::read_dir(crate::sandbox::components()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let size = path.metadata().unwrap().len();
        let max = if large.contains(&name) { 760_000 } else { 300_000 };
        assert!(size < max, "{name} has {size} bytes");
        seen += 1;
    }
    assert!(seen >= 17, "{seen} components");
}

/// In the sandbox as in the tests of the step: NaN and missing values are never extremes, in any
/// order and division of the rows into parts, and the first of equal values stays.
#[test]
fn extremes_of_groups_ignore_nan_and_missing_values() {
    let pipeline = "[sources.s]\npath = \"in.csv\"\npart_rows = ROWS\ntypes = { v = \"float64\" }\n
[steps.g]\nuses = \"std:group\"\ninput = \"s\"
params = { by = [\"k\"], columns = { lo = \"min(v)\", hi = \"max(v)\" } }\n[exports]\n\"out.csv\" = \"g\"\n";
    let cases = [
        ("5||7", "5.0,7.0"),
        ("2|", "2.0,2.0"),
        ("|2", "2.0,2.0"),
        ("2|nan", "2.0,2.0"),
        ("nan|2|nan|1", "1.0,2.0"),
        ("nan|nan", ","),
        ("0|-0", "0.0,0.0"),
        ("-0|0", "-0.0,-0.0"),
        ("inf|-inf|nan", "-inf,inf"),
        ("|", ","),
    ];
    for rows in [1, 2, 100] {
        let sandbox = Sandbox::with(&pipeline.replace("ROWS", &rows.to_string()));
        let group = |(k, (values, _)): (usize, &(&str, &str))| {
            values.split('|').map(|value| format!("{k},{value}\n")).collect::<String>()
        };
        sandbox.write("in.csv", format!("k,v\n{}", cases.iter().enumerate().map(group).collect::<String>()));
        sandbox.run(&[]);
        let out = sandbox.read("out.csv");
        assert_eq!(out.lines().next(), Some("k,hi,lo"));
        for (line, (k, (values, expected))) in out.lines().skip(1).zip(cases.iter().enumerate()) {
            let (low, high) = expected.split_once(',').expect("two");
            assert_eq!(line, format!("{k},{high},{low}"), "{values} in parts of {rows}");
        }
        assert_eq!(out.lines().count(), 1 + cases.len());
    }
}

/// A table without rows has no partners, and its columns are missing values.
#[test]
fn a_join_with_an_empty_table_succeeds() {
    let sandbox = Sandbox::with(
        r#"
[sources.left]
path = "left.csv"

[sources.right]
path = "right.csv"
types = { k = "int64", x = "float64" }
allow_empty = true

[steps.all]
uses = "std:join"
inputs = { input = "left", table = "right" }
params = { on = ["k"] }

[steps.both]
uses = "std:join"
inputs = { input = "left", table = "right" }
params = { on = ["k"], how = "inner" }

[steps.sums]
uses = "std:group"
input = "all"
params = { by = ["name"], columns = { n = "count(x)" } }

[exports]
"all.csv" = "all"
"both.csv" = "both"
"sums.csv" = "sums"
"#,
    );
    sandbox.write("left.csv", "k,v\n1,a\n2,b\n");
    sandbox.write("right.csv", "k,name,x\n");
    sandbox.run(&[]);
    assert_eq!(sandbox.read("all.csv"), "k,v,name,x\n1,a,,\n2,b,,\n");
    assert_eq!(sandbox.read("both.csv"), "k,v,name,x\n");
    assert_eq!(sandbox.read("sums.csv"), "name,n\n,0\n");
}
