//! Corrections: records that change counts on purpose. Their payload is JSON, so that an operator can read the log.
//!
//! * An *adjustment* is part of the truth (fraud clawed back): signed deltas to closed minutes, taken once.
//! * A *repair* restates the truth where a stored cell was damaged: a *mark*, and then a *set* that names it.

use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Minute, Tier};
use crate::cell::{Counts, Entity};
use crate::event::{Reason, Rejection};
use crate::id::check_id;
use crate::position::Offset;

/// Signed changes to closed minutes, taken whole iff `after` adjustments have been taken before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adjustment {
    /// The number of adjustments that the source had taken when this was written.
    pub after: u64,
    /// Why, for people.
    pub reason: String,
    /// What changes.
    pub deltas: Vec<Delta>,
}

/// One signed change of an [`Adjustment`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// The minute it belongs to.
    pub minute: Minute,
    /// The entity of each dimension that it concerns.
    pub entities: Vec<Entity>,
    /// What to add.
    pub counts: Counts,
}

/// A cell of the source that a repair is appended to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairCell {
    /// Its tier.
    pub tier: Tier,
    /// Its entity.
    pub entity: Entity,
    /// The start of its bucket.
    pub start: Minute,
}

impl RepairCell {
    /// Its bucket.
    pub const fn bucket(&self) -> Bucket {
        Bucket { tier: self.tier, start: self.start }
    }
}

/// From this record on, each named cell keeps apart what is added to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairMark {
    /// The cells to be repaired.
    pub cells: Vec<RepairCell>,
}

/// Each named cell whose mark is `mark` becomes its value here plus what was added since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairSet {
    /// The offset of the mark record.
    pub mark: Offset,
    /// The cells with their true counts as of the mark.
    pub cells: Vec<(RepairCell, Counts)>,
}

impl Adjustment {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`Reason::BadCorrection`] with what is wrong.
    pub fn decode(payload: &[u8]) -> Result<Self, Rejection> {
        let adjustment: Self = from_json(payload)?;
        adjustment.deltas.iter().flat_map(|delta| &delta.entities).try_for_each(check_entity)?;
        adjustment.deltas.iter().try_for_each(|delta| check_minute(delta.minute))?;
        Ok(adjustment)
    }
}

impl RepairMark {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`Reason::BadCorrection`] with what is wrong.
    pub fn decode(payload: &[u8]) -> Result<Self, Rejection> {
        let mark: Self = from_json(payload)?;
        mark.cells.iter().try_for_each(check_cell)?;
        Ok(mark)
    }
}

impl RepairSet {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`Reason::BadCorrection`] with what is wrong.
    pub fn decode(payload: &[u8]) -> Result<Self, Rejection> {
        let set: Self = from_json(payload)?;
        set.cells.iter().try_for_each(|(cell, _)| check_cell(cell))?;
        Ok(set)
    }
}

/// The payload of a correction record.
pub fn encode<T: Serialize>(correction: &T) -> Vec<u8> {
    // Structs of strings and numbers always have a JSON form.
    serde_json::to_vec(correction).unwrap_or_default()
}

fn from_json<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Rejection> {
    serde_json::from_slice(payload).map_err(|error| bad(error.to_string()))
}

fn bad(detail: impl Into<String>) -> Rejection {
    Rejection::new(Reason::BadCorrection, detail)
}

fn check_entity(entity: &Entity) -> Result<(), Rejection> {
    check_id(&entity.id).map_err(|error| bad(format!("entity id {error}")))
}

fn check_minute(minute: Minute) -> Result<(), Rejection> {
    if (Minute::MIN..Minute::MAX).contains(&minute) { Ok(()) } else { Err(bad("a minute is out of range")) }
}

fn check_cell(cell: &RepairCell) -> Result<(), Rejection> {
    check_entity(&cell.entity)?;
    check_minute(cell.start)?;
    if Bucket::is_aligned(cell.tier, cell.start) { Ok(()) } else { Err(bad("a bucket is not aligned to its tier")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_round_trip_and_refuse_what_cannot_be() {
        let cell = RepairCell { tier: Tier::Hour, entity: Entity::site(), start: Minute(60) };
        let mark = RepairMark { cells: vec![cell.clone()] };
        assert_eq!(RepairMark::decode(&encode(&mark)).unwrap(), mark);
        let set = RepairSet { mark: Offset(7), cells: vec![(cell.clone(), Counts::VIEW)] };
        assert_eq!(RepairSet::decode(&encode(&set)).unwrap(), set);
        let delta = Delta { minute: Minute(-5), entities: vec![Entity::site()], counts: -Counts::VIEW };
        let adjustment = Adjustment { after: 2, reason: "bots".into(), deltas: vec![delta] };
        assert_eq!(Adjustment::decode(&encode(&adjustment)).unwrap(), adjustment);

        let crooked = RepairMark { cells: vec![RepairCell { start: Minute(61), ..cell }] };
        assert_eq!(RepairMark::decode(&encode(&crooked)).unwrap_err().reason, Reason::BadCorrection);
        assert_eq!(Adjustment::decode(b"{}").unwrap_err().reason, Reason::BadCorrection);
    }
}
