//! A column that is computed block by block.

use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::DataType;

use crate::check::Checked;
use crate::column::{Column, Values, width};
use crate::error::ExprError;
use crate::parse::Span;

/// Appends the result of an expression for one block to those of the blocks before.
pub struct Pieces {
    data_type: DataType,
    span: Span,
    /// The rows of all blocks together.
    rows: usize,
    done: usize,
    /// Validity bits; `None` until the first null.
    nulls: Option<Vec<u8>>,
    made: Made,
}

enum Made {
    /// Bits, or values of a fixed width.
    Bytes(Vec<u8>),
    Variable(Vec<i32>, Vec<u8>),
    /// The first block was the only one: it is not copied.
    Whole(Column),
}

impl Checked {
    /// Starts the result for `rows` rows, without any block yet.
    pub fn pieces(&self, rows: usize) -> Pieces {
        let data_type = self.data_type();
        let made = match &data_type {
            DataType::Utf8 | DataType::Binary => Made::Variable(vec![0], Vec::new()),
            _ => Made::Bytes(Vec::new()),
        };
        Pieces { data_type, span: self.root.span, rows, done: 0, nulls: None, made }
    }
}

/// Appends bits, starting at a byte boundary.
fn push_bits(all: &mut Vec<u8>, bits: &BooleanBuffer) {
    all.extend_from_slice(&bits.sliced()[..bits.len().div_ceil(8)]);
}

impl Pieces {
    /// Adds the next piece. All but the last have a multiple of eight rows.
    ///
    /// # Errors
    /// When texts become longer than a column can be, or the piece does not belong to this column.
    pub fn push(&mut self, piece: Column) -> Result<(), ExprError> {
        let (done, rows) = (self.done, piece.len());
        if *piece.data_type() != self.data_type || rows > self.rows - done || !done.is_multiple_of(8) {
            return Err(ExprError::at(self.span, "a piece does not fit the column that it is for"));
        }
        self.done += rows;
        if rows == self.rows {
            self.made = Made::Whole(piece);
            return Ok(());
        }
        match piece.nulls() {
            Some(nulls) => push_bits(self.nulls.get_or_insert_with(|| vec![u8::MAX; done / 8]), nulls.inner()),
            None => self.nulls.iter_mut().for_each(|all| all.resize(self.done.div_ceil(8), u8::MAX)),
        }
        match (&mut self.made, piece.values()) {
            (Made::Bytes(all), Values::Bits(bits)) => push_bits(all, bits),
            (Made::Bytes(all), Values::Fixed(bytes)) => {
                if done == 0 {
                    all.reserve_exact(self.rows * width(&self.data_type).unwrap_or(1));
                }
                all.extend_from_slice(bytes);
            }
            (Made::Variable(ends, all), Values::Variable(offsets, bytes)) => {
                let (first, last) = (offsets[0], offsets[rows]);
                let from = all.len() as i32;
                if i32::try_from(all.len() + (last - first) as usize).is_err() {
                    let message = "the texts of a part are longer than 2 GiB: make smaller parts";
                    return Err(ExprError::at(self.span, message));
                }
                ends.extend(offsets[1..].iter().map(|end| from + (end - first)));
                all.extend_from_slice(&bytes[first as usize..last as usize]);
            }
            _ => return Err(ExprError::at(self.span, "a piece has another form than its column")),
        }
        Ok(())
    }

    /// Returns the column.
    ///
    /// # Errors
    /// When pieces are missing.
    pub fn finish(self) -> Result<Column, ExprError> {
        let incomplete = ExprError::at(self.span, "a column has only some of its pieces");
        if self.done < self.rows {
            return Err(incomplete);
        }
        let bits = |bytes: Vec<u8>| BooleanBuffer::new(Buffer::from_vec(bytes), 0, self.rows);
        let nulls = self.nulls.map(|nulls| NullBuffer::new(bits(nulls)));
        let values = match self.made {
            Made::Whole(column) => return Ok(column),
            Made::Bytes(bytes) if self.data_type == DataType::Boolean => Values::Bits(bits(bytes)),
            Made::Bytes(bytes) => Values::Fixed(Buffer::from_vec(bytes)),
            Made::Variable(ends, bytes) => Values::Variable(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes)),
        };
        Column::new(self.data_type, self.rows, nulls, values).ok_or(incomplete)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{BooleanArray, Float64Array, StringArray};
    use arrow_schema::{Field, Schema};

    use super::*;

    fn pieces(text: &str, rows: usize) -> Pieces {
        let fields = [("x", DataType::Float64), ("t", DataType::Utf8), ("b", DataType::Boolean)];
        let schema = Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec());
        crate::parse(text).unwrap().check(&schema).unwrap().pieces(rows)
    }

    #[test]
    fn pieces_add_up_to_the_column_they_are_slices_of() {
        // No nulls in the first pieces, only nulls in a later one.
        let is_valid = |row: usize| row < 16 || (row % 5 != 2 && !(32..40).contains(&row));
        for rows in [0, 3, 8, 24, 61] {
            let floats: Float64Array = (0..rows).map(|row| is_valid(row).then_some(row as f64)).collect();
            let texts: StringArray = (0..rows).map(|row| is_valid(row).then(|| format!("é{row}"))).collect();
            let bits: BooleanArray = (0..rows).map(|row| is_valid(row).then_some(row % 3 == 0)).collect();
            let full = Float64Array::from(vec![1.5; rows]);
            for (text, whole) in
                [("x", Column::from(floats)), ("t", texts.into()), ("b", bits.into()), ("x", full.into())]
            {
                for step in [8, 16, 64] {
                    let mut made = pieces(text, rows);
                    for from in (0..rows.max(1)).step_by(step) {
                        made.push(whole.slice(from, step.min(rows - from))).unwrap();
                    }
                    let array = |column: Column| arrow_array::ArrayRef::try_from(column).unwrap();
                    assert_eq!(&array(made.finish().unwrap()), &array(whole.clone()), "{text} {rows} {step}");
                }
            }
        }
    }

    #[test]
    fn a_piece_that_does_not_fit_is_refused() {
        let column = |rows: usize| Column::from(vec![0.5; rows]);
        assert!(pieces("x", 10).push(column(11)).is_err());
        assert!(pieces("x", 10).push(Column::from(vec![1i64; 8])).is_err());
        assert!(pieces("x", 10).finish().is_err());
        let mut odd = pieces("x", 10);
        odd.push(column(7)).unwrap();
        assert!(odd.push(column(3)).is_err());
    }
}
