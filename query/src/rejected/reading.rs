//! Letters read from the dead-letter log: backwards for a list, forwards from a place, one by its name. All of it blocks, and is bounded.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use ingest::{EventLog, LogError, Problem, ReadLimit};
use schemas::{DeadLetter, LetterId, Millis, Offset};

use super::filter::Filter;
use super::{BATCH, Extent, LETTERS, Rejected};
use crate::error::QueryError;

/// A request looks through so many letters at most.
const LOOKS_AT: u64 = 50_000;
/// And for so long.
pub(super) const LOOKS_FOR: Duration = Duration::from_secs(3);

/// How far apart the clocks of the logs' brokers may be when a letter is looked for by the time of its record.
const CLOCKS_APART_MS: i64 = 3_600_000;

/// A letter as it was read.
pub(super) struct Read {
    pub(super) at: Offset,
    pub(super) time: Millis,
    pub(super) letter: DeadLetter,
}

impl Read {
    /// A record of the dead-letter log, if it is a letter.
    pub(super) fn of(record: &schemas::Record<'_>) -> Option<Self> {
        let letter = DeadLetter::decode(record.payload).ok()?;
        Some(Self { at: record.offset, time: record.append_time, letter })
    }
}

/// Letters read backwards, and where to go on.
pub(super) struct Page {
    pub(super) letters: Vec<Read>,
    pub(super) looked_at: u64,
    /// Everything from here on was looked at.
    pub(super) next: Offset,
}

impl Rejected {
    /// Reads letters from the end of a part of the log to its beginning, as far as one request may. Blocks.
    pub(super) fn backwards(&self, filter: &Filter, extent: Extent, limit: u64) -> Result<Page, LogError> {
        let begun = Instant::now();
        let mut page = Page { letters: Vec::new(), looked_at: 0, next: extent.to };
        while page.next > extent.from && page.looked_at < LOOKS_AT && begun.elapsed() < LOOKS_FOR {
            // Runs grow: mostly the newest few are wanted.
            let run = page.looked_at.clamp(limit.min(100), BATCH.records as u64);
            let from = Offset(page.next.0.saturating_sub(run)).max(extent.from);
            let mut letters = self.forwards(Extent { from, to: page.next })?;
            while let Some(read) = letters.pop() {
                page.looked_at += 1;
                page.next = read.at;
                if filter.takes(&read.letter, read.time) {
                    page.letters.push(read);
                    if page.letters.len() as u64 >= limit {
                        return Ok(page);
                    }
                }
            }
            page.next = from;
        }
        Ok(page)
    }

    /// All letters of a small part of the log. Blocks.
    fn forwards(&self, extent: Extent) -> Result<Vec<Read>, LogError> {
        let (mut letters, mut at) = (Vec::new(), extent.from);
        while at < extent.to {
            let next = self.each(at, BATCH, &mut |read| {
                if let Some(read) = read
                    && read.at < extent.to
                {
                    letters.push(read);
                }
                ControlFlow::Continue(())
            })?;
            at = if next > at { next } else { extent.to };
        }
        Ok(letters)
    }

    /// Reads some records from an offset on; `None` for one that is no letter. The offset to go on at. Blocks.
    pub(super) fn each(
        &self,
        from: Offset,
        limit: ReadLimit,
        each: &mut dyn FnMut(Option<Read>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        match self.log.read(LETTERS, from, limit, &mut |record| each(Read::of(&record))) {
            Err(LogError::Gone { start, .. }) => Ok(start),
            other => other,
        }
    }

    /// Looks for a letter: where its caller believes it to be, or from when its record was appended; until some time at most. Blocks.
    ///
    /// # Errors
    /// 404 that says where was looked, if it is not found, and 503 if there was no time to look everywhere.
    pub(super) fn find(&self, events: &dyn EventLog, id: LetterId, at: Option<Offset>, until: Instant) -> Result<Read, QueryError> {
        let one = ReadLimit { records: 1, ..BATCH };
        let mut found = None;
        let ends = self.log.ends(LETTERS)?;
        if let Some(at) = at.filter(|at| ends.start <= *at && *at < ends.end) {
            self.each(at, one, &mut |read| {
                found = read.filter(|read| read.letter.id() == id);
                ControlFlow::Break(())
            })?;
        }
        let first = self.first_place(events, id)?.max(ends.start);
        let mut next = first;
        while found.is_none() && next < ends.end {
            if Instant::now() >= until {
                let detail = format!(
                    "there was no time to find the letter {id} among so many; take its place with at from a list, or name fewer at once"
                );
                return Err(Problem::unavailable(1, detail).into());
            }
            let before = next;
            next = self.each(next, BATCH, &mut |read| match read.filter(|read| read.letter.id() == id) {
                Some(read) => {
                    found = Some(read);
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            })?;
            if next == before {
                break;
            }
        }
        found.ok_or_else(|| {
            let detail = format!(
                "there is no letter {id} among the records {first} to {next} of the dead-letter log, which has {} to {}; \
                 an event that was not refused has none",
                ends.start, ends.end
            );
            Problem::new(StatusCode::NOT_FOUND, "unknown-letter", "There is no such letter", detail).into()
        })
    }

    /// Before this record of the dead-letter log there is no letter of this name: it was written after its record was appended.
    fn first_place(&self, events: &dyn EventLog, id: LetterId) -> Result<Offset, LogError> {
        let mut appended = None;
        let one = ReadLimit { records: 1, ..BATCH };
        let is_there = id.source.0 < events.sources().get() && {
            let ends = events.ends(id.source)?;
            ends.start <= id.offset && id.offset < ends.end
        };
        if is_there {
            let read = events.read(id.source, id.offset, one, &mut |record| {
                appended = Some(record.append_time);
                ControlFlow::Break(())
            });
            match read {
                Ok(_) | Err(LogError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        appended.map_or(Ok(Offset(0)), |time| self.log.first_at_or_after(LETTERS, time.plus(-CLOCKS_APART_MS)))
    }
}
