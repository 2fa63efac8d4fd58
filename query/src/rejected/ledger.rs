//! Which letters are claimed and which are counted, as the dead-letter log says: its notes, read in order. Pure.
//!
//! Of a letter, and of an event id of one source, the first claim has it. So the ledgers of all processes that have read as far agree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use schemas::adjustment::is_journalled;
use schemas::retry::{Note, Settled, is_retry};
use schemas::{Claim, DeadLetter, EventHash, LetterId, Millis, Offset, Record, Source, Stage};

/// The notes of the dead-letter log up to an offset.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The next record to read.
    next: Offset,
    claims: HashMap<Arc<str>, Standing>,
    /// By where they stand in the log.
    places: BTreeMap<Offset, Arc<str>>,
    letters: HashMap<LetterId, Arc<str>>,
    events: HashMap<(Source, EventHash), LetterId>,
    /// Adjustments of claims, and of people, that were not taken.
    refused: HashSet<(Source, Offset)>,
}

/// How a claim stands.
#[derive(Clone, Debug)]
struct Standing {
    appended: Millis,
    /// With the letters that it has: those of none before it. Nothing once it is settled.
    open: Option<Claim>,
    /// Names, for as long as it is kept.
    letters: Vec<(LetterId, EventHash)>,
    counted: Option<(Source, Offset)>,
    /// Whether the source's log has given up what would tell whether it was counted.
    unknown: bool,
}

/// How a letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has retried it with success.
    Open,
    /// Somebody is at it, or was.
    Claimed,
    /// Somebody was at it, and whether it was counted cannot be told any more.
    Unknown,
    /// It is counted, by an adjustment at this offset of this source.
    Counted(Source, Offset),
}

impl Ledger {
    /// The next record to read.
    pub(super) const fn next(&self) -> Offset {
        self.next
    }

    /// Reads the next record.
    pub(super) fn read(&mut self, record: &Record<'_>) {
        self.next = record.offset.next();
        match Note::decode(record.payload) {
            Some(Note::Claim(claim)) => self.claim(record, claim),
            Some(Note::Settled(settled)) => self.settle(&settled),
            None => self.correction(record.payload),
        }
    }

    /// Goes on at the log's start: what lies before it is gone, and the letters that it was about with it.
    pub(super) fn start_at(&mut self, start: Offset) {
        self.next = self.next.max(start);
        let kept = self.places.split_off(&start);
        for id in std::mem::replace(&mut self.places, kept).into_values() {
            let Some(gone) = self.claims.remove(&id) else { continue };
            for (letter, event) in gone.letters {
                self.letters.remove(&letter);
                self.events.remove(&(letter.source, event));
            }
        }
    }

    /// The first to claim a letter, or its event id, has it.
    fn claim(&mut self, record: &Record<'_>, mut claim: Claim) {
        let id: Arc<str> = claim.id.as_str().into();
        if self.claims.contains_key(&id) {
            return;
        }
        let source = claim.source;
        let mut letters = Vec::new();
        claim.letters.retain(|claimed| {
            let (letter, event) = (claimed.letter(source), claimed.event);
            let is_free = !self.letters.contains_key(&letter) && !self.events.contains_key(&(source, event));
            if is_free {
                self.letters.insert(letter, Arc::clone(&id));
                self.events.insert((source, event), letter);
                letters.push((letter, event));
            }
            is_free
        });
        self.places.insert(record.offset, Arc::clone(&id));
        let open = (!claim.letters.is_empty()).then_some(claim);
        self.claims.insert(id, Standing { appended: record.append_time, open, letters, counted: None, unknown: false });
    }

    fn settle(&mut self, settled: &Settled) {
        if let Some(standing) = self.claims.get_mut(settled.claim.as_str())
            && let Some(claim) = standing.open.take()
        {
            standing.counted = Some((claim.source, settled.offset));
        }
    }

    /// A refused adjustment is a letter too: that is how its author learns of it.
    fn correction(&mut self, payload: &[u8]) {
        const LEAD: usize = 120;
        const CORRECT: &[u8] = b"\"stage\":\"correct\"";
        // Letters lead with their stage, and there may be very many: only the few that matter are read whole.
        let lead = payload.get(..payload.len().min(LEAD)).unwrap_or_default();
        if !lead.windows(CORRECT.len()).any(|bytes| bytes == CORRECT) {
            return;
        }
        if let Ok(letter) = DeadLetter::decode(payload)
            && letter.stage == Stage::Correct
            && letter
                .original
                .bytes()
                .is_some_and(|bytes| adjustment_reason(&bytes).is_some_and(|reason| is_retry(&reason) || is_journalled(&reason)))
        {
            self.refused.insert((letter.source, letter.offset));
        }
    }

    /// How a letter stands.
    pub(super) fn state(&self, letter: &LetterId) -> State {
        match self.letters.get(letter).and_then(|id| self.claims.get(id)) {
            None => State::Open,
            Some(Standing { counted: Some((source, offset)), .. }) => State::Counted(*source, *offset),
            Some(Standing { unknown: true, .. }) => State::Unknown,
            Some(_) => State::Claimed,
        }
    }

    /// The source's log has given up what would tell whether a claim was counted.
    pub(super) fn give_up(&mut self, id: &str) {
        if let Some(standing) = self.claims.get_mut(id) {
            standing.unknown = true;
        }
    }

    /// The letter that has claimed an event id of a source.
    pub(super) fn claimed_event(&self, source: Source, event: EventHash) -> Option<LetterId> {
        self.events.get(&(source, event)).copied()
    }

    /// A claim, with the letters that it has, if it is not known to be counted.
    pub(super) fn open_claim(&self, id: &str) -> Option<Claim> {
        self.claims.get(id).and_then(|standing| standing.open.clone())
    }

    /// The claims that are to be finished, oldest first: those appended before a time, at most so many.
    pub(super) fn left_over(&self, before: Millis, most: usize) -> Vec<Claim> {
        let standings = self.places.values().filter_map(|id| self.claims.get(id));
        let left = standings.filter(|standing| standing.appended < before && !standing.unknown);
        left.filter_map(|standing| standing.open.clone()).take(most).collect()
    }

    /// Whether an adjustment for a claim was not taken.
    pub(super) fn is_refused(&self, source: Source, adjustment: Offset) -> bool {
        self.refused.contains(&(source, adjustment))
    }
}

/// The reason in an adjustment's payload.
pub(super) fn adjustment_reason(payload: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Reasoned {
        reason: String,
    }
    serde_json::from_slice::<Reasoned>(payload).ok().map(|reasoned| reasoned.reason)
}

#[cfg(test)]
mod tests {
    use schemas::dead_letter::Original;
    use schemas::retry::Claimed;
    use schemas::{Reason, RecordKind, json};

    use super::*;

    const SOURCE: Source = Source(1);

    fn letter(offset: u64) -> LetterId {
        LetterId { source: SOURCE, offset: Offset(offset), index: 0 }
    }

    fn claim(id: &str, letters: &[(u64, &str)]) -> Note {
        let claimed = |(offset, event): &(u64, &str)| {
            let event = format!(r#"{{"event_id":"{event}","video_id":"v","ts":1763642096789}}"#);
            Claimed::of(letter(*offset), &json::decode(event.as_bytes()).unwrap(), None)
        };
        Note::Claim(Claim { id: id.into(), source: SOURCE, from: Offset(0), letters: letters.iter().map(claimed).collect() })
    }

    fn settled(claim: &str, offset: u64) -> Note {
        Note::Settled(Settled { claim: claim.into(), offset: Offset(offset) })
    }

    fn read(ledger: &mut Ledger, payload: &[u8]) {
        let offset = ledger.next();
        ledger.read(&Record { offset, append_time: Millis(1), kind: RecordKind::Json, historical: false, payload });
    }

    fn ledger(notes: &[Note]) -> Ledger {
        let mut ledger = Ledger::default();
        notes.iter().for_each(|note| read(&mut ledger, &note.encode()));
        ledger
    }

    fn has(ledger: &Ledger, claim: &str) -> Vec<u64> {
        ledger.open_claim(claim).map_or_else(Vec::new, |claim| claim.letters.iter().map(|letter| letter.offset.0).collect())
    }

    #[test]
    fn the_first_claim_of_a_letter_or_of_an_event_id_has_it() {
        let ledger = ledger(&[
            claim("a", &[(1, "x"), (2, "y"), (3, "y")]),
            claim("b", &[(2, "y"), (4, "x"), (5, "z")]),
            claim("a", &[(6, "w")]),
            claim("c", &[(1, "x")]),
        ]);
        assert_eq!((has(&ledger, "a"), has(&ledger, "b"), has(&ledger, "c")), (vec![1, 2], vec![5], vec![]));
        assert_eq!(
            [1, 3, 4, 5, 6].map(|n| ledger.state(&letter(n))),
            [State::Claimed, State::Open, State::Open, State::Claimed, State::Open]
        );
        assert_eq!(ledger.claimed_event(SOURCE, EventHash::of("x")), Some(letter(1)));
        assert_eq!(ledger.claimed_event(Source(2), EventHash::of("x")), None, "ids are those of one source, as in the fold");
        assert_eq!(
            (ledger.left_over(Millis(2), 9).len(), ledger.left_over(Millis(1), 9).len()),
            (2, 0),
            "a claim that has nothing is not open"
        );
    }

    #[test]
    fn a_claim_is_settled_once_and_stays_so() {
        let ledger = ledger(&[claim("a", &[(1, "x")]), settled("a", 70), settled("a", 80), settled("b", 90), claim("b", &[(1, "x")])]);
        assert_eq!(ledger.state(&letter(1)), State::Counted(SOURCE, Offset(70)));
        assert!(ledger.left_over(Millis(2), 9).is_empty() && ledger.open_claim("a").is_none());
    }

    #[test]
    fn what_cannot_be_told_any_more_is_left_alone() {
        let mut ledger = ledger(&[claim("a", &[(1, "x")])]);
        ledger.give_up("a");
        assert_eq!((ledger.state(&letter(1)), ledger.left_over(Millis(2), 9)), (State::Unknown, vec![]));
    }

    #[test]
    fn what_the_log_has_given_up_is_forgotten_and_nothing_else() {
        let mut ledger = ledger(&[claim("a", &[(1, "x")]), settled("a", 70), claim("b", &[(2, "y")])]);
        ledger.start_at(Offset(1));
        assert_eq!((ledger.state(&letter(1)), ledger.state(&letter(2))), (State::Open, State::Claimed));
        assert_eq!(ledger.claimed_event(SOURCE, EventHash::of("x")), None);
        assert_eq!(ledger.next(), Offset(3));
        ledger.start_at(Offset(50));
        assert_eq!((ledger.next(), ledger.state(&letter(2))), (Offset(50), State::Open));
    }

    #[test]
    fn refused_adjustments_of_retries_are_known_and_others_are_not() {
        let mut ledger = Ledger::default();
        let Note::Claim(claim) = claim("a", &[(1, "x")]) else { unreachable!() };
        let refused = |offset, stage, reason: String| {
            let adjustment = schemas::correction::Adjustment { reason, ..claim.adjustment(3) };
            let original = Original::of(&schemas::correction::encode(&adjustment));
            let (index, reason, historical, whole_bytes) = (0, Reason::StaleAdjustment, false, None);
            DeadLetter {
                source: SOURCE,
                offset: Offset(offset),
                index,
                stage,
                reason,
                detail: "no".into(),
                historical,
                original,
                whole_bytes,
            }
        };
        read(&mut ledger, &refused(5, Stage::Correct, claim.reason()).encode());
        read(&mut ledger, &refused(6, Stage::Correct, "bots".into()).encode());
        read(&mut ledger, &refused(7, Stage::Decode, claim.reason()).encode());
        assert_eq!([5, 6, 7].map(|offset| ledger.is_refused(SOURCE, Offset(offset))), [true, false, false]);
        assert!(!ledger.is_refused(Source(0), Offset(5)));
    }
}
