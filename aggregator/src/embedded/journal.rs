//! Noticing that the write-ahead journal has lost batches that were acknowledged.
//!
//! The database replays its journal at start and cuts it, silently, at the first entry that it cannot read: right for
//! the torn end that a crash leaves, wrong for damage before it. A cut could take rows and leave the checkpoint that
//! covers them, because tables reach their files one by one. So each batch carries its number, the last acknowledged
//! number is noted beside the database, and the journals are read before the database may cut them:
//! the numbers must follow each other without a gap and reach the noted one.
//!
//! The note is not synced. After a power cut it may be old, which makes the check weaker and never wrong.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

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

/// Checks that the journals hold what was acknowledged, and cuts off the torn end that a crash has left.
/// Nobody else may have them open.
pub(super) fn check(dir: &Path, db: &Path) -> Result<(), StoreError> {
    let io = |error: io::Error| cannot_open(dir, &error);
    let journals = journals(db).map_err(io)?;
    let mut last: Option<Batch> = None;
    let mut torn = None;
    for (_, path) in &journals {
        let walk = walk(path).map_err(io)?;
        for batch in walk.batches {
            if let Some(last) = last.filter(|last| !last.is_followed_by(batch)) {
                return Err(lost(&format!("{} goes on with batch {} after batch {}", path.display(), batch.number, last.number)));
            }
            last = Some(batch);
        }
        torn = match walk.rest {
            Rest::Nothing => None,
            Rest::OneTorn => Some((path, walk.end)),
            Rest::More => return Err(lost(&format!("{} is damaged at byte {} and goes on after it", path.display(), walk.end))),
        };
    }
    check_note(read_note(dir).map_err(io)?, &journals, last, db)?;
    torn.map_or(Ok(()), |(path, end)| cut(path, end)).map_err(io)
}

fn check_note(noted: Option<(u64, u64)>, journals: &[(u64, PathBuf)], last: Option<Batch>, db: &Path) -> Result<(), StoreError> {
    let Some((journal, batch)) = noted else { return Ok(()) };
    let Some((newest, path)) = journals.last() else {
        return Err(lost(&format!("{} has no journal (*.jnl)", db.display())));
    };
    if *newest < journal {
        return Err(lost(&format!("{} is missing", db.join(format!("{journal}.jnl")).display())));
    }
    // A journal goes when all its batches are in tables; as long as it is there, so are they and all later ones.
    let is_here = journals.iter().any(|(id, _)| *id == journal);
    match last.map_or(0, |batch| batch.number) {
        last if is_here && last < batch => Err(lost(&format!("{} ends with batch {last}, and {batch} were acknowledged", path.display()))),
        _ => Ok(()),
    }
}

/// The database cuts a batch that ends early, but would refuse to open over one whose end reached the disk before its middle.
/// Each batch is synced before the next is written, so only the last can be torn, and it was never acknowledged.
fn cut(path: &Path, end: u64) -> io::Result<()> {
    tracing::warn!(journal = %path.display(), end, "a batch that was not acknowledged is torn; it is cut off");
    let file = File::options().write(true).open(path)?;
    file.set_len(end)?;
    file.sync_all()
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

/// A whole batch in a journal.
#[derive(Clone, Copy)]
struct Batch {
    /// Our number of it.
    number: u64,
    /// The database's sequence number, which orders it among all writes. No checksum covers it.
    seqno: u64,
}

impl Batch {
    const fn is_followed_by(self, next: Self) -> bool {
        self.number.saturating_add(1) == next.number && self.seqno < next.seqno
    }
}

/// What a journal holds.
struct Walk {
    /// Its whole batches, up to the first that is damaged or torn.
    batches: Vec<Batch>,
    /// The byte after the last of them.
    end: u64,
    /// What comes then.
    rest: Rest,
}

enum Rest {
    /// The end, or the zeros of space that was taken in advance.
    Nothing,
    /// At most one batch.
    OneTorn,
    /// Something with the end of one batch and the start of the next in it.
    More,
}

fn walk(path: &Path) -> io::Result<Walk> {
    let mut entries = Entries { file: BufReader::with_capacity(1 << 16, File::open(path)?), hash: Xxh3Default::new() };
    let mut walk = Walk { batches: Vec::new(), end: 0, rest: Rest::Nothing };
    loop {
        match entries.batch() {
            Ok(batch) => walk.batches.push(batch),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => break,
            Err(error) => return Err(error),
        }
        walk.end = entries.file.stream_position()?;
    }
    entries.file.seek(io::SeekFrom::Start(walk.end))?;
    walk.rest = entries.rest()?;
    Ok(walk)
}

/// The entries of a journal of the database's format 3: a tag and fixed fields, little-endian.
///
/// ```text
/// 1  items: u32   sequence number: u64
/// 2  kind: u8 = 0   compression: u8 = 0   table: u64   key length: u16   value length: u32, twice   key   value
/// 3  XXH3-64 of all items: u64   "FJL" 3
/// ```
struct Entries {
    file: BufReader<File>,
    hash: Xxh3Default,
}

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];

impl Entries {
    fn batch(&mut self) -> io::Result<Batch> {
        self.tag(START)?;
        let items = u32::from_le_bytes(self.array()?);
        let seqno = u64::from_le_bytes(self.array()?);
        self.hash.reset();
        let number = self.item()?;
        for _ in 1..items {
            self.item()?;
        }
        let hash = self.hash.digest();
        self.tag(END)?;
        whole(u64::from_le_bytes(self.array()?) == hash && self.array()? == TRAILER)?;
        Ok(Batch { number: number.ok_or(io::ErrorKind::InvalidData)?, seqno })
    }

    fn rest(&mut self) -> io::Result<Rest> {
        let border = [TRAILER.as_slice(), &[START]].concat();
        let mut matched = 0;
        let mut rest = Rest::Nothing;
        loop {
            let bytes = self.file.fill_buf()?;
            if bytes.is_empty() {
                return Ok(rest);
            }
            let read = bytes.len();
            // Most of a journal is space that was taken in advance.
            if matched == 0 && bytes.iter().all(|byte| *byte == 0) {
                self.file.consume(read);
                continue;
            }
            for byte in bytes {
                if *byte != 0 {
                    rest = Rest::OneTorn;
                }
                // No beginning of the border comes again inside it, so that a mismatch starts over.
                matched = if border.get(matched) == Some(byte) { matched + 1 } else { usize::from(border.first() == Some(byte)) };
                if matched == border.len() {
                    return Ok(Rest::More);
                }
            }
            self.file.consume(read);
        }
    }

    /// Reads an item; says the batch's number if it is the one that holds it.
    fn item(&mut self) -> io::Result<Option<u64>> {
        self.tag(ITEM)?;
        whole(self.array()? == [0, 0])?;
        self.array::<8>()?;
        let key_len = u16::from_le_bytes(self.array()?);
        let value_len = u32::from_le_bytes(self.array()?);
        whole(u32::from_le_bytes(self.array()?) == value_len)?;
        let key = self.bytes(key_len.into())?;
        let value = self.bytes(value_len.into())?;
        let number = <[u8; 8]>::try_from(value).ok().map(u64::from_be_bytes);
        Ok(number.filter(|_| key == BATCH_KEY))
    }

    /// A garbled length must not take memory: what is not there is not made room for.
    fn bytes(&mut self, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(len).read_to_end(&mut bytes)?;
        if u64::try_from(read).is_ok_and(|read| read == len) {
            self.hash.update(&bytes);
            Ok(bytes)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn tag(&mut self, tag: u8) -> io::Result<()> {
        let found: [u8; 1] = self.array()?;
        whole(found == [tag])
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }
}

fn whole(is_whole: bool) -> io::Result<()> {
    if is_whole { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
