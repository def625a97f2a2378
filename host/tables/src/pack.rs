//! Packs: the columns that one task wrote for one part, in one file.
//!
//! A pack is a plain Arrow IPC file with one record batch, uncompressed, every buffer at a
//! multiple of 64 bytes: pyarrow, Polars and DuckDB open it unchanged, and this host maps it
//! and takes the buffers at the offsets that the chunk records. Layout:
//! <https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format>
//!
//! Its name is a digest over the digests of its columns, so that no byte is hashed twice; a
//! pack fetched from elsewhere is verified column by column.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use arrow::ipc;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use bytes::Bytes;
use flatbuffers::FlatBufferBuilder;
use millrace_types::table::Extent;
use millrace_types::{ColumnDigest, Field, PackDigest, Schema, StoredChunk};

use crate::column::{ColumnBytes, ColumnError, ColumnRef, field_from_arrow, schema_to_arrow};

const ALIGN: usize = 64;
const MAGIC: &[u8; 6] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xff; 4];

fn padded(size: usize) -> usize {
    size.next_multiple_of(ALIGN)
}

/// Bytes that are hashed and then written at a time: hashing leaves them in the cache for
/// writing.
const AT_ONCE: usize = 128 << 10;

/// Bytes that are buffered: a small file is written with one call.
const BUFFER: usize = 64 << 10;

/// A file that grows at its end, except for its first bytes, which are known last.
struct Body<W> {
    out: W,
    buffer: Vec<u8>,
    /// Whether the beginning of the file has left the buffer.
    is_flushed: bool,
}

impl<W: Write + Seek> Body<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
            self.is_flushed = true;
            if bytes.len() > BUFFER / 4 {
                return self.out.write_all(bytes);
            }
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes the buffer and the beginning.
    fn end(mut self, beginning: &[u8]) -> io::Result<W> {
        if !self.is_flushed {
            self.buffer[..beginning.len()].copy_from_slice(beginning);
        }
        self.out.write_all(&self.buffer)?;
        if self.is_flushed {
            self.out.seek(SeekFrom::Start(0))?;
            self.out.write_all(beginning)?;
        }
        Ok(self.out)
    }
}

/// A column that was written.
struct Written {
    digest: ColumnDigest,
    null_count: u64,
    extents: Extents,
}

/// A pack that is being written, column by column, from borrowed buffers: each byte is read
/// once, to be hashed and written.
pub struct PackWriter<W> {
    fields: Vec<Field>,
    rows: u64,
    header: usize,
    body: Body<W>,
    size: usize,
    written: Vec<Written>,
}

/// A pack that was written.
pub struct Pack<W> {
    /// Its name.
    pub digest: PackDigest,
    /// The columns with the extents of their buffers, in order.
    pub chunks: Vec<Arc<StoredChunk>>,
    /// The writer that it was written to.
    pub out: W,
}

impl<W: Write + Seek> PackWriter<W> {
    /// Begins a pack of these columns with `rows` rows each.
    pub fn new(fields: &[Field], rows: u64, out: W) -> Self {
        // Fields and rows decide the length of the header: offsets in it have a fixed size,
        // and of all numbers only zeros take no room.
        let has_body = fields.iter().any(|field| rows > 0 || field.data_type.is_variable());
        let empty = |_: &Field| Written {
            digest: ColumnDigest::from_bytes([0; 32]),
            null_count: 0,
            extents: (None, None, Extent { offset: 0, size: 0 }),
        };
        let written: Vec<Written> = fields.iter().map(empty).collect();
        let header = header(fields, rows, &written, usize::from(has_body)).0.len();
        let body = Body { out, buffer: vec![0; header], is_flushed: false };
        Self { fields: fields.to_vec(), rows, header, body, size: 0, written: Vec::with_capacity(fields.len()) }
    }

    /// The field whose column comes next.
    pub fn next(&self) -> Option<&Field> {
        self.fields.get(self.written.len())
    }

    /// Writes the next column.
    ///
    /// # Errors
    /// Those of the writer; when the column has another type than the next field or another
    /// number of rows than the pack.
    pub fn column(&mut self, column: &ColumnRef<'_>) -> io::Result<()> {
        let fits = self.next().is_some_and(|field| field.data_type == column.data_type);
        if !fits || column.rows as u64 != self.rows {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a column that does not belong in the pack"));
        }
        let mut hasher = column.hasher();
        let mut put = |buffer: Option<&[u8]>| -> io::Result<Option<Extent>> {
            hasher.update(&(buffer.map_or(0, <[u8]>::len) as u64).to_le_bytes());
            let Some(buffer) = buffer else { return Ok(None) };
            let extent = Extent { offset: self.size as u64, size: buffer.len() as u64 };
            let mut rest = buffer;
            while !rest.is_empty() {
                // Pieces end at subtrees of the digest: other pieces take a third longer to hash.
                let whole = AT_ONCE - (hasher.count() % AT_ONCE as u64) as usize;
                let (piece, more) = rest.split_at(whole.min(rest.len()));
                hasher.update(piece);
                self.body.put(piece)?;
                rest = more;
            }
            self.body.put(&[0; ALIGN][..padded(buffer.len()) - buffer.len()])?;
            self.size += padded(buffer.len());
            Ok(Some(extent))
        };
        let extents = (put(column.validity.as_deref())?, put(column.offsets)?, put(Some(&column.values))?);
        let extents = (extents.0, extents.1, extents.2.unwrap_or(Extent { offset: 0, size: 0 }));
        let digest = hasher.finalize().into();
        self.written.push(Written { digest, null_count: column.null_count as u64, extents });
        Ok(())
    }

    /// Writes the header and the footer.
    ///
    /// # Errors
    /// Those of the writer; when columns are missing.
    pub fn finish(self) -> io::Result<Pack<W>> {
        let Self { fields, rows, header: reserved, mut body, size, written } = self;
        if written.len() != fields.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a pack that lacks some of its columns"));
        }
        let mut name = blake3::Hasher::new_derive_key("millrace 2026-11 pack");
        for (field, Written { digest, .. }) in fields.iter().zip(&written) {
            name.update(&(field.name.as_str().len() as u64).to_le_bytes());
            name.update(field.name.as_str().as_bytes());
            name.update(&[u8::from(field.nullable)]);
            name.update(digest.as_bytes());
        }
        let digest = PackDigest::from(name.finalize());
        let (header, block) = header(&fields, rows, &written, size);
        if header.len() != reserved {
            return Err(io::Error::other("the header of a pack has another length than expected: please report this"));
        }
        let footer = footer(&fields, block, &header, size);
        let pack_bytes = (header.len() + size + footer.len()) as u64;
        body.put(&footer)?;
        let out = body.end(&header)?;
        let shift = |extent: Extent| Extent { offset: extent.offset + reserved as u64, ..extent };
        let chunk = |(field, column): (Field, Written)| {
            let (validity, offsets, values) = column.extents;
            Arc::new(StoredChunk {
                digest: column.digest,
                data_type: field.data_type,
                rows,
                null_count: column.null_count,
                pack: digest,
                pack_bytes,
                validity: validity.map(shift),
                offsets: offsets.map(shift),
                values: shift(values),
            })
        };
        Ok(Pack { digest, chunks: fields.into_iter().zip(written).map(chunk).collect(), out })
    }
}

/// Writes a pack of columns of equal length.
///
/// # Errors
/// Those of the writer; when columns differ in length, or from their fields in type.
pub fn write<W: Write + Seek>(fields: &[Field], columns: &[ColumnBytes], out: W) -> io::Result<Pack<W>> {
    let rows = columns.first().map_or(0, |column| column.rows as u64);
    let mut pack = PackWriter::new(fields, rows, out);
    columns.iter().try_for_each(|column| pack.column(&column.as_ref()))?;
    pack.finish()
}

/// Appends a message with its prefix, padded so that the next one is aligned.
fn message(out: &mut Vec<u8>, flatbuffer: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&CONTINUATION);
    let end = padded(start + 8 + flatbuffer.len());
    out.extend_from_slice(&((end - start - 8) as i32).to_le_bytes());
    out.extend_from_slice(flatbuffer);
    out.resize(end, 0);
}

/// The extents of validity, offsets and values.
type Extents = (Option<Extent>, Option<Extent>, Extent);

/// Everything before the body, and the footer's entry for the record batch.
fn header(fields: &[Field], rows: u64, columns: &[Written], body: usize) -> (Vec<u8>, ipc::Block) {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(MAGIC);
    out.resize(8, 0);
    let options = IpcWriteOptions::default();
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        &schema_to_arrow(&Schema { fields: fields.to_vec() }),
        &mut DictionaryTracker::new(false),
        &options,
    );
    message(&mut out, &encoded.ipc_message);

    let mut builder = FlatBufferBuilder::new();
    let nodes: Vec<ipc::FieldNode> =
        columns.iter().map(|column| ipc::FieldNode::new(rows as i64, column.null_count as i64)).collect();
    let mut buffers = Vec::new();
    let absent = Extent { offset: 0, size: 0 };
    for (field, Written { extents: (validity, offsets, values), .. }) in fields.iter().zip(columns) {
        let buffer = |extent: &Extent| ipc::Buffer::new(extent.offset as i64, extent.size as i64);
        buffers.push(buffer(validity.as_ref().unwrap_or(&absent)));
        if field.data_type.is_variable() {
            buffers.push(buffer(offsets.as_ref().unwrap_or(&absent)));
        }
        buffers.push(buffer(values));
    }
    let nodes = builder.create_vector(&nodes);
    let buffers = builder.create_vector(&buffers);
    let mut batch = ipc::RecordBatchBuilder::new(&mut builder);
    batch.add_length(rows as i64);
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
    (out, block)
}

/// The size of the seal, between the end of the stream and the footer, which Arrow does not
/// read: the length of the header, and a digest of header, body length and footer.
const SEAL: usize = 8 + 32;
/// Continuation and a length of zero.
const END_OF_STREAM: usize = 8;
/// The footer's length and the magic word.
const TAIL: usize = 4 + MAGIC.len();

fn seal(header: &[u8], body: usize, footer: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 frame of a pack");
    for piece in [header, footer] {
        hasher.update(&(piece.len() as u64).to_le_bytes()).update(piece);
    }
    hasher.update(&(body as u64).to_le_bytes()).finalize()
}

/// Whether everything in a file except its columns is as written. What a reader of Arrow files
/// does with any other file is uncertain.
fn is_sealed(file: &[u8]) -> bool {
    let check = || {
        let (rest, tail) = file.split_at_checked(file.len().checked_sub(TAIL)?)?;
        let length = u32::from_le_bytes(tail[..4].try_into().ok()?) as usize;
        let (rest, footer) = rest.split_at_checked(rest.len().checked_sub(length)?)?;
        let (rest, sealed) = rest.split_at_checked(rest.len().checked_sub(SEAL)?)?;
        let header = usize::try_from(u64::from_le_bytes(sealed[..8].try_into().ok()?)).ok()?;
        let body = rest.len().checked_sub(END_OF_STREAM)?.checked_sub(header)?;
        let end_of_stream = [CONTINUATION, [0; 4]].concat();
        let is_framed = tail[4..] == *MAGIC && rest[header + body..] == end_of_stream;
        Some(is_framed && sealed[8..] == *seal(&rest[..header], body, footer).as_bytes())
    };
    check() == Some(true)
}

/// End of stream, seal, footer, its size, magic.
fn footer(fields: &[Field], block: ipc::Block, header: &[u8], body: usize) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let schema = schema_to_arrow(&Schema { fields: fields.to_vec() });
    let schema = ipc::convert::IpcSchemaEncoder::new().schema_to_fb_offset(&mut builder, &schema);
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
    out.extend_from_slice(seal(header, body, footer).as_bytes());
    out.extend_from_slice(footer);
    out.extend_from_slice(&(footer.len() as i32).to_le_bytes());
    out.extend_from_slice(MAGIC);
    out
}

/// Whether a file is the pack with this digest: it is read as any Arrow IPC file, and its
/// digest is recomputed.
pub fn is_intact(file: &[u8], digest: &PackDigest) -> bool {
    let field = |field: &Arc<arrow::datatypes::Field>| field_from_arrow(field).ok();
    let read = || {
        let mut batches = ipc::reader::FileReader::try_new(io::Cursor::new(file), None).ok()?;
        let batch = batches.next()?.ok()?;
        let fields = batch.schema().fields().iter().map(field).collect::<Option<Vec<_>>>()?;
        let columns =
            batch.columns().iter().map(|array| ColumnBytes::from_array(array).ok()).collect::<Option<Vec<_>>>()?;
        Some(write(&fields, &columns, io::empty()).ok()?.digest)
    };
    // A file with a valid seal may still make a reader panic.
    is_sealed(file) && std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).ok().flatten() == Some(*digest)
}

/// The column of a chunk, from its pack. Extents are not trusted: they are checked against the
/// file and the type.
///
/// # Errors
/// When an extent is outside the file or has another size than needed.
pub fn column(pack: &Bytes, chunk: &StoredChunk) -> Result<ColumnBytes, ColumnError> {
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
    Ok(ColumnBytes {
        data_type: chunk.data_type.clone(),
        rows: rows as usize,
        null_count: chunk.null_count as usize,
        validity,
        offsets,
        values,
    })
}

#[cfg(test)]
mod tests;
