//! How a record lies in the database: its key and its value.
//!
//! ```text
//! key    source u32 | offset u64                                              big-endian: a source's records lie in order
//! value  format u8 | crc u32 | append time i64 | kind u8 | flags u8 | payload
//! ```
//!
//! The CRC-32 covers the key and all of the value but the format byte and itself, so that a record which turns up under
//! another key is as damaged as one whose bytes changed. It is checked on every read.

use schemas::{Millis, NewRecord, Offset, Record, RecordKind, Source};

const FORMAT: u8 = 1;
const HISTORICAL: u8 = 1;
/// Bytes of a value before the payload.
pub(super) const HEADER_BYTES: usize = 15;

/// Where a record lies.
pub(super) fn key(source: Source, offset: Offset) -> [u8; 12] {
    let mut key = [0; 12];
    let (source_bytes, offset_bytes) = key.split_at_mut(4);
    source_bytes.copy_from_slice(&source.0.to_be_bytes());
    offset_bytes.copy_from_slice(&offset.0.to_be_bytes());
    key
}

/// The offset in a key; `None` if the bytes are no key.
pub(super) fn offset_of(key: &[u8]) -> Option<Offset> {
    let offset = key.get(4..)?.try_into().ok()?;
    Some(Offset(u64::from_be_bytes(offset)))
}

/// The stored value of a record under its key.
pub(super) fn encode(key: [u8; 12], append_time: Millis, record: &NewRecord) -> Vec<u8> {
    let time = append_time.0.to_be_bytes();
    let tags = [record.kind.code(), if record.historical { HISTORICAL } else { 0 }];
    let crc = checksum([&key, &time, &tags, &record.payload]);
    let mut value = Vec::with_capacity(HEADER_BYTES + record.payload.len());
    value.push(FORMAT);
    value.extend_from_slice(&crc.to_be_bytes());
    value.extend_from_slice(&time);
    value.extend_from_slice(&tags);
    value.extend_from_slice(&record.payload);
    value
}

/// The record in a stored value, or what is wrong with it.
pub(super) fn decode(source: Source, offset: Offset, value: &[u8]) -> Result<Record<'_>, String> {
    let short = || format!("its value has only {} bytes", value.len());
    let (&[format], rest) = value.split_first_chunk::<1>().ok_or_else(short)?;
    if format != FORMAT {
        return Err(format!("its value has format {format}, which this version does not know; was it written by a newer tallymark?"));
    }
    let (stored, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (time, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (&[kind, flags], payload) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (stored, found) = (u32::from_be_bytes(*stored), checksum([&key(source, offset), time, &[kind, flags], payload]));
    if stored != found {
        return Err(format!("its checksum is {found:08x} and should be {stored:08x}"));
    }
    if flags & !HISTORICAL != 0 {
        return Err(format!("its flags {flags:#04x} are not known to this version; was it written by a newer tallymark?"));
    }
    Ok(Record {
        offset,
        append_time: Millis(i64::from_be_bytes(*time)),
        kind: RecordKind::from_code(kind),
        historical: flags == HISTORICAL,
        payload,
    })
}

fn checksum(parts: [&[u8]; 4]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip(source: u32, offset: u64, time: i64, kind: u8, historical: bool, payload: Vec<u8>) {
            let (source, offset, append_time) = (Source(source), Offset(offset), Millis(time));
            let new = NewRecord { kind: RecordKind::from_code(kind), historical, payload };
            let value = encode(key(source, offset), append_time, &new);
            prop_assert_eq!(value.len(), HEADER_BYTES + new.payload.len());
            let record = decode(source, offset, &value).unwrap();
            prop_assert_eq!(record, Record { offset, append_time, kind: new.kind, historical, payload: &new.payload });
        }

        #[test]
        fn a_changed_bit_anywhere_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..50), at: prop::sample::Index, bit in 0..8u8) {
            let mut value = encode(key(Source(1), Offset(2)), Millis(3), &NewRecord::new(RecordKind::Ndjson, payload));
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            prop_assert!(decode(Source(1), Offset(2), &value).is_err());
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
            let _ = decode(Source(0), Offset(0), &bytes);
        }

        #[test]
        fn keys_sort_as_places_do(a: (u32, u64), b: (u32, u64)) {
            prop_assert_eq!(key(Source(a.0), Offset(a.1)).cmp(&key(Source(b.0), Offset(b.1))), a.cmp(&b));
            prop_assert_eq!(offset_of(&key(Source(a.0), Offset(a.1))), Some(Offset(a.1)));
        }
    }

    #[test]
    fn a_record_under_another_key_is_damaged() {
        let value = encode(key(Source(1), Offset(2)), Millis(3), &NewRecord::tick());
        assert!(decode(Source(1), Offset(2), &value).is_ok());
        assert!(decode(Source(1), Offset(3), &value).is_err());
        assert!(decode(Source(2), Offset(2), &value).is_err());
    }
}
