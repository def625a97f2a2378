//! Sources and exports through the command line: formats, globs, columns and rows that are selected
//! while reading.

use crate::sandbox::Sandbox;

fn exported(pipeline: &str, files: &[(&str, &str)]) -> String {
    let sandbox = Sandbox::with(pipeline);
    for (name, content) in files {
        sandbox.write(name, content);
    }
    sandbox.run(&[]);
    sandbox.read("out.csv")
}

#[test]
fn a_glob_reads_files_by_name_each_as_a_part() {
    let pipeline = "[sources.s]\npath = \"in/*.csv\"\n[exports]\n\"out.csv\" = \"s\"\n";
    let files = [("in/b.csv", "x\n3\n"), ("in/a.csv", "x\n1\n2\n"), ("in/c.txt", "no"), ("in/sub/d.csv", "x\n9\n")];
    assert_eq!(exported(pipeline, &files), "x\n1\n2\n3\n");
}

#[test]
fn columns_and_where_apply_while_reading() {
    let pipeline =
        "[sources.s]\npath = \"in.csv\"\ncolumns = [\"b\"]\nwhere = \"a > 1\"\n[exports]\n\"out.csv\" = \"s\"\n";
    assert_eq!(exported(pipeline, &[("in.csv", "a,b,c\n1,x,0\n2,y,0\n3,z,0\n")]), "b\ny\nz\n");
}

#[test]
fn missing_texts_and_types_are_those_of_the_pipeline() {
    let pipeline = "[sources.s]\npath = \"in.csv\"\nmissing = [\"NA\", \"-\"]\ntypes = { a = \"float64\", b = \"utf8\" }\n[exports]\n\"out.csv\" = \"s\"\n";
    assert_eq!(exported(pipeline, &[("in.csv", "a,b\n1,7\nNA,-\n")]), "a,b\n1.0,7\n,\n");
}

#[test]
fn every_format_is_written_and_read_again() {
    for extension in ["csv", "ndjson", "parquet", "arrow"] {
        let sandbox = Sandbox::with(&format!(
            "[sources.s]\npath = \"in.csv\"\n[steps.f]\nuses = \"std:filter\"\ninput = \"s\"\nparams = {{ where = \"a <> 2\" }}\n[exports]\n\"mid.{extension}\" = \"f\"\n"
        ));
        sandbox.write("in.csv", "a,t,f\n1,\"x, y\",0.5\n2,,1\n3,z,\n");
        sandbox.run(&[]);
        sandbox
            .write("second.toml", format!("[sources.s]\npath = \"mid.{extension}\"\n[exports]\n\"out.csv\" = \"s\"\n"));
        sandbox.run(&["second.toml"]);
        let mut expected = "a,t,f\n1,\"x, y\",0.5\n3,z,\n";
        if extension == "ndjson" {
            expected = "a,f,t\n1,0.5,\"x, y\"\n3,,z\n";
        }
        assert_eq!(sandbox.read("out.csv"), expected, "{extension}");
    }
}

#[test]
fn a_current_export_is_not_written_again() {
    let sandbox = Sandbox::with("[sources.s]\npath = \"in.csv\"\n[exports]\n\"out/x.csv\" = \"s\"\n");
    sandbox.write("in.csv", "a\n1\n");
    sandbox.run(&[]);
    let modified = || std::fs::metadata(sandbox.path("out/x.csv")).unwrap().modified().unwrap();
    let first = modified();
    sandbox.run(&[]);
    assert_eq!(modified(), first);
    std::fs::write(sandbox.path("out/x.csv"), "spoilt").unwrap();
    sandbox.run(&[]);
    assert_eq!(sandbox.read("out/x.csv"), "a\n1\n");
}

/// Before anything runs: the sources stay unchanged, and no result is lost.
#[test]
fn an_impossible_export_is_refused_before_anything_runs() {
    let sandbox = Sandbox::with("");
    sandbox.write("in.csv", "a\n1\n2\n").write("more/b.csv", "a\n3\n");
    std::os::unix::fs::symlink("more", sandbox.path("link")).unwrap();
    for (export, what) in [
        ("out.xlsx", "does not name a table format"),
        ("out.csv.gz", "does not name a table format"),
        ("more", "is a folder"),
        ("in.csv/out.csv", "is not a folder"),
        ("in.csv", "is read by the source"),
        ("./more/../in.csv", "is read by the source"),
        ("more/b.csv", "is read by the source"),
        ("more/new.csv", "is read by the source"),
        ("link/new.csv", "is read by the source"),
        ("store/x.csv", "is in the store"),
        ("pipeline.toml", "does not name a table format"),
    ] {
        sandbox.write(
            "pipeline.toml",
            format!(
                "[sources.s]\npath = \"in.csv\"\n[sources.t]\npath = \"more/*.csv\"\n[exports]\n\"{export}\" = \"s\"\n"
            ),
        );
        let text = sandbox.refused();
        assert!(text.contains(what), "{export}: {text}");
        assert_eq!(sandbox.read("in.csv"), "a\n1\n2\n");
    }
    let twice = "[sources.s]\npath = \"in.csv\"\n[exports]\n\"o.csv\" = \"s\"\n\"./x/../o.csv\" = \"s\"\n";
    sandbox.write("pipeline.toml", twice);
    assert!(sandbox.refused().contains("several artifacts"));
    let nested = "[sources.s]\npath = \"in.csv\"\n[exports]\n\"o.csv\" = \"s\"\n\"o.csv/p.csv\" = \"s\"\n";
    sandbox.write("pipeline.toml", nested);
    assert!(sandbox.refused().contains("cannot both be files"));
}

/// The digits of a source are never lost to a type.
#[test]
fn digits_that_a_number_would_lose_stay_text() {
    let same = |text: &str| {
        let pipeline = "[sources.s]\npath = \"*.txt\"\n[exports]\n\"out.csv\" = \"s\"\n";
        assert_eq!(exported(pipeline, &[("in.txt", text)]), text);
    };
    same("a\n9007199254740993\n1.5\n");
    same("a\n1.5\n9007199254740993\n");
    same("a\n9007199254740993\n-9223372036854775808\n");
    same("a\n1e400\n");
    same("a\n1e-400\n");
    same("a\n007\n1\n");
}

#[test]
fn a_source_that_is_not_a_file_and_duplicate_columns_are_refused() {
    let sandbox = Sandbox::with("[sources.s]\npath = \"folder.csv\"\n");
    sandbox.write("folder.csv/x", "");
    assert!(sandbox.refused().contains("not a regular file"));
    sandbox.write("pipeline.toml", "[sources.s]\npath = \"in.csv\"\ncolumns = [\"a\", \"a\"]\n");
    sandbox.write("in.csv", "a,b\n1,2\n");
    assert!(sandbox.refused().contains("`columns` names `a` twice"));
}

#[test]
fn errors_in_json_lines_have_their_line() {
    for (text, what) in [
        ("\u{feff}{\"a\":1}\n{\"a\":oops}\n", "line 2: not JSON at column 6"),
        ("{\"a\":1}\n\n{\"a\":\"x\"}\n", "line 3: column `a`: `x` is not int64, the type given for it"),
        ("{\"a\":1}\n[2]\n", "line 2: it is not an object"),
    ] {
        let sandbox = Sandbox::with("[sources.s]\npath = \"in.ndjson\"\ntypes = { a = \"int64\" }\n");
        let found = sandbox.write("in.ndjson", text).refused().replace("\n  │", "");
        assert!(found.contains(what), "{found}");
    }
}

#[test]
fn included_files_are_merged() {
    let sandbox = Sandbox::with("include = [\"sub/sources.toml\"]\n[exports]\n\"out.csv\" = \"s\"\n");
    sandbox.write("sub/sources.toml", "[sources.s]\npath = \"in.csv\"\n").write("sub/in.csv", "a\n1\n");
    sandbox.run(&[]);
    assert_eq!(sandbox.read("out.csv"), "a\n1\n");
}

/// A run reads more files than its sources.
#[test]
fn an_export_never_overwrites_a_file_of_the_pipeline() {
    let sandbox = Sandbox::with("");
    sandbox.write("in.csv", "a\n1\n").write("inc.csv", "[params]\nx = 1\n").write("p.csv", "x = 2\n");
    std::fs::create_dir(sandbox.path("granted")).unwrap();
    let step = "[steps.f]\nuses = \"std:select\"\ninput = \"s\"\ngrants = { read = [\"granted/\"] }\n";
    for (export, what) in
        [("inc.csv", "is a pipeline file"), ("p.csv", "is a params file"), ("granted/x/o.csv", "is granted to")]
    {
        let source = "include = [\"inc.csv\"]\n[sources.s]\npath = \"in.csv\"\n";
        sandbox.write("pipeline.toml", format!("{source}{step}[exports]\n\"{export}\" = \"f\"\n"));
        let run = sandbox.host(&["run", "--params", "p.csv"]);
        assert!(run.code == 2 && run.stderr.contains(what), "{export}: {}", run.stderr);
    }
    assert_eq!(sandbox.read("p.csv"), "x = 2\n");
}

/// A condition is checked against the types of the complete source.
#[test]
fn a_where_is_checked_against_the_types_of_the_complete_source() {
    let pipeline = |condition: &str| {
        format!("[sources.s]\npath = \"in/*.csv\"\nwhere = \"{condition}\"\n[exports]\n\"out.csv\" = \"s\"\n")
    };
    let files = [("in/a.csv", "k,v\n1,\n"), ("in/b.csv", "k,v\nx,5\n")];
    assert_eq!(exported(&pipeline("k = 'x'"), &files), "k,v\nx,5\n");
    assert_eq!(exported(&pipeline("v = 5"), &files), "k,v\nx,5\n");
    let sandbox = Sandbox::with(&pipeline("k + 1 > 1"));
    for (name, text) in files {
        sandbox.write(name, text);
    }
    assert!(sandbox.refused().contains("text"), "{}", sandbox.refused());
}

#[test]
fn data_of_a_source_is_never_lost_silently() {
    let refused = |name: &str, text: &str| {
        let sandbox = Sandbox::with(&format!("[sources.s]\npath = \"{name}\"\n[exports]\n\"out.csv\" = \"s\"\n"));
        sandbox.write(name, text);
        sandbox.refused()
    };
    assert!(refused("in.csv", "a,b\r1,x\n2,y\n").contains("carriage return alone"));
    assert!(refused("in.csv", "a,b\r1,x\r2,y\r").contains("carriage return alone"));
    let text = refused("in.ndjson", "{\"a\": 0.5}\n{\"a\": 9007199254740993}\n");
    assert!(text.contains("line 2") && text.contains("more digits than a float holds"), "{text}");
    let text = refused("in.ndjson", "{\"a\": 18446744073709551616}\n");
    assert!(text.contains("more digits"), "{text}");
    // Times to the nanosecond are text; to the microsecond they are times.
    let times = "t\n2020-01-01T00:00:00.000000001\n2020-01-01T00:00:00.000000002\n";
    let pipeline = "[sources.s]\npath = \"in.csv\"\n[exports]\n\"out.csv\" = \"s\"\n";
    assert_eq!(exported(pipeline, &[("in.csv", times)]), times);
}

/// Several NDJSON files are one table, as if they were one file.
#[test]
fn the_types_of_ndjson_files_are_those_of_all_files() {
    let pipeline = "[sources.s]\npath = \"in/*.ndjson\"\n[exports]\n\"out.csv\" = \"s\"\n";
    let files = [("in/a.ndjson", "{\"a\": 1}\n"), ("in/b.ndjson", "{\"a\": 2.5, \"b\": null}\n")];
    assert_eq!(exported(pipeline, &files), "a,b\n1.0,\n2.5,\n");
}

/// An edited export is written again, even if its times are unchanged.
#[test]
fn an_edited_export_is_written_again() {
    let sandbox = Sandbox::with("[sources.s]\npath = \"in.csv\"\n[exports]\n\"out.csv\" = \"s\"\n");
    sandbox.write("in.csv", "a\n1\n");
    sandbox.run(&[]);
    let times = std::fs::metadata(sandbox.path("out.csv")).unwrap().modified().unwrap();
    sandbox.write("out.csv", "a\n9\n");
    std::fs::File::options().write(true).open(sandbox.path("out.csv")).unwrap().set_modified(times).unwrap();
    sandbox.run(&[]);
    assert_eq!(sandbox.read("out.csv"), "a\n1\n");
}
