//! A refused event, kept with its reason and its original bytes so that nothing acknowledged is ever lost.
//!
//! A restart may write one again: (source, offset, index) tells copies apart from new ones.

use std::borrow::Cow;

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
    /// The original bytes.
    #[serde(flatten)]
    pub original: Original,
}

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
    /// Keeps `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
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

impl DeadLetter {
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
            let letter = DeadLetter {
                source: Source(3), offset: Offset(offset), index, stage: Stage::Decode, reason: Reason::BadJson, detail, historical,
                original: Original::of(&bytes),
            };
            let back = DeadLetter::decode(&letter.encode()).unwrap();
            prop_assert_eq!(&back, &letter);
            prop_assert_eq!(back.original.bytes().unwrap().into_owned(), bytes);
        }
    }
}
