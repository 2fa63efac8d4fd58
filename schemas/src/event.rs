//! One click, borrowed from the bytes it came in, and the reasons for which one is refused.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// What an event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A view: counts as gross and, until a rule says otherwise, as valid.
    #[default]
    View,
    /// The viewer stayed: counts as engaged only, under an event id of its own.
    Engaged,
}

/// One click. All ids have been checked; fields that are unknown stay in the raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What makes it unique: a second event with the same id within the deduplication window does not count.
    pub event_id: Cow<'a, str>,
    /// What was viewed.
    pub video_id: Cow<'a, str>,
    /// The space (channel) that it belongs to, if any.
    pub space_id: Option<Cow<'a, str>>,
    /// Who viewed, if known; it only spreads a hot video over sources.
    pub viewer_id: Option<Cow<'a, str>>,
    /// When it was viewed, by the producer's clock.
    pub ts: Millis,
    /// How long it was watched, in ms.
    pub watch_ms: Option<u64>,
    /// What happened.
    pub kind: Kind,
}

/// Why an event is refused. The texts are stable: they are metric labels and part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Reason {
    /// Not JSON, or not an object.
    BadJson,
    /// A required field is absent.
    MissingField,
    /// A field has another type than it should.
    WrongType,
    /// An id is empty, too long or holds control characters.
    BadId,
    /// `ts` is neither RFC 3339 nor Unix milliseconds, or outside years 1 to 9999.
    BadTs,
    /// A numeric `ts` below 10^11: seconds where milliseconds belong.
    TsInSeconds,
    /// `kind` is neither `view` nor `engaged`.
    UnknownKind,
    /// The record's content type is not known to this version.
    UnknownRecord,
    /// `ts` is more than `max_skew` ahead of the log clock.
    InFuture,
    /// `ts` is more than `max_lateness` behind the log clock, and the record is not historical.
    TooOld,
    /// A correction that cannot be decoded.
    BadCorrection,
    /// An adjustment whose `after` is not the number of adjustments taken.
    StaleAdjustment,
    /// An adjustment of a minute that is not closed yet.
    MinuteOpen,
    /// A columnar batch whose structure is broken, so that none of its events can be told.
    BadBatch,
}

impl Reason {
    /// Every reason, in the order of their codes.
    pub const ALL: [Self; 14] = [
        Self::BadJson,
        Self::MissingField,
        Self::WrongType,
        Self::BadId,
        Self::BadTs,
        Self::TsInSeconds,
        Self::UnknownKind,
        Self::UnknownRecord,
        Self::InFuture,
        Self::TooOld,
        Self::BadCorrection,
        Self::StaleAdjustment,
        Self::MinuteOpen,
        Self::BadBatch,
    ];

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::BadId => "bad_id",
            Self::BadTs => "bad_ts",
            Self::TsInSeconds => "ts_in_seconds",
            Self::UnknownKind => "unknown_kind",
            Self::UnknownRecord => "unknown_record",
            Self::InFuture => "in_future",
            Self::TooOld => "too_old",
            Self::BadCorrection => "bad_correction",
            Self::StaleAdjustment => "stale_adjustment",
            Self::MinuteOpen => "minute_open",
            Self::BadBatch => "bad_batch",
        }
    }
}

impl Reason {
    /// The reason of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: the reason for machines, the detail for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The stable reason.
    pub reason: Reason,
    /// What is wrong, where, and what to do.
    pub detail: String,
}

impl Rejection {
    /// A refusal with its explanation.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}
