//! Counting a claim, or publishing a part of an adjustment: by a record of which one is taken, however many are appended and by whomever.
//!
//! ```text
//! the source's log:   from ........ P (checkpoint: so many adjustments taken) ........ o
//!                     └─ searched ──┘                                                  └─ appended: "after so many"
//! ```
//!
//! Before one is appended, the log has been searched from the claim's beginning to a checkpoint, and no adjustment in it that names the
//! claim was taken (the same with a part: its name is how its reason begins). The one appended says how many the checkpoint had: it is taken only if none was between, so not if another of this
//! claim was. Whether one was taken is known when a checkpoint has passed it: if not, there is a letter of it in the dead-letter log, which
//! has it before the checkpoint is written. A sleeper who wakes with an old adjustment in hand is refused in the same way.

use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use ingest::{LogError, ReadLimit};
use schemas::retry::{Note, Settled};
use schemas::{Checkpoint, Claim, NewRecord, Offset, RecordKind, Source, correction};

use super::ledger::adjustment_reason;
use super::{LETTERS, Rejected};
use crate::error::QueryError;
use crate::service::QueryService;

/// How often the checkpoint is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The search of a source's log reads so much at once.
const BATCH: ReadLimit = ReadLimit { records: 2_000, bytes: 8 * 1024 * 1024, patience: Duration::from_secs(2) };

/// An adjustment that is to be taken once: which it is, the beginning of its reason says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Once {
    /// What the search is kept by.
    pub(crate) name: String,
    /// The source that it is appended to.
    pub(crate) source: Source,
    /// No copy of it lies before this offset.
    pub(crate) from: Offset,
    /// How the reasons of it begin, and of those that are searched for with it.
    pub(crate) begins: String,
    /// How its own begins, and no other's.
    pub(crate) reason: String,
}

/// How an adjustment that is to be taken once stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// No checkpoint has passed what it is waited for.
    Waiting,
    /// There was no time to tell.
    Unfinished,
    /// The log has given up records that would tell.
    Unknown,
    /// It counts: its record.
    Taken(Offset),
    /// By this checkpoint it does not. One that comes after as many adjustments as that has is taken once at most.
    Free(Box<Checkpoint>),
}

/// The adjustments whose reasons begin in a way, up to an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Searched {
    to: Option<Offset>,
    found: Vec<(Offset, String)>,
}

/// How the counting of a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is counted.
    Counted,
    /// There was no time to see it counted. Whoever comes next sees to it.
    Unfinished,
    /// The log has given up records that would tell whether it was counted. It is left alone: rather not counted than twice.
    Unknown,
}

/// What to do about a claim whose adjustments up to a checkpoint are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Counted(Offset),
    Append { after: u64 },
}

fn next(found: &[Offset], is_refused: impl Fn(Offset) -> bool, checkpoint: &Checkpoint) -> Next {
    let below = found.iter().copied().filter(|offset| *offset < checkpoint.next_offset);
    match below.into_iter().find(|offset| !is_refused(*offset)) {
        Some(taken) => Next::Counted(taken),
        None => Next::Append { after: checkpoint.adjustments },
    }
}

impl QueryService {
    /// Counts a claim, until `deadline` at most.
    pub(super) async fn settle(&self, claim: &Claim, deadline: Instant) -> Result<Ended, QueryError> {
        let rejected = self.rejected()?;
        let (id, reason) = (claim.id.clone(), claim.reason());
        let once = Once { name: id.clone(), source: claim.source, from: claim.from, begins: reason.clone(), reason };
        // What was appended here and no checkpoint has passed.
        let mut appended: Option<Offset> = None;
        while Instant::now() < deadline {
            match self.stands(&once, appended, deadline).await? {
                Stands::Waiting => tokio::time::sleep(LOOK).await,
                Stands::Unfinished => return Ok(Ended::Unfinished),
                Stands::Unknown => return Ok(Ended::Unknown),
                Stands::Taken(offset) => {
                    let note = Note::Settled(Settled { claim: id.clone(), offset });
                    rejected.log.append(LETTERS, vec![NewRecord::new(RecordKind::Json, note.encode())]).await?;
                    rejected.forget(&id);
                    return Ok(Ended::Counted);
                }
                Stands::Free(checkpoint) => {
                    let payload = correction::encode(&claim.adjustment(checkpoint.adjustments));
                    let record = NewRecord::new(RecordKind::Adjustment, payload);
                    appended = Some(self.log.append(claim.source, vec![record]).await?.first);
                }
            }
        }
        Ok(Ended::Unfinished)
    }

    /// How an adjustment stands by a checkpoint that has passed an offset, if there is one to wait for.
    pub(crate) async fn stands(&self, once: &Once, passed: Option<Offset>, deadline: Instant) -> Result<Stands, QueryError> {
        let rejected = self.rejected()?;
        let checkpoints = self.store.read_checkpoints().await?;
        let checkpoint = checkpoints.into_iter().find_map(|(source, checkpoint)| (source == once.source).then_some(checkpoint));
        let has_passed = |checkpoint: &Checkpoint| passed.is_none_or(|offset| offset < checkpoint.next_offset);
        let Some(checkpoint) = checkpoint.filter(has_passed) else { return Ok(Stands::Waiting) };
        // After the checkpoint was read: what it has passed and was refused, the dead-letter log has.
        self.with_rejected(Rejected::catch_up).await?;
        let Some(searched) = self.search(once, checkpoint.next_offset, deadline).await? else { return Ok(Stands::Unknown) };
        if searched.to < Some(checkpoint.next_offset) {
            return Ok(Stands::Unfinished);
        }
        let of_it = |(offset, said): &(Offset, String)| said.starts_with(&once.reason).then_some(*offset);
        let found: Vec<Offset> = searched.found.iter().filter_map(of_it).collect();
        Ok(match next(&found, |offset| rejected.ledger().is_refused(once.source, offset), &checkpoint) {
            Next::Counted(offset) => Stands::Taken(offset),
            Next::Append { .. } => Stands::Free(Box::new(checkpoint)),
        })
    }

    /// Searches on for adjustments, up to an offset if there is time. `None` if the log does not go back far enough.
    async fn search(&self, once: &Once, to: Offset, deadline: Instant) -> Result<Option<Searched>, QueryError> {
        let rejected = self.rejected()?;
        let Once { name, source, from, begins, .. } = once.clone();
        self.with_log(move |log| {
            let known = rejected.searched.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let mut searched = known.unwrap_or_default();
            let mut at = searched.to.unwrap_or(from);
            while at < to && Instant::now() < deadline {
                let next = log.read(source, at, BATCH, &mut |record| {
                    if record.offset >= to {
                        return ControlFlow::Break(());
                    }
                    if record.kind == RecordKind::Adjustment
                        && let Some(said) = adjustment_reason(record.payload).filter(|said| said.starts_with(&begins))
                    {
                        searched.found.push((record.offset, said));
                    }
                    ControlFlow::Continue(())
                });
                at = match next {
                    Ok(next) if next == at => return Err(LogError::Unavailable("the log gave no record in time".into()).into()),
                    // The record that broke it off counts as read.
                    Ok(next) => next.min(to),
                    Err(LogError::Gone { .. }) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
            }
            searched.to = Some(at.max(from));
            rejected.searched.lock().unwrap_or_else(PoisonError::into_inner).insert(name, searched.clone());
            Ok(Some(searched))
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use aggregator::fold::{Fold, FoldLimits};
    use proptest::prelude::*;
    use schemas::retry::Claimed;
    use schemas::{FoldSettings, Millis, Record, Stage};

    use super::*;

    /// A source as several authors see it who all count the same claim, and others who adjust something else: its log, a real fold, and the
    /// letters that it wrote.
    struct World {
        log: Vec<NewRecord>,
        fold: Fold,
        checkpoint: Checkpoint,
        refused: BTreeSet<Offset>,
        taken: BTreeMap<Offset, String>,
    }

    impl World {
        fn new() -> Self {
            let mut fold = Fold::new(
                Source(0),
                FoldSettings { max_lateness_ms: i64::MAX / 4, ..FoldSettings::default() },
                FoldLimits::default(),
                None,
                Offset(0),
            );
            let log = vec![NewRecord::tick()];
            fold.apply(&record(0, &log[0]));
            let checkpoint = fold.take_flush().unwrap().checkpoint;
            fold.flushed();
            Self { log, fold, checkpoint, refused: BTreeSet::new(), taken: BTreeMap::new() }
        }

        /// Folds what there is, and notes what was refused before the checkpoint is there.
        fn fold(&mut self) {
            for offset in self.fold.position().0..self.log.len() as u64 {
                self.fold.apply(&record(offset, &self.log[usize::try_from(offset).unwrap()]));
            }
            while let Some(load) = self.fold.poll_load() {
                let rows = vec![None; load.keys.len()];
                self.fold.loaded(&load, &rows);
            }
            let before = self.checkpoint.next_offset;
            let Some(flush) = self.fold.take_flush() else { return };
            let refused = flush.dead_letters.iter().filter(|letter| letter.stage == Stage::Correct).map(|letter| letter.offset);
            self.refused.extend(refused);
            self.checkpoint = flush.checkpoint;
            self.fold.flushed();
            for offset in before.0..self.checkpoint.next_offset.0 {
                let new = &self.log[usize::try_from(offset).unwrap()];
                if new.kind == RecordKind::Adjustment && !self.refused.contains(&Offset(offset)) {
                    self.taken.insert(Offset(offset), adjustment_reason(&new.payload).unwrap());
                }
            }
        }

        fn found(&self, claim: &Claim, to: Offset) -> Vec<Offset> {
            let named = |(_, new): &(u64, &NewRecord)| adjustment_reason(&new.payload).is_some_and(|said| said == claim.reason());
            let found = (0..to.0).zip(&self.log).filter(named).map(|(offset, _)| Offset(offset));
            found.collect()
        }
    }

    fn record(offset: u64, new: &NewRecord) -> Record<'_> {
        let append_time = Millis(1_763_642_096_789 + i64::try_from(offset).unwrap());
        Record { offset: Offset(offset), append_time, kind: new.kind, historical: false, payload: &new.payload }
    }

    fn claim(id: &str) -> Claim {
        let event = schemas::json::decode(br#"{"event_id":"e","video_id":"v","ts":1763640000000}"#).unwrap();
        let letter = schemas::LetterId { source: Source(0), offset: Offset(0), index: 0 };
        Claim { id: id.into(), source: Source(0), from: Offset(0), letters: vec![Claimed::of(letter, &event, None)] }
    }

    /// What an author has in hand between looking and appending; it may sleep there for any time, or die.
    type Hand = Option<Next>;

    proptest! {
        #[test]
        fn however_authors_sleep_die_and_meet_a_claim_is_counted_once(steps in proptest::collection::vec((0usize..5, 0u8..4), 1..80)) {
            let mut world = World::new();
            // Three authors of one claim, one of another, and one who adjusts for reasons of its own.
            let claims = [claim("a"), claim("a"), claim("a"), claim("b"), claim("others")];
            let mut hands: [Hand; 5] = [None; 5];
            for (author, act) in steps {
                match (act, hands[author]) {
                    (0, _) => world.fold(),
                    // It dies, and another one begins anew.
                    (1, _) => hands[author] = None,
                    (_, None | Some(Next::Counted(_))) => {
                        let found = if author == 4 { Vec::new() } else { world.found(&claims[author], world.checkpoint.next_offset) };
                        hands[author] = Some(next(&found, |offset| world.refused.contains(&offset), &world.checkpoint));
                    }
                    (_, Some(Next::Append { after })) => {
                        let payload = correction::encode(&claims[author].adjustment(after));
                        world.log.push(NewRecord::new(RecordKind::Adjustment, payload));
                        hands[author] = None;
                    }
                }
            }
            // The sleepers wake, and then one of each ends well.
            for (author, hand) in hands.iter().enumerate() {
                if let Some(Next::Append { after }) = hand {
                    world.log.push(NewRecord::new(RecordKind::Adjustment, correction::encode(&claims[author].adjustment(*after))));
                }
            }
            for author in [0, 3] {
                loop {
                    world.fold();
                    let found = world.found(&claims[author], world.checkpoint.next_offset);
                    match next(&found, |offset| world.refused.contains(&offset), &world.checkpoint) {
                        Next::Counted(offset) => {
                            prop_assert_eq!(&world.taken[&offset], &claims[author].reason());
                            break;
                        }
                        Next::Append { after } => world.log.push(NewRecord::new(RecordKind::Adjustment, correction::encode(&claims[author].adjustment(after)))),
                    }
                }
                let taken = world.taken.values().filter(|reason| **reason == claims[author].reason()).count();
                prop_assert_eq!(taken, 1);
            }
        }
    }
}
