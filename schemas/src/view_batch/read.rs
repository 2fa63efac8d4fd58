//! A payload as columns: checked once, then walked along without a step that can fail, an allocation or a copy.

use super::column::{Extent, Texts, Varints, check_len};
use super::wire::{Fields, split_varint, unzigzag};
use super::{MAX_DICTIONARY_TEXT_BYTES, bad, field, uuid};
use crate::event::{Kind, Rejection};
use crate::id::{BadId, EventHash, check_id};
use crate::time::Millis;

/// A batch, borrowed from its payload. What is read from it is in range and UTF-8; ids are for their reader to check.
#[derive(Clone, Copy, Debug)]
pub struct ViewBatch<'a> {
    videos: Texts<'a>,
    spaces: Texts<'a>,
    /// Empty if no entry has one.
    entry_spaces: Varints<'a>,
    entries: Varints<'a>,
    base_ts: Millis,
    ts_offsets: &'a [[u8; 4]],
    /// Empty if all are views.
    kinds: &'a [u8],
    uuids: &'a [[u8; 16]],
    /// Empty if all ids are UUIDs.
    text_ids: Texts<'a>,
    pub(super) viewers: Texts<'a>,
    pub(super) watched: &'a [u8],
    pub(super) watches: Varints<'a>,
    pub(super) others: Texts<'a>,
}

/// An entry of the dictionary: what events are views of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The video; not checked to be an id.
    pub video: &'a str,
    /// The place of its space among [`ViewBatch::spaces`].
    pub space: Option<u32>,
}

/// What counting needs of an event beside its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The place of its video and space among [`ViewBatch::entries`].
    pub entry: u32,
    /// When it was viewed, by the producer's clock.
    pub ts: Millis,
    /// What happened.
    pub kind: Kind,
}

/// The id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventId<'a> {
    /// A canonical UUID; the id is its text.
    Uuid([u8; 16]),
    /// Any other text; not checked to be an id.
    Text(&'a str),
}

impl EventId<'_> {
    /// The hash of its text.
    pub fn hash(&self) -> EventHash {
        match self {
            Self::Uuid(uuid) => EventHash::of_bytes(&uuid::text(uuid)),
            Self::Text(text) => EventHash::of(text),
        }
    }

    /// Whether it can be an id.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), BadId> {
        match self {
            Self::Uuid(_) => Ok(()),
            Self::Text(text) => check_id(text),
        }
    }
}

impl<'a> ViewBatch<'a> {
    /// Takes a payload apart and checks its structure, in one look at each column.
    ///
    /// # Errors
    /// [`Reason::BadBatch`](crate::Reason::BadBatch) with the column and place of the first fault: then no event of it can be told.
    pub fn read(payload: &'a [u8]) -> Result<Self, Rejection> {
        let fields = Fields::read("the batch", payload, &field::OF_BATCH)?;
        let (entries, largest) = Varints::check(field::ENTRY.name, fields.get(field::ENTRY))?;
        let events = entries.len();
        let (videos, spaces, entry_spaces) = dictionary(&fields, events)?;
        if events > 0 && largest.max >= videos.len() as u64 {
            return Err(bad(format!("entry names {} of a dictionary of {} videos", largest.max, videos.len())));
        }
        let (base_ts, ts_offsets) = instants(&fields, events)?;
        let kinds = flags(&fields, field::KIND, events)?;
        let (uuids, text_ids) = event_ids(&fields, events)?;
        let (watched, watches) = watches(&fields, events)?;
        Ok(Self {
            videos,
            spaces,
            entry_spaces,
            entries,
            base_ts,
            ts_offsets,
            kinds,
            uuids,
            text_ids,
            viewers: Texts::check_each(field::VIEWERS, fields.get(field::VIEWERS), events)?,
            watched,
            watches,
            others: Texts::check_each(field::OTHERS, fields.get(field::OTHERS), events)?,
        })
    }

    /// How many events there are.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dictionary. It has no more entries than there are events.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'a>> + use<'a> {
        let mut spaces = self.entry_spaces;
        self.videos.map(move |video| {
            let space = spaces.next().and_then(|space| u32::try_from(space).ok()?.checked_sub(1));
            Entry { video, space }
        })
    }

    /// The spaces that the dictionary names; not checked to be ids. There are no more of them than entries.
    pub fn spaces(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.spaces
    }

    /// What counting needs of each event, in order.
    pub fn views(&self) -> impl Iterator<Item = View> + use<'a> {
        let (base, mut kinds) = (self.base_ts.0, self.kinds);
        self.entries.zip(self.ts_offsets).map(move |(entry, offset)| View {
            // Both were checked to be in range.
            entry: u32::try_from(entry).unwrap_or_default(),
            ts: Millis(base.wrapping_add(i32::from_le_bytes(*offset).into())),
            kind: match kinds.split_off_first() {
                None | Some(0) => Kind::View,
                Some(_) => Kind::Engaged,
            },
        })
    }

    /// The id of each event, in order.
    pub fn event_ids(&self) -> impl Iterator<Item = EventId<'a>> + use<'a> {
        let (mut uuids, mut texts) = (self.uuids.iter(), self.text_ids);
        std::iter::from_fn(move || match texts.next() {
            None | Some("") => uuids.next().map(|uuid| EventId::Uuid(*uuid)),
            Some(text) => Some(EventId::Text(text)),
        })
    }
}

type Dictionary<'a> = (Texts<'a>, Texts<'a>, Varints<'a>);

fn dictionary<'a>(fields: &Fields<'a, 13>, events: usize) -> Result<Dictionary<'a>, Rejection> {
    let (videos, longest_video) = Texts::check(field::VIDEOS, fields.get(field::VIDEOS))?;
    let (spaces, longest_space) = Texts::check(field::SPACES, fields.get(field::SPACES))?;
    let (entry_spaces, largest) = Varints::check(field::ENTRY_SPACE.name, fields.get(field::ENTRY_SPACE))?;
    if videos.len() > events || spaces.len() > videos.len() {
        let (videos, spaces) = (videos.len(), spaces.len());
        return Err(bad(format!("a dictionary of {videos} videos and {spaces} spaces is larger than a batch of {events} events needs")));
    }
    if longest_video.max(longest_space) > MAX_DICTIONARY_TEXT_BYTES as u64 {
        return Err(bad(format!("the dictionary holds a text of more than {MAX_DICTIONARY_TEXT_BYTES} bytes, which is no id")));
    }
    if largest.max > spaces.len() as u64 {
        return Err(bad(format!("entry_space names the space before {} and there are {}", largest.max, spaces.len())));
    }
    if entry_spaces.len() != 0 && entry_spaces.len() != videos.len() {
        return Err(bad(format!("entry_space has {} values for {} videos", entry_spaces.len(), videos.len())));
    }
    Ok((videos, spaces, entry_spaces))
}

fn instants<'a>(fields: &Fields<'a, 13>, events: usize) -> Result<(Millis, &'a [[u8; 4]]), Rejection> {
    let base = match fields.get(field::BASE_TS_MS) {
        [] => 0,
        varint => split_varint(varint).map_or(0, |(value, _)| unzigzag(value)),
    };
    let (offsets, odd) = fields.get(field::TS_OFFSET_MS).as_chunks::<4>();
    if offsets.len() != events || !odd.is_empty() {
        let bytes = offsets.len() * 4 + odd.len();
        return Err(bad(format!("ts_offset_ms has {bytes} bytes for {events} events of 4 bytes")));
    }
    let range = offsets.iter().map(|offset| i32::from_le_bytes(*offset)).fold((0, 0), |(low, high), at| (at.min(low), at.max(high)));
    let instant = |offset: i32| base.checked_add(offset.into()).map(Millis).filter(|at| at.is_representable());
    if instant(range.0).is_none() || instant(range.1).is_none() {
        return Err(bad(format!("base_ts_ms {base} with offsets from {} to {} leaves the years 1 to 9999", range.0, range.1)));
    }
    Ok((Millis(base), offsets))
}

/// A column of one byte, 0 or 1, for each event, or none at all.
fn flags<'a>(fields: &Fields<'a, 13>, field: super::Field, events: usize) -> Result<&'a [u8], Rejection> {
    let flags = fields.get(field);
    check_len(field, flags.len(), events)?;
    match flags.iter().fold(0, |all, flag| all | flag) {
        0 | 1 => Ok(flags),
        _ => Err(bad(format!("{} holds a value that is neither 0 nor 1", field.name))),
    }
}

fn event_ids<'a>(fields: &Fields<'a, 13>, events: usize) -> Result<(&'a [[u8; 16]], Texts<'a>), Rejection> {
    let (uuids, odd) = fields.get(field::UUIDS).as_chunks::<16>();
    if !odd.is_empty() {
        return Err(bad(format!("uuids has {} bytes, which is no multiple of 16", uuids.len() * 16 + odd.len())));
    }
    let texts = Texts::check_each(field::TEXT_IDS, fields.get(field::TEXT_IDS), events)?;
    let packed = if texts.len() == 0 { events } else { texts.count_empty() };
    if uuids.len() != packed {
        return Err(bad(format!("there are {} uuids for {packed} events without a text id", uuids.len())));
    }
    Ok((uuids, texts))
}

fn watches<'a>(fields: &Fields<'a, 13>, events: usize) -> Result<(&'a [u8], Varints<'a>), Rejection> {
    let watched = flags(fields, field::WATCHED, events)?;
    let (watches, Extent { .. }) = Varints::check(field::WATCH_MS.name, fields.get(field::WATCH_MS))?;
    if watched.is_empty() {
        check_len(field::WATCH_MS, watches.len(), events)?;
    } else {
        let with = watched.iter().filter(|flag| **flag == 1).count();
        if watches.len() != with {
            return Err(bad(format!("watch_ms has {} values for {with} events that are watched", watches.len())));
        }
    }
    Ok((watched, watches))
}
