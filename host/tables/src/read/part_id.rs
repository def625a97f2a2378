//! The identity of a part within a source.

use serde::{Deserialize, Serialize};

/// Where a part stands among all: by file, by row group, batch or block of the file, and by
/// piece of that. Ids sort as the parts do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartId(u64);

impl PartId {
    /// The first part of the first file.
    pub const FIRST: Self = Self(0);

    const UNIT_BITS: u32 = 24;
    const PIECE_BITS: u32 = 20;

    /// A piece of a unit (row group, batch, block) of a file.
    pub(crate) fn new(file: u64, unit: usize, piece: usize) -> Self {
        Self(file << (Self::UNIT_BITS + Self::PIECE_BITS) | (unit as u64) << Self::PIECE_BITS | piece as u64)
    }

    /// The part with this number in a sequence of parts that come from no unit of a file.
    pub(crate) fn sequential(number: u64) -> Self {
        Self(number)
    }

    /// The next piece of the same unit.
    pub(crate) fn next_piece(self) -> Self {
        Self(self.0 + 1)
    }

    /// The file.
    pub(crate) fn file(self) -> u64 {
        self.0 >> (Self::UNIT_BITS + Self::PIECE_BITS)
    }

    /// The unit of the file.
    pub(crate) fn unit(self) -> usize {
        (self.0 >> Self::PIECE_BITS & ((1 << Self::UNIT_BITS) - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_file_and_unit_and_sorts_as_parts_do() {
        let id = PartId::new(3, 77, 5);
        assert_eq!((id.file(), id.unit()), (3, 77));
        assert_eq!(id.next_piece(), PartId::new(3, 77, 6));
        assert!(PartId::new(0, 9, 9) < PartId::new(0, 10, 0) && PartId::new(0, 10, 0) < PartId::new(1, 0, 0));
    }
}
