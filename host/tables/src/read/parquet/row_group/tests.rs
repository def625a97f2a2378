//! Row groups, intact and corrupt, read by one thread and by many.

use std::path::PathBuf;

use millrace_threads::Threads;
use millrace_types::Schema;

use crate::ColumnBytes;
use crate::read::tests::{Seeing, options, types};
use crate::read::{Format, PartId, PartSink, ReadOptions, Sink, SinkError, read};

/// A Parquet file of several row groups, with columns of numbers, text and lists, and missing
/// values: `x0` and so on, `t`, `l`.
fn wide_parquet(rows: usize, group: usize, numbers: usize) -> Vec<u8> {
    use ::arrow::array::{ArrayRef, Float64Array, Int64Builder, ListBuilder, StringArray};
    use ::arrow::record_batch::RecordBatch;
    use ::parquet::file::properties::WriterProperties;

    let number =
        |column: usize, row: usize| (!row.is_multiple_of(column + 3)).then_some((row * 31 + column * 7) as f64 / 4.0);
    let floats = |column: usize| -> ArrayRef {
        std::sync::Arc::new((0..rows).map(|row| number(column, row)).collect::<Float64Array>())
    };
    let mut columns: Vec<(String, ArrayRef)> =
        (0..numbers).map(|column| (format!("x{column}"), floats(column))).collect();
    let text =
        (0..rows).map(|row| (!row.is_multiple_of(5)).then(|| format!("text {}", row % 300))).collect::<StringArray>();
    columns.push(("t".into(), std::sync::Arc::new(text)));
    let mut lists = ListBuilder::new(Int64Builder::new());
    for row in 0..rows {
        (0..row % 3).for_each(|value| lists.values().append_value((row + value) as i64));
        lists.append(!row.is_multiple_of(11));
    }
    columns.push(("l".into(), std::sync::Arc::new(lists.finish())));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .set_data_page_row_count_limit(100)
        .set_write_batch_size(50)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn seen(path: &PathBuf, options: &ReadOptions, threads: usize) -> Result<(String, Vec<(usize, Vec<String>)>), String> {
    let seeing = Seeing::default();
    let schema = read(std::slice::from_ref(path), options, &Threads::new(threads), &seeing);
    let schema = schema.map_err(|error| error.to_string())?;
    Ok((types(&schema), seeing.0.into_inner().unwrap().0.into_values().collect()))
}

/// Any number of threads decode the columns of a row group; with a filter, here one that keeps
/// every row, one reader decodes them all. Both give the same parts.
#[test]
fn columns_of_a_row_group_are_read_by_all_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    std::fs::write(&path, wide_parquet(3700, 1500, 18)).unwrap();
    let mut names: Vec<String> = (0..18).rev().map(|column| format!("x{column}")).collect();
    names.insert(7, "t".into());
    let of = |filter: Option<&str>, part_rows| ReadOptions {
        columns: Some(names.clone()),
        filter: filter.map(Into::into),
        part_rows,
        ..options(Format::Parquet)
    };
    for part_rows in [1, 400, 5000] {
        let by_one = seen(&path, &of(Some("x0 < 1e9 or x0 is null"), part_rows), 1).unwrap();
        assert_eq!(by_one.1.iter().map(|(rows, _)| rows).sum::<usize>(), 3700);
        for threads in [1, 2, 3, 40] {
            assert!(seen(&path, &of(None, part_rows), threads).unwrap() == by_one, "{threads} threads");
        }
    }
}

/// More columns than readers: the columns of one reader are in the selected order, too.
#[test]
fn many_columns_are_read_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    std::fs::write(&path, wide_parquet(700, 700, 150)).unwrap();
    let mut names: Vec<String> = (0..150).map(|column| format!("x{}", column * 77 % 150)).collect();
    names.insert(100, "t".into());
    for names in [names.clone(), names[3..140].to_vec(), names[90..101].to_vec()] {
        let of = |filter: Option<&str>| ReadOptions {
            columns: Some(names.clone()),
            filter: filter.map(Into::into),
            part_rows: 300,
            ..options(Format::Parquet)
        };
        let by_one = seen(&path, &of(Some("x0 < 1e9 or x0 is null")), 1).unwrap();
        for threads in [1, 3] {
            assert!(seen(&path, &of(None), threads).unwrap() == by_one, "{} columns", names.len());
        }
    }
}

/// The number of rows that the footer declares is not trusted.
#[test]
fn a_row_group_with_another_number_of_rows_than_declared_is_an_error() {
    use ::parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let good = wide_parquet(1200, 1200, 18);
    let length = u32::from_le_bytes(*good[..good.len() - 4].last_chunk().unwrap()) as usize;
    let columns = (0..18).map(|column| format!("x{column}")).collect();
    let of = ReadOptions { part_rows: 300, columns: Some(columns), ..options(Format::Parquet) };
    for claimed in [1, 899, 1199, 1201, 1300, 2400, 100_000] {
        let meta = ParquetMetaDataReader::new().parse_and_finish(&bytes::Bytes::from(good.clone())).unwrap();
        let group = meta.row_group(0).clone().into_builder().set_num_rows(claimed).build().unwrap();
        let meta = meta.into_builder().set_row_groups(vec![group]).build();
        let mut bytes = good[..good.len() - 8 - length].to_vec();
        ParquetMetaDataWriter::new(&mut bytes, &meta).finish().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let by_one = seen(&path, &of, 1);
        assert!(by_one.as_ref().is_err_and(|error| error.contains("not as many rows")), "{claimed}");
        for threads in [2, 5] {
            assert!(seen(&path, &of, threads) == by_one, "{claimed}");
        }
    }
}

/// Whatever is corrupt in a file, any number of threads gives the same result, and ends.
#[test]
fn a_corrupt_row_group_gives_the_same_error_with_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let good = wide_parquet(1200, 1200, 18);
    let of = ReadOptions { part_rows: 300, ..options(Format::Parquet) };
    let columns = (0..18).map(|column| format!("x{column}")).chain(["t".into()]).collect();
    let of = ReadOptions { columns: Some(columns), ..of };
    let mut errors = 0;
    for at in (4..good.len() - 8).step_by(1 + good.len() / 120) {
        let mut bytes = good.clone();
        let until = (at + 200).min(good.len() - 8);
        bytes[at..until].fill(0xff);
        // Another column is corrupt in another way.
        let other = at / 2 + good.len() / 2;
        let until = (other + 200).min(good.len() - 8);
        bytes[other..until].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let by_one = seen(&path, &of, 1);
        errors += usize::from(by_one.is_err());
        for threads in [2, 5] {
            assert_eq!(seen(&path, &of, threads), by_one, "bytes from {at}");
        }
    }
    assert!(errors > 20, "{errors}");
}

/// Records the calls, and refuses a column from one part on, if any.
struct Refusing {
    piece: u64,
    column: usize,
    seen: std::sync::Mutex<Vec<String>>,
}

struct RefusingPart<'a> {
    sink: &'a Refusing,
    piece: u64,
    next: usize,
}

impl Refusing {
    fn note(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }
}

/// The piece of the only row group of the only file.
fn piece_of(id: PartId) -> u64 {
    (0..9).find(|piece| PartId::new(0, 0, *piece as usize) == id).unwrap()
}

impl Sink for Refusing {
    fn begin<'s>(&'s self, id: PartId, _: &Schema, _: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        self.note(format!("begin {}", piece_of(id)));
        Ok(Box::new(RefusingPart { sink: self, piece: piece_of(id), next: 0 }))
    }

    fn restart(&self) {}
}

impl PartSink for RefusingPart<'_> {
    fn column(&mut self, _: ColumnBytes) -> Result<(), SinkError> {
        self.next += 1;
        let is_refused = self.piece >= self.sink.piece && self.next > self.sink.column;
        if is_refused { Err(format!("no column {} of {}", self.next, self.piece).into()) } else { Ok(()) }
    }

    fn end(self: Box<Self>) -> Result<(), SinkError> {
        assert_eq!(self.next, 19);
        self.sink.note(format!("end {}", self.piece));
        Ok(())
    }
}

/// A single thread has one part open at a time. The error of the sink is the same for any number
/// of threads, and parts from the refused one on are not ended.
#[test]
fn a_sink_that_refuses_a_column_gives_the_same_error_with_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    std::fs::write(&path, wide_parquet(1200, 1200, 18)).unwrap();
    let columns = (0..18).map(|column| format!("x{column}")).chain(["t".into()]).collect();
    let of = ReadOptions { part_rows: 300, columns: Some(columns), ..options(Format::Parquet) };
    let read = |threads, piece, column| {
        let sink = Refusing { piece, column, seen: std::sync::Mutex::default() };
        let read = read(std::slice::from_ref(&path), &of, &Threads::new(threads), &sink);
        (read.map(drop).map_err(|error| error.to_string()), sink.seen.into_inner().unwrap())
    };
    let (all, seen) = read(1, 4, 0);
    assert_eq!(all, Ok(()));
    assert_eq!(
        seen.join(", "),
        (0..4).map(|piece| format!("begin {piece}, end {piece}")).collect::<Vec<_>>().join(", ")
    );
    for threads in [1, 2, 3, 8] {
        for (piece, column) in [(0, 0), (0, 18), (1, 3), (2, 18), (3, 7)] {
            let (result, seen) = read(threads, piece, column);
            assert_eq!(result, Err(format!("no column {} of {piece}", column + 1)), "{threads} threads");
            let ended: Vec<&String> = seen.iter().filter(|what| what.starts_with("end")).collect();
            assert_eq!(ended.len() as u64, piece, "{threads} threads: {seen:?}");
        }
    }
}

#[test]
fn shares_contain_every_column_once_and_in_order() {
    for columns in [0, 1, 63, 64, 65, 128, 10_000] {
        let shares: Vec<_> = super::shares(columns).collect();
        assert!(shares.len() <= 64 && shares.iter().all(|share| !share.is_empty()));
        assert!(shares.into_iter().flatten().eq(0..columns));
    }
}

/// A sink whose parts take their columns only after two parts are begun.
struct Waiting {
    begun: std::sync::Mutex<usize>,
    changed: std::sync::Condvar,
}

struct WaitingPart<'a>(&'a Waiting);

impl Sink for Waiting {
    fn begin<'s>(&'s self, _: PartId, _: &Schema, _: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        *self.begun.lock().unwrap() += 1;
        self.changed.notify_all();
        Ok(Box::new(WaitingPart(self)))
    }

    fn restart(&self) {}
}

impl PartSink for WaitingPart<'_> {
    fn column(&mut self, _: ColumnBytes) -> Result<(), SinkError> {
        // Far longer than needed.
        let timeout = std::time::Duration::from_secs(20);
        let begun = self.0.begun.lock().unwrap();
        let waited = self.0.changed.wait_timeout_while(begun, timeout, |begun| *begun < 2).unwrap();
        if waited.1.timed_out() { Err("the other part is not begun".into()) } else { Ok(()) }
    }

    fn end(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Two threads read one part each, even when a part is larger than what may be decoded ahead.
#[test]
fn parts_of_a_row_group_are_read_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let (rows, columns) = (1 << 16, 2 * 2 * super::AHEAD / (8 << 16));
    std::fs::write(&path, wide_parquet(2 * rows, 2 * rows, columns)).unwrap();
    let names = (0..columns).map(|column| format!("x{column}")).collect();
    let of = ReadOptions { part_rows: rows, columns: Some(names), ..options(Format::Parquet) };
    let waiting = Waiting { begun: std::sync::Mutex::default(), changed: std::sync::Condvar::new() };
    read(std::slice::from_ref(&path), &of, &Threads::new(2), &waiting).unwrap();
}
