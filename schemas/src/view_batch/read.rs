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
    instants: Instants<'a>,
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
    Uuid(&'a [u8; 16]),
    /// Any other text; not checked to be an id.
    Text(&'a str),
}

impl EventId<'_> {
    /// The hash of its text.
    #[inline]
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
        let instants = Instants::check(&fields, events)?;
        let kinds = flags(&fields, field::KIND, events)?;
        let (uuids, text_ids) = event_ids(&fields, events)?;
        let (watched, watches) = watches(&fields, events)?;
        Ok(Self {
            videos,
            spaces,
            entry_spaces,
            entries,
            instants,
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

    /// Whether every id in it is one by a look at whole columns: printable ASCII, not too long. If not, some may be wrong, or are only
    /// in another script: [`Whole::check`](super::Whole::check) tells of each.
    pub fn ids_are_plain(&self) -> bool {
        let named = [self.videos, self.spaces].iter().all(|texts| texts.are_plain() && texts.count_empty() == 0);
        named && self.text_ids.are_plain() && self.viewers.are_plain()
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
        let mut kinds = self.kinds;
        self.entries.zip(self.instants).map(move |(entry, ts)| View {
            // It was checked to be in range.
            entry: u32::try_from(entry).unwrap_or_default(),
            ts,
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
            None | Some("") => uuids.next().map(EventId::Uuid),
            Some(text) => Some(EventId::Text(text)),
        })
    }
}

type Dictionary<'a> = (Texts<'a>, Texts<'a>, Varints<'a>);

fn dictionary<'a>(fields: &Fields<'a, 14>, events: usize) -> Result<Dictionary<'a>, Rejection> {
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

/// When each event was viewed.
#[derive(Clone, Copy, Debug)]
enum Instants<'a> {
    Near { base: i64, offsets: &'a [[u8; 4]] },
    Far { ts: &'a [[u8; 8]] },
}

impl<'a> Instants<'a> {
    fn check(fields: &Fields<'a, 14>, events: usize) -> Result<Self, Rejection> {
        let (offsets, ts) = (fields.get(field::TS_OFFSET_MS), fields.get(field::TS_MS));
        let base = split_varint(fields.get(field::BASE_TS_MS)).map(|(value, _)| unzigzag(value));
        let (instants, odd) = if ts.is_empty() {
            let (offsets, odd) = offsets.as_chunks();
            (Self::Near { base: base.unwrap_or(0), offsets }, odd)
        } else if offsets.is_empty() && base.is_none() {
            let (ts, odd) = ts.as_chunks();
            (Self::Far { ts }, odd)
        } else {
            return Err(bad("there are instants in ts_ms and in base_ts_ms with ts_offset_ms; one is enough"));
        };
        if instants.len() != events || !odd.is_empty() {
            let bytes = offsets.len() + ts.len();
            return Err(bad(format!(
                "the instants have {bytes} bytes, which is not 4 (ts_offset_ms) or 8 (ts_ms) for each of {events} events"
            )));
        }
        let (first, last) = instants.bounds();
        if [first, last].iter().any(|at| !at.is_representable()) {
            return Err(bad(format!("the instants from {} to {} leave the years 1 to 9999", first.0, last.0)));
        }
        Ok(instants)
    }

    const fn len(&self) -> usize {
        match self {
            Self::Near { offsets, .. } => offsets.len(),
            Self::Far { ts } => ts.len(),
        }
    }

    /// The earliest and the latest, as far as numbers go; 1970 if there is none.
    fn bounds(self) -> (Millis, Millis) {
        match self {
            Self::Near { base, offsets } => {
                let (first, last) = bounds(offsets.iter().map(|offset| i32::from_le_bytes(*offset)));
                (Millis(base.saturating_add(first.into())), Millis(base.saturating_add(last.into())))
            }
            Self::Far { ts } => {
                let (first, last) = bounds(ts.iter().map(|ts| i64::from_le_bytes(*ts)));
                (Millis(first), Millis(last))
            }
        }
    }
}

fn bounds<T: Ord + Copy + Default>(mut all: impl Iterator<Item = T>) -> (T, T) {
    let first = all.next().unwrap_or_default();
    all.fold((first, first), |(least, most), at| (least.min(at), most.max(at)))
}

impl Iterator for Instants<'_> {
    type Item = Millis;

    #[inline]
    fn next(&mut self) -> Option<Millis> {
        match self {
            // The sum was checked to be in range.
            Self::Near { base, offsets } => {
                offsets.split_off_first().map(|offset| Millis(base.wrapping_add(i32::from_le_bytes(*offset).into())))
            }
            Self::Far { ts } => ts.split_off_first().map(|ts| Millis(i64::from_le_bytes(*ts))),
        }
    }
}

/// A column of one byte, 0 or 1, for each event, or none at all.
fn flags<'a>(fields: &Fields<'a, 14>, field: super::Field, events: usize) -> Result<&'a [u8], Rejection> {
    let flags = fields.get(field);
    check_len(field, flags.len(), events)?;
    match flags.iter().fold(0, |all, flag| all | flag) {
        0 | 1 => Ok(flags),
        _ => Err(bad(format!("{} holds a value that is neither 0 nor 1", field.name))),
    }
}

fn event_ids<'a>(fields: &Fields<'a, 14>, events: usize) -> Result<(&'a [[u8; 16]], Texts<'a>), Rejection> {
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

fn watches<'a>(fields: &Fields<'a, 14>, events: usize) -> Result<(&'a [u8], Varints<'a>), Rejection> {
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
