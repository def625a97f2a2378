//! Lines of JSON compared with what arrow reads, and read in every supported way.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::arrow::json::reader::{ReaderBuilder, infer_json_schema};
use proptest::prelude::*;

use millrace_types::DataType;

use super::*;
use crate::ColumnBytes;
use crate::read::tests::{Seeing, SeeingSome, options, types};
use crate::read::{Format, read};

/// The id of the first part.
const ID: PartId = PartId::FIRST;

type Parts = BTreeMap<PartId, (usize, Vec<String>)>;

fn files_of(texts: &[Vec<u8>]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let file = |(number, text): (usize, &Vec<u8>)| {
        let path = folder.path().join(format!("t{number}.ndjson"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = texts.iter().enumerate().map(file).collect();
    (folder, files)
}

/// The schema and the parts, or the error without the folder.
fn seen(texts: &[Vec<u8>], options: &ReadOptions, threads: usize) -> Result<(String, Parts), String> {
    let (folder, files) = files_of(texts);
    let seeing = Seeing::default();
    let schema = read(&files, options, &Threads::new(threads), &seeing);
    let root = folder.path().display().to_string();
    let schema = schema.map_err(|error| error.to_string().replace(&format!("{root}/"), ""))?;
    Ok((types(&schema), seeing.0.into_inner().unwrap().0))
}

fn one(text: &str) -> Result<(String, Parts), String> {
    seen(&[text.as_bytes().to_vec()], &options(Format::Ndjson), 2)
}

/// The table that arrow reads, in parts of three rows as in the tests.
fn by_arrow(text: &[u8]) -> Result<(String, Parts), String> {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let (schema, _) = infer_json_schema(text, None).map_err(|error| fail(&error))?;
    let field = |field: &Arc<ArrowField>| {
        let to = if *field.data_type() == ArrowType::Null { ArrowType::Utf8 } else { field.data_type().clone() };
        ArrowField::new(field.name(), to, true)
    };
    let mut fields: Vec<ArrowField> = schema.fields().iter().map(field).collect();
    fields.sort_by(|a, b| a.name().cmp(b.name()));
    let ours = fields.iter().map(field_from_arrow).collect::<Result<_, _>>().map_err(|error| fail(&error))?;
    let seeing = Seeing::default();
    let reader = ReaderBuilder::new(Arc::new(ArrowSchema::new(fields))).with_batch_size(3);
    for (number, batch) in (0..).zip(reader.build(text).map_err(|error| fail(&error))?) {
        let batch = batch.map_err(|error| fail(&error))?;
        let mut part =
            seeing.begin(PartId::new(0, number, 0), &Schema { fields: Vec::new() }, batch.num_rows()).unwrap();
        let columns = batch.columns().iter().map(|array| ColumnBytes::from_array(&**array).unwrap());
        columns.for_each(|column| part.column(column).unwrap());
        part.end().unwrap();
    }
    Ok((types(&Schema { fields: ours }), seeing.0.into_inner().unwrap().0))
}

#[test]
fn columns_are_determined_by_all_lines() {
    // Names that appear late, in any order, and kinds that turn out to be wider.
    let text = "{\"b\":1,\"a\":null}\n{\"a\":null,\"b\":2}\n{}\n{\"b\":3}\n{\"c\":true,\"b\":0.5}\n{\"a\":\"x\"}\n";
    let (schema, parts) = one(text).unwrap();
    assert_eq!(schema, "a: utf8, b: float64, c: boolean");
    let columns: Vec<_> = parts.into_values().map(|(_, columns)| columns.join("|")).collect();
    assert_eq!(columns, ["· · ·|1.0 2.0 ·|· · ·", "· · x|3.0 0.5 ·|· true ·"]);
    // Of several values with one name, the last counts.
    let (_, parts) =
        one("{\"a\":1,\"b\":\"x\",\"a\":2,\"b\":null}\n{\"b\":\"y\",\"b\":\"zz\",\"a\":null,\"a\":3}\n").unwrap();
    assert_eq!(parts[&ID].1, ["2 3", "· zz"]);
}

#[test]
fn escapes_are_decoded_in_values_and_names() {
    let (schema, parts) = one("{\"a\\u0062\":\"x\\\"\\u00e9\\ud83d\\ude00\\/\"}\n{\"ab\":\"é\"}\n").unwrap();
    assert_eq!((schema.as_str(), &*parts[&ID].1), ("ab: utf8", &["x\"é😀/ é".to_owned()][..]));
}

#[test]
fn errors_name_the_line() {
    let line = |text: &str| one(text).unwrap_err();
    assert_eq!(
        line("{\"a\":1}\n\n{\"a\":\"x\"}\n"),
        "`t0.ndjson`, line 1: column `a` is a number here, and utf8 elsewhere"
    );
    assert_eq!(
        line("{\"a\":\"x\"}\n\r\n{\"a\":1}\n"),
        "`t0.ndjson`, line 3: column `a` is a number here, and utf8 elsewhere"
    );
    let nested = "is a list here, which no column can hold: select other columns with `columns`, or read it as text with `types`";
    assert_eq!(
        line("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n{\"a\":[4]}\n"),
        format!("`t0.ndjson`, line 4: column `a` {nested}")
    );
    assert_eq!(
        line("{\"a\":9007199254740993}\n{\"a\":1}\n{\"a\":2}\n{\"a\":0.5}\n"),
        "`t0.ndjson`, line 1: column `a` has floats, and `9007199254740993` has more digits than a float holds"
    );
    // The first error in the file, though another one is found sooner.
    assert_eq!(
        line("{\"a\":1}\n{\"a\":}\n{\"a\":true}\n{\"a\":\"x\"}\n{\"a\":\"\\"),
        "`t0.ndjson`, line 2: not JSON at column 6: expected value"
    );
    assert_eq!(line("{\"a\":1}\n[2]\n"), "`t0.ndjson`, line 2: it is not an object");
    assert_eq!(line("\n\n"), "`t0.ndjson`: it has no object with a value");
    let error =
        seen(&[b"{\"a\":1}\n{\"a\":\"\xff\"}\n{\"a\":oops}\n".to_vec()], &options(Format::Ndjson), 2).unwrap_err();
    assert_eq!(error, "`t0.ndjson`, line 2: it is not UTF-8; convert the file, for instance with iconv");
}

#[test]
fn columns_that_are_not_selected_may_have_any_values() {
    let text = b"{\"a\":1,\"b\":[1,{\"c\":null}]}\n{\"b\":\"x\",\"a\":2,\"d\":{}}\n".to_vec();
    let columns = |names: &[&str]| ReadOptions {
        columns: Some(names.iter().map(ToString::to_string).collect()),
        ..options(Format::Ndjson)
    };
    let (schema, parts) = seen(std::slice::from_ref(&text), &columns(&["a"]), 2).unwrap();
    assert_eq!((schema.as_str(), parts[&ID].1[0].as_str()), ("a: int64", "1 2"));
    let filtered = ReadOptions { filter: Some("a > 1".into()), ..columns(&["a"]) };
    assert_eq!(seen(std::slice::from_ref(&text), &filtered, 2).unwrap().1[&ID].1, ["2"]);
    // A name that appears late is found, and one that never appears is an error.
    let late = b"{\"a\":1}\n{\"a\":1}\n{\"a\":1}\n{\"a\":1,\"z\":2}\n".to_vec();
    assert_eq!(seen(std::slice::from_ref(&late), &columns(&["z"]), 2).unwrap().1[&PartId::new(0, 1, 0)].1, ["2"]);
    let missing = seen(&[late], &columns(&["y"]), 2).unwrap_err();
    assert!(missing.contains("has no column `y`"), "{missing}");
}

#[test]
fn given_types_are_used() {
    let typed = |name: &str, to: DataType| ReadOptions {
        types: BTreeMap::from([(name.to_owned(), to)]),
        ..options(Format::Ndjson)
    };
    let date = b"{\"a\":\"2025-01-31\"}\n{\"a\":null}\n{}\n{\"a\":\"2024-02-29\"}\n".to_vec();
    let (schema, parts) = seen(std::slice::from_ref(&date), &typed("a", DataType::Date32), 2).unwrap();
    assert_eq!(schema, "a: date32");
    assert_eq!(
        (&*parts[&ID].1, &*parts[&PartId::new(0, 1, 0)].1),
        (&["2025-01-31 · ·".to_owned()][..], &["2024-02-29".to_owned()][..])
    );
    let wrong = seen(&[date], &typed("a", DataType::Int64), 2).unwrap_err();
    assert_eq!(wrong, "`t0.ndjson`, line 1: column `a`: `2025-01-31` is not int64, the type given for it");
    let small = b"{\"a\":1}\n\n{\"a\":300}\n".to_vec();
    let wrong = seen(std::slice::from_ref(&small), &typed("a", DataType::UInt8), 2).unwrap_err();
    assert_eq!(wrong, "`t0.ndjson`, line 3: column `a`: `300` is not uint8, the type given for it");
    // A type for a name that no object has is an error.
    assert!(seen(&[small], &typed("b", DataType::Int64), 2).unwrap_err().contains("has no column `b`"));
}

/// Given types accept the same values as in CSV, and lose no digits.
#[test]
fn given_types_mean_the_same_as_in_csv() {
    use millrace_types::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let time = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(str::to_owned));
    let cases = [
        (DataType::Int64, "7", Some("7")),
        (DataType::Int64, "1.5", None),
        (DataType::Int64, "9007199254740993", Some("9007199254740993")),
        (DataType::UInt64, "18446744073709551615", Some("18446744073709551615")),
        (DataType::UInt64, "-0.5", None),
        (DataType::Int8, "127.9", None),
        (DataType::Int8, "128", None),
        (DataType::Float32, "1e39", None),
        (DataType::Float32, "0.5", Some("0.5")),
        (DataType::Float64, "1e400", None),
        (DataType::Utf8, "1.50", Some("1.50")),
        (DataType::Date32, "2025-01-31", Some("2025-01-31")),
        (DataType::Date32, "2025-01-31T00:00:00", None),
        (DataType::Date32, "20250131", None),
        (time(Second, None), "2025-01-31T10:00:03", Some("2025-01-31T10:00:03")),
        (time(Second, None), "2025-01-31T10:00:03.5", None),
        (time(Millisecond, None), "2025-01-31T10:00:03.5", Some("2025-01-31T10:00:03.500")),
        (time(Microsecond, None), "2025-01-31", Some("2025-01-31T00:00:00")),
        (time(Microsecond, None), "2025-01-31T10:00:00.0000005", None),
        (time(Microsecond, None), "1.5", None),
        (time(Nanosecond, None), "2025-01-31T10:00:00.000000005", Some("2025-01-31T10:00:00.000000005")),
        (time(Nanosecond, None), "1969-12-31T23:59:59.9999999990", Some("1969-12-31T23:59:59.999999999")),
        (time(Nanosecond, None), "1600-01-01T00:00:00", None),
        (time(Nanosecond, None), "2300-01-01T00:00:00", None),
        (time(Second, Some("UTC")), "2025-01-31T10:00:00+02:00", Some("2025-01-31T08:00:00Z")),
        (time(Second, Some("UTC")), "2025-01-31T10:00:00-00:30", Some("2025-01-31T10:30:00Z")),
        (time(Second, Some("UTC")), "2025-01-31T10:00:00Z", Some("2025-01-31T10:00:00Z")),
        (time(Second, Some("UTC")), "2025-01-31T10:00:00+2:00", None),
        (time(Second, Some("UTC")), "2025-01-31T10:00:00+24:00", None),
        (time(Second, Some("UTC")), "2025-01-31+02:00", None),
    ];
    for (to, value, expected) in cases {
        let read_as = |name: &str, format: Format, text: String| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let types = BTreeMap::from([("a".to_owned(), to.clone())]);
            let seeing = Seeing::default();
            let read = read(&[path], &ReadOptions { types, ..options(format) }, &Threads::new(1), &seeing);
            let seen = seeing.0.into_inner().unwrap().0;
            read.map(|_| seen.values().next().unwrap().1[0].clone()).map_err(|error| error.to_string())
        };
        let csv = read_as("t.csv", Format::Csv, format!("a,b\n{value},x\n"));
        assert_eq!(csv.as_deref().ok(), expected, "{to} {value}: {csv:?}");
        let texts = [Some(format!("\"{value}\"")), value.parse::<f64>().ok().map(|_| value.to_owned())];
        for text in texts.into_iter().flatten().filter(|text| !text.contains("e400")) {
            let json = read_as("t.ndjson", Format::Ndjson, format!("{{\"a\":{text}}}\n"));
            assert_eq!(json.as_deref().ok(), expected, "{to} {text}: {json:?}");
            assert!(
                expected.is_some() || json.is_err_and(|error| error.contains("line 1: column `a`: ")),
                "{to} {text}"
            );
        }
    }
    // Values that no column can hold are read as text when that type is given.
    let text = b"{\"a\":[1, {\"b\":null}]}\n{\"a\":\"x\"}\n{\"a\":true}\n".to_vec();
    let given = ReadOptions { types: BTreeMap::from([("a".to_owned(), DataType::Utf8)]), ..options(Format::Ndjson) };
    assert_eq!(seen(&[text], &given, 2).unwrap().1[&ID].1, ["[1, {\"b\":null}] x true"]);
}

/// Values of columns that are neither selected nor named by the filter are ignored, errors
/// included.
#[test]
fn a_filter_reads_the_columns_that_it_names() {
    let text =
        b"{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":3}\n{\"a\":3,\"b\":[],\"c\":5}\n{\"a\":4,\"c\":99999999999999999999}\n"
            .to_vec();
    let filtered = |filter: &str| {
        let options =
            ReadOptions { columns: Some(vec!["a".into()]), filter: Some(filter.into()), ..options(Format::Ndjson) };
        seen(std::slice::from_ref(&text), &options, 2)
    };
    let (schema, parts) = filtered("a > 1").unwrap();
    assert_eq!(
        (schema.as_str(), parts[&ID].1[0].as_str(), parts[&PartId::new(0, 1, 0)].1[0].as_str()),
        ("a: int64", "2 3", "4")
    );
    assert!(filtered("b = 'x'").unwrap_err().contains("column `b` is a list here"));
    assert!(filtered("z = 1").unwrap_err().contains('z'));
}

/// The number of values in a part is bounded, however few of them a line has.
#[test]
fn parts_with_many_names_are_short() {
    let names: Vec<String> = (0..40_000).map(|name| format!("\"n{name}\":1")).collect();
    let text = format!("{{{}}}\n", names.join(",")) + &"{}\n".repeat(1000);
    let (_folder, files) = files_of(&[text.into_bytes()]);
    let seeing = SeeingSome(Seeing::default(), vec!["n7".to_owned()]);
    let options = ReadOptions { part_rows: PART_ROWS, ..options(Format::Ndjson) };
    read(&files, &options, &Threads::new(2), &seeing).unwrap();
    let parts = seeing.0.0.into_inner().unwrap().0;
    assert_eq!(parts.values().map(|(rows, _)| *rows).collect::<Vec<_>>(), [838, 163]);
    assert!(parts[&ID].1[0].starts_with("1 · "));
}

const VALUES: &str = "(null|-?[0-9]{1,3}|[1-9][0-9]{14,19}|-?[0-9]{1,3}\\.[0-9]{1,17}(e-?[0-9]{1,2})?|true|false|\"[a-z é]{0,9}\"|\"\\\\n\\\\u00e9\"|\\[1,2\\]|\\{\"x\":1\\})";
const TAME: &str = "(null|-?[0-9]{1,3}|[1-9][0-9]{0,18})";

fn lines(rows: &[Vec<(usize, String)>]) -> String {
    let line = |row: &Vec<(usize, String)>| {
        // Every name once, in the order of the row.
        let mut known = [false; 4];
        let members = row.iter().filter(|(name, _)| !std::mem::replace(&mut known[*name], true));
        let members: Vec<String> =
            members.map(|(name, value)| format!("\"{}\":{value}", ["a", "b", "c", "d"][*name])).collect();
        format!("{{{}}}\n", members.join(", "))
    };
    rows.iter().map(line).collect()
}

fn rows(values: &'static str) -> impl Strategy<Value = Vec<Vec<(usize, String)>>> {
    prop::collection::vec(prop::collection::vec((0usize..4, values), 0..5), 1..14)
}

fn compare(text: &str) -> Result<(), TestCaseError> {
    match (one(text), by_arrow(text.as_bytes())) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
        (Ok((schema, _)), Err(error)) => prop_assert!(false, "{}: {}", schema, error),
        (Err(_), Err(_)) => {}
        // Numbers of which arrow loses digits, and a table without columns.
        (Err(error), Ok((schema, _))) => {
            prop_assert!(error.contains("more digits") || schema.is_empty(), "{error}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn lines_are_read_as_arrow_reads_them(rows in rows(VALUES)) {
        compare(&lines(&rows))?;
    }

    #[test]
    fn numbers_are_read_as_arrow_reads_them(rows in rows(TAME)) {
        compare(&lines(&rows))?;
    }

    /// Of several values with one name, only the last counts.
    #[test]
    fn earlier_values_with_the_same_name_do_not_count(rows in rows(VALUES), given in any::<bool>()) {
        let written = |members: Vec<&(usize, String)>| {
            let members = members.iter().map(|(name, value)| format!("\"{}\":{value}", ["a", "b", "c", "d"][*name]));
            format!("{{{}}}\n", members.collect::<Vec<_>>().join(","))
        };
        let all: String = rows.iter().map(|row| written(row.iter().collect())).collect();
        let last: String = rows.iter().map(|row| {
            let is_last = |(at, (name, _)): &(usize, &(usize, String))| row[at + 1..].iter().all(|(other, _)| other != name);
            written(row.iter().enumerate().filter(is_last).map(|(_, member)| member).collect())
        }).collect();
        prop_assume!(all.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        let mut options = options(Format::Ndjson);
        options.types.extend((given && last.contains("\"a\"")).then(|| ("a".to_owned(), DataType::Utf8)));
        let read = |text: &str| seen(&[text.as_bytes().to_vec()], &options, 2);
        prop_assert_eq!(read(&all), read(&last));
    }

    /// Whatever the number of threads and the selected columns.
    #[test]
    fn all_ways_of_reading_give_the_same_result(
        rows in rows(VALUES),
        cut in prop::option::weighted(0.5, 0usize..14),
        corruption in prop::option::weighted(0.2, (0usize..400, any::<u8>())),
        wanted in prop::collection::vec(any::<bool>(), 4),
        chosen in prop::option::weighted(0.3, prop::sample::subsequence(vec!["a", "b", "c", "d"], 1..4)),
        given in prop::option::weighted(0.3, (0usize..4, prop::sample::select(vec![DataType::Float64, DataType::Utf8, DataType::Int32]))),
        filter in any::<bool>(),
    ) {
        let mut texts = vec![lines(&rows).into_bytes()];
        if let Some(cut) = cut.filter(|cut| *cut < rows.len()) {
            texts = vec![lines(&rows[..cut]).into_bytes(), lines(&rows[cut..]).into_bytes()];
        }
        if let Some((offset, byte)) = corruption && let Some(known) = texts[0].get_mut(offset) {
            *known = byte;
        }
        let names = ["a", "b", "c", "d"];
        let mut options = options(Format::Ndjson);
        options.columns = chosen.map(|names| names.into_iter().map(str::to_owned).collect());
        options.types.extend(given.map(|(name, to)| (names[name].to_owned(), to)));
        options.filter = filter.then(|| "a is null or b is not null".to_owned());
        let all = seen(&texts, &options, 1);
        prop_assert_eq!(&all, &seen(&texts, &options, 3));

        let kept: Vec<String> = names.iter().zip(&wanted).filter(|(_, is)| **is).map(|(name, _)| (*name).to_owned()).collect();
        let some = SeeingSome(Seeing::default(), kept.clone());
        let (folder, files) = files_of(&texts);
        let root = format!("{}/", folder.path().display());
        let text = |error: ReadError| error.to_string().replace(&root, "");
        let found = read(&files, &options, &Threads::new(2), &some).map_err(text).map(|schema| types(&schema));
        match (all, found) {
            (Ok((schema, parts)), Ok(found)) => {
                prop_assert_eq!(&schema, &found);
                let columns: Vec<&str> = schema.split(", ").map(|field| field.split(':').next().unwrap()).collect();
                let expected: Parts = parts.into_iter().map(|(id, (rows, values))| {
                    let kept = values.into_iter().zip(&columns).filter(|(_, name)| kept.iter().any(|kept| kept == *name));
                    (id, (rows, kept.map(|(values, _)| values).collect()))
                }).collect();
                prop_assert_eq!(expected, some.0.0.into_inner().unwrap().0);
            }
            (all, found) => prop_assert_eq!(all.err(), found.err()),
        }
    }
}
