//! Dead letters that are counted after all: what the dead-letter log says of it.
//!
//! ```text
//! dead-letter log   letter ... letter ... claim ........................ settled
//! source's log                              └──> adjustment (taken once) ──┘
//! ```
//!
//! Whoever retries letters first appends a *claim* that names them. Of two claims of a letter, or of an event id of one source, the first
//! in the log's order has it, and the other goes without. What a claim has is then counted by one *adjustment* on the letters' source,
//! which names the claim in its reason. An adjustment is taken only if it comes after as many others as its author has seen, so of several
//! that name the same claim, by whoever and whenever, one is taken at most. *Settled* notes which one it was.
//!
//! The notes stand between the letters, told apart by their only member.

use serde::{Deserialize, Serialize};

use crate::bucket::Minute;
use crate::cell::{Counts, Dimension, Entity};
use crate::correction::{Adjustment, Delta};
use crate::dead_letter::LetterId;
use crate::event::{Event, Kind};
use crate::id::{EventHash, check_id};
use crate::position::{Offset, Source};

/// A claim has at most so many letters: its record, and the adjustment that counts them, stay below what a log takes.
pub const MAX_CLAIMED: usize = 500;

/// Letters of one source that are to be counted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// A name that no other claim has.
    pub id: String,
    /// The source of its letters, and of the adjustment.
    pub source: Source,
    /// No adjustment that names it lies before this offset of the source.
    pub from: Offset,
    /// Its letters.
    pub letters: Vec<Claimed>,
}

/// A letter of a claim, and what it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Its record.
    pub offset: Offset,
    /// Its place in the record.
    pub index: u32,
    /// The hash of its event's id.
    #[serde(with = "hexadecimal")]
    pub event: EventHash,
    /// The minute that it counts in.
    pub minute: Minute,
    /// The video.
    pub video: String,
    /// The space, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// What happened.
    pub kind: Kind,
    /// The event as it is counted, if it is not as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended: Option<String>,
}

/// A claim has been counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The claim.
    pub claim: String,
    /// The offset of the adjustment that was taken.
    pub offset: Offset,
}

/// What stands between the letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// Letters are to be counted.
    Claim(Claim),
    /// They have been.
    Settled(Settled),
}

impl Note {
    /// The record payload: one JSON object.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record of the dead-letter log; `None` for a letter, and for what this version does not know.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let is_note = [&b"{\"claim\":"[..], b"{\"settled\":"].iter().any(|start| payload.starts_with(start));
        if is_note { serde_json::from_slice(payload).ok() } else { None }
    }
}

impl Claimed {
    /// The claim of an event.
    pub fn of(letter: LetterId, event: &Event<'_>, mended: Option<String>) -> Self {
        Self {
            offset: letter.offset,
            index: letter.index,
            event: EventHash::of(&event.event_id),
            minute: Minute::of(event.ts),
            video: event.video_id.clone().into_owned(),
            space: event.space_id.as_deref().map(str::to_owned),
            kind: event.kind,
            mended,
        }
    }

    /// The letter's name.
    pub const fn letter(&self, source: Source) -> LetterId {
        LetterId { source, offset: self.offset, index: self.index }
    }
}

impl Claim {
    /// The reason of an adjustment that counts it.
    pub fn reason(&self) -> String {
        format!("{REASON}{}", self.id)
    }

    /// The adjustment that counts it, if it comes after `after` others.
    pub fn adjustment(&self, after: u64) -> Adjustment {
        let mut deltas: Vec<Delta> = Vec::new();
        let mut letters: Vec<&Claimed> = self.letters.iter().filter(|letter| letter.is_sound()).collect();
        letters.sort_by(|a, b| (a.minute, &a.video, &a.space).cmp(&(b.minute, &b.video, &b.space)));
        let mut last: Option<&Claimed> = None;
        for letter in letters {
            let is_like = |other: &Claimed| (other.minute, &other.video, &other.space) == (letter.minute, &letter.video, &letter.space);
            match deltas.last_mut().filter(|_| last.is_some_and(is_like)) {
                Some(delta) => delta.counts += Counts::of(letter.kind),
                None => deltas.push(letter.delta()),
            }
            last = Some(letter);
        }
        Adjustment { after, reason: self.reason(), deltas }
    }
}

const REASON: &str = "retry of dead letters, claim ";

/// Whether a correction was made to count dead letters.
pub fn is_retry(reason: &str) -> bool {
    reason.starts_with(REASON)
}

impl Claimed {
    /// Whoever writes to the log's topic may have written anything.
    fn is_sound(&self) -> bool {
        let ids = [Some(&self.video), self.space.as_ref()];
        ids.into_iter().flatten().all(|id| check_id(id).is_ok()) && (Minute::MIN..Minute::MAX).contains(&self.minute)
    }

    fn delta(&self) -> Delta {
        let video = Entity::new(Dimension::Video, &self.video);
        let space = self.space.as_deref().map(|id| Entity::new(Dimension::Space, id));
        let entities = [Some(video), space, Some(Entity::site())].into_iter().flatten().collect();
        Delta { minute: self.minute, entities, counts: Counts::of(self.kind) }
    }
}

/// A hash as 32 hexadecimal digits: JSON numbers do not hold it.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::id::EventHash;

    pub(super) fn serialize<S: Serializer>(hash: &EventHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", hash.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EventHash, D::Error> {
        let digits = std::borrow::Cow::<str>::deserialize(deserializer)?;
        u128::from_str_radix(&digits, 16).map(EventHash).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correction;
    use crate::json;

    fn claimed(offset: u64, id: &str, video: &str, ts: i64) -> Claimed {
        let event = format!(r#"{{"event_id":"{id}","video_id":"{video}","space_id":"s","ts":{ts}}}"#);
        let letter = LetterId { source: Source(2), offset: Offset(offset), index: 0 };
        Claimed::of(letter, &json::decode(event.as_bytes()).unwrap(), None)
    }

    fn claim(letters: Vec<Claimed>) -> Claim {
        Claim { id: "c1".into(), source: Source(2), from: Offset(9), letters }
    }

    const TS: i64 = 1_763_642_096_789;

    #[test]
    fn notes_round_trip_and_letters_are_none() {
        let mended = Claimed { mended: Some(r#"{"a":"\u0000"}"#.into()), ..claimed(3, "e", "v", TS) };
        for note in [Note::Claim(claim(vec![mended])), Note::Settled(Settled { claim: "c1".into(), offset: Offset(7) })] {
            assert_eq!(Note::decode(&note.encode()), Some(note));
        }
        for other in [&b""[..], b"{}", b"{\"source\":1}", b"{\"claim\":", b"{\"claim\":{}}", b"{\"settled\":7}"] {
            assert_eq!(Note::decode(other), None);
        }
    }

    #[test]
    fn events_of_one_minute_and_video_are_one_delta() {
        let letters =
            vec![claimed(1, "a", "v", TS), claimed(2, "b", "w", TS), claimed(3, "c", "v", TS + 1), claimed(4, "d", "v", TS + 60_000)];
        let adjustment = claim(letters).adjustment(5);
        assert_eq!((adjustment.after, adjustment.reason.as_str()), (5, "retry of dead letters, claim c1"));
        let of = |delta: &Delta| (delta.minute, delta.entities[0].id.to_string(), delta.counts.gross);
        let minute = Minute::of(Millis(TS));
        assert_eq!(
            adjustment.deltas.iter().map(of).collect::<Vec<_>>(),
            [(minute, "v".to_owned(), 2), (minute, "w".to_owned(), 1), (minute.plus(1), "v".to_owned(), 1)]
        );
        let names: Vec<String> = adjustment.deltas[0].entities.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["video v", "space s", "site"]);
        assert_eq!(Adjustment::decode(&correction::encode(&adjustment)), Ok(adjustment));
    }

    #[test]
    fn a_full_claim_and_its_adjustment_fit_a_record() {
        let wide = |n: u64| {
            // Quotes take two bytes in JSON.
            let id = format!("{n:03}{}", "\"".repeat(125));
            Claimed { video: id.clone(), space: Some(id), ..claimed(n, "e", "v", TS) }
        };
        let claim = claim((0..MAX_CLAIMED as u64).map(wide).collect());
        let written = [Note::Claim(claim.clone()).encode().len(), correction::encode(&claim.adjustment(0)).len()];
        assert!(written.iter().all(|bytes| *bytes < 900_000), "{written:?}");
    }

    #[test]
    fn what_cannot_be_in_an_adjustment_does_not_spoil_it() {
        let bad = Claimed { video: "\n".into(), ..claimed(1, "a", "v", TS) };
        assert_eq!(claim(vec![bad, claimed(2, "b", "v", TS)]).adjustment(0).deltas.len(), 1);
    }

    use crate::time::Millis;
}
