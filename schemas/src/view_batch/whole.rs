//! The events of a batch with everything they say: for people, dead letters and archives, and for who sends them on.

use std::borrow::Cow;

use super::read::{EventId, ViewBatch};
use super::uuid;
use crate::event::{Event, Reason, Rejection};
use crate::id::check_id;
use crate::json;

/// One event of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    /// The event. Its ids are good only after [`Whole::check`].
    pub event: Event<'a>,
    /// What else it said, if anything: the text of a JSON object, by the word of whoever wrote the batch.
    pub others: Option<&'a str>,
}

impl Whole<'_> {
    /// Whether its ids are ids.
    ///
    /// # Errors
    /// [`Reason::BadId`] and which one, in the words that a JSON event is refused with.
    pub fn check(&self) -> Result<(), Rejection> {
        let Event { event_id, video_id, space_id, viewer_id, .. } = &self.event;
        let ids = [
            ("event_id", Some(event_id)),
            ("video_id", Some(video_id)),
            ("space_id", space_id.as_ref()),
            ("viewer_id", viewer_id.as_ref()),
        ];
        for (name, id) in ids.into_iter().filter_map(|(name, id)| Some((name, id?))) {
            check_id(id).map_err(|wrong| Rejection::new(Reason::BadId, format!("{name} {wrong}")))?;
        }
        Ok(())
    }

    /// The event as one line of JSON without the newline, as its producer could have sent it: the fields, then what else it said.
    ///
    /// An `others` that is no object with members of its own cannot be part of that. It is shown as a string of that name.
    pub fn to_json(&self) -> Vec<u8> {
        let mut line = Vec::new();
        json::encode(&self.event, &mut line);
        let Some(others) = self.others else { return line };
        let members = json::others(others.as_bytes()).unwrap_or_else(|| serde_json::json!({ "others": others }).to_string());
        line.pop();
        line.push(b',');
        // Between tokens a line break is white space; inside a string there is none.
        line.extend(members.bytes().skip(1).map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        line
    }
}

impl<'a> ViewBatch<'a> {
    /// Every event of the batch with all it says, in order, its ids not checked. It holds the dictionary in memory.
    pub fn wholes(&self) -> impl Iterator<Item = Whole<'a>> + use<'a> {
        let spaces: Vec<&str> = self.spaces().collect();
        let space = |ix: u32| spaces.get(ix as usize).copied();
        let dictionary: Vec<_> = self.entries().map(|entry| (entry.video, entry.space.and_then(space))).collect();
        let (mut viewers, mut others) = (self.viewers, self.others);
        let (mut watched, mut watches) = (self.watched, self.watches);
        self.views().zip(self.event_ids()).map(move |(view, event_id)| {
            let (video, space) = dictionary.get(view.entry as usize).copied().unwrap_or_default();
            let is_watched = watched.split_off_first().is_none_or(|flag| *flag == 1);
            let event = Event {
                event_id: text(event_id),
                video_id: video.into(),
                space_id: space.map(Cow::from),
                viewer_id: viewers.next().filter(|viewer| !viewer.is_empty()).map(Cow::from),
                ts: view.ts,
                watch_ms: if is_watched { watches.next() } else { None },
                kind: view.kind,
            };
            Whole { event, others: others.next().filter(|others| !others.is_empty()) }
        })
    }

    /// As [`ViewBatch::wholes`], each event with its ids checked: what is wrong with one is its own.
    pub fn events(&self) -> impl Iterator<Item = Result<Whole<'a>, Rejection>> + use<'a> {
        self.wholes().map(|whole| whole.check().map(|()| whole))
    }
}

fn text(id: EventId<'_>) -> Cow<'_, str> {
    match id {
        EventId::Uuid(uuid) => String::from_utf8_lossy(&uuid::text(uuid)).into_owned().into(),
        EventId::Text(text) => text.into(),
    }
}
