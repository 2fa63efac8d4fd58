//! What became of a segment's records: a file beside it, written before a record is sent and after it was answered, so that
//! after a crash each is known to be unsent, in doubt, or done. Pure.
//!
//! ```text
//! entry: what u8 | where the record begins u64 | when, ms since 1970 u64 | CRC-32 of these u32
//! ```

use std::collections::HashMap;

use flate2::Crc;

pub(crate) const ENTRY: usize = 21;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is being sent; from now on it may have been taken.
    Sending,
    /// It was not taken for certain.
    Returned,
    /// It was answered for good.
    Done,
}

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    InDoubt { since_ms: u64 },
    Done,
}

pub(crate) fn entry(step: Step, at: u64, now_ms: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    let mark = match step {
        Step::Sending => b's',
        Step::Returned => b'r',
        Step::Done => b'a',
    };
    let bytes = std::iter::once(mark).chain(at.to_le_bytes()).chain(now_ms.to_le_bytes());
    entry.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    let mut crc = Crc::new();
    crc.update(entry.get(..ENTRY - 4).unwrap_or_default());
    entry.iter_mut().skip(ENTRY - 4).zip(crc.sum().to_le_bytes()).for_each(|(to, from)| *to = from);
    entry
}

/// How the records stand that it speaks of. An entry that a crash tore, or that is damaged, says nothing.
pub(crate) fn read(ledger: &[u8]) -> HashMap<u64, Standing> {
    let mut standing = HashMap::new();
    for entry in ledger.chunks_exact(ENTRY) {
        let Some((step, at, now_ms)) = parse(entry) else { continue };
        let before = standing.get(&at).copied();
        match (step, before) {
            (_, Some(Standing::Done)) => {}
            (Step::Done, _) => drop(standing.insert(at, Standing::Done)),
            // In doubt since the first try.
            (Step::Sending, Some(_)) => {}
            (Step::Sending, None) => drop(standing.insert(at, Standing::InDoubt { since_ms: now_ms })),
            (Step::Returned, _) => drop(standing.remove(&at)),
        }
    }
    standing
}

fn parse(bytes: &[u8]) -> Option<(Step, u64, u64)> {
    let (mark, rest) = bytes.split_first()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (now_ms, _) = rest.split_first_chunk()?;
    let step = match mark {
        b's' => Step::Sending,
        b'r' => Step::Returned,
        b'a' => Step::Done,
        _ => return None,
    };
    let (at, now_ms) = (u64::from_le_bytes(*at), u64::from_le_bytes(*now_ms));
    (entry(step, at, now_ms) == bytes).then_some((step, at, now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(steps: &[(Step, u64, u64)]) -> Vec<u8> {
        steps.iter().flat_map(|(step, at, now_ms)| entry(*step, *at, *now_ms)).collect()
    }

    #[test]
    fn a_record_is_unsent_in_doubt_since_its_first_try_or_done() {
        use Step::{Done, Returned, Sending};
        let steps = [
            (Sending, 8, 100),
            (Sending, 50, 110),
            (Sending, 8, 200),
            (Done, 50, 210),
            (Sending, 50, 220),
            (Sending, 90, 230),
            (Returned, 90, 240),
        ];
        let standing = read(&ledger(&steps));
        assert_eq!(standing, HashMap::from([(8, Standing::InDoubt { since_ms: 100 }), (50, Standing::Done)]));
    }

    #[test]
    fn a_torn_or_damaged_entry_says_nothing() {
        let whole = ledger(&[(Step::Sending, 8, 100), (Step::Done, 8, 200)]);
        for cut in ENTRY..whole.len() {
            assert_eq!(read(&whole[..cut]), HashMap::from([(8, Standing::InDoubt { since_ms: 100 })]), "cut at {cut}");
        }
        for bit in ENTRY * 8..whole.len() * 8 {
            let mut broken = whole.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&broken), HashMap::from([(8, Standing::InDoubt { since_ms: 100 })]), "bit {bit}");
        }
    }
}
