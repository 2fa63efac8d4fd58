//! What is counted, and the stored form of a count.
//!
//! A cell is (tier, dimension, entity, bucket, source). Its row is absolute, a pure function of a log prefix, and
//! carries the version of that prefix. Keys lay a cell's neighbours in time side by side:
//!
//! ```text
//! minute  dimension  entity \0          minute  source
//! rollup  dimension  entity \0  tier    bucket  source
//! ```
//!
//! and, once more, the cells of one bucket:
//!
//! ```text
//! bucket  dimension  tier  bucket  source  entity
//! ```

use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, Minute, Tier};
use crate::codec::{CodecError, Reader, sorted_i32};
use crate::event::Kind;
use crate::id::{MAX_ID_BYTES, check_id};
use crate::position::{Offset, Source};
use crate::time::{Millis, Stamp};

/// What kind of thing is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Dimension {
    /// One video.
    Video = 0,
    /// All videos of one space.
    Space = 1,
    /// Everything; its one entity is `all`.
    Site = 2,
}

impl Dimension {
    /// Its code in stored keys.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The dimension of a stored code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Video),
            1 => Some(Self::Space),
            2 => Some(Self::Site),
            _ => None,
        }
    }
}

/// A thing that is counted: a dimension and an id in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// What kind of thing.
    pub dimension: Dimension,
    /// Which one. Shared, because every flushed row names its entity.
    pub id: Arc<str>,
}

/// The id of the one entity of [`Dimension::Site`].
pub const SITE: &str = "all";

impl Entity {
    /// An entity by its id, which the caller has checked.
    pub fn new(dimension: Dimension, id: &str) -> Self {
        debug_assert!(check_id(id).is_ok(), "{id:?}");
        Self { dimension, id: id.into() }
    }

    /// Everything.
    pub fn site() -> Self {
        Self::new(Dimension::Site, SITE)
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.dimension {
            Dimension::Video => "video",
            Dimension::Space => "space",
            Dimension::Site => return f.write_str("site"),
        };
        write!(f, "{kind} {}", self.id)
    }
}

/// The three metrics of a cell. Signed: an adjustment may take away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    /// Every counted view.
    pub gross: i64,
    /// Views that no rule took away; equal to `gross` until there are rules.
    pub valid: i64,
    /// Events of kind `engaged`.
    pub engaged: i64,
}

impl Counts {
    /// Nothing counted.
    pub const ZERO: Self = Self { gross: 0, valid: 0, engaged: 0 };
    /// One view.
    pub const VIEW: Self = Self { gross: 1, valid: 1, engaged: 0 };
    /// One engagement.
    pub const ENGAGED: Self = Self { gross: 0, valid: 0, engaged: 1 };

    /// What one event of a kind counts.
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::View => Self::VIEW,
            Kind::Engaged => Self::ENGAGED,
        }
    }
}

// Counts wrap rather than panic: 2^63 views do not happen, and a hostile adjustment must not stop a source.
impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            gross: self.gross.wrapping_add(other.gross),
            valid: self.valid.wrapping_add(other.valid),
            engaged: self.engaged.wrapping_add(other.engaged),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Counts {
    type Output = Self;
    fn neg(self) -> Self {
        Self { gross: self.gross.wrapping_neg(), valid: self.valid.wrapping_neg(), engaged: self.engaged.wrapping_neg() }
    }
}

impl Sub for Counts {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

/// A cell's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// What is counted.
    pub entity: Entity,
    /// When: the bucket and its tier.
    pub bucket: Bucket,
    /// Whose: the source that alone writes it.
    pub source: Source,
}

impl CellKey {
    /// The key in the store: in the minute table or the rollup table, by its tier.
    pub fn encode(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.entity.id.len().min(MAX_ID_BYTES) + 11);
        self.encode_into(&mut key);
        key
    }

    /// Appends the key in the store.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        put_series_prefix(out, &self.entity, self.bucket.tier);
        out.extend_from_slice(&sorted_i32(self.bucket.start.0));
        out.extend_from_slice(&self.source.0.to_be_bytes());
    }

    /// Appends the key by bucket.
    pub fn encode_by_bucket_into(&self, out: &mut Vec<u8>) {
        put_bucket_prefix(out, self.entity.dimension, self.bucket, self.source);
        out.extend_from_slice(self.entity.id.as_bytes());
    }

    /// Reads a key by bucket.
    ///
    /// # Errors
    /// If it is not a key that [`CellKey::encode_by_bucket_into`] writes.
    pub fn decode_by_bucket(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("cell key by bucket", bytes);
        let dimension = Dimension::from_code(r.u8()?).ok_or_else(|| r.error("dimension"))?;
        let tier = Tier::from_code(r.u8()?).ok_or_else(|| r.error("tier"))?;
        let bucket = Bucket { tier, start: Minute(r.sorted_i32()?) };
        let source = Source(r.u32()?);
        if !Bucket::is_aligned(tier, bucket.start) {
            return Err(r.error("bucket"));
        }
        let no_entity = r.error("entity");
        let Some(id) = std::str::from_utf8(r.rest()).ok().filter(|id| check_id(id).is_ok()) else { return Err(no_entity) };
        Ok(Self { entity: Entity::new(dimension, id), bucket, source })
    }

    /// Reads a key of the minute table (`minutes`) or of the rollup table.
    ///
    /// # Errors
    /// If it is not a key that [`CellKey::encode`] writes.
    pub fn decode(bytes: &[u8], minutes: bool) -> Result<Self, CodecError> {
        let mut r = Reader::new("cell key", bytes);
        let dimension = Dimension::from_code(r.u8()?).ok_or_else(|| r.error("dimension"))?;
        let id = r.terminated_text()?;
        if check_id(id).is_err() {
            return Err(r.error("entity"));
        }
        let tier = if minutes {
            Tier::Minute
        } else {
            Tier::from_code(r.u8()?).filter(|tier| *tier != Tier::Minute).ok_or_else(|| r.error("tier"))?
        };
        let start = Minute(r.sorted_i32()?);
        let source = Source(r.u32()?);
        if !Bucket::is_aligned(tier, start) {
            return Err(r.error("bucket"));
        }
        r.end()?;
        Ok(Self { entity: Entity::new(dimension, id), bucket: Bucket { tier, start }, source })
    }
}

/// The part that all keys by bucket share of one source's cells of one bucket.
pub fn bucket_prefix(dimension: Dimension, bucket: Bucket, source: Source) -> Vec<u8> {
    let mut key = Vec::with_capacity(MAX_ID_BYTES + BUCKET_PREFIX_BYTES);
    put_bucket_prefix(&mut key, dimension, bucket, source);
    key
}

/// How long [`bucket_prefix`] is.
pub const BUCKET_PREFIX_BYTES: usize = 10;

fn put_bucket_prefix(out: &mut Vec<u8>, dimension: Dimension, bucket: Bucket, source: Source) {
    out.extend_from_slice(&[dimension.code(), bucket.tier.code()]);
    out.extend_from_slice(&sorted_i32(bucket.start.0));
    out.extend_from_slice(&source.0.to_be_bytes());
}

/// The part of a key that all buckets of one entity and tier share.
fn put_series_prefix(out: &mut Vec<u8>, entity: &Entity, tier: Tier) {
    out.push(entity.dimension.code());
    out.extend_from_slice(entity.id.as_bytes());
    out.push(0);
    if tier != Tier::Minute {
        out.push(tier.code());
    }
}

/// The key range `[from, to)` of all sources' cells of one entity and tier whose buckets start in `[start, end)`.
pub fn key_range(entity: &Entity, tier: Tier, start: Minute, end: Minute) -> (Vec<u8>, Vec<u8>) {
    let with = |minute: Minute| {
        let mut key = Vec::with_capacity(entity.id.len().min(MAX_ID_BYTES) + 7);
        put_series_prefix(&mut key, entity, tier);
        key.extend_from_slice(&sorted_i32(minute.0));
        key
    };
    (with(start), with(end))
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {} of source {}", self.entity, self.bucket.tier, self.bucket.start, self.source)
    }
}

/// The mark of a repair: what has been added to the cell since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The offset of the mark record.
    pub offset: Offset,
    /// All changes after it.
    pub since: Counts,
}

/// The state of a cell as of a log prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The counts, absolute.
    pub counts: Counts,
    /// The offset after the last change: all changes below it are in `counts`, none at or above it.
    pub version: Offset,
    /// Rollups: minutes that start before this are in `counts`. Always [`Millis::NEVER`] in a minute cell.
    pub through: Millis,
    /// The repair under way, if one was begun.
    pub mark: Option<Mark>,
}

/// A row and the write timestamp under which the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The stamp of the record that last changed the cell.
    pub stamp: Stamp,
    /// The state.
    pub row: Row,
}

const ROW_FORMAT: u8 = 1;
const HAS_MARK: u8 = 1;

impl StoredRow {
    /// The stored value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(82);
        self.encode_into(&mut out);
        out
    }

    /// Appends the stored value.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let Row { counts, version, through, mark } = self.row;
        out.extend_from_slice(&[ROW_FORMAT, if mark.is_some() { HAS_MARK } else { 0 }]);
        out.extend_from_slice(&version.0.to_be_bytes());
        out.extend_from_slice(&self.stamp.0.to_be_bytes());
        out.extend_from_slice(&through.0.to_be_bytes());
        put_counts(out, counts);
        if let Some(mark) = mark {
            out.extend_from_slice(&mark.offset.0.to_be_bytes());
            put_counts(out, mark.since);
        }
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// If it is not a value that [`StoredRow::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new("row", bytes);
        r.format(ROW_FORMAT)?;
        let flags = r.u8()?;
        let version = Offset(r.u64()?);
        let stamp = Stamp(r.i64()?);
        let through = Millis(r.i64()?);
        let counts = get_counts(&mut r)?;
        let mark = match flags {
            0 => None,
            HAS_MARK => Some(Mark { offset: Offset(r.u64()?), since: get_counts(&mut r)? }),
            _ => return Err(r.error("flags")),
        };
        r.end()?;
        Ok(Self { stamp, row: Row { counts, version, through, mark } })
    }
}

fn put_counts(out: &mut Vec<u8>, counts: Counts) {
    for value in [counts.gross, counts.valid, counts.engaged] {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn get_counts(r: &mut Reader<'_>) -> Result<Counts, CodecError> {
    Ok(Counts { gross: r.i64()?, valid: r.i64()?, engaged: r.i64()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts() -> impl Strategy<Value = Counts> {
        any::<(i64, i64, i64)>().prop_map(|(gross, valid, engaged)| Counts { gross, valid, engaged })
    }

    fn key() -> impl Strategy<Value = CellKey> {
        ("\\PC{1,20}", 0u8..3, 0u8..4, Minute::MIN.0..Minute::MAX.0, any::<u32>())
            .prop_filter("an id", |(id, ..)| check_id(id).is_ok())
            .prop_map(|(id, dimension, tier, minute, source)| CellKey {
                entity: Entity::new(Dimension::from_code(dimension).unwrap(), &id),
                bucket: Tier::from_code(tier).unwrap().bucket(Minute(minute)),
                source: Source(source),
            })
    }

    proptest! {
        #[test]
        fn keys_round_trip(key in key()) {
            prop_assert_eq!(CellKey::decode(&key.encode(), key.bucket.tier == Tier::Minute).unwrap(), key);
        }

        #[test]
        fn keys_of_a_series_sort_by_bucket_then_source(a in key(), minute in Minute::MIN.0..Minute::MAX.0, source in any::<u32>()) {
            let b = CellKey { bucket: a.bucket.tier.bucket(Minute(minute)), source: Source(source), ..a.clone() };
            prop_assert_eq!(a.encode().cmp(&b.encode()), (a.bucket, a.source).cmp(&(b.bucket, b.source)));
        }

        #[test]
        fn a_key_range_holds_its_buckets_and_no_other(a in key(), b in key(), from in Minute::MIN.0..Minute::MAX.0, to in Minute::MIN.0..Minute::MAX.0) {
            let (start, end) = (Minute(from.min(to)), Minute(from.max(to)));
            for tier in Tier::ALL {
                let (low, high) = key_range(&a.entity, tier, start, end);
                for key in [&a, &b] {
                    if (key.bucket.tier == Tier::Minute) != (tier == Tier::Minute) { continue; }
                    let encoded = key.encode();
                    let inside = key.entity == a.entity && key.bucket.tier == tier && start <= key.bucket.start && key.bucket.start < end;
                    prop_assert_eq!(low <= encoded && encoded < high, inside);
                }
            }
        }

        #[test]
        fn rows_round_trip(counts in counts(), since in counts(), version: u64, stamp: i64, through: i64, marked: bool, mark: u64) {
            let mark = marked.then_some(Mark { offset: Offset(mark), since });
            let stored = StoredRow { stamp: Stamp(stamp), row: Row { counts, version: Offset(version), through: Millis(through), mark } };
            prop_assert_eq!(StoredRow::decode(&stored.encode()).unwrap(), stored);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (StoredRow::decode(&bytes), CellKey::decode(&bytes, true), CellKey::decode(&bytes, false));
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes =
            StoredRow { stamp: Stamp(1), row: Row { counts: Counts::VIEW, version: Offset(1), through: Millis::NEVER, mark: None } }
                .encode();
        bytes[0] = 9;
        assert!(StoredRow::decode(&bytes).unwrap_err().to_string().contains("newer tallymark"));
    }
}
