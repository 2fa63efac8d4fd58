//! How a batch lies in a segment of the spool. Pure.
//!
//! ```text
//! segment:  "TMSPOOL1"  record record ...
//! record:   length of the body u32 | CRC-32 of all that follows it u32 | events u32 | in doubt since, ms u64 (0: not) | body
//! ```
//!
//! Numbers are little-endian. The checksum also covers the length. A crash in the middle of a write leaves a *torn tail*, which
//! was never told to be safe and is cut; damage elsewhere costs the record that it hit, and is named.

use flate2::Crc;

use crate::batch::Batch;

pub(crate) const MAGIC: &[u8; 8] = b"TMSPOOL1";
pub(crate) const HEADER: usize = 20;
/// No batch is longer: its own bound is 8 MiB, as the collector's, and one event may be added to one that is full.
pub(crate) const MAX_BODY: usize = 16 * 1024 * 1024;

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) len: u32,
    crc: u32,
    pub(crate) events: u32,
    pub(crate) doubt_since_ms: u64,
}

impl Header {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let (crc, rest) = rest.split_first_chunk()?;
        let (events, rest) = rest.split_first_chunk()?;
        let (doubt, _) = rest.split_first_chunk()?;
        Some(Self {
            len: u32::from_le_bytes(*len),
            crc: u32::from_le_bytes(*crc),
            events: u32::from_le_bytes(*events),
            doubt_since_ms: u64::from_le_bytes(*doubt),
        })
    }

    /// Whether `body` is what was written.
    pub(crate) fn is_of(&self, body: &[u8]) -> bool {
        self.crc == crc(self.len, self.events, self.doubt_since_ms, body)
    }
}

fn crc(len: u32, events: u32, doubt_since_ms: u64, body: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&len.to_le_bytes());
    crc.update(&events.to_le_bytes());
    crc.update(&doubt_since_ms.to_le_bytes());
    crc.update(body);
    crc.sum()
}

/// A batch as a record; `None` if it is too long for one.
pub(crate) fn encode(batch: &Batch) -> Option<Vec<u8>> {
    let len = u32::try_from(batch.body.len()).ok().filter(|_| batch.body.len() <= MAX_BODY)?;
    let doubt = batch.doubt_since_ms.unwrap_or(0);
    let mut record = Vec::with_capacity(HEADER + batch.body.len());
    record.extend_from_slice(&len.to_le_bytes());
    record.extend_from_slice(&crc(len, batch.events, doubt, &batch.body).to_le_bytes());
    record.extend_from_slice(&batch.events.to_le_bytes());
    record.extend_from_slice(&doubt.to_le_bytes());
    record.extend_from_slice(&batch.body);
    Some(record)
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Where each good record begins, and its header.
    pub(crate) records: Vec<(u64, Header)>,
    /// Bytes of records that are damaged.
    pub(crate) damaged: u64,
    /// Bytes of a record that was not written to its end.
    pub(crate) torn: u64,
}

/// Finds the records of a segment.
pub(crate) fn scan(segment: &[u8]) -> Scan {
    let mut found = Scan::default();
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let Some(mut rest) = segment.strip_prefix(MAGIC) else {
        // A crash while it was made, or a file that is none of ours.
        match MAGIC.starts_with(segment) {
            true => found.torn = length(segment),
            false => found.damaged = length(segment),
        }
        return found;
    };
    while !rest.is_empty() {
        let at = length(segment) - length(rest);
        let header = Header::read(rest).filter(|header| header.len > 0);
        let end = header.and_then(|header| usize::try_from(header.len).ok()).map(|len| HEADER + len).filter(|end| *end <= rest.len());
        let (Some(header), Some((record, next))) = (header, end.and_then(|end| rest.split_at_checked(end))) else {
            found.torn = length(rest);
            break;
        };
        match header.is_of(record.get(HEADER..).unwrap_or_default()) {
            true => found.records.push((at, header)),
            // Pages of the last write that never reached the disk.
            false if next.is_empty() => found.torn = length(record),
            false => found.damaged += length(record),
        }
        rest = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(body: &str, doubt_since_ms: Option<u64>) -> Batch {
        Batch { body: body.as_bytes().to_vec(), events: 2, from_seq: 0, doubt_since_ms }
    }

    fn segment() -> (Vec<u8>, Vec<u64>) {
        let (mut segment, mut starts) = (MAGIC.to_vec(), Vec::new());
        for (body, doubt) in [("first\n", None), ("second one\n", Some(77)), ("3\n", None)] {
            starts.push(segment.len() as u64);
            segment.extend(encode(&batch(body, doubt)).unwrap());
        }
        (segment, starts)
    }

    #[test]
    fn what_is_written_is_found() {
        let (segment, starts) = segment();
        let found = scan(&segment);
        assert_eq!(found.records.iter().map(|(at, _)| *at).collect::<Vec<_>>(), starts);
        assert_eq!(
            found.records.iter().map(|(_, header)| (header.len, header.events, header.doubt_since_ms)).collect::<Vec<_>>(),
            [(6, 2, 0), (11, 2, 77), (2, 2, 0)]
        );
        assert_eq!((found.torn, found.damaged), (0, 0));
    }

    #[test]
    fn wherever_a_crash_cuts_it_the_records_before_are_whole_and_the_rest_is_torn() {
        let (segment, starts) = segment();
        let ends: Vec<usize> = starts.iter().skip(1).map(|at| usize::try_from(*at).unwrap()).chain([segment.len()]).collect();
        for cut in 0..=segment.len() {
            let found = scan(&segment[..cut]);
            assert_eq!(found.records.len(), ends.iter().filter(|end| **end <= cut).count(), "cut at {cut}");
            assert_eq!(found.damaged, 0, "cut at {cut}");
            // Nor do pages of zeros that a file system may leave there make a record.
            let mut zeros = segment[..cut].to_vec();
            zeros.resize(segment.len() + 64, 0);
            assert!(scan(&zeros).records.len() <= ends.iter().filter(|end| **end <= cut).count() + 1);
        }
    }

    #[test]
    fn one_wrong_bit_costs_one_record_and_no_wrong_bit_is_believed() {
        let (segment, _) = segment();
        let good = scan(&segment).records;
        for bit in 0..segment.len() * 8 {
            let mut broken = segment.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let found = scan(&broken);
            assert!(found.records.iter().all(|record| good.contains(record)), "bit {bit}");
            assert!(found.torn + found.damaged > 0, "bit {bit}");
            let in_body = bit / 8 > MAGIC.len() + HEADER && bit / 8 < MAGIC.len() + HEADER + 6;
            assert!(!in_body || found.records.len() == 2, "bit {bit}");
        }
    }

    #[test]
    fn another_programs_file_is_damage_and_not_a_segment() {
        assert_eq!(scan(b"hello, I am a text"), Scan { damaged: 18, ..Scan::default() });
    }
}
