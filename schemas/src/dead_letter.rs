//! A refused event, kept with its reason and its original bytes so that nothing acknowledged is ever lost.
//!
//! A restart may write one again: (source, offset, index) tells copies apart from new ones.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::Reason;
use crate::position::{Offset, Source};

/// Where in the pipeline an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its bytes could not be read.
    Decode,
    /// It was read, and the log clock refused it.
    Classify,
    /// A correction that was not taken.
    Correct,
}

impl Stage {
    /// Every stage, in the order in which an event passes them.
    pub const ALL: [Self; 3] = [Self::Decode, Self::Classify, Self::Correct];

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Classify => "classify",
            Self::Correct => "correct",
        }
    }

    /// The one stage that refuses for a reason.
    pub const fn of(reason: Reason) -> Self {
        match reason {
            Reason::BadJson
            | Reason::MissingField
            | Reason::WrongType
            | Reason::BadId
            | Reason::BadTs
            | Reason::TsInSeconds
            | Reason::UnknownKind
            | Reason::UnknownRecord
            | Reason::BadBatch => Self::Decode,
            Reason::InFuture | Reason::TooOld => Self::Classify,
            Reason::BadCorrection | Reason::StaleAdjustment | Reason::MinuteOpen => Self::Correct,
        }
    }
}

/// The name of a dead letter: the place of the event that it holds. Written `source/offset/index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The source that the event was read from.
    pub source: Source,
    /// Its record.
    pub offset: Offset,
    /// Its place in the record, from 0.
    pub index: u32,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.source, self.offset, self.index)
    }
}

/// A text that names no dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter is named source/offset/index, three whole numbers such as 0/1234/0")]
pub struct BadLetterId;

impl FromStr for LetterId {
    type Err = BadLetterId;

    fn from_str(text: &str) -> Result<Self, BadLetterId> {
        // `parse` would take a sign.
        fn number(part: Option<&str>) -> Result<&str, BadLetterId> {
            part.filter(|part| part.bytes().all(|byte| byte.is_ascii_digit())).ok_or(BadLetterId)
        }
        let mut parts = text.split('/');
        let source = number(parts.next())?.parse().map_err(|_| BadLetterId)?;
        let offset = number(parts.next())?.parse().map_err(|_| BadLetterId)?;
        let index = number(parts.next())?.parse().map_err(|_| BadLetterId)?;
        if parts.next().is_some() { Err(BadLetterId) } else { Ok(Self { source: Source(source), offset: Offset(offset), index }) }
    }
}

/// A refused event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The source it was read from.
    pub source: Source,
    /// Its record.
    pub offset: Offset,
    /// Its place in the record, from 0.
    pub index: u32,
    /// Where it was refused.
    pub stage: Stage,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people.
    pub detail: String,
    /// Whether its record was historical: a retry keeps that.
    #[serde(default)]
    pub historical: bool,
    /// The original bytes, or the first [`MAX_ORIGINAL_BYTES`] of them.
    #[serde(flatten)]
    pub original: Original,
    /// How many there were, if `original` is not all of them. The log has them whole, at `source` and `offset`, as long as it keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_bytes: Option<u64>,
}

/// So much of a refused event is kept: all that the collector takes, in a letter of at most twice the size. A larger one can come
/// only from a producer of its own, and must not make a letter that no log takes.
pub const MAX_ORIGINAL_BYTES: usize = 900_000;

/// Original bytes as text where they are UTF-8, and as hexadecimal digits where they are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Original {
    /// UTF-8 bytes.
    Text(String),
    /// Any other bytes, two digits each.
    Hex(String),
}

impl Original {
    /// Keeps `bytes`, in a form that takes at most about twice as many.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !is_mostly_escapes(bytes) => Self::Text(text.to_owned()),
            _ => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// Keeps the first [`MAX_ORIGINAL_BYTES`] of `bytes`, and says how many there were if that is not all.
    pub fn bounded(bytes: &[u8]) -> (Self, Option<u64>) {
        match bytes.split_at_checked(MAX_ORIGINAL_BYTES) {
            Some((first, rest)) if !rest.is_empty() => (Self::of(first), Some(bytes.len() as u64)),
            _ => (Self::of(bytes), None),
        }
    }

    /// The bytes again; `None` if the digits are damaged.
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            Self::Hex(digits) => {
                let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
                let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                pairs.iter().map(byte).collect::<Option<Vec<u8>>>().map(Cow::Owned)
            }
        }
    }
}

/// Whether JSON would need more than twice the size: a control character takes six bytes there.
fn is_mostly_escapes(bytes: &[u8]) -> bool {
    let escaped = bytes.iter().filter(|byte| byte.is_ascii_control()).count();
    escaped > bytes.len() / 5
}

impl DeadLetter {
    /// Its name.
    pub const fn id(&self) -> LetterId {
        LetterId { source: self.source, offset: self.offset, index: self.index }
    }

    /// The record payload: one JSON object.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record payload.
    ///
    /// # Errors
    /// If it is not what [`DeadLetter::encode`] writes.
    pub fn decode(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn dead_letters_round_trip(bytes: Vec<u8>, offset: u64, index: u32, detail in "\\PC{0,20}", historical: bool) {
            let (original, whole_bytes) = Original::bounded(&bytes);
            let letter = DeadLetter {
                source: Source(3), offset: Offset(offset), index, stage: Stage::Decode, reason: Reason::BadJson, detail, historical,
                original, whole_bytes,
            };
            let back = DeadLetter::decode(&letter.encode()).unwrap();
            prop_assert_eq!(&back, &letter);
            prop_assert_eq!(back.original.bytes().unwrap().into_owned(), bytes);
        }
    }

    #[test]
    fn every_reason_belongs_to_one_stage_and_names_are_those_of_json() {
        for stage in Stage::ALL {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
            assert!(Reason::ALL.into_iter().any(|reason| Stage::of(reason) == stage));
        }
    }

    #[test]
    fn a_letter_is_named_by_three_numbers_and_nothing_else() {
        let id = LetterId { source: Source(3), offset: Offset(u64::MAX), index: 7 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1", "1/2", "1/2/3/4", "1/2/", "-1/2/3", "+1/2/3", "1/2/4294967296", "1/2/x", "1 /2/3", "1/18446744073709551616/0"]
        {
            assert_eq!(bad.parse::<LetterId>(), Err(BadLetterId), "{bad:?}");
        }
    }

    #[test]
    fn no_event_makes_a_letter_that_a_topic_would_not_take() {
        const TOPIC_TAKES: usize = 2_097_152 - 10_000;
        let sized = |byte: u8, bytes: usize| vec![byte; bytes];
        for (bytes, whole) in [
            (sized(b'x', 900_000), None),
            (sized(b'"', 900_000), None),
            (sized(0xff, 900_000), None),
            (sized(0, 900_000), None),
            (sized(b'x', 900_001), Some(900_001)),
            (sized(0xff, 5_000_000), Some(5_000_000)),
            ("\u{e9}".repeat(450_001).into_bytes(), Some(900_002)),
        ] {
            let (original, whole_bytes) = Original::bounded(&bytes);
            assert_eq!(whole_bytes, whole);
            assert!(serde_json::to_vec(&original).unwrap().len() < TOPIC_TAKES, "{:?}", bytes.first());
            assert_eq!(original.bytes().unwrap().as_ref(), &bytes[..bytes.len().min(MAX_ORIGINAL_BYTES)]);
        }
    }
}
