//! Keeping the archive: ranges that are over become files, small files become large ones, old ones go.
//!
//! ```text
//! EventLog ──read──> Draft ──files──> Shelf ──then──> CountStore: the manifest names them
//!                                     Shelf <──remove── what no manifest names any more
//! ```
//!
//! Each step reads the manifest, does one thing and commits it from that version, so any number of archivers may keep one archive:
//! where two did the same, one commit is refused and its work thrown away. Before the commit nothing can be seen of a step; what a
//! crash leaves is swept up later.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ingest::{EventLog, LogError, ReadLimit};
use schemas::{Millis, Offset, Source};

use super::choose;
use super::draft::{Draft, DraftFile, RangeBounds, draft_file, next_period};
use super::error::ArchiveError;
use super::forget::Forgotten;
use super::manifest::{ArchiveChange, ArchiveFile, Forgetting, Manifest};
use super::metrics::{ArchiveMetrics, OfSource};
use super::reader::batches;
use super::rows::{Extent, write_file};
use super::shelf::Shelf;
use crate::store::CountStore;

/// So much is read from the log at once.
const READ: ReadLimit = ReadLimit { records: 10_000, bytes: 8 << 20, patience: Duration::from_secs(2) };
/// What the log takes so shortly after somebody asked to be forgotten is of before: two clocks are not one.
const FORGET_AHEAD_MS: i64 = 60_000;
/// So many files are looked through for one change.
const FORGET_FILES: usize = 32;
/// So many changes are made of one source before another has its turn.
const TURN: usize = 64;

/// What an archiver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// A range ends when the log clock enters another period of so many ms.
    pub every_ms: i64,
    /// Days older than this go, in ms; 0 keeps all.
    pub retention_ms: i64,
    /// How much one range holds at most.
    pub bounds: RangeBounds,
}

/// An archive of a log. A handle: clones are the same.
#[derive(Clone)]
pub struct Archive {
    /// What is archived.
    pub log: Arc<dyn EventLog>,
    /// Where the manifests are.
    pub store: Arc<dyn CountStore>,
    /// Where the files are.
    pub shelf: Shelf,
    /// How.
    pub options: ArchiveOptions,
    /// What is counted of it.
    pub metrics: ArchiveMetrics,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A range was archived.
    Archived,
    /// Files became one.
    Compacted,
    /// A viewer was left out of the files.
    Forgot,
    /// Old or unused files went.
    Removed,
    /// Another archiver was faster; nothing was done.
    Refused,
    /// There is nothing to do.
    Nothing,
}

impl Archive {
    /// Does the next thing that is to be done for a source.
    ///
    /// # Errors
    /// If it could not be done; it may be tried again.
    pub async fn step(&self, source: Source, now: Millis) -> Result<Step, ArchiveError> {
        let manifest = self.store.read_archive(source).await?;
        self.note(source, &manifest).await?;
        let forgot = self.forget(source, &manifest, now).await?;
        if forgot != Step::Nothing {
            return Ok(forgot);
        }
        let archived = self.archive(source, &manifest).await?;
        if archived != Step::Nothing {
            return Ok(archived);
        }
        if let Some(files) = choose::to_compact(&manifest) {
            return self.compact(source, &manifest, files, now).await;
        }
        self.remove(source, &manifest, now).await
    }

    /// Does all that is to be done now, source after source.
    ///
    /// # Errors
    /// The first failure; other sources have had their turn before.
    pub async fn turn(&self, now: Millis) -> Result<bool, ArchiveError> {
        let (mut is_more, mut failed) = (false, None);
        for source in (0..self.log.sources().get()).map(Source) {
            for n in 0..TURN {
                match self.step(source, now).await {
                    Ok(Step::Nothing) => break,
                    Ok(_) => is_more |= n + 1 == TURN,
                    Err(error) => {
                        failed.get_or_insert(error);
                        break;
                    }
                }
            }
        }
        failed.map_or(Ok(is_more), Err)
    }

    async fn note(&self, source: Source, manifest: &Manifest) -> Result<(), ArchiveError> {
        let (files, _, bytes) = manifest.totals();
        let of = OfSource { source: source.0 };
        let log = Arc::clone(&self.log);
        let end = blocking(move || Ok(log.ends(source)?.end)).await?;
        self.metrics.lag.get_or_create(&of).set(end.0.saturating_sub(manifest.head.end.0));
        self.metrics.files.get_or_create(&of).set(files);
        self.metrics.bytes.get_or_create(&of).set(bytes);
        Ok(())
    }

    /// Archives the next range, if it is over.
    async fn archive(&self, source: Source, manifest: &Manifest) -> Result<Step, ArchiveError> {
        let (archive, before) = (self.clone(), manifest.clone());
        let Some(draft) = blocking(move || archive.gather(source, &before)).await? else { return Ok(Step::Nothing) };
        let mut head = manifest.next_head();
        if manifest.head.clock.is_none() {
            head.complete_from = draft.from();
        } else if draft.from() > manifest.head.end {
            tracing::error!(%source, from = manifest.head.end.0, to = draft.from().0, "the log lost records before they were archived");
            head.gaps.push((manifest.head.end, draft.from()));
        }
        (head.end, head.clock) = (draft.next(), draft.clock());
        let rows = draft.rows() as u64;
        let files = blocking(move || draft.finish()).await?;
        let added = self.put(source, files).await?;
        let change = ArchiveChange { head, added, removed: Vec::new() };
        let step = self.commit(source, change, Step::Archived).await?;
        if step == Step::Archived {
            self.metrics.rows.inc_by(rows);
        }
        Ok(step)
    }

    /// Reads the next range of the log; `None` while it is not over. Blocks.
    fn gather(&self, source: Source, manifest: &Manifest) -> Result<Option<Draft>, ArchiveError> {
        let head = &manifest.head;
        let ends = self.log.ends(source)?;
        let from = head.end.max(ends.start);
        if from >= ends.end {
            return Ok(None);
        }
        let mut first = None;
        self.log.read(source, from, ReadLimit { records: 1, ..READ }, &mut |record| {
            first = Some(record.append_time);
            ControlFlow::Break(())
        })?;
        let Some(first) = first else { return Ok(None) };
        let clock = head.clock.map_or(first, |clock| clock.max(first));
        let to = self.log.first_at_or_after(source, next_period(clock, self.options.every_ms))?;
        if to >= ends.end {
            return Ok(None);
        }
        let forgotten = Forgotten::new(&head.forgetting);
        let mut draft = Draft::new(source, from, head.clock, self.options.bounds, forgotten);
        let mut is_passed = false;
        while draft.next() < to && !draft.is_full() && !is_passed {
            let before = draft.next();
            self.log.read(source, before, READ, &mut |record| {
                // Offsets may leave some out: what comes next may lie behind the end.
                is_passed = record.offset >= to;
                if is_passed || draft.is_full() {
                    return ControlFlow::Break(());
                }
                draft.push(&record);
                ControlFlow::Continue(())
            })?;
            if draft.next() == before && !is_passed {
                // The records are there and did not come.
                return Err(LogError::Unavailable(format!("source {source} gave no records from {before} on")).into());
            }
        }
        Ok(Some(draft))
    }

    /// Makes neighbouring files one.
    async fn compact(&self, source: Source, manifest: &Manifest, files: Vec<ArchiveFile>, now: Millis) -> Result<Step, ArchiveError> {
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(Step::Nothing) };
        let (day, range) = (first.day, (first.from, last.to));
        let mut contents = Vec::with_capacity(files.len());
        for file in &files {
            let path = file.path(source);
            contents.push((self.shelf.get(&path).await?, path));
        }
        let extent = files.iter().map(extent).reduce(Extent::and);
        let Some(extent) = extent else { return Ok(Step::Nothing) };
        let merged = blocking(move || {
            let rows = contents.into_iter().flat_map(|(content, path)| match batches(&path, content) {
                Ok(batches) => Box::new(batches.map(|batch| Ok(batch?))) as Box<dyn Iterator<Item = _>>,
                Err(error) => Box::new(std::iter::once(Err(error))),
            });
            let (content, hash) = write_file(rows)?;
            Ok(draft_file(day, range, extent, content, hash))
        });
        let added = self.put(source, vec![merged.await?]).await?;
        let step = self.commit(source, manifest.replacing(source, files, added, now), Step::Compacted).await?;
        if step == Step::Compacted {
            self.metrics.compactions.inc();
        }
        Ok(step)
    }

    /// Lets old files go, and removes those that nobody needs.
    async fn remove(&self, source: Source, manifest: &Manifest, now: Millis) -> Result<Step, ArchiveError> {
        let expired = choose::expired(manifest, self.options.retention_ms);
        if !expired.is_empty() {
            let complete_from = expired.iter().map(|file| file.to).fold(manifest.head.complete_from, Offset::max);
            let mut change = manifest.replacing(source, expired, Vec::new(), now);
            change.head.complete_from = complete_from;
            change.head.gaps.retain(|(_, to)| *to > complete_from);
            return self.commit(source, change, Step::Removed).await;
        }
        let unused = choose::unused(&manifest.head.garbage, now);
        if unused.is_empty() {
            return Ok(Step::Nothing);
        }
        for garbage in &unused {
            // What was written anew may be what it was: then it is in use.
            if !manifest.files.iter().any(|file| file.path(source) == garbage.path) {
                self.shelf.delete(&garbage.path).await?;
            }
        }
        let mut head = manifest.next_head();
        head.garbage.retain(|garbage| !unused.contains(garbage));
        self.commit(source, ArchiveChange { head, added: Vec::new(), removed: Vec::new() }, Step::Removed).await
    }

    /// Asks that a viewer is left out of all events that the log has taken up to now; [`Archive::step`] does it.
    ///
    /// # Errors
    /// If it is not noted for every source; ask again.
    pub async fn ask_to_forget(&self, viewer_id: &str, now: Millis) -> Result<(), ArchiveError> {
        for source in (0..self.log.sources().get()).map(Source) {
            loop {
                let manifest = self.store.read_archive(source).await?;
                let mut head = manifest.next_head();
                head.forgetting.retain(|one| one.viewer_id != viewer_id);
                head.forgetting.push(Forgetting {
                    viewer_id: viewer_id.to_owned(),
                    until: now.plus(FORGET_AHEAD_MS),
                    scanned: None,
                    is_done: false,
                });
                if self.store.commit_archive(source, ArchiveChange { head, added: Vec::new(), removed: Vec::new() }).await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Does what was asked of a source by [`Archive::ask_to_forget`], and returns when no committed file names the viewer.
    ///
    /// # Errors
    /// If it could not be done; whoever keeps the archive goes on with it.
    pub async fn forget_now(&self, source: Source, now: Millis) -> Result<(), ArchiveError> {
        loop {
            let manifest = self.store.read_archive(source).await?;
            if manifest.head.forgetting.iter().all(|one| one.is_done) {
                return Ok(());
            }
            self.forget(source, &manifest, now).await?;
        }
    }

    /// Rewrites the files that hold somebody who is to be forgotten. It is done with when the archive has passed the asking.
    async fn forget(&self, source: Source, manifest: &Manifest, now: Millis) -> Result<Step, ArchiveError> {
        let forgetting = &manifest.head.forgetting;
        let Some(due) = forgetting.iter().find(|one| !one.is_done) else {
            let is_past = |one: &Forgetting| manifest.head.clock.is_some_and(|clock| clock > one.until);
            if !forgetting.iter().any(is_past) {
                return Ok(Step::Nothing);
            }
            let mut head = manifest.next_head();
            head.forgetting.retain(|one| !is_past(one));
            return self.commit(source, ArchiveChange { head, added: Vec::new(), removed: Vec::new() }, Step::Forgot).await;
        };
        // No other change of files comes between two of these: a step does not get further before they are done.
        let rest: Vec<_> = manifest.files.iter().filter(|file| due.scanned.is_none_or(|scanned| (file.day, file.from) > scanned)).collect();
        let forgotten = Forgotten::new(std::slice::from_ref(due));
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for file in rest.iter().take(FORGET_FILES).filter(|file| file.append_time.0 <= due.until) {
            let path = file.path(source);
            let (content, forgotten, old) = (self.shelf.get(&path).await?, forgotten.clone(), (*file).clone());
            if let Some(new) = blocking(move || rewritten(&path, content, &old, &forgotten)).await? {
                removed.push((*file).clone());
                added.extend(self.put(source, vec![new]).await?);
            }
        }
        let mut change = manifest.replacing(source, removed, added, now);
        if let Some(one) = change.head.forgetting.iter_mut().find(|one| *one == due) {
            one.scanned = rest.iter().take(FORGET_FILES).next_back().map(|file| (file.day, file.from));
            one.is_done = rest.len() <= FORGET_FILES;
        }
        self.commit(source, change, Step::Forgot).await
    }

    /// Removes files that no manifest names and that are too old to be named soon. Says how many.
    ///
    /// # Errors
    /// If it cannot be told what lies there or what is named.
    pub async fn sweep(&self, now: Millis) -> Result<usize, ArchiveError> {
        // What lies there first: what is committed afterwards is younger than any that is removed.
        let lying = self.shelf.list().await?;
        let mut named = BTreeSet::new();
        for source in (0..self.log.sources().get()).map(Source) {
            let manifest = self.store.read_archive(source).await?;
            named.extend(manifest.files.iter().map(|file| file.path(source)));
            named.extend(manifest.head.garbage.into_iter().map(|garbage| garbage.path));
        }
        let unknown = lying.into_iter().filter(|file| file.written.plus(choose::UNKNOWN_MS) < now && !named.contains(&file.path));
        let mut swept = 0;
        for file in unknown {
            self.shelf.delete(&file.path).await?;
            swept += 1;
        }
        Ok(swept)
    }

    async fn put(&self, source: Source, files: Vec<DraftFile>) -> Result<Vec<ArchiveFile>, ArchiveError> {
        let mut put = Vec::with_capacity(files.len());
        for DraftFile { file, content } in files {
            self.metrics.written.inc_by(file.bytes);
            self.shelf.put(&file.path(source), content).await?;
            put.push(file);
        }
        Ok(put)
    }

    async fn commit(&self, source: Source, change: ArchiveChange, done: Step) -> Result<Step, ArchiveError> {
        Ok(if self.store.commit_archive(source, change).await? { done } else { Step::Refused })
    }
}

fn extent(file: &ArchiveFile) -> Extent {
    Extent { rows: file.rows, events: file.events, ts: file.ts, append_time: file.append_time }
}

/// A file without somebody; `None` if nobody is in it.
fn rewritten(path: &str, content: bytes::Bytes, file: &ArchiveFile, forgotten: &Forgotten) -> Result<Option<DraftFile>, ArchiveError> {
    let mut is_in = false;
    for batch in batches(path, content.clone())? {
        is_in |= forgotten.without_rows(&batch?)?.is_some();
    }
    if !is_in {
        return Ok(None);
    }
    let rows = batches(path, content)?.map(|batch| {
        let batch = batch?;
        Ok(forgotten.without_rows(&batch)?.unwrap_or(batch))
    });
    let (content, hash) = write_file(rows)?;
    Ok(Some(draft_file(file.day, (file.from, file.to), extent(file), content, hash)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ArchiveError::Stopped(error.to_string()))?
}
