//! Arrow IPC: a record batch is a part. Files and streams.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use ::arrow::array::new_empty_array;
use ::arrow::ipc::reader::{FileReader, StreamReader};
use ::arrow::record_batch::RecordBatchReader;
use millrace_types::Schema;

use super::{ReadError, ReadOptions, Shaper, Sink};

pub(super) fn read(files: &[PathBuf], options: &ReadOptions, sink: &dyn Sink) -> Result<Schema, ReadError> {
    let shaper = Shaper::new(options);
    for path in files {
        let broken =
            |error: &dyn std::fmt::Display| ReadError::content(path, None, format!("not usable as Arrow IPC: {error}"));
        let mut file = File::open(path).map_err(ReadError::io(path))?;
        let mut magic = [0; 6];
        let is_file = file.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
        file.seek(SeekFrom::Start(0)).map_err(ReadError::io(path))?;
        let input = BufReader::new(file);
        let batches: Box<dyn RecordBatchReader> = if is_file {
            Box::new(FileReader::try_new(input, None).map_err(|error| broken(&error))?)
        } else {
            Box::new(StreamReader::try_new(input, None).map_err(|error| broken(&error))?)
        };
        let schema = batches.schema();
        let mut emitted = false;
        for batch in batches {
            let batch = batch.map_err(|error| broken(&error))?;
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
