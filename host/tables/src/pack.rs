//! Packs: the columns that one task made for one part, in one file.
//!
//! A pack is a plain Arrow IPC file with one record batch, uncompressed, every
//! buffer at a multiple of 64 bytes: pyarrow, Polars and DuckDB open it as it
//! is, and this host maps it and takes the buffers from where the chunk says
//! they lie. Layout: <https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format>
//!
//! Its name is a digest over the digests of its columns, so that no byte is
//! hashed twice; who fetches one from elsewhere verifies it column by column.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::ipc;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use bytes::Bytes;
use flatbuffers::FlatBufferBuilder;
use millrace_types::table::Extent;
use millrace_types::{Field, PackDigest, Schema, StoredChunk};

use crate::column::{Column, ColumnError, field_from_arrow, schema_to_arrow};

const ALIGN: usize = 64;
const MAGIC: &[u8; 6] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xff; 4];

fn padded(size: usize) -> usize {
    size.next_multiple_of(ALIGN)
}

/// Columns on their way into a pack: everything about the file is known before
/// its first byte is written.
pub struct Pack {
    columns: Vec<Column>,
    header: Vec<u8>,
    footer: Vec<u8>,
    digest: PackDigest,
    chunks: Vec<Arc<StoredChunk>>,
}

impl Pack {
    /// Lays out columns of equal length.
    ///
    /// # Errors
    /// When the lengths differ.
    pub fn new(fields: &[Field], columns: Vec<Column>) -> Result<Self, ColumnError> {
        let rows = columns.first().map_or(0, Column::rows);
        if fields.len() != columns.len() || columns.iter().any(|column| column.rows() != rows) {
            return Err(ColumnError::Buffers("the columns of a pack differ in length".to_owned()));
        }
        let mut name = blake3::Hasher::new_derive_key("millrace 2026-11 pack");
        let mut digests = Vec::with_capacity(columns.len());
        for (field, column) in fields.iter().zip(&columns) {
            let digest = column.digest();
            name.update(&(field.name.as_str().len() as u64).to_le_bytes());
            name.update(field.name.as_str().as_bytes());
            name.update(&[u8::from(field.nullable)]);
            name.update(digest.as_bytes());
            digests.push(digest);
        }
        let digest = PackDigest::from(name.finalize());

        // Where each buffer lies in the body of the record batch.
        let mut body = 0;
        let mut place = |size: usize| {
            let extent = Extent { offset: body as u64, size: size as u64 };
            body += padded(size);
            extent
        };
        let mut places = Vec::with_capacity(columns.len());
        for column in &columns {
            let validity = column.validity.as_ref().map(|bytes| place(bytes.len()));
            let offsets = column.offsets.as_ref().map(|bytes| place(bytes.len()));
            places.push((validity, offsets, place(column.values.len())));
        }

        let schema = Schema { fields: fields.to_vec() };
        let (header, body_start, block) = header(&schema, &columns, &places, body);
        let footer = footer(&schema, block, &header, body);
        let pack_bytes = (body_start + body + footer.len()) as u64;
        let shift = |extent: Extent| Extent { offset: extent.offset + body_start as u64, ..extent };
        let chunks =
            columns.iter().zip(places).zip(digests).map(|((column, (validity, offsets, values)), of_column)| {
                Arc::new(StoredChunk {
                    digest: of_column,
                    data_type: column.data_type.clone(),
                    rows: column.rows as u64,
                    null_count: column.null_count as u64,
                    pack: digest,
                    pack_bytes,
                    validity: validity.map(shift),
                    offsets: offsets.map(shift),
                    values: shift(values),
                })
            });
        let chunks = chunks.collect();
        Ok(Self { columns, header, footer, digest, chunks })
    }

    /// The name of the pack.
    pub fn digest(&self) -> PackDigest {
        self.digest
    }

    /// Where each column will lie, in order.
    pub fn chunks(&self) -> &[Arc<StoredChunk>] {
        &self.chunks
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        const ZEROS: [u8; ALIGN] = [0; ALIGN];
        let mut out = io::BufWriter::with_capacity(64 << 10, out);
        out.write_all(&self.header)?;
        for column in &self.columns {
            for buffer in
                [column.validity.as_ref(), column.offsets.as_ref(), Some(&column.values)].into_iter().flatten()
            {
                out.write_all(buffer)?;
                out.write_all(&ZEROS[..padded(buffer.len()) - buffer.len()])?;
            }
        }
        out.write_all(&self.footer)?;
        out.flush()
    }
}

/// A message with its prefix, padded so that what follows is aligned.
fn message(out: &mut Vec<u8>, flatbuffer: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&CONTINUATION);
    let end = padded(start + 8 + flatbuffer.len());
    out.extend_from_slice(&((end - start - 8) as i32).to_le_bytes());
    out.extend_from_slice(flatbuffer);
    out.resize(end, 0);
}

type Place = (Option<Extent>, Option<Extent>, Extent);

/// Everything before the body, where the body starts, and the footer's entry.
fn header(schema: &Schema, columns: &[Column], places: &[Place], body: usize) -> (Vec<u8>, usize, ipc::Block) {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(MAGIC);
    out.resize(8, 0);
    let options = IpcWriteOptions::default();
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        &schema_to_arrow(schema),
        &mut DictionaryTracker::new(false),
        &options,
    );
    message(&mut out, &encoded.ipc_message);

    let rows = columns.first().map_or(0, |column| column.rows as i64);
    let mut builder = FlatBufferBuilder::new();
    let nodes: Vec<ipc::FieldNode> =
        columns.iter().map(|column| ipc::FieldNode::new(column.rows as i64, column.null_count as i64)).collect();
    let mut buffers = Vec::new();
    let absent = Extent { offset: 0, size: 0 };
    for (column, (validity, offsets, values)) in columns.iter().zip(places) {
        let buffer = |extent: &Extent| ipc::Buffer::new(extent.offset as i64, extent.size as i64);
        buffers.push(buffer(validity.as_ref().unwrap_or(&absent)));
        if column.data_type.is_variable() {
            buffers.push(buffer(offsets.as_ref().unwrap_or(&absent)));
        }
        buffers.push(buffer(values));
    }
    let nodes = builder.create_vector(&nodes);
    let buffers = builder.create_vector(&buffers);
    let mut batch = ipc::RecordBatchBuilder::new(&mut builder);
    batch.add_length(rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    let batch = batch.finish().as_union_value();
    let mut root = ipc::MessageBuilder::new(&mut builder);
    root.add_version(ipc::MetadataVersion::V5);
    root.add_header_type(ipc::MessageHeader::RecordBatch);
    root.add_bodyLength(body as i64);
    root.add_header(batch);
    let root = root.finish();
    builder.finish(root, None);

    let start = out.len();
    message(&mut out, builder.finished_data());
    let block = ipc::Block::new(start as i64, (out.len() - start) as i32, body as i64);
    let body_start = out.len();
    (out, body_start, block)
}

/// What stands between the end of the stream and the footer, where Arrow does not look:
/// how long the header is, and a digest of header, body's length and footer.
const SEAL: usize = 8 + 32;
/// Continuation and a length of zero.
const END_OF_STREAM: usize = 8;
/// The footer's length and the magic word.
const TAIL: usize = 4 + MAGIC.len();

fn seal(header: &[u8], body: usize, footer: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 frame of a pack");
    for piece in [header, footer] {
        hasher.update(&(piece.len() as u64).to_le_bytes()).update(piece);
    }
    *hasher.update(&(body as u64).to_le_bytes()).finalize().as_bytes()
}

/// Whether everything of a file but its columns is as it was written. What a reader of
/// Arrow files makes of anything else is not certain.
fn is_sealed(file: &[u8]) -> bool {
    let check = || {
        let (rest, tail) = file.split_at_checked(file.len().checked_sub(TAIL)?)?;
        let length = u32::from_le_bytes(tail[..4].try_into().ok()?) as usize;
        let (rest, footer) = rest.split_at_checked(rest.len().checked_sub(length)?)?;
        let (rest, sealed) = rest.split_at_checked(rest.len().checked_sub(SEAL)?)?;
        let header = usize::try_from(u64::from_le_bytes(sealed[..8].try_into().ok()?)).ok()?;
        let body = rest.len().checked_sub(END_OF_STREAM)?.checked_sub(header)?;
        let end_of_stream = [CONTINUATION, [0; 4]].concat();
        let stands = tail[4..] == *MAGIC && rest[header + body..] == end_of_stream;
        Some(stands && sealed[8..] == seal(&rest[..header], body, footer))
    };
    check() == Some(true)
}

/// End of stream, seal, footer, its size, magic.
fn footer(schema: &Schema, block: ipc::Block, header: &[u8], body: usize) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let schema = ipc::convert::IpcSchemaEncoder::new().schema_to_fb_offset(&mut builder, &schema_to_arrow(schema));
    let blocks = builder.create_vector(&[block]);
    let dictionaries = builder.create_vector::<ipc::Block>(&[]);
    let mut root = ipc::FooterBuilder::new(&mut builder);
    root.add_version(ipc::MetadataVersion::V5);
    root.add_schema(schema);
    root.add_dictionaries(dictionaries);
    root.add_recordBatches(blocks);
    let root = root.finish();
    builder.finish(root, None);
    let footer = builder.finished_data();
    let mut out = Vec::with_capacity(footer.len() + 32);
    out.extend_from_slice(&CONTINUATION);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(header.len() as u64).to_le_bytes());
    out.extend_from_slice(&seal(header, body, footer));
    out.extend_from_slice(footer);
    out.extend_from_slice(&(footer.len() as i32).to_le_bytes());
    out.extend_from_slice(MAGIC);
    out
}

/// Whether a file is the pack that its name says: read as any Arrow IPC file is, and
/// digested anew.
pub fn is_whole(file: &[u8], digest: &PackDigest) -> bool {
    let field = |field: &Arc<arrow::datatypes::Field>| field_from_arrow(field).ok();
    let read = || {
        let mut batches = ipc::reader::FileReader::try_new(io::Cursor::new(file), None).ok()?;
        let batch = batches.next()?.ok()?;
        let fields = batch.schema().fields().iter().map(field).collect::<Option<Vec<_>>>()?;
        let columns = batch.columns().iter().map(|array| Column::from_array(array).ok()).collect::<Option<Vec<_>>>()?;
        Some(Pack::new(&fields, columns).ok()?.digest())
    };
    // Who is able to seal may still have sealed what a reader panics at.
    is_sealed(file) && std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).ok().flatten() == Some(*digest)
}

/// The column that a chunk says lies in a pack. Positions are claims: they are
/// held against the file and against the type.
///
/// # Errors
/// When a position lies outside of the file or has another size than needed.
pub fn column(pack: &Bytes, chunk: &StoredChunk) -> Result<Column, ColumnError> {
    let wrong = || ColumnError::Buffers(format!("pack {} does not have column {}", chunk.pack, chunk.digest));
    let slice = |extent: &Extent| -> Result<Bytes, ColumnError> {
        let end = extent.offset.checked_add(extent.size).filter(|end| *end <= pack.len() as u64).ok_or_else(wrong)?;
        Ok(pack.slice(extent.offset as usize..end as usize))
    };
    let rows = chunk.rows;
    if rows > millrace_types::bounds::PART_ROWS {
        return Err(wrong());
    }
    let bits = rows.div_ceil(8);
    let validity = chunk.validity.as_ref().map(slice).transpose()?;
    let offsets = chunk.offsets.as_ref().map(slice).transpose()?;
    let values = slice(&chunk.values)?;
    let fits = validity.as_ref().is_none_or(|bytes| bytes.len() as u64 == bits)
        && validity.is_some() == (chunk.null_count > 0)
        && offsets.is_some() == chunk.data_type.is_variable()
        && offsets.as_ref().is_none_or(|bytes| bytes.len() as u64 == (rows + 1) * 4)
        && match chunk.data_type.width() {
            Some(width) => values.len() as u64 == rows * width as u64,
            None => chunk.data_type.is_variable() || values.len() as u64 == bits,
        };
    if !fits {
        return Err(wrong());
    }
    Ok(Column {
        data_type: chunk.data_type.clone(),
        rows: rows as usize,
        null_count: chunk.null_count as usize,
        validity,
        offsets,
        values,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMillisecondArray};
    use millrace_types::ColumnName;

    use super::*;
    use crate::column::type_from_arrow;

    fn fixture() -> (Vec<Field>, Vec<Column>) {
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
        let columns = arrays.iter().map(|(_, array)| Column::from_array(&**array).unwrap()).collect();
        (arrays.iter().map(field).collect(), columns)
    }

    #[test]
    fn a_pack_is_an_arrow_file_and_its_columns_lie_where_it_says() {
        let (fields, columns) = fixture();
        let pack = Pack::new(&fields, columns.clone()).unwrap();
        let mut bytes = Vec::new();
        pack.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, pack.chunks()[0].pack_bytes);

        let mut reader = ipc::reader::FileReader::try_new(std::io::Cursor::new(&bytes), None).unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert!(reader.next().is_none());
        assert_eq!(*batch.schema(), schema_to_arrow(&Schema { fields }));
        let bytes = Bytes::from(bytes);
        for (i, column) in columns.iter().enumerate() {
            assert_eq!(&Column::from_array(batch.column(i)).unwrap(), column);
            let chunk = &pack.chunks()[i];
            assert_eq!(&super::column(&bytes, chunk).unwrap(), column);
            assert_eq!(chunk.values.offset % ALIGN as u64, 0);
        }
    }

    #[test]
    fn a_pack_without_rows_or_columns_is_one_too() {
        for (fields, columns) in [(vec![], vec![]), {
            let (fields, _) = fixture();
            let empty = StringArray::from(Vec::<&str>::new());
            (vec![fields[1].clone()], vec![Column::from_array(&empty).unwrap()])
        }] {
            let pack = Pack::new(&fields, columns).unwrap();
            let mut bytes = Vec::new();
            pack.write(&mut bytes).unwrap();
            assert!(ipc::reader::FileReader::try_new(std::io::Cursor::new(&bytes), None).is_ok());
            assert!(is_whole(&bytes, &pack.digest()));
        }
    }

    /// Whole ones are never taken for harmed, and of harmed ones none that a column of it
    /// would be read from differently. Nothing panics on the way: only a file with its
    /// seal is given to a reader of Arrow files.
    #[test]
    fn a_harmed_pack_is_not_whole() {
        let (fields, columns) = fixture();
        let pack = Pack::new(&fields, columns.clone()).unwrap();
        let mut bytes = Vec::new();
        pack.write(&mut bytes).unwrap();
        assert!(is_whole(&bytes, &pack.digest()));
        let columns_lie_in = |at: usize| {
            let places = pack
                .chunks()
                .iter()
                .flat_map(|chunk| [chunk.validity, chunk.offsets, Some(chunk.values)].into_iter().flatten());
            places.into_iter().any(|place| (place.offset..place.offset + place.size).contains(&(at as u64)))
        };
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            let padding = pack.header.len()..bytes.len() - pack.footer.len();
            assert!(padding.contains(&at) || columns_lie_in(at) || !is_sealed(&bytes), "byte {at}");
            let file = Bytes::copy_from_slice(&bytes);
            let reads_alike =
                pack.chunks().iter().zip(&columns).all(|(chunk, column)| {
                    super::column(&file, chunk).is_ok_and(|read| read.digest() == column.digest())
                });
            assert!(!is_whole(&bytes, &pack.digest()) || reads_alike, "byte {at}");
            bytes[at] ^= 4;
        }
        for end in 0..bytes.len() {
            assert!(!is_sealed(&bytes[..end]), "cut at {end}");
        }
    }

    #[test]
    fn false_positions_are_errors() {
        let (fields, columns) = fixture();
        let pack = Pack::new(&fields, columns).unwrap();
        let mut bytes = Vec::new();
        pack.write(&mut bytes).unwrap();
        let bytes = Bytes::from(bytes);
        let good = (*pack.chunks()[1]).clone();
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
}
