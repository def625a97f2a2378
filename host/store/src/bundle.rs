//! Bundles: many records in one file, found by kind and name without decoding the others.
//!
//! ```text
//! "MLRI" version:u8  count:u32  checksum:16 of the entries
//! entries, in order: kind:u8 name:32 length:u32
//! records, encoded as in files of their own, each with a checksum
//! ```

use bytes::Bytes;
use millrace_types::RecordName;
use millrace_types::wire::Kind;

const MAGIC: &[u8; 5] = b"MLRI\x02";
const HEADER: usize = MAGIC.len() + 4 + 16;
pub(crate) const NAME: usize = 1 + 32;
const ENTRY: usize = NAME + 4;

/// The number of a kind, then the name of the record.
pub(crate) type EntryName = [u8; NAME];

/// The name of a record among those of all kinds.
pub(crate) fn entry_name(kind: Kind, name: &RecordName) -> EntryName {
    let mut full = [kind.number(); NAME];
    full[1..].copy_from_slice(name.as_bytes());
    full
}

/// The bytes of a bundle. A truncated or corrupt one has no records.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    bytes: Bytes,
    /// The offset of each record, then the end of the last one.
    starts: Vec<usize>,
}

impl Bundle {
    pub(crate) fn new(bytes: Bytes) -> Self {
        let starts = starts(&bytes).unwrap_or_default();
        Self { bytes, starts }
    }

    /// The number of its records.
    pub(crate) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    pub(crate) fn name_of(&self, entry: usize) -> &EntryName {
        const NONE: EntryName = [0; NAME];
        self.bytes[HEADER + entry * ENTRY..].first_chunk().unwrap_or(&NONE)
    }

    /// The entry of a record. Entries are sorted; in a file where they are not, some are not
    /// found.
    pub(crate) fn find(&self, kind: Kind, name: &RecordName) -> Option<usize> {
        let wanted = entry_name(kind, name);
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.name_of(middle).cmp(&wanted) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The bytes of a record; fewer, or none, if the file is truncated.
    pub(crate) fn bytes_of(&self, entry: usize) -> &[u8] {
        self.bytes.get(self.starts[entry]..self.starts[entry + 1]).unwrap_or_default()
    }
}

/// The offsets of the records, if the entries are intact.
fn starts(bytes: &[u8]) -> Option<Vec<usize>> {
    let header = bytes.get(..HEADER)?;
    if &header[..MAGIC.len()] != MAGIC {
        return None;
    }
    let count = u32::from_le_bytes(header[5..9].try_into().ok()?) as usize;
    let end = HEADER.checked_add(count.checked_mul(ENTRY)?)?;
    let entries = bytes.get(HEADER..end)?;
    if header[9..] != blake3::hash(entries).as_bytes()[..16] {
        return None;
    }
    let mut at = end;
    let mut starts = Vec::with_capacity(count + 1);
    starts.push(at);
    for entry in entries.chunks_exact(ENTRY) {
        at += u32::from_le_bytes(entry[NAME..].try_into().ok()?) as usize;
        starts.push(at);
    }
    Some(starts)
}

/// The bundle of these records; it contains the first of several with one name.
pub(crate) fn encode(mut records: Vec<(&[u8], &[u8])>) -> Vec<u8> {
    // They often consist of sorted runs, which a stable sort merges.
    records.sort_by_key(|(name, _)| *name);
    records.dedup_by_key(|(name, _)| *name);
    let mut entries = Vec::with_capacity(records.len() * ENTRY);
    for (name, bytes) in &records {
        entries.extend_from_slice(name);
        entries.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    }
    let size: usize = records.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = Vec::with_capacity(HEADER + entries.len() + size);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(records.len() as u32).to_le_bytes());
    out.extend_from_slice(&blake3::hash(&entries).as_bytes()[..16]);
    out.extend_from_slice(&entries);
    records.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_record_is_found_whatever_the_order_of_encoding(
            records in prop::collection::btree_map(any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..9), 0..40),
            backwards: bool,
        ) {
            let full = |part: &[u8; 4]| { let mut full = [0; 32]; full[..4].copy_from_slice(part); RecordName::from_bytes(full) };
            let named: Vec<(EntryName, &Vec<u8>)> =
                records.iter().map(|(part, bytes)| (entry_name(Kind::Table, &full(part)), bytes)).collect();
            let mut given: Vec<(&[u8], &[u8])> =
                named.iter().map(|(name, bytes)| (name.as_slice(), bytes.as_slice())).collect();
            let expected = encode(given.clone());
            if backwards { given.reverse() }
            let bytes = encode(given);
            prop_assert_eq!(&bytes, &expected);
            let bundle = Bundle::new(bytes.into());
            prop_assert_eq!(bundle.len(), records.len());
            for (part, bytes) in &records {
                let entry = bundle.find(Kind::Table, &full(part)).unwrap();
                prop_assert_eq!(bundle.bytes_of(entry), bytes.as_slice());
                prop_assert_eq!(bundle.find(Kind::Plan, &full(part)), None);
            }
        }
    }
}
