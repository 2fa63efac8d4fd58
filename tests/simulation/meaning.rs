//! What records mean and what follows from them: the words in which the workload and the auditor speak.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Gross, valid, engaged.
pub(crate) type Counts = [i64; 3];

/// What is counted: the code of a dimension (video, space, site), and an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entity {
    pub(crate) dimension: u8,
    pub(crate) id: Rc<str>,
}

/// A cell of the one source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) entity: Entity,
    pub(crate) tier: u8,
    pub(crate) start: i64,
}

/// What the workload put into a record as one event.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Event { id: Rc<str>, entities: Vec<Entity>, ts: i64, engaged: bool },
    Malformed(&'static str),
}

/// What a record means.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    Events {
        historical: bool,
        events: Vec<(Vec<u8>, Said)>,
    },
    Tick,
    /// It is refused as a whole, for this reason.
    Unreadable(&'static str),
    Adjustment {
        after: u64,
        deltas: Vec<(i64, Vec<Entity>, Counts)>,
    },
    Mark(Vec<Cell>),
    Set {
        mark: u64,
        cells: Vec<(Cell, Counts)>,
    },
    BadCorrection,
}

/// A cell as it is after the change at `offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) offset: u64,
    pub(crate) counts: Counts,
    pub(crate) stamp: i64,
    pub(crate) through: i64,
    pub(crate) mark: Option<(u64, Counts)>,
}

/// What became of the events of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) read: u64,
    pub(crate) counted: u64,
    pub(crate) duplicate: u64,
    pub(crate) corrections: u64,
    pub(crate) rejected: BTreeMap<&'static str, u64>,
}

/// What is known of a prefix as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    pub(crate) clock: i64,
    pub(crate) stamp: i64,
    /// In ms, or [`NEVER`].
    pub(crate) closed: i64,
    pub(crate) append_time: i64,
    pub(crate) adjustments: u64,
    pub(crate) tally: Tally,
}

/// An event that must be among the dead letters.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) index: u32,
    pub(crate) reason: &'static str,
    pub(crate) bytes: Vec<u8>,
}
