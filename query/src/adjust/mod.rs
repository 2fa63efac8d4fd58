//! Adjustments, for people: counts are clawed back or added with a reason, journalled, listed, and undone by negation.
//!
//! ```text
//! body ──ask──> changes ──world (checkpoints, cells)──> plan ──> parts ──> journal ──publish──> log of each source ──> folds
//!                          │                              │
//!                          └── removal: all of a video    └── refused: something would fall below zero
//! ```
//!
//! Every cell belongs to a source, so a removal is taken from the sources that hold the counts, and nothing is taken that is not there: the
//! checkpoint of a source is read first and its cells after it, and what is published names the number of adjustments that the checkpoint
//! had. If another adjustment came between, the source refuses it; until then its closed cells only grow. So no cell falls below zero.
//!
//! The journal has an adjustment with all its parts before the first is published. Whoever finds one that has not ended (the request sent
//! again, a server that looks several times a minute) goes on where it broke off: what of a part is in the log, and was taken, the log itself says.
//!
//! | module | holds |
//! |---|---|
//! | `ask` | the bodies of requests. Pure |
//! | `removal` | all counts of a video in a range, whatever of them is still kept by minute. Pure |
//! | `plan` | which source takes how much of a change. Pure |
//! | `parts` | changes as records of bounded size, and their negation. Pure |
//! | `world` | what a plan is made from, read from the store |
//! | `publish` | parts into the log, each taken once |
//! | `leftover` | what others have left undone |
//! | `request` | the requests that change counts |
//! | `show` | the journal as it is shown |

mod ask;
pub(crate) mod leftover;
mod parts;
mod plan;
mod publish;
mod removal;
pub(crate) mod request;
pub(crate) mod show;
mod world;

/// The most minutes (of a video and a source) that one adjustment changes.
const MOST_CHANGES: usize = 100_000;
