//! What records mean: the words that the workload and the auditor share.

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
    Events { historical: bool, events: Vec<(Vec<u8>, Said)> },
    Tick,
    Unknown,
    Adjustment { after: u64, deltas: Vec<(i64, Vec<Entity>, Counts)> },
    Mark(Vec<Cell>),
    Set { mark: u64, cells: Vec<(Cell, Counts)> },
    BadCorrection,
}
