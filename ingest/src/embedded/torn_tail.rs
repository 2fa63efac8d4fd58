//! Cutting a torn last batch off the database's journal, where the database itself would refuse to open.
//!
//! A power cut can leave the batch that was being synced with its end on the disk and a page in its middle not. The database
//! cuts a batch that ends early, but takes a wrong checksum for damage. It need not be: each batch is synced before the next
//! is written, so only the last one can be torn, and nobody was told that it is durable. If it was a batch that had been
//! acknowledged after all, `synced-end` says so, and the log is refused as truncated.
//!
//! ```text
//! batch    start | item ... | end                           fjall 3, little-endian
//! start    1 u8 | items u32 | seqno u64
//! item     2 u8 | type u8 | compression u8 | keyspace u64 | key bytes u16 | value bytes u32 | stored bytes u32 | key | stored
//! end      3 u8 | xxh3 u64 of the items as they lie there | "FJL" 3
//! clear    4 u8 | keyspace u64                              (not written here)
//! ```

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: &[u8; 4] = b"FJL\x03";
/// Bytes after the tag.
const START_BYTES: u64 = 12;
const ITEM_HEADER_BYTES: usize = 20;
const END_BYTES: usize = 12;

/// Cuts the newest journal in `database` where its last batch begins, if that batch is whole in length and wrong in checksum
/// and nothing follows it. Returns how many bytes went, or `None` if the journal is not of this kind and was left alone.
pub(super) fn cut(database: &Path) -> io::Result<Option<u64>> {
    let Some(journal) = newest_journal(database)? else { return Ok(None) };
    let bytes = fs::metadata(&journal)?.len();
    let Some(place) = torn_batch(BufReader::new(File::open(&journal)?))? else { return Ok(None) };
    let file = File::options().write(true).open(&journal)?;
    file.set_len(place)?;
    file.sync_all()?;
    Ok(Some(bytes.saturating_sub(place)))
}

fn newest_journal(database: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            newest = newest.max(number.map(|number| (number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the first batch with a wrong checksum begins, if only zeros follow it.
fn torn_batch(journal: impl Read) -> io::Result<Option<u64>> {
    let mut walk = Walk { journal, place: 0 };
    loop {
        let start = walk.place;
        match walk.batch() {
            Ok(Some(true)) => {}
            Ok(Some(false)) => return Ok(walk.only_zeros_follow()?.then_some(start)),
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

struct Walk<R> {
    journal: R,
    place: u64,
}

impl<R: Read> Walk<R> {
    /// Walks over a batch and says whether its checksum is right; `None` if there is no whole batch here.
    fn batch(&mut self) -> io::Result<Option<bool>> {
        let mut items = Xxh3::new();
        let mut tag = self.take::<1>()?;
        if tag != [START] {
            return Ok(None);
        }
        self.skip(START_BYTES, None)?;
        loop {
            tag = self.take()?;
            match tag {
                [ITEM] => {
                    items.update(&tag);
                    let header = self.take::<ITEM_HEADER_BYTES>()?;
                    items.update(&header);
                    let [.., k0, k1, _, _, _, _, s0, s1, s2, s3] = header;
                    let body = u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
                    self.skip(body, Some(&mut items))?;
                }
                [END] => {
                    let end = self.take::<END_BYTES>()?;
                    let [checksum @ .., _, _, _, _] = end;
                    return Ok(end.ends_with(TRAILER).then(|| u64::from_le_bytes(checksum) == items.digest()));
                }
                _ => return Ok(None),
            }
        }
    }

    fn only_zeros_follow(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        loop {
            match self.journal.read(&mut buffer)? {
                0 => return Ok(true),
                read if buffer.iter().take(read).any(|byte| *byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.journal.read_exact(&mut bytes)?;
        self.place += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64, mut hash: Option<&mut Xxh3>) -> io::Result<()> {
        let mut part = self.journal.by_ref().take(bytes);
        let mut buffer = [0; 8192];
        loop {
            let read = part.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            if let (Some(hash), Some(bytes)) = (hash.as_deref_mut(), buffer.get(..read)) {
                hash.update(bytes);
            }
        }
        let left = part.limit();
        self.place += bytes - left;
        if left == 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
