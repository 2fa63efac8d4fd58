//! Ids: 1 to 128 bytes of UTF-8 without control characters, kept as sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest id in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadId {
    /// It has no bytes.
    #[error("is empty; an id has 1 to {MAX_ID_BYTES} bytes")]
    Empty,
    /// It has more than [`MAX_ID_BYTES`] bytes.
    #[error("has {0} bytes; an id has at most {MAX_ID_BYTES}")]
    TooLong(usize),
    /// It holds a control character.
    #[error("holds a control character; ids are plain text")]
    Control,
}

/// Checks that `text` can be an id.
///
/// # Errors
/// What is wrong with it.
pub fn check_id(text: &str) -> Result<(), BadId> {
    match text.len() {
        0 => Err(BadId::Empty),
        len if len > MAX_ID_BYTES => Err(BadId::TooLong(len)),
        _ if has_control(text) => Err(BadId::Control),
        _ => Ok(()),
    }
}

/// Whether it holds U+0000 to U+001F, U+007F, or U+0080 to U+009F (whose UTF-8 starts with C2 80..9F).
fn has_control(text: &str) -> bool {
    // Both flags in one pass without an early end, which the compiler turns into a few vector instructions.
    let (control, ascii) = text.bytes().fold((false, true), |(control, ascii), b| (control | (b < 0x20) | (b == 0x7f), ascii & (b < 0x80)));
    control || (!ascii && text.chars().any(char::is_control))
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                check_id(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                check_id(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// The id of a video.
    VideoId
);
id_type!(
    /// The id of a space (channel) that holds videos.
    SpaceId
);

/// The 128-bit XXH3 hash of an event id, by which duplicates are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventHash(pub u128);

impl EventHash {
    /// The hash of the id's text.
    pub fn of(event_id: &str) -> Self {
        Self::of_bytes(event_id.as_bytes())
    }

    /// The hash of the id's bytes.
    pub(crate) fn of_bytes(event_id: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(event_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_edges_of_an_id() {
        assert!("v".parse::<VideoId>().is_ok());
        assert!("v".repeat(128).parse::<VideoId>().is_ok());
        assert_eq!("".parse::<VideoId>(), Err(BadId::Empty));
        assert_eq!("v".repeat(129).parse::<VideoId>(), Err(BadId::TooLong(129)));
        assert_eq!("é".repeat(65).parse::<VideoId>(), Err(BadId::TooLong(130)));
        for bad in ["a\0", "\n", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(bad.parse::<VideoId>(), Err(BadId::Control), "{bad:?}");
        }
        assert!("日本 語/?#&".parse::<VideoId>().is_ok());
    }

    proptest! {
        #[test]
        fn control_check_agrees_with_the_standard_library(text in "\\PC{0,3}[\\x00-\\xa0]?\\PC{0,3}") {
            prop_assert_eq!(has_control(&text), text.chars().any(char::is_control));
        }
    }
}
