use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMillisecondArray};
use millrace_types::ColumnName;

use super::*;
use crate::column::type_from_arrow;

fn fixture() -> (Vec<Field>, Vec<ColumnBytes>) {
    let arrays: Vec<(&str, ArrayRef)> = vec![
        ("x", Arc::new(Float64Array::from(vec![Some(0.5), None, Some(2.0)]))),
        ("t", Arc::new(StringArray::from(vec!["a", "", "xyz"]))),
        ("b", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3]).with_timezone("UTC"))),
    ];
    let field = |(name, array): &(&str, ArrayRef)| Field {
        name: ColumnName::new(name),
        data_type: type_from_arrow(array.data_type()).unwrap(),
        nullable: array.null_count() > 0,
    };
    let columns = arrays.iter().map(|(_, array)| ColumnBytes::from_array(&**array).unwrap()).collect();
    (arrays.iter().map(field).collect(), columns)
}

fn written(fields: &[Field], columns: &[ColumnBytes]) -> (Pack<()>, Vec<u8>) {
    let Pack { digest, chunks, out } = write(fields, columns, io::Cursor::new(Vec::new())).unwrap();
    (Pack { digest, chunks, out: () }, out.into_inner())
}

/// The range of the columns and their padding.
fn body_of(chunks: &[Arc<StoredChunk>]) -> std::ops::Range<usize> {
    let first = &chunks[0];
    let start = first.validity.or(first.offsets).unwrap_or(first.values).offset as usize;
    let last = chunks.last().unwrap().values;
    start..last.offset as usize + padded(last.size as usize)
}

#[test]
fn a_pack_is_an_arrow_file_and_its_columns_are_at_their_extents() {
    let (fields, columns) = fixture();
    let (pack, bytes) = written(&fields, &columns);
    assert_eq!(bytes.len() as u64, pack.chunks[0].pack_bytes);

    let mut reader = ipc::reader::FileReader::try_new(std::io::Cursor::new(&bytes), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    assert_eq!(*batch.schema(), schema_to_arrow(&Schema { fields }));
    let bytes = Bytes::from(bytes);
    for (i, column) in columns.iter().enumerate() {
        assert_eq!(&ColumnBytes::from_array(batch.column(i)).unwrap(), column);
        let chunk = &pack.chunks[i];
        assert_eq!(&super::column(&bytes, chunk).unwrap(), column);
        assert_eq!(chunk.values.offset % ALIGN as u64, 0);
    }
}

/// Sizes around the buffer and around the bytes that are hashed at a time.
#[test]
fn large_columns_are_at_their_extents_too() {
    for rows in [BUFFER / 8 - 200, BUFFER / 8 - 30, BUFFER / 8, AT_ONCE / 8 + 1, 3 * AT_ONCE] {
        let numbers: Float64Array = (0..rows).map(|row| (row % 7 != 3).then_some(row as f64)).collect();
        let texts: StringArray = (0..rows).map(|row| Some("x".repeat(row % 3))).collect();
        let arrays: [ArrayRef; 3] = [Arc::new(numbers.clone()), Arc::new(texts), Arc::new(numbers)];
        let columns: Vec<ColumnBytes> = arrays.iter().map(|array| ColumnBytes::from_array(&**array).unwrap()).collect();
        let field = |(name, column): (&str, &ColumnBytes)| Field {
            name: ColumnName::new(name),
            data_type: column.data_type().clone(),
            nullable: true,
        };
        let fields: Vec<Field> = ["a", "b", "c"].into_iter().zip(&columns).map(field).collect();
        let (pack, bytes) = written(&fields, &columns);
        assert_eq!(bytes.len() as u64, pack.chunks[0].pack_bytes, "{rows} rows");
        assert!(is_intact(&bytes, &pack.digest), "{rows} rows");
        let bytes = Bytes::from(bytes);
        for (chunk, column) in pack.chunks.iter().zip(&columns) {
            assert_eq!(&super::column(&bytes, chunk).unwrap(), column, "{rows} rows");
            assert_eq!(chunk.digest, column.digest(), "{rows} rows");
        }
    }
}

#[test]
fn columns_that_differ_from_the_fields_are_refused() {
    let (fields, columns) = fixture();
    let mut pack = PackWriter::new(&fields, 3, io::Cursor::new(Vec::new()));
    assert!(pack.column(&columns[1].as_ref()).is_err(), "another type");
    pack.column(&columns[0].as_ref()).unwrap();
    assert!(pack.finish().is_err(), "columns are missing");
    let mut pack = PackWriter::new(&fields[..1], 4, io::Cursor::new(Vec::new()));
    assert!(pack.column(&columns[0].as_ref()).is_err(), "another length");
}

#[test]
fn a_pack_without_rows_or_columns_is_valid() {
    for (fields, columns) in [(vec![], vec![]), {
        let (fields, _) = fixture();
        let empty = StringArray::from(Vec::<&str>::new());
        (vec![fields[1].clone()], vec![ColumnBytes::from_array(&empty).unwrap()])
    }] {
        let (pack, bytes) = written(&fields, &columns);
        assert!(ipc::reader::FileReader::try_new(std::io::Cursor::new(&bytes), None).is_ok());
        assert!(is_intact(&bytes, &pack.digest));
    }
}

/// An intact pack is never taken for corrupt, and a pack in which a column would be read
/// differently is never taken for intact. Nothing panics: only a file with a valid seal is
/// given to a reader of Arrow files.
#[test]
fn a_corrupt_pack_is_not_intact() {
    let (fields, columns) = fixture();
    let (pack, mut bytes) = written(&fields, &columns);
    assert!(is_intact(&bytes, &pack.digest));
    let is_in_a_column = |at: usize| {
        let extents = pack
            .chunks
            .iter()
            .flat_map(|chunk| [chunk.validity, chunk.offsets, Some(chunk.values)].into_iter().flatten());
        extents.into_iter().any(|extent| (extent.offset..extent.offset + extent.size).contains(&(at as u64)))
    };
    for at in 0..bytes.len() {
        bytes[at] ^= 4;
        let body = body_of(&pack.chunks);
        assert!(body.contains(&at) || is_in_a_column(at) || !is_sealed(&bytes), "byte {at}");
        let file = Bytes::copy_from_slice(&bytes);
        let reads_alike = pack
            .chunks
            .iter()
            .zip(&columns)
            .all(|(chunk, column)| super::column(&file, chunk).is_ok_and(|read| read.digest() == column.digest()));
        assert!(!is_intact(&bytes, &pack.digest) || reads_alike, "byte {at}");
        bytes[at] ^= 4;
    }
    for end in 0..bytes.len() {
        assert!(!is_sealed(&bytes[..end]), "truncated to {end} bytes");
    }
}

#[test]
fn wrong_extents_are_errors() {
    let (fields, columns) = fixture();
    let (pack, bytes) = written(&fields, &columns);
    let bytes = Bytes::from(bytes);
    let good = (*pack.chunks[1]).clone();
    let changes: Vec<fn(&mut StoredChunk)> = vec![
        |c| c.values.offset = u64::MAX,
        |c| c.values.size = u64::MAX,
        |c| c.offsets = None,
        |c| c.rows = u64::MAX / 8,
        |c| c.null_count = 1,
        |c| c.data_type = millrace_types::DataType::Int64,
    ];
    for change in changes {
        let mut chunk = good.clone();
        change(&mut chunk);
        assert!(super::column(&bytes, &chunk).is_err(), "{chunk:?}");
    }
}
