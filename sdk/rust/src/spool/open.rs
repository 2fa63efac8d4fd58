//! Takes over what an earlier process left in a spool.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::ledger::{self, Standing};
use super::{Durability, Found, Segment, Slot, Spool, SpoolError, ledger_path, length, record, remove, segment_path};

impl Spool {
    /// Opens the spool in `dir`, which is made if it is missing; nobody else may have it open.
    ///
    /// # Errors
    /// If another has it, or the file system does not let us.
    pub(crate) fn open(dir: &Path, max_bytes: u64, durability: Durability) -> Result<(Self, Found), SpoolError> {
        make(dir).map_err(|error| SpoolError::Io { path: dir.to_owned(), verb: "made", error })?;
        let mut spool = Self {
            dir: dir.to_owned(),
            _lock: lock(dir)?,
            max_bytes,
            durability,
            segments: BTreeMap::new(),
            active: None,
            next_id: 1,
            fresh: VecDeque::new(),
            doubtful: VecDeque::new(),
            events: 0,
        };
        let mut found = Found::default();
        for id in numbers(dir)? {
            spool.next_id = spool.next_id.max(id + 1);
            // Of one that is kept because it is damaged only the number is taken.
            if segment_path(dir, id).exists() {
                found.damaged_bytes += spool.take_over(id)?;
            }
        }
        found.events = spool.events;
        Ok((spool, found))
    }

    /// Reads a segment of an earlier process; how many bytes of it are damaged.
    fn take_over(&mut self, id: u64) -> Result<u64, SpoolError> {
        let path = segment_path(&self.dir, id);
        let content = fs::read(&path).map_err(|error| SpoolError::Io { path, verb: "read", error })?;
        let ledger = match fs::read(ledger_path(&self.dir, id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| SpoolError::Io { path: ledger_path(&self.dir, id), verb: "read", error })?,
        };
        let scan = record::scan(&content);
        let standing = ledger::read(&ledger);
        let mut segment = Segment { bytes: length(&content) + length(&ledger), open_records: 0, damaged: scan.damaged > 0 };
        for (at, header) in scan.records {
            let own = Some(header.doubt_since_ms).filter(|since| *since > 0);
            let doubt_since_ms = match standing.get(&at) {
                Some(Standing::Done) => continue,
                Some(Standing::InDoubt { since_ms }) => super::earliest(own, Some(*since_ms)),
                None => own,
            };
            let slot = Slot { segment: id, at, len: header.len, events: header.events, doubt_since_ms };
            segment.open_records += 1;
            self.events += u64::from(slot.events);
            self.queue_of(slot).push_back(slot);
        }
        if segment.open_records == 0 {
            // A ledger that is missing is what it should be.
            let _ = remove(&self.dir, id, segment.damaged);
        } else {
            self.segments.insert(id, segment);
        }
        Ok(scan.damaged)
    }
}

/// For its owner alone: ids of viewers lie in it.
fn make(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

/// The lock ends with the process, however it ends.
fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| SpoolError::Io { path: path.clone(), verb: "opened", error })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(SpoolError::Io { path, verb: "locked", error }),
    }
}

/// The numbers that are taken, in the order in which their segments were written; ledgers without a segment are deleted.
fn numbers(dir: &Path) -> Result<Vec<u64>, SpoolError> {
    let fault = |error| SpoolError::Io { path: dir.to_owned(), verb: "listed", error };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        match (number, path.extension().and_then(|extension| extension.to_str())) {
            (Some(number), Some("batches" | "damaged")) => numbers.push(number),
            (Some(number), Some("sent")) if !segment_path(dir, number).exists() => drop(fs::remove_file(&path)),
            _ => {}
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}
