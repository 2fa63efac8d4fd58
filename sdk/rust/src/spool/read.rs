//! Takes records out of the spool, as many as fit one request.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::record::{HEADER, Header};
use super::{Parcel, Slot, Spool, SpoolError, earliest, segment_path};

impl Spool {
    /// The next records, as many as fit one request; those in doubt first. They are the caller's until it says what became of them.
    ///
    /// # Errors
    /// If they cannot be read now; then they stay.
    pub(crate) fn next(&mut self, max_events: u32, max_bytes: usize) -> Result<Option<Parcel>, SpoolError> {
        let mut parcel = Parcel::default();
        let from_doubtful = !self.doubtful.is_empty();
        let mut reader: Option<(u64, File)> = None;
        loop {
            let queue = if from_doubtful { &self.doubtful } else { &self.fresh };
            let Some(slot) = queue.front().copied() else { break };
            let fits = parcel.batch.events.saturating_add(slot.events) <= max_events
                && parcel.batch.body.len() + usize::try_from(slot.len).unwrap_or(usize::MAX) <= max_bytes;
            if !parcel.slots.is_empty() && !fits {
                break;
            }
            match self.read(slot, &mut reader, &mut parcel.batch.body) {
                Ok(true) => {
                    parcel.batch.events += slot.events;
                    parcel.batch.doubt_since_ms = earliest(parcel.batch.doubt_since_ms, slot.doubt_since_ms);
                    parcel.slots.push(slot);
                }
                Ok(false) => {
                    self.segments.entry(slot.segment).or_default().damaged = true;
                    parcel.damaged.push(slot);
                }
                Err(error) if parcel.slots.is_empty() && parcel.damaged.is_empty() => return Err(error),
                Err(_) => break,
            }
            let _ = if from_doubtful { self.doubtful.pop_front() } else { self.fresh.pop_front() };
        }
        let is_empty = parcel.slots.is_empty() && parcel.damaged.is_empty();
        Ok((!is_empty).then_some(parcel))
    }

    /// Appends a record's body to `body`; false if it is damaged.
    fn read(&self, slot: Slot, reader: &mut Option<(u64, File)>, body: &mut Vec<u8>) -> Result<bool, SpoolError> {
        let path = segment_path(&self.dir, slot.segment);
        let fault = |error| SpoolError::Io { path: path.clone(), verb: "read", error };
        if reader.as_ref().is_none_or(|(id, _)| *id != slot.segment) {
            *reader = Some((slot.segment, File::open(&path).map_err(fault)?));
        }
        let Some((_, file)) = reader else { return Ok(false) };
        let mut record = vec![0; HEADER + usize::try_from(slot.len).unwrap_or(0)];
        file.seek(SeekFrom::Start(slot.at)).map_err(fault)?;
        match file.read_exact(&mut record) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.map_err(fault)?,
        }
        let (Some(header), Some(read)) = (Header::read(&record), record.get(HEADER..)) else { return Ok(false) };
        let good = header.is_of(read) && header.len == slot.len;
        if good {
            body.extend_from_slice(read);
        }
        Ok(good)
    }
}
