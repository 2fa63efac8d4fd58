//! The side file `synced-end`: how far each source was acknowledged, noted outside the database.
//!
//! The database recovers from a damaged journal by cutting it off where the damage begins, and says nothing. So after each
//! durable commit, and before its acknowledgement, the ends are noted here; a log that opens shorter than its note has lost
//! records that it had acknowledged, and is refused.
//!
//! ```text
//! slot   magic 8 B | generation u64 | sources u32 | end u64 of each source | crc u32          big-endian
//! file   slot 0 at 0, slot 1 at the next multiple of 4096
//! ```
//!
//! Writes alternate between the slots, so a torn write leaves the other one. A note is written without a sync: it outlives
//! the death of the process, which is when it is needed most, and the records that it speaks of are synced already. It is
//! synced once a second, when the log opens and when it closes; a power cut can make it older, never wrong.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use schemas::Offset;

const MAGIC: &[u8; 8] = b"tallyend";
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The open side file.
pub(super) struct SyncedEnd {
    file: File,
    generation: u64,
    synced: Instant,
}

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// Nothing: there is no file, or it is empty.
    Nothing,
    /// The ends by source.
    Ends(Vec<Offset>),
    /// Neither slot can be read.
    Damaged,
}

impl SyncedEnd {
    /// Opens the file, or makes it, and reads what it says.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Noted)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let newest = slots(&bytes).max_by_key(|(generation, _)| *generation);
        let (generation, noted) = match newest {
            Some((generation, ends)) => (generation, Noted::Ends(ends)),
            None if bytes.iter().all(|byte| *byte == 0) => (0, Noted::Nothing),
            None => (0, Noted::Damaged),
        };
        Ok((Self { file, generation, synced: Instant::now() }, noted))
    }

    /// Notes the ends; synced if the last sync was a second ago.
    pub(super) fn note(&mut self, ends: &[Offset]) -> io::Result<()> {
        let generation = self.generation.saturating_add(1);
        let slot = encode(generation, ends);
        let place = if generation.is_multiple_of(2) { 0 } else { slot_bytes(ends.len()) };
        self.file.seek(SeekFrom::Start(place))?;
        self.file.write_all(&slot)?;
        self.generation = generation;
        if self.synced.elapsed() < SYNC_EVERY { Ok(()) } else { self.sync() }
    }

    /// Makes the last note survive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = Instant::now();
        Ok(())
    }
}

fn slot_bytes(sources: usize) -> u64 {
    let bytes = u64::try_from(sources).unwrap_or(u64::MAX).saturating_mul(8).saturating_add(24);
    bytes.next_multiple_of(4096)
}

fn encode(generation: u64, ends: &[Offset]) -> Vec<u8> {
    let mut slot = MAGIC.to_vec();
    slot.extend_from_slice(&generation.to_be_bytes());
    slot.extend_from_slice(&u32::try_from(ends.len()).unwrap_or(u32::MAX).to_be_bytes());
    ends.iter().for_each(|end| slot.extend_from_slice(&end.0.to_be_bytes()));
    let crc = crc32fast::hash(&slot);
    slot.extend_from_slice(&crc.to_be_bytes());
    slot
}

/// The slots that can be read. The place of the second follows from the number of sources, which the first may no longer
/// tell, so every multiple of 4096 is tried.
fn slots(bytes: &[u8]) -> impl Iterator<Item = (u64, Vec<Offset>)> + '_ {
    (0..bytes.len()).step_by(4096).filter_map(|at| decode(bytes.get(at..)?))
}

fn decode(bytes: &[u8]) -> Option<(u64, Vec<Offset>)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (sources, rest) = rest.split_first_chunk::<4>()?;
    let ends_bytes = usize::try_from(u32::from_be_bytes(*sources)).ok()?.checked_mul(8)?;
    let (ends, rest) = rest.split_at_checked(ends_bytes)?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    let covered = bytes.get(..MAGIC.len() + 12 + ends_bytes)?;
    if crc32fast::hash(covered) != u32::from_be_bytes(*crc) {
        return None;
    }
    let ends = ends.chunks_exact(8).filter_map(|end| end.try_into().ok()).map(|end| Offset(u64::from_be_bytes(end)));
    Some((u64::from_be_bytes(*generation), ends.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(sources: usize, end: u64) -> Vec<Offset> {
        vec![Offset(end); sources]
    }

    #[test]
    fn the_last_note_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced-end");
        for sources in [1, 2, 600] {
            let _ = std::fs::remove_file(&path);
            let (mut file, noted) = SyncedEnd::open(&path).unwrap();
            assert_eq!(noted, Noted::Nothing);
            for end in 1..=5 {
                file.note(&ends(sources, end)).unwrap();
                let (reopened, noted) = SyncedEnd::open(&path).unwrap();
                assert_eq!(noted, Noted::Ends(ends(sources, end)));
                file = reopened;
            }
        }
    }

    #[test]
    fn a_torn_note_leaves_the_one_before_wherever_it_tore() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced-end");
        let (mut file, _) = SyncedEnd::open(&path).unwrap();
        for end in 1..=4 {
            file.note(&ends(3, end)).unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        file.note(&ends(3, 5)).unwrap();
        let after = std::fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
        for cut in &changed[1..] {
            let torn = [&after[..*cut], &before[*cut..]].concat();
            std::fs::write(&path, torn).unwrap();
            assert_eq!(SyncedEnd::open(&path).unwrap().1, Noted::Ends(ends(3, 4)), "torn at {cut}");
        }
    }

    #[test]
    fn damage_to_both_slots_is_not_taken_for_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced-end");
        let (mut file, _) = SyncedEnd::open(&path).unwrap();
        file.note(&ends(2, 1)).unwrap();
        file.note(&ends(2, 2)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        bytes[4096 + 20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(SyncedEnd::open(&path).unwrap().1, Noted::Damaged);
    }
}
