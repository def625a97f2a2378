use std::ops::Range;

use arrow::array::{Float64Array, Int64Array, StringArray};
use millrace_types::{ColumnName, DataType, Field};

use super::*;
use millrace_threads::Threads;

type Table = (Schema, Vec<ColumnBytes>);

fn table(columns: Vec<(DataType, ColumnBytes)>) -> Table {
    let field = |(index, (data_type, _)): (usize, &(DataType, ColumnBytes))| Field {
        name: ColumnName::new(&format!("c{index}")),
        data_type: data_type.clone(),
        nullable: true,
    };
    let fields = columns.iter().enumerate().map(field).collect();
    (Schema { fields }, columns.into_iter().map(|(_, column)| column).collect())
}

/// A file of the table, written in these parts.
fn written((schema, columns): &Table, format: Format, parts: &[Range<usize>], threads: Option<usize>) -> Vec<u8> {
    let part = |rows: &Range<usize>| -> Vec<ColumnBytes> {
        let some = |column: &ColumnBytes| column.to_array().unwrap().slice(rows.start, rows.len());
        columns.iter().map(|column| ColumnBytes::from_array(&*some(column)).unwrap()).collect()
    };
    let mut bytes = Vec::new();
    let mut exporter = Exporter::new(&mut bytes, format, schema).unwrap();
    let encoder = exporter.encoder();
    let encode = |rows: &Range<usize>| encoder.part(rows.len(), &part(rows));
    match threads {
        None => parts.iter().for_each(|rows| exporter.put(encode(rows).unwrap()).unwrap()),
        Some(threads) => Threads::new(threads).in_turn(parts.iter(), encode, |part| exporter.put(part)).unwrap(),
    }
    exporter.finish().unwrap();
    bytes
}

/// The file is the same, whichever threads encode the parts.
#[test]
fn a_file_does_not_depend_on_the_threads_that_encode_its_parts() {
    let rows = 5000i64;
    let ints: Int64Array = (0..rows).map(|row| (row % 9 != 0).then_some(row * 7)).collect();
    let floats: Float64Array = (0..rows).map(|row| Some(row as f64 * 0.37)).collect();
    let texts: StringArray = (0..rows).map(|row| (row % 5 != 0).then(|| format!("\"a, {}\"", row % 11))).collect();
    let table = table(vec![
        (DataType::Int64, ColumnBytes::from_array(&ints).unwrap()),
        (DataType::Float64, ColumnBytes::from_array(&floats).unwrap()),
        (DataType::Utf8, ColumnBytes::from_array(&texts).unwrap()),
    ]);
    // One part has no rows.
    let parts = [0..700, 700..1400, 1400..1400, 1400..1401, 1401..3000, 3000..5000];
    for format in [Format::Parquet, Format::Ipc, Format::Ndjson, Format::Csv] {
        let alone = written(&table, format, &parts, None);
        assert!(alone.len() > 1000, "{format:?}");
        for threads in [1, 2, 5] {
            assert!(written(&table, format, &parts, Some(threads)) == alone, "{format:?}, {threads} threads");
        }
    }
}

/// The text of a large part is encoded some rows at a time; the file is the same.
#[test]
fn a_large_part_gives_the_same_file_as_small_parts() {
    let rows = 100_000;
    let column = |index: i64| {
        let ints: Int64Array = (0..rows as i64).map(|row| Some(row % 7 * index)).collect();
        (DataType::Int64, ColumnBytes::from_array(&ints).unwrap())
    };
    let table = table((0..90).map(column).collect());
    assert!(table.1.iter().map(ColumnBytes::bytes).sum::<u64>() > WHOLE);
    for format in [Format::Csv, Format::Ndjson] {
        let parts = [0..rows / 3, rows / 3..rows / 2, rows / 2..rows];
        let whole = std::slice::from_ref(&(0..rows)).to_vec();
        assert!(written(&table, format, &whole, None) == written(&table, format, &parts, None), "{format:?}");
    }
}
