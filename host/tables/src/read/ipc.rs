//! Arrow IPC: a record batch is a part. Files and streams.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ::arrow::array::new_empty_array;
use ::arrow::error::ArrowError;
use ::arrow::ipc::reader::{FileReader, StreamReader};
use ::arrow::record_batch::RecordBatchReader;
use millrace_types::Schema;

use super::{ReadError, ReadOptions, Shaper, Sink};

/// The schema, from the end of a file or the beginning of a stream.
pub(super) fn peek(path: &Path) -> Option<Schema> {
    super::unpacked(&open(path).ok()?.schema())
}

fn broken(path: &Path) -> impl Fn(ArrowError) -> ReadError + '_ {
    move |error| ReadError::content(path, None, format!("not usable as Arrow IPC: {error}"))
}

fn open(path: &Path) -> Result<Box<dyn RecordBatchReader>, ReadError> {
    let mut file = File::open(path).map_err(ReadError::io(path))?;
    let mut magic = [0; 6];
    let is_file = file.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
    file.seek(SeekFrom::Start(0)).map_err(ReadError::io(path))?;
    let input = BufReader::new(file);
    Ok(if is_file {
        Box::new(FileReader::try_new(input, None).map_err(broken(path))?)
    } else {
        Box::new(StreamReader::try_new(input, None).map_err(broken(path))?)
    })
}

pub(super) fn read(files: &[PathBuf], options: &ReadOptions, sink: &dyn Sink) -> Result<Schema, ReadError> {
    let shaper = Shaper::new(options);
    for path in files {
        let batches = open(path)?;
        let schema = batches.schema();
        let mut emitted = false;
        for batch in batches {
            let batch = batch.map_err(broken(path))?;
            shaper.emit(path, &schema, batch.columns().to_vec(), sink)?;
            emitted = true;
        }
        if !emitted {
            let arrays = schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect();
            shaper.emit(path, &schema, arrays, sink)?;
        }
    }
    shaper.finish(files.first(), "there is nothing in it")
}
