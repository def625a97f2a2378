//! A column that is computed block by block.

use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::DataType;

use crate::ExprError;
use crate::check::Checked;
use crate::column::{Column, Values, width};
use crate::parse::Span;

/// Puts what an expression makes of one block behind what it made of those before.
pub struct Pieces {
    data_type: DataType,
    span: Span,
    /// Of all blocks together.
    rows: usize,
    done: usize,
    nulls: Option<BooleanBufferBuilder>,
    values: Made,
}

enum Made {
    Bits(BooleanBufferBuilder),
    Fixed(Vec<u8>),
    Variable(Vec<i32>, Vec<u8>),
    /// The first block was the only one: it stays where it is.
    Whole(Column),
}

impl Checked {
    /// What is made of so many rows, of which there is none yet.
    pub fn pieces(&self, rows: usize) -> Pieces {
        let data_type = self.data_type();
        let values = match &data_type {
            DataType::Boolean => Made::Bits(BooleanBufferBuilder::new(0)),
            DataType::Utf8 | DataType::Binary => Made::Variable(vec![0], Vec::new()),
            _ => Made::Fixed(Vec::new()),
        };
        Pieces { data_type, span: self.root.span, rows, done: 0, nulls: None, values }
    }
}

impl Pieces {
    /// Adds the next piece.
    ///
    /// # Errors
    /// When texts become longer than a column can be, or the piece is of another type.
    pub fn push(&mut self, piece: Column) -> Result<(), ExprError> {
        if *piece.data_type() != self.data_type || piece.len() > self.rows - self.done {
            return Err(ExprError::at(self.span, "a piece does not fit the column that it is for"));
        }
        let (done, rows) = (self.done, piece.len());
        self.done += rows;
        if let Some(nulls) = piece.nulls() {
            let all = self.nulls.get_or_insert_with(|| {
                let mut all = BooleanBufferBuilder::new(self.rows);
                all.append_n(done, true);
                all
            });
            all.append_buffer(nulls.inner());
        } else if let Some(all) = &mut self.nulls {
            all.append_n(rows, true);
        }
        if rows == self.rows {
            self.values = Made::Whole(piece);
            return Ok(());
        }
        match (&mut self.values, piece.values()) {
            (Made::Bits(all), Values::Bits(bits)) => all.append_buffer(bits),
            (Made::Fixed(all), Values::Fixed(bytes)) => {
                if done == 0 {
                    all.reserve_exact(self.rows * width(&self.data_type).unwrap_or(1));
                }
                all.extend_from_slice(bytes);
            }
            (Made::Variable(ends, all), Values::Variable(offsets, bytes)) => {
                let (first, last) = (offsets[0], offsets[rows]);
                let fits = i32::try_from(all.len() + (last - first) as usize).is_ok();
                let (true, Ok(from)) = (fits, i32::try_from(all.len())) else {
                    let message = "the texts of a part are longer than 2 GiB: make smaller parts";
                    return Err(ExprError::at(self.span, message));
                };
                ends.extend(offsets[1..].iter().map(|end| from + (end - first)));
                all.extend_from_slice(&bytes[first as usize..last as usize]);
            }
            _ => return Err(ExprError::at(self.span, "a piece has another form than its column")),
        }
        Ok(())
    }

    /// The column.
    ///
    /// # Errors
    /// When pieces are missing.
    pub fn finish(self) -> Result<Column, ExprError> {
        let incomplete = ExprError::at(self.span, "a column was made of some of its pieces only");
        let nulls = self.nulls.map(|mut nulls| NullBuffer::new(nulls.finish()));
        let values = match self.values {
            Made::Whole(column) => return Ok(column),
            Made::Bits(mut bits) => Values::Bits(bits.finish()),
            Made::Fixed(bytes) => Values::Fixed(Buffer::from_vec(bytes)),
            Made::Variable(ends, bytes) => Values::Variable(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes)),
        };
        Column::new(self.data_type, self.rows, nulls, values).ok_or(incomplete)
    }
}
