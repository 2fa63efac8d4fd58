//! Noticing that the write-ahead journal has lost batches that were acknowledged.
//!
//! The database replays its journal at start and cuts it, silently, at the first entry that it cannot read: right for
//! the torn end that a crash leaves, wrong for damage before it. A cut could take rows and leave the checkpoint that
//! covers them, because tables reach their files one by one. So each batch carries its number, the last acknowledged
//! number is noted beside the database, and the journals are read before the database may cut them:
//! the numbers must follow each other without a gap and reach the noted one.
//!
//! The note is not synced. After a power cut it may be old, which makes the check weaker and never wrong.
//! Damage inside an entry is found by the database itself, by checksum.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::open::cannot_open;
use crate::store::StoreError;

/// The row of the meta table, first in each batch, that holds the batch's number as a big-endian `u64`.
pub(super) const BATCH_KEY: &[u8] = b"batch";

const NOTE: &str = "synced";

/// The id of the journal that is being written: the next batch goes to it or to a later one.
pub(super) fn newest(db: &Path) -> io::Result<u64> {
    let journals = journals(db)?;
    journals.last().map(|(id, _)| *id).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no journal"))
}

/// Notes that all batches up to `batch` are durable, the last of them in `journal` or a later one.
pub(super) fn note(dir: &Path, journal: u64, batch: u64) {
    let text = format!("{journal} {batch}");
    let line = format!("{text} {:016x}\n", xxh3_64(text.as_bytes()));
    let aside = dir.join("synced.new");
    // The batch is safe without its note, so this is no reason to fail it.
    if let Err(error) = fs::write(&aside, line).and_then(|()| fs::rename(&aside, dir.join(NOTE))) {
        tracing::warn!(%error, "cannot note how far the store is synced");
    }
}

/// Checks that the journals hold what was acknowledged.
pub(super) fn check(dir: &Path, db: &Path) -> Result<(), StoreError> {
    let io = |error: io::Error| cannot_open(dir, &error);
    let journals = journals(db).map_err(io)?;
    let mut last = None;
    for (_, path) in &journals {
        for number in batches(path).map_err(io)? {
            if let Some(last) = last.filter(|last: &u64| last.checked_add(1) != Some(number)) {
                return Err(lost(&format!("{} goes on with batch {number} after batch {last}", path.display())));
            }
            last = Some(number);
        }
    }
    let Some((journal, batch)) = read_note(dir).map_err(io)? else { return Ok(()) };
    let Some((newest, path)) = journals.last() else {
        return Err(lost(&format!("{} has no journal (*.jnl)", db.display())));
    };
    if *newest < journal {
        return Err(lost(&format!("{} is missing", db.join(format!("{journal}.jnl")).display())));
    }
    // A journal goes when all its batches are in tables; as long as it is there, so are they and all later ones.
    let is_here = journals.iter().any(|(id, _)| *id == journal);
    match last.unwrap_or(0) {
        last if is_here && last < batch => Err(lost(&format!("{} ends with batch {last}, and {batch} were acknowledged", path.display()))),
        _ => Ok(()),
    }
}

fn lost(detail: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "the journal has lost acknowledged batches: {detail}; restore it from a backup, or remove the store to count again from the log"
    ))
}

fn read_note(dir: &Path) -> io::Result<Option<(u64, u64)>> {
    let text = match fs::read_to_string(dir.join(NOTE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let parsed = text.trim_end().rsplit_once(' ').and_then(|(text, sum)| {
        let (journal, batch) = text.split_once(' ')?;
        let sum = u64::from_str_radix(sum, 16).ok().filter(|sum| *sum == xxh3_64(text.as_bytes()));
        sum.and(Some((journal.parse().ok()?, batch.parse().ok()?)))
    });
    if parsed.is_none() {
        tracing::warn!("the note of how far the store is synced is torn; the journal's end is taken as it is");
    }
    Ok(parsed)
}

fn journals(db: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(db)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl")
            && let Some(id) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            journals.push((id, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

/// The numbers of the whole batches in a journal, up to the first byte that is no entry.
fn batches(path: &Path) -> io::Result<Vec<u64>> {
    let mut entries = Entries(BufReader::with_capacity(1 << 16, File::open(path)?));
    let mut numbers = Vec::new();
    let mut open = None;
    let mut is_first = false;
    loop {
        match entries.next() {
            Ok(Entry::Start) => (open, is_first) = (None, true),
            Ok(Entry::Item { number }) => {
                if is_first {
                    open = number;
                }
                is_first = false;
            }
            Ok(Entry::End) => numbers.extend(open.take()),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => return Ok(numbers),
            Err(error) => return Err(error),
        }
    }
}

/// Entries of a journal of the database's format 3: a tag, then fixed fields, little-endian.
struct Entries(BufReader<File>);

enum Entry {
    Start,
    Item { number: Option<u64> },
    End,
}

impl Entries {
    fn next(&mut self) -> io::Result<Entry> {
        match self.array()? {
            // Start: u32 items, u64 sequence number.
            [1u8] => self.array::<12>().map(|_| Entry::Start),
            [2] => self.item(),
            // End: u64 checksum, then a trailer.
            [3] => match self.array::<12>()? {
                [.., b'F', b'J', b'L', 3] => Ok(Entry::End),
                _ => Err(io::ErrorKind::InvalidData.into()),
            },
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Item: u8 kind, u8 compression, u64 table, u16 key length, u32 value length, u32 its length on disk, key, value.
    fn item(&mut self) -> io::Result<Entry> {
        self.array::<10>()?;
        let key_len = u16::from_le_bytes(self.array()?);
        self.array::<4>()?;
        let value_len = u32::from_le_bytes(self.array()?);
        let (key_len, value_len) = (u64::from(key_len), u64::from(value_len));
        if key_len == BATCH_KEY.len() as u64 && value_len == 8 {
            let key = self.array::<5>()?;
            let number = u64::from_be_bytes(self.array()?);
            return Ok(Entry::Item { number: (key == BATCH_KEY).then_some(number) });
        }
        let len = key_len + value_len;
        let skipped = io::copy(&mut self.0.by_ref().take(len), &mut io::sink())?;
        if skipped == len { Ok(Entry::Item { number: None }) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
