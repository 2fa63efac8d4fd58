//! `POST /v1/rejected/retry`: letters are counted after all, or it is said why not.
//!
//! A request works on a limited number of letters, oldest first, and says where to go on. First it finishes what an earlier retry left
//! undone. The work goes on when its client has gone; what a crash interrupts the next retry finishes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use futures_util::future::join_all;
use ingest::Problem;
use schemas::retry::{Claimed, MAX_CLAIMED, Note};
use schemas::{Checkpoint, Claim, EventHash, LetterId, Millis, NewRecord, Offset, RecordKind, Source};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::ask::{Asked, Retry, Which};
use super::judge::{How, Wrong, judge};
use super::ledger::State as Standing;
use super::reading::Read;
use super::settle::Ended;
use super::{BATCH, LETTERS, Rejected};
use crate::api;
use crate::body::json_body;
use crate::error::QueryError;
use crate::service::{MAX_BODY_BYTES, QueryService};

/// A request looks through so many records at most.
const LOOKS_AT: usize = 20_000;
/// And for so long.
const LOOKS_FOR: Duration = Duration::from_secs(2);
/// So long after the beginning the answer is given, whatever is still to be done.
const ANSWERS_AFTER: Duration = Duration::from_secs(8);
/// How long a request waits for another one.
const WAITS: Duration = Duration::from_secs(4);
/// A claim that is not older is believed to be in its author's hands. What is believed costs no more than an adjustment that is refused.
const FRESH_MS: i64 = 5_000;
/// So many claims of others a request finishes at most.
const FINISHES: usize = 16;
/// The most letters that an answer explains.
const EXAMPLES: usize = 20;

/// What became of the letters that were looked at.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Retried {
    /// Whether it only says what would be done.
    dry_run: bool,
    /// So many records of the dead-letter log were looked at.
    looked_at: usize,
    /// So many letters were meant.
    matched: usize,
    /// So many are counted now; with `dry_run`, would be.
    counted: usize,
    /// So many were counted by an earlier retry.
    already_counted: usize,
    /// So many have the event id of a letter that is counted or being counted: they stay uncounted.
    duplicate: usize,
    /// So many somebody has begun to count, this request or another: retry again, until there are none.
    unfinished: usize,
    /// Of so many the log no longer tells whether an interrupted retry counted them. They are left alone.
    unknown: usize,
    /// So many cannot be counted, by reason.
    #[schema(value_type = BTreeMap<String, usize>)]
    still_rejected: BTreeMap<&'static str, usize>,
    /// Why, of the first of them.
    examples: Vec<Example>,
    /// Whether there is more to look at: send the request again with `cursor`.
    more: bool,
    /// Where to go on; `null` at the end.
    cursor: Option<String>,
    /// How much of what there is was looked at, from 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    progress: f64,
}

/// A letter that cannot be counted.
#[derive(Debug, Serialize, ToSchema)]
struct Example {
    /// Its name.
    letter: String,
    /// Why, for machines: a reason as events are refused with, or `not_yet`, `not_an_event`, `cut`, `damaged`, `source_ended`.
    reason: &'static str,
    /// Why, for people.
    detail: String,
}

/// Count refused events after all.
///
/// Each letter that can be counted now is counted exactly once, however often, by how many and whenever it is retried. A letter that
/// is too old counts with `historical`; one that was refused for what it says counts with members replaced (`set`). Without
/// `dry_run: false` nothing is done but said. A request works on a limited number of letters, oldest first.
#[utoipa::path(
    post,
    path = "/v1/rejected/retry",
    operation_id = "retry_rejected",
    tag = "Operation",
    request_body = Retry,
    responses((status = 200, description = "What became of them.", body = Retried), api::RetryProblems)
)]
pub(crate) async fn retry(
    State(service): State<Arc<QueryService>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Retried>, QueryError> {
    let asked = Asked::read(json_body(body, MAX_BODY_BYTES)?)?;
    // Of its own, so that a client that goes away does not stop it half way.
    let work = tokio::spawn(async move { service.retry(asked).await });
    work.await.map_err(|_| QueryError::Broken)?.map(Json)
}

/// The letters to work on, and where to go on.
struct Batch {
    letters: Vec<Read>,
    looked_at: usize,
    next: Offset,
    extent: Option<(Offset, Offset)>,
}

impl QueryService {
    async fn retry(&self, asked: Asked) -> Result<Retried, QueryError> {
        let deadline = Instant::now() + ANSWERS_AFTER;
        let rejected = self.rejected()?;
        let busy = || Problem::unavailable(1, "another retry is at work on this server; try again in a moment");
        let _one = timeout(WAITS, rejected.retrying.lock()).await.map_err(|_| busy())?;
        self.with_rejected(Rejected::catch_up).await?;
        if !asked.dry_run {
            self.finish_claims(deadline).await?;
            self.with_rejected(Rejected::catch_up).await?;
        }
        let Asked { which, how, dry_run, limit } = asked;
        let events = Arc::clone(&self.log);
        let batch = self.with_rejected(move |rejected| rejected.batch(&*events, which, limit)).await?;
        let checkpoints: HashMap<Source, Checkpoint> = self.store.read_checkpoints().await?.into_iter().collect();
        let mut retried = Retried { dry_run, looked_at: batch.looked_at, ..Retried::default() };
        let claimed = rejected.sort_out(&batch.letters, &how, &checkpoints, &mut retried);
        retried.go_on(&batch);
        if dry_run {
            retried.counted = claimed.values().map(Vec::len).sum();
        } else {
            self.count(claimed, &checkpoints, deadline, &mut retried).await?;
        }
        Ok(retried)
    }

    /// Finishes what others have left undone.
    async fn finish_claims(&self, deadline: Instant) -> Result<(), QueryError> {
        let rejected = self.rejected()?;
        let left = rejected.ledger().left_over(Millis::now().plus(-FRESH_MS), FINISHES);
        for claim in left {
            if Instant::now() < deadline && self.settle(&claim, deadline).await? == Ended::Unknown {
                rejected.ledger().give_up(&claim.id);
            }
        }
        Ok(())
    }

    /// Claims letters and counts what it gets: the sources side by side, the claims of each in turn.
    async fn count(
        &self,
        claimed: BTreeMap<Source, Vec<Claimed>>,
        checkpoints: &HashMap<Source, Checkpoint>,
        deadline: Instant,
        retried: &mut Retried,
    ) -> Result<(), QueryError> {
        let of_source = async |source: Source, letters: Vec<Claimed>, from: Offset| {
            let mut ends = Vec::new();
            for letters in letters.chunks(MAX_CLAIMED) {
                ends.push((letters.len(), self.count_claim(source, letters.to_vec(), from, deadline).await));
            }
            ends
        };
        let counting = claimed.into_iter().map(|(source, letters)| {
            let from = checkpoints.get(&source).map_or(Offset(0), |checkpoint| checkpoint.next_offset);
            of_source(source, letters, from)
        });
        for (letters, end) in join_all(counting).await.into_iter().flatten() {
            let (had, end) = end?;
            match end {
                Ended::Counted => {
                    retried.counted += had;
                    self.metrics.letters_counted.inc_by(had as u64);
                }
                Ended::Unfinished => retried.unfinished += had,
                Ended::Unknown => retried.unknown += had,
            }
            // Somebody else was first: what of these is counted, the next look says.
            retried.unfinished += letters - had;
        }
        Ok(())
    }

    /// Claims letters of one source and counts those that it gets: so many, and how that ended.
    async fn count_claim(
        &self,
        source: Source,
        letters: Vec<Claimed>,
        from: Offset,
        deadline: Instant,
    ) -> Result<(usize, Ended), QueryError> {
        let rejected = self.rejected()?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        let note = Note::Claim(Claim { id: id.clone(), source, from, letters });
        rejected.log.append(LETTERS, vec![NewRecord::new(RecordKind::Json, note.encode())]).await?;
        self.with_rejected(Rejected::catch_up).await?;
        // What it did not get, another claim has.
        let Some(claim) = rejected.ledger().open_claim(&id) else { return Ok((0, Ended::Counted)) };
        Ok((claim.letters.len(), self.settle(&claim, deadline).await?))
    }
}

impl Rejected {
    /// The letters that are meant, oldest first. Blocks.
    fn batch(&self, events: &dyn ingest::EventLog, which: Which, limit: usize) -> Result<Batch, QueryError> {
        match which {
            Which::Named(names) => {
                let until = Instant::now() + LOOKS_FOR;
                let letters = names.into_iter().map(|name| self.find(events, name, None, until)).collect::<Result<Vec<_>, _>>()?;
                Ok(Batch { looked_at: letters.len(), letters, next: Offset(0), extent: None })
            }
            Which::Filtered(filter, extent) => {
                let whole = self.extent(&filter)?;
                let to = extent.map_or(whole.to, |extent| extent.to.min(whole.to));
                let from = extent.map_or(whole.from, |extent| extent.from.max(whole.from));
                let begun = Instant::now();
                let mut batch = Batch { letters: Vec::new(), looked_at: 0, next: from, extent: Some((whole.from, to)) };
                while batch.next < to && batch.letters.len() < limit && batch.looked_at < LOOKS_AT && begun.elapsed() < LOOKS_FOR {
                    let before = batch.next;
                    let mut looked_to = before;
                    let next = self.log.read(LETTERS, before, BATCH, &mut |record| {
                        if record.offset >= to || batch.letters.len() >= limit {
                            return ControlFlow::Break(());
                        }
                        looked_to = record.offset.next();
                        batch.looked_at += 1;
                        batch.letters.extend(Read::of(&record).filter(|read| filter.takes(&read.letter, read.time)));
                        ControlFlow::Continue(())
                    });
                    batch.next = match next {
                        Ok(_) if looked_to > before => looked_to,
                        Err(ingest::LogError::Gone { start, .. }) => start,
                        Ok(_) => to,
                        Err(error) => return Err(error.into()),
                    };
                }
                Ok(batch)
            }
        }
    }

    /// Tells the letters that can be counted, by source, from those that cannot, which are noted with the reason.
    fn sort_out(
        &self,
        letters: &[Read],
        how: &How,
        checkpoints: &HashMap<Source, Checkpoint>,
        retried: &mut Retried,
    ) -> BTreeMap<Source, Vec<Claimed>> {
        let ledger = self.ledger();
        let (mut seen, mut ids) = (HashSet::new(), HashSet::<(Source, EventHash)>::new());
        let mut claimed: BTreeMap<Source, Vec<Claimed>> = BTreeMap::new();
        for read in letters {
            let id = read.letter.id();
            // A restart may have written it twice.
            if !seen.insert(id) {
                continue;
            }
            retried.matched += 1;
            match ledger.state(&id) {
                Standing::Counted(..) => retried.already_counted += 1,
                Standing::Claimed => retried.unfinished += 1,
                Standing::Unknown => retried.unknown += 1,
                Standing::Open => match judge(&read.letter, how, checkpoints.get(&id.source)) {
                    Err(wrong) => retried.wrong(id, wrong),
                    Ok(event) if ledger.claimed_event(id.source, event.event).is_some() || !ids.insert((id.source, event.event)) => {
                        retried.duplicate += 1;
                    }
                    Ok(event) => claimed.entry(id.source).or_default().push(event),
                },
            }
        }
        claimed
    }
}

impl Retried {
    fn wrong(&mut self, letter: LetterId, Wrong { reason, detail }: Wrong) {
        *self.still_rejected.entry(reason).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(Example { letter: letter.to_string(), reason, detail });
        }
    }

    fn go_on(&mut self, batch: &Batch) {
        self.progress = 1.0;
        let Some((from, to)) = batch.extent.filter(|(_, to)| batch.next < *to) else { return };
        self.more = true;
        self.cursor = Some(format!("{}-{to}", batch.next));
        self.progress = share(batch.next.0.saturating_sub(from.0), to.0.saturating_sub(from.0));
    }
}

/// A part of a whole, in thousandths.
fn share(part: u64, whole: u64) -> f64 {
    let thousandths = u128::from(part) * 1_000 / u128::from(whole.max(1));
    f64::from(u16::try_from(thousandths).unwrap_or(1_000)) / 1_000.0
}
