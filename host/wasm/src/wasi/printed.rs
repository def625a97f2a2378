//! What a guest prints, as lines of its log.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_threads::lock;
use millrace_types::{Level, LogLine, bounds};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::text::sanitize;

/// Bytes of a printed line; the rest of a longer one is dropped.
const MAX_LINE: usize = bounds::LOG_LINE_BYTES;

/// Complete lines, and those that have no end yet.
#[derive(Default)]
pub(super) struct Printed {
    lines: Vec<LogLine>,
    open: [Vec<u8>; 2],
}

impl Printed {
    fn stream(level: Level) -> usize {
        usize::from(level == Level::Warn)
    }

    fn push(&mut self, level: Level, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let open = &mut self.open[Self::stream(level)];
            // A little more than fits, so that the line is seen to be truncated.
            let room = (MAX_LINE + 4).saturating_sub(open.len());
            open.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                // An empty line is a line.
                open.push(b' ');
                self.end_line(level);
            }
        }
    }

    /// All lines; the last one of each stream need not have an end.
    pub(super) fn into_lines(mut self) -> Vec<LogLine> {
        for level in [Level::Info, Level::Warn] {
            self.end_line(level);
        }
        self.lines
    }

    fn end_line(&mut self, level: Level) {
        let bytes = std::mem::take(&mut self.open[Self::stream(level)]);
        if !bytes.is_empty() && self.lines.len() < bounds::LOG_LINES {
            let message = sanitize(String::from_utf8_lossy(&bytes).trim_end().to_owned(), MAX_LINE);
            self.lines.push(LogLine { level, message });
        }
    }
}

/// Standard output or error.
#[derive(Clone)]
pub(super) struct Print {
    pub(super) level: Level,
    pub(super) printed: Arc<Mutex<Printed>>,
}

impl IsTerminal for Print {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Print {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Print {
    async fn ready(&mut self) {}
}

impl OutputStream for Print {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        lock(&self.printed).push(self.level, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}
