use std::io::Write;

use std::collections::BTreeMap;

use millrace_types::DataType;

use super::*;
use crate::column::ColumnBytes;

/// Parts as text, for comparison.
struct Seen {
    parts: Vec<(usize, Vec<String>)>,
    restarts: usize,
}

/// The parts by id, and the number of restarts.
#[derive(Default)]
pub(super) struct Seeing(pub(super) std::sync::Mutex<(BTreeMap<PartId, (usize, Vec<String>)>, usize)>);

/// As [`Seeing`], for some of the columns.
pub(super) struct SeeingSome(pub(super) Seeing, pub(super) Vec<String>);

impl Sink for SeeingSome {
    fn wants(&self, column: &str) -> bool {
        self.1.iter().any(|name| name == column)
    }

    fn begin<'s>(&'s self, id: PartId, schema: &Schema, rows: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        assert!(schema.fields.iter().all(|field| self.wants(field.name.as_str())));
        self.0.begin(id, schema, rows)
    }

    fn restart(&self) {
        self.0.restart();
    }
}

impl Sink for Seeing {
    fn begin<'s>(&'s self, id: PartId, schema: &Schema, rows: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        let fields = schema.fields.len();
        Ok(Box::new(CollectColumns::new(move |columns: Vec<ColumnBytes>| {
            assert!(columns.len() == fields || fields == 0);
            let columns = columns.iter().map(|column| {
                assert_eq!(column.rows, rows);
                let array = column.to_array().unwrap();
                let text = ::arrow::compute::cast(&array, &::arrow::datatypes::DataType::Utf8).unwrap();
                let text = ::arrow::array::cast::AsArray::as_string::<i32>(&text).clone();
                text.iter().map(|value| value.unwrap_or("·").to_owned()).collect::<Vec<_>>().join(" ")
            });
            self.0.lock().unwrap().0.insert(id, (rows, columns.collect()));
            Ok(())
        })))
    }

    fn restart(&self) {
        let mut seen = self.0.lock().unwrap();
        seen.0.clear();
        seen.1 += 1;
    }
}

pub(super) fn options(format: Format) -> ReadOptions {
    ReadOptions {
        format,
        columns: None,
        filter: None,
        missing: vec![String::new(), "NA".into()],
        types: BTreeMap::new(),
        part_rows: 3,
        delimiter: b',',
    }
}

fn read_text(name: &str, content: &[u8], options: &ReadOptions) -> Result<(Schema, Seen), ReadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let seeing = Seeing::default();
    let schema = read(&[path], options, &Threads::new(3), &seeing)?;
    let (parts, restarts) = seeing.0.into_inner().unwrap();
    let seen = Seen { parts: parts.into_values().collect(), restarts };
    Ok((schema, seen))
}

pub(super) fn types(schema: &Schema) -> String {
    schema.fields.iter().map(|field| format!("{}: {}", field.name, field.data_type)).collect::<Vec<_>>().join(", ")
}

fn csv(content: &str) -> (Schema, Seen) {
    read_text("t.csv", content.as_bytes(), &options(Format::Csv)).unwrap()
}

fn csv_error(content: &[u8], options: &ReadOptions) -> String {
    let error = read_text("t.csv", content, options).err().unwrap().to_string();
    // The folder differs in each run.
    format!("`t.csv{}", error.split_once("t.csv").unwrap().1)
}

#[test]
fn the_type_is_the_narrowest_that_holds_all_values() {
    let (schema, seen) = csv(
        "i,f,b,d,at,utc,t,zip,m\n1,2,true,2025-01-31,2025-01-31T10:00:00,2025-01-31T10:00:00Z,x,007,\n-5,0.5,false,NA,2025-01-31,2025-01-31T10:00:01Z,2,1,NA\n",
    );
    assert_eq!(
        types(&schema),
        "i: int64, f: float64, b: boolean, d: date32, at: timestamp[us], utc: timestamp[us, UTC], t: utf8, zip: utf8, m: utf8"
    );
    assert_eq!(seen.parts[0].1[..4], ["1 -5", "2.0 0.5", "true false", "2025-01-31 ·"]);
}

#[test]
fn a_later_value_widens_the_type_of_the_whole_column() {
    let (schema, seen) = csv("a,b\n1,\n2,\n3,\n4.5,x\n");
    assert_eq!(types(&schema), "a: float64, b: utf8");
    assert_eq!(seen.parts, [(3, vec!["1.0 2.0 3.0".into(), "· · ·".into()]), (1, vec!["4.5".into(), "x".into()])]);
    assert!(seen.restarts > 0);
    // A column without values in the first part may turn out to have numbers.
    assert_eq!(types(&csv("a,b\n1,\n2,\n3,\n4,5\n").0), "a: int64, b: int64");
}

#[test]
fn quotes_separators_and_line_ends_follow_rfc_4180() {
    let (_, seen) = csv("a,b\r\n\"x, \"\"y\"\"\",\"two\nlines\"\r\n\r\nz,w");
    assert_eq!(seen.parts, [(2, vec!["x, \"y\" z".into(), "two\nlines w".into()])]);
    let tabs = ReadOptions { delimiter: b'\t', ..options(Format::Csv) };
    assert_eq!(types(&read_text("t.tsv", b"a\tb\n1\tx,y\n", &tabs).unwrap().0), "a: int64, b: utf8");
}

#[test]
fn errors_name_the_line_and_the_column() {
    let plain = options(Format::Csv);
    assert_eq!(csv_error(b"a,b\n1,2\n3\n", &plain), "`t.csv`, line 3: 1 fields, and the header has 2");
    assert_eq!(csv_error(b"", &plain), "`t.csv`: the file is empty: there is not even a header line");
    assert_eq!(csv_error(b"a,a\n", &plain), "`t.csv`, line 1: two columns are called `a`");
    assert_eq!(
        csv_error(b"a\nx\n\xff\xfe\n", &plain),
        "`t.csv`, line 3: column `a` is not UTF-8 (`\u{fffd}\u{fffd}`); convert the file, for instance with iconv"
    );
    let typed = ReadOptions { types: BTreeMap::from([("a".into(), DataType::Int64)]), ..plain.clone() };
    assert_eq!(
        csv_error(b"a\n1\n2x\n", &typed),
        "`t.csv`, line 3: column `a`: `2x` is not int64, the type given for it"
    );
    let absent = ReadOptions { columns: Some(vec!["z".into()]), ..plain.clone() };
    assert_eq!(csv_error(b"a\n1\n", &absent), "`t.csv` has no column `z`");
    let filtered = ReadOptions { filter: Some("a > 'x'".into()), ..plain };
    assert_eq!(
        csv_error(b"a\n1\n", &filtered),
        "`where` does not fit `t.csv`: an integer and text do not go together".replace("`where` does not fit ", "")
    );
}

/// Also before the header, and in blocks with quotes, which another parser reads.
#[test]
fn empty_lines_are_not_records() {
    let expected = [(2, vec!["1 3".into(), "2 4".into()])];
    for text in ["\n\na,b\n1,2\n\n3,4\n\n", "\r\n\r\na,b\r\n\r\n1,2\r\n3,4", "\na,b\n\n1,\"2\"\n3,4\n\n"] {
        let (_, seen) = read_text("t.csv", text.as_bytes(), &options(Format::Csv)).unwrap();
        assert_eq!(seen.parts, expected, "{text:?}");
    }
}

#[test]
fn a_header_alone_is_a_table_without_parts() {
    let (schema, seen) = csv("a,b\n");
    assert_eq!(types(&schema), "a: utf8, b: utf8");
    assert!(seen.parts.is_empty());
}

#[test]
fn a_filter_and_a_projection_apply_before_parts_are_emitted() {
    let picked = ReadOptions { columns: Some(vec!["b".into()]), filter: Some("a >= 2".into()), ..options(Format::Csv) };
    let (schema, seen) = read_text("t.csv", b"a,b\n1,x\n2,y\n3,z\n0,u\n0,v\n", &picked).unwrap();
    assert_eq!(types(&schema), "b: utf8");
    assert_eq!(seen.parts, [(2, vec!["y z".into()])]);
}

#[test]
fn compressed_text_is_decompressed() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"a\n1\n").unwrap();
    let (schema, _) = read_text("t.csv.gz", &gz.finish().unwrap(), &options(Format::Csv)).unwrap();
    assert_eq!(types(&schema), "a: int64");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("inner.csv", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"a\n1.5\n").unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    assert_eq!(types(&read_text("t.csv.zip", &bytes, &options(Format::Csv)).unwrap().0), "a: float64");
    assert!(read_text("t.csv.zip", b"PK no", &options(Format::Csv)).is_err());
}

#[test]
fn json_lines_become_columns() {
    let (schema, seen) =
        read_text("t.ndjson", b"{\"a\":1,\"t\":\"x\"}\n{\"a\":null,\"f\":0.5}\n", &options(Format::Ndjson)).unwrap();
    assert_eq!(types(&schema), "a: int64, f: float64, t: utf8");
    assert_eq!(seen.parts, [(2, vec!["1 ·".into(), "· 0.5".into(), "x ·".into()])]);
    assert!(read_text("t.ndjson", b"{\"a\":", &options(Format::Ndjson)).is_err());
    assert!(read_text("t.ndjson", b"", &options(Format::Ndjson)).is_err());
}

/// A table that is exported and read again is unchanged.
#[test]
fn every_format_reads_back_an_exported_table() {
    let content =
        "i,f,t,b,d\n1,0.5,x,true,2025-01-31\nNA,,\"a,b\",false,NA\n3,2,z,NA,2024-02-29\n4,1e3,w,true,2024-01-01\n";
    let (schema, seen) = csv(content);
    for (name, format) in
        [("t.parquet", Format::Parquet), ("t.arrow", Format::Ipc), ("t.ndjson", Format::Ndjson), ("t.csv", Format::Csv)]
    {
        struct Export<'a>(std::sync::Mutex<crate::export::Exporter<&'a mut Vec<u8>>>);
        impl Sink for Export<'_> {
            fn begin<'s>(&'s self, _: PartId, _: &Schema, rows: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
                Ok(Box::new(CollectColumns::new(move |columns: Vec<ColumnBytes>| {
                    let mut export = self.0.lock().unwrap();
                    let part = export.encoder().part(rows, &columns)?;
                    Ok(export.put(part)?)
                })))
            }
            fn restart(&self) {
                unreachable!("the first part has all types");
            }
        }
        let mut bytes = Vec::new();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, content).unwrap();
        {
            let export =
                Export(std::sync::Mutex::new(crate::export::Exporter::new(&mut bytes, format, &schema).unwrap()));
            read(&[path], &options(Format::Csv), &Threads::new(1), &export).unwrap();
            export.0.into_inner().unwrap().finish().unwrap();
        }
        let typed = ReadOptions {
            types: schema.fields.iter().map(|field| (field.name.to_string(), field.data_type.clone())).collect(),
            columns: Some(schema.names().map(str::to_owned).collect()),
            ..options(format)
        };
        let (back, seen_back) = read_text(name, &bytes, &typed).unwrap();
        assert_eq!(back, schema, "{format:?}");
        assert_eq!(seen_back.parts, seen.parts, "{format:?}");
    }
}

#[test]
fn a_parquet_filter_skips_row_groups_and_rows() {
    let (schema, _) = csv("i,t\n1,a\n2,b\n3,c\n10,d\n11,e\n12,f\n");
    let mut bytes = Vec::new();
    let mut export = crate::export::Exporter::new(&mut bytes, Format::Parquet, &schema).unwrap();
    for (from, rows) in [(1i64, 3usize), (10, 3)] {
        let ints = ::arrow::array::Int64Array::from_iter_values(from..from + rows as i64);
        let texts = ::arrow::array::StringArray::from(vec!["a"; rows]);
        let columns = [ColumnBytes::from_array(&ints).unwrap(), ColumnBytes::from_array(&texts).unwrap()];
        export.put(export.encoder().part(rows, &columns).unwrap()).unwrap();
    }
    export.finish().unwrap();
    let picked = ReadOptions {
        filter: Some("i > 10 and t = 'a'".into()),
        columns: Some(vec!["t".into(), "i".into()]),
        ..options(Format::Parquet)
    };
    let (schema, seen) = read_text("t.parquet", &bytes, &picked).unwrap();
    assert_eq!(types(&schema), "t: utf8, i: int64");
    assert_eq!(seen.parts, [(2, vec!["a a".into(), "11 12".into()])]);
    let nothing = ReadOptions { filter: Some("i > 99".into()), ..options(Format::Parquet) };
    let (schema, seen) = read_text("t.parquet", &bytes, &nothing).unwrap();
    assert_eq!((types(&schema).as_str(), seen.parts.len()), ("i: int64, t: utf8", 0));
    assert!(read_text("t.parquet", b"PAR1", &options(Format::Parquet)).is_err());
    assert!(read_text("t.arrow", b"ARROW1", &options(Format::Ipc)).is_err());
}

/// With any number of threads batches give the same parts, are divided where they are large,
/// and only the selected columns are read.
#[test]
fn arrow_batches_are_divided_and_read_by_all_threads() {
    use ::arrow::array::{ArrayRef, Int64Array, StringArray};
    use ::arrow::record_batch::RecordBatch;
    let batch = |from: i64, rows: i64| {
        let ints: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values(from..from + rows));
        let texts = StringArray::from_iter_values((from..from + rows).map(|i| format!("t{i}")));
        RecordBatch::try_from_iter([("i", ints.clone()), ("t", std::sync::Arc::new(texts) as ArrayRef), ("j", ints)])
            .unwrap()
    };
    let batches = [batch(0, 7), batch(7, 0), batch(7, 2), batch(9, 3)];
    let schema = batches[0].schema();
    let (mut file, mut stream) = (Vec::new(), Vec::new());
    let mut writer = ::arrow::ipc::writer::FileWriter::try_new(&mut file, &schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    let mut writer = ::arrow::ipc::writer::StreamWriter::try_new(&mut stream, &schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();

    let picked = ReadOptions {
        filter: Some("j != 4 and j < 11".into()),
        columns: Some(vec!["t".into()]),
        part_rows: 3,
        ..options(Format::Ipc)
    };
    let expected = [(3, "t0 t1 t2"), (2, "t3 t5"), (1, "t6"), (2, "t7 t8"), (2, "t9 t10")];
    let expected: Vec<(usize, Vec<String>)> =
        expected.iter().map(|(rows, text)| (*rows, vec![(*text).to_owned()])).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.arrow");
    for bytes in [&file, &stream] {
        std::fs::write(&path, bytes).unwrap();
        for threads in [1, 3, 9] {
            let seeing = Seeing::default();
            let schema = read(std::slice::from_ref(&path), &picked, &Threads::new(threads), &seeing).unwrap();
            assert_eq!(types(&schema), "t: utf8");
            let (parts, _) = seeing.0.into_inner().unwrap();
            assert_eq!(parts.into_values().collect::<Vec<_>>(), expected);
        }
        let missing = ReadOptions { columns: Some(vec!["k".into()]), ..options(Format::Ipc) };
        let error = read_text("t.arrow", bytes, &missing).err().unwrap();
        assert!(matches!(&error, ReadError::NoColumn { candidates, .. } if candidates.len() == 3), "{error}");
        let wrong = ReadOptions { filter: Some("z > 1".into()), ..picked.clone() };
        assert!(matches!(read_text("t.arrow", bytes, &wrong), Err(ReadError::Filter { .. })));
        // Truncated: an error, or fewer rows of a stream, but never a panic.
        for end in (0..bytes.len()).step_by(97) {
            let _ = read_text("t.arrow", &bytes[..end], &picked);
        }
    }
}

/// A file may be replaced after it was checked: opening a pipe must not wait for a writer.
#[cfg(unix)]
#[test]
fn opening_a_pipe_fails_without_blocking() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("t.csv", Format::Csv),
        ("t.csv.gz", Format::Csv),
        ("t.ndjson", Format::Ndjson),
        ("t.parquet", Format::Parquet),
        ("t.arrow", Format::Ipc),
    ] {
        let path = folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let paths = std::slice::from_ref(&path);
            assert_eq!(peek(paths, &options(format)), Peek::Unknown);
            let read = read(paths, &options(format), &Threads::new(2), &Seeing::default());
            let _ = sender.send(read.err().unwrap().to_string());
        });
        // A reader that waits for the pipe never ends.
        let error = receiver.recv_timeout(std::time::Duration::from_secs(60)).expect("the reader ends");
        assert!(error.contains("it is not a regular file"), "{error}");
    }
}

/// The statistics of unsigned columns are stored as signed integers.
#[test]
fn a_parquet_filter_keeps_rows_of_unsigned_columns() {
    use ::arrow::array::{ArrayRef, UInt32Array, UInt64Array};
    use ::arrow::record_batch::RecordBatch;

    let wide: ArrayRef = std::sync::Arc::new(UInt64Array::from(vec![1, 3_000_000_000, 1 << 40, (1 << 52) + 1]));
    let narrow: ArrayRef = std::sync::Arc::new(UInt32Array::from(vec![1, 3_000_000_000, 1 << 31, u32::MAX]));
    let batch = RecordBatch::try_from_iter([("u", narrow), ("w", wide)]).unwrap();
    let mut bytes = Vec::new();
    let properties =
        ::parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    for (condition, expected) in [
        ("u > 5", vec!["3000000000", "2147483648", "4294967295"]),
        ("u = 1", vec!["1"]),
        ("u = 3000000000", vec!["3000000000"]),
        ("u >= 2147483648", vec!["3000000000", "2147483648", "4294967295"]),
        ("u between 0 and 10", vec!["1"]),
        ("w > 5000000000", vec!["2147483648", "4294967295"]),
    ] {
        let picked = ReadOptions {
            columns: Some(vec!["u".into()]),
            filter: Some(condition.into()),
            part_rows: 100,
            ..options(Format::Parquet)
        };
        let (_, seen) = read_text("t.parquet", &bytes, &picked).unwrap();
        let found: Vec<&str> = seen.parts.iter().flat_map(|(_, columns)| columns[0].split(' ')).collect();
        assert_eq!(found, expected, "{condition}");
    }
    // An overflow is an error of the condition, not of the file.
    let wrong = ReadOptions { filter: Some("0 < u * 9000000000000".into()), ..options(Format::Parquet) };
    let Some(ReadError::Filter { error, .. }) = read_text("t.parquet", &bytes, &wrong).err() else {
        panic!("not an error of the condition")
    };
    assert!(error.message.contains("does not fit 64 bits") && error.span == (4, 21), "{error:?}");
}

proptest::proptest! {
    /// The first block and later blocks are parsed by different code. Both give the same types,
    /// the same text from quoted fields, and the same errors.
    #[test]
    fn later_blocks_are_read_like_the_first_one(
        rows in proptest::collection::vec((
            proptest::collection::vec((
                "(|NA|-?[0-9]{1,3}|0[0-9]|[0-9]{16,20}|-?[0-9]{0,3}\\.[0-9]{0,9}|1e[0-9]{1,3}|true|2020-01-0[0-9]|x y|5\" tv|\"\"x|[a,\"\r\n]{0,5}|é)",
                0u8..10,
            ), 3),
            0u8..20,
        ), 1..14),
        ragged in proptest::option::weighted(0.1, 0usize..14),
        ends_with_line in proptest::bool::ANY,
    ) {
        let field = |(text, how): &(String, u8)| match how {
            // Unchanged.
            0 => text.clone(),
            1 => format!("\"{}\"x", text.replace('"', "\"\"")),
            2..=5 => format!("\"{}\"", text.replace('"', "\"\"")),
            _ => text.replace([',', '"', '\r', '\n'], ""),
        };
        let line = |(i, (row, how)): (usize, &(Vec<(String, u8)>, u8))| {
            let fields = if ragged == Some(i) { &row[..2] } else { row.as_slice() };
            let end = match how { 0 => "\r", 1 => "\n\n", 2 => "\r\n\r\n", 3..=9 => "\r\n", _ => "\n" };
            fields.iter().map(field).collect::<Vec<_>>().join(",") + end
        };
        let mut text = "a,b,c\n".to_owned() + &rows.iter().enumerate().map(line).collect::<String>();
        if !ends_with_line {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
        let read = |part_rows: usize| {
            let options = ReadOptions { part_rows, ..options(Format::Csv) };
            match read_text("t.csv", text.as_bytes(), &options) {
                Ok((schema, seen)) => {
                    let mut columns = vec![Vec::new(); schema.fields.len()];
                    for (_, part) in seen.parts.into_iter().filter(|(rows, _)| *rows > 0) {
                        columns.iter_mut().zip(part).for_each(|(column, part)| column.push(part));
                    }
                    Ok((types(&schema), columns.into_iter().map(|column| column.join(" ")).collect::<Vec<_>>()))
                }
                Err(error) => Err(error.to_string().split_once("t.csv").map(|(_, what)| what.to_owned())),
            }
        };
        let whole = read(1000);
        for part_rows in [3, 1] {
            let blocks = read(part_rows);
            // An open quote is found before errors in the block before it.
            let is_open = matches!(&whole, Err(Some(error)) if error.contains("never closed"));
            if !(is_open && blocks.is_err()) {
                proptest::prop_assert_eq!(&blocks, &whole);
            }
        }
    }

    /// Leaving out columns that no step reads changes nothing else: neither types nor parts nor
    /// errors.
    #[test]
    fn columns_that_no_step_reads_still_have_their_types(
        rows in proptest::collection::vec(
            proptest::collection::vec("(|NA|-?[0-9]{1,3}|0[0-9]|[0-9]{16,20}|-?[0-9]{0,3}\\.[0-9]{0,9}|1e[0-9]{1,3}|true|2020-01-0[0-9]|x y|é|\"q,\"|\u{fffd})", 3),
            1..12,
        ),
        wanted in proptest::collection::vec(proptest::bool::ANY, 3),
        given in proptest::option::weighted(0.2, 0usize..3),
        filter in proptest::bool::weighted(0.2),
        is_corrupt in proptest::bool::weighted(0.2),
    ) {
        let names = ["a", "b", "c"];
        let text = "a,b,c\n".to_owned() + &rows.iter().map(|row| row.join(",") + "\n").collect::<String>();
        let mut bytes = text.into_bytes();
        if is_corrupt {
            // No longer UTF-8.
            bytes.iter_mut().filter(|byte| **byte == 0xef).for_each(|byte| *byte = 0xff);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, bytes).unwrap();
        let mut options = options(Format::Csv);
        options.types.extend(given.map(|index| (names[index].to_owned(), DataType::Float64)));
        options.filter = filter.then(|| "a is null or b is not null".to_owned());
        let files = [path];
        let all = Seeing::default();
        let schema = read(&files, &options, &Threads::new(2), &all);
        let kept: Vec<String> = names.iter().zip(&wanted).filter(|(_, kept)| **kept).map(|(name, _)| (*name).to_owned()).collect();
        let some = SeeingSome(Seeing::default(), kept);
        let found = read(&files, &options, &Threads::new(2), &some);
        match (schema, found) {
            (Ok(schema), Ok(found)) => {
                proptest::prop_assert_eq!(schema, found);
                let (all, some) = (all.0.into_inner().unwrap().0, some.0.0.into_inner().unwrap().0);
                let expected: Vec<_> = all.into_iter().map(|(id, (rows, columns))| {
                    let kept = columns.into_iter().zip(&wanted).filter(|(_, kept)| **kept);
                    (id, (rows, kept.map(|(column, _)| column).collect::<Vec<_>>()))
                }).collect();
                proptest::prop_assert_eq!(expected, some.into_iter().collect::<Vec<_>>());
            }
            (all, some) => proptest::prop_assert_eq!(all.err().map(|e| e.to_string()), some.err().map(|e| e.to_string())),
        }
    }
}
