//! Events into columns, until one of the bounds is reached.
//!
//! Columns that may be absent are kept for every event, and left out at the end if they say nothing.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use thiserror::Error;

use super::wire::{field_len, put_bytes, put_tag, put_varint, zigzag};
use super::{Field, MAX_BYTES, MAX_EVENTS, field, uuid};
use crate::event::{Event, Kind};
use crate::id::check_id;
use crate::time::Millis;

/// The event is for the next batch: take this one, and push it again. If the batch was empty, it fits none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the batch is full")]
pub struct Full;

/// More than all tags and lengths of a batch take, without those inside of columns.
const FRAME_BYTES: usize = 128;

/// More than the numbers of an event take, without its texts.
const NUMBER_BYTES: usize = 64;

/// Writes one batch after the other; its buffers serve again.
#[derive(Default)]
pub struct Writer {
    videos: Distinct,
    spaces: Distinct,
    entries: Vec<u8>,
    instants: Vec<Millis>,
    kinds: Vec<u8>,
    uuids: Vec<u8>,
    text_ids: Texts,
    viewers: Texts,
    watched: Vec<u8>,
    watches: Vec<u8>,
    others: Texts,
}

impl Writer {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many events the batch has.
    pub const fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// At most so many bytes has [`Writer::finish`]; it may have a few less for each event.
    pub const fn bytes(&self) -> usize {
        let numbers = self.entries.len() + self.instants.len() * 8 + self.kinds.len() + self.watched.len() + self.watches.len();
        let texts = self.uuids.len() + self.text_ids.bytes() + self.viewers.bytes() + self.others.bytes();
        FRAME_BYTES + self.videos.bytes() + self.spaces.bytes() + numbers + texts
    }

    /// Adds an event, whose ids have been checked, and what else it said as the text of a JSON object.
    ///
    /// # Errors
    /// If it is too many or too large. The batch is as it was then.
    pub fn push(&mut self, event: &Event<'_>, others: Option<&str>) -> Result<(), Full> {
        debug_assert!(check_id(&event.event_id).is_ok() && check_id(&event.video_id).is_ok(), "{event:?}");
        let room = self.bytes() + most_bytes(event, others) <= MAX_BYTES;
        if self.len() >= MAX_EVENTS || (!room && !self.is_empty()) {
            return Err(Full);
        }
        self.add(event, others);
        // One that is too large by the estimate may still be a batch alone; then it is measured.
        if !room && self.encode().len() > MAX_BYTES {
            self.clear();
            return Err(Full);
        }
        Ok(())
    }

    /// The batch as a payload; the next one begins.
    pub fn finish(&mut self) -> Vec<u8> {
        let payload = self.encode();
        self.clear();
        payload
    }

    fn add(&mut self, event: &Event<'_>, others: Option<&str>) {
        let space = event.space_id.as_deref().map_or(0, |space| self.spaces.place(space, 0) + 1);
        put_varint(&mut self.entries, self.videos.place(&event.video_id, space).into());
        self.instants.push(event.ts);
        self.kinds.push(match event.kind {
            Kind::View => 0,
            Kind::Engaged => 1,
        });
        if let Some(uuid) = uuid::pack(&event.event_id) {
            self.uuids.extend_from_slice(&uuid);
            self.text_ids.push("");
        } else {
            self.text_ids.push(&event.event_id);
        }
        self.viewers.push(event.viewer_id.as_deref().unwrap_or_default());
        self.watched.push(event.watch_ms.is_some().into());
        if let Some(watch_ms) = event.watch_ms {
            put_varint(&mut self.watches, watch_ms);
        }
        self.others.push(others.unwrap_or_default());
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        let mut numbers = Vec::new();
        self.videos.put(&mut out, field::VIDEOS, &mut numbers);
        self.spaces.put(&mut out, field::SPACES, &mut numbers);
        if !self.spaces.is_empty() {
            numbers.clear();
            self.videos.all.iter().for_each(|video| put_varint(&mut numbers, video.space.into()));
            put_bytes(&mut out, field::ENTRY_SPACE, &numbers);
        }
        put_bytes(&mut out, field::ENTRY, &self.entries);
        self.put_instants(&mut out, &mut numbers);
        if self.kinds.contains(&1) {
            put_bytes(&mut out, field::KIND, &self.kinds);
        }
        put_bytes(&mut out, field::UUIDS, &self.uuids);
        self.text_ids.put(&mut out, field::TEXT_IDS);
        self.viewers.put(&mut out, field::VIEWERS);
        if self.watched.contains(&0) && self.watched.contains(&1) {
            put_bytes(&mut out, field::WATCHED, &self.watched);
        }
        put_bytes(&mut out, field::WATCH_MS, &self.watches);
        self.others.put(&mut out, field::OTHERS);
        out
    }

    /// Writes them as offsets from the first, or, if that does not reach, as they are; `numbers` is any buffer.
    fn put_instants(&self, out: &mut Vec<u8>, numbers: &mut Vec<u8>) {
        numbers.clear();
        let Some(base) = self.instants.first() else { return };
        let offsets = self.instants.iter().map(|at| i32::try_from(at.since(*base)));
        if offsets.clone().all(|offset| offset.is_ok()) {
            offsets.flatten().for_each(|offset| numbers.extend_from_slice(&offset.to_le_bytes()));
            put_tag(out, field::BASE_TS_MS);
            put_varint(out, zigzag(base.0));
            put_bytes(out, field::TS_OFFSET_MS, numbers);
        } else {
            self.instants.iter().for_each(|at| numbers.extend_from_slice(&at.0.to_le_bytes()));
            put_bytes(out, field::TS_MS, numbers);
        }
    }

    fn clear(&mut self) {
        self.videos.clear();
        self.spaces.clear();
        self.text_ids.clear();
        self.viewers.clear();
        self.others.clear();
        self.instants.clear();
        let numbers = [&mut self.entries, &mut self.kinds, &mut self.uuids, &mut self.watched, &mut self.watches];
        numbers.into_iter().for_each(Vec::clear);
    }
}

/// More than an event adds to a batch.
fn most_bytes(event: &Event<'_>, others: Option<&str>) -> usize {
    let optional = |text: Option<&str>| text.map_or(0, str::len);
    let ids = event.event_id.len() + event.video_id.len() + optional(event.space_id.as_deref()) + optional(event.viewer_id.as_deref());
    NUMBER_BYTES + ids + optional(others)
}

/// A column of texts, one for each event.
#[derive(Default)]
struct Texts {
    lengths: Vec<u8>,
    text: Vec<u8>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        put_varint(&mut self.lengths, text.len() as u64);
        self.text.extend_from_slice(text.as_bytes());
    }

    const fn bytes(&self) -> usize {
        self.lengths.len() + self.text.len()
    }

    /// Writes it unless all texts are empty.
    fn put(&self, out: &mut Vec<u8>, field: Field) {
        put_texts(out, field, &self.lengths, &self.text);
    }

    fn clear(&mut self) {
        self.lengths.clear();
        self.text.clear();
    }
}

/// Texts, each kept once: spaces, or videos with the space that they came with.
#[derive(Default)]
struct Distinct {
    all: Vec<Place>,
    text: Vec<u8>,
    /// Places in `all`.
    table: HashTable<u32>,
    /// Seeded by chance: whoever sends events must not be able to choose texts that collide.
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Place {
    start: usize,
    end: usize,
    /// 0 for none, else its place plus 1.
    space: u32,
}

impl Distinct {
    /// The place of a text, which is a new one if it has not come before with this space.
    fn place(&mut self, text: &str, space: u32) -> u32 {
        let Self { all, text: kept, table, hasher } = self;
        let at = |ix: u32| all.get(ix as usize).and_then(|place| Some((kept.get(place.start..place.end)?, place.space)));
        let wanted = (text.as_bytes(), space);
        let hash = hasher.hash_one(wanted);
        if let Some(ix) = table.find(hash, |ix| at(*ix) == Some(wanted)) {
            return *ix;
        }
        // A batch has far fewer events.
        let ix = u32::try_from(all.len()).unwrap_or(u32::MAX);
        table.insert_unique(hash, ix, |ix| hasher.hash_one(at(*ix).unwrap_or_default()));
        let start = kept.len();
        kept.extend_from_slice(text.as_bytes());
        all.push(Place { start, end: kept.len(), space });
        ix
    }

    const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// At most: two numbers of up to five bytes for each text.
    const fn bytes(&self) -> usize {
        self.text.len() + self.all.len() * 10
    }

    /// Writes them; `lengths` is any buffer.
    fn put(&self, out: &mut Vec<u8>, field: Field, lengths: &mut Vec<u8>) {
        lengths.clear();
        self.all.iter().for_each(|place| put_varint(lengths, (place.end - place.start) as u64));
        put_texts(out, field, lengths, &self.text);
    }

    fn clear(&mut self) {
        self.all.clear();
        self.text.clear();
        self.table.clear();
    }
}

fn put_texts(out: &mut Vec<u8>, field: Field, lengths: &[u8], text: &[u8]) {
    if !text.is_empty() {
        let message_len = field_len(lengths.len()) + field_len(text.len());
        put_tag(out, field);
        put_varint(out, message_len as u64);
        put_bytes(out, field::LENGTHS, lengths);
        put_bytes(out, field::TEXT, text);
    }
}
