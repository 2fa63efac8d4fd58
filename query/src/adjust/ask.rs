//! What is asked for: a body as changes, checked. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ingest::Problem;
use schemas::id::check_id;
use schemas::{Counts, Minute};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::api;
use crate::body::{bad_body, bad_member};
use crate::params::{minute_up, parse_time};

/// The most changes of one request.
const MOST: usize = 1_000;
/// The longest name, in bytes: that of what undoes it is a little longer.
const NAME_BYTES: usize = 100;
/// The longest reason, in bytes: each record has it.
const REASON_BYTES: usize = 500;
const NOTE_BYTES: usize = 4_000;
/// More than ever counts at once, and far from what a sum of cells can hold.
const LARGEST: i64 = 1_000_000_000_000;

/// What names of adjustments that undo others begin with.
pub(super) const UNDO: &str = "undo:";

/// An adjustment to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "id": "ticket-4711", "reason": "a click farm", "dry_run": false,
    "changes": [
        { "video": "v1", "minute": "2026-11-20T12:34:00Z", "gross": -40 },
        { "video": "v2", "start": "2026-11-20T12:00:00Z", "end": "2026-11-20T13:00:00Z", "remove": "all" }
    ]
}))]
pub(crate) struct Adjust {
    /// Its name, which the client chooses and gives no other: sent again, the same request is the same adjustment. The header
    /// `Idempotency-Key` says the same. Without `dry_run` there must be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    id: Option<String>,
    /// Why: it goes into the log and is kept for ever. At most 500 bytes.
    #[schema(min_length = 1, max_length = 500, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    reason: String,
    /// What else is to be known of it, for the journal alone. At most 4,000 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4000)]
    note: Option<String>,
    /// What is to be changed, at most 1,000 changes and 100,000 minutes in all.
    #[schema(min_items = 1, max_items = 1000)]
    changes: Vec<AdjustChange>,
    /// Only say what would be done.
    #[serde(default, skip_serializing)]
    #[schema(default = true)]
    dry_run: Option<bool>,
}

/// Counts of a video to be changed: either in one minute, or all that there are in a range (`remove`).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AdjustChange {
    /// The video.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    video: String,
    /// The space (channel) that these views named, whose counts change too; `null` if they named none. If left out, that of the
    /// video's metadata.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    #[expect(clippy::option_option, reason = "left out and null are told apart")]
    space: Option<Option<String>>,
    /// The minute, by any time in it: RFC 3339 or Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<api::Instant>)]
    minute: Option<String>,
    /// How many views to add; fewer than zero are taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -1_000_000_000_000i64, maximum = 1_000_000_000_000i64)]
    gross: Option<i64>,
    /// How many valid views to add; as `gross` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -1_000_000_000_000i64, maximum = 1_000_000_000_000i64)]
    valid: Option<i64>,
    /// How many engagements to add; none if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -1_000_000_000_000i64, maximum = 1_000_000_000_000i64)]
    engaged: Option<i64>,
    /// With `remove`: where the range begins (inclusive); at the first view if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<api::Instant>)]
    start: Option<String>,
    /// With `remove`: where the range ends (exclusive); with the last minute that is closed if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<api::Instant>)]
    end: Option<String>,
    /// `all`: whatever the video has in the range is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^all$")]
    remove: Option<String>,
}

/// An adjustment to be undone.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Undo {
    /// Why; `undo of ...` with the first reason if left out. At most 500 bytes.
    #[schema(min_length = 1, max_length = 500, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    pub(super) reason: Option<String>,
    /// What else is to be known of it, for the journal alone. At most 4,000 bytes.
    #[schema(max_length = 4000)]
    pub(super) note: Option<String>,
    /// Only say what would be done.
    #[schema(default = true)]
    pub(super) dry_run: Option<bool>,
}

#[expect(clippy::option_option, reason = "left out and null are told apart")]
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

/// The space of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    /// That of the video's metadata.
    OfVideo,
    /// This one, or none.
    Given(Option<Arc<str>>),
}

/// Counts of a video's minute to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addition {
    pub(super) video: Arc<str>,
    pub(super) space: Space,
    pub(super) minute: Minute,
    pub(super) counts: Counts,
}

/// All counts of a video in a range are to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) video: Arc<str>,
    pub(super) space: Space,
    pub(super) start: Minute,
    /// Up to what is closed if it is not given.
    pub(super) end: Option<Minute>,
}

/// What is asked for, checked.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its name; always there if it is to be published.
    pub(super) id: Option<String>,
    pub(super) reason: String,
    pub(super) note: Option<String>,
    pub(super) dry_run: bool,
    /// One for each video, space and minute.
    pub(super) additions: Vec<Addition>,
    pub(super) removals: Vec<Removal>,
    /// A hash of all this but the name.
    pub(super) request: String,
}

impl Asked {
    /// Checks a body; `header` is the Idempotency-Key.
    ///
    /// # Errors
    /// 400 that names what is wrong.
    pub(super) fn read(adjust: Adjust, header: Option<String>) -> Result<Self, Problem> {
        let request = hash(&adjust);
        let Adjust { id, reason, note, changes, dry_run } = adjust;
        let dry_run = dry_run.unwrap_or(true);
        let id = name(id, header)?;
        if id.is_none() && !dry_run {
            let says = "it is missing; give a name of your own, such as a ticket's or a UUID: then it is safe to send the request again";
            return Err(bad_member("id", says));
        }
        let reason = checked_reason(reason)?;
        let note = checked_note(note)?;
        if changes.is_empty() || changes.len() > MOST {
            return Err(bad_member("changes", format!("it has {} items; it has 1 to {MOST}", changes.len())).with("limit", MOST));
        }
        let (mut additions, mut removals) = (BTreeMap::new(), Vec::new());
        for (place, change) in changes.into_iter().enumerate() {
            match change.read().map_err(|(member, detail)| bad_member(&format!("changes[{place}].{member}"), detail))? {
                Change::Add(Addition { video, space, minute, counts }) => {
                    *additions.entry((video, space, minute)).or_insert(Counts::ZERO) += counts;
                }
                Change::Remove(removal) => removals.push(removal),
            }
        }
        check_apart(&removals)?;
        let additions = additions.into_iter().map(|((video, space, minute), counts)| Addition { video, space, minute, counts });
        Ok(Self { id, reason, note, dry_run, additions: additions.collect(), removals, request })
    }
}

/// Ranges of one video must not overlap: what is taken away twice is not there the second time.
fn check_apart(removals: &[Removal]) -> Result<(), Problem> {
    let mut by_video: BTreeMap<&str, Vec<(Minute, Minute)>> = BTreeMap::new();
    for removal in removals {
        by_video.entry(&removal.video).or_default().push((removal.start, removal.end.unwrap_or(Minute::MAX)));
    }
    for (video, ranges) in &mut by_video {
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| matches!(pair, [(_, end), (start, _)] if start < end)) {
            return Err(bad_member("changes", format!("two ranges of video {video:?} overlap; give ranges that do not")));
        }
    }
    Ok(())
}

fn name(id: Option<String>, header: Option<String>) -> Result<Option<String>, Problem> {
    let id = match (id, header) {
        (Some(id), Some(header)) if id != header => {
            return Err(bad_member("id", "it and the header Idempotency-Key differ; give one of them"));
        }
        (id, header) => id.or(header),
    };
    let Some(id) = id else { return Ok(None) };
    check_id(&id).map_err(|error| bad_member("id", format!("it {error}")))?;
    if id.len() > NAME_BYTES || id.starts_with(UNDO) {
        return Err(bad_member("id", format!("it has at most {NAME_BYTES} bytes and does not begin with {UNDO}")));
    }
    Ok(Some(id))
}

pub(super) fn checked_reason(reason: String) -> Result<String, Problem> {
    let is_good = !reason.trim().is_empty() && reason.len() <= REASON_BYTES && !reason.chars().any(char::is_control);
    let says = || {
        bad_member(
            "reason",
            format!("it is 1 to {REASON_BYTES} bytes of text without control characters; say why, for those who come after"),
        )
    };
    if is_good { Ok(reason) } else { Err(says()) }
}

pub(super) fn checked_note(note: Option<String>) -> Result<Option<String>, Problem> {
    match &note {
        Some(text) if text.len() > NOTE_BYTES => {
            Err(bad_member("note", format!("it has {} bytes; it has at most {NOTE_BYTES}", text.len())))
        }
        _ => Ok(note),
    }
}

/// Of what is asked for, without its name, and whether it is only tried.
fn hash(adjust: &Adjust) -> String {
    #[derive(Serialize)]
    struct Meant<'a> {
        reason: &'a str,
        note: &'a Option<String>,
        changes: &'a [AdjustChange],
    }
    let meant = Meant { reason: &adjust.reason, note: &adjust.note, changes: &adjust.changes };
    // Texts and numbers always have a JSON form.
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&serde_json::to_vec(&meant).unwrap_or_default()))
}

enum Change {
    Add(Addition),
    Remove(Removal),
}

impl AdjustChange {
    /// # Errors
    /// The member that is wrong, and what about it.
    fn read(self) -> Result<Change, (&'static str, String)> {
        let Self { video, space, minute, gross, valid, engaged, start, end, remove } = self;
        check_id(&video).map_err(|error| ("video", format!("it {error}")))?;
        let video: Arc<str> = video.into();
        let space = match space {
            None => Space::OfVideo,
            Some(Some(id)) => {
                check_id(&id).map_err(|error| ("space", format!("it {error}")))?;
                Space::Given(Some(id.into()))
            }
            Some(None) => Space::Given(None),
        };
        if let Some(remove) = remove {
            if remove != "all" {
                return Err(("remove", "it is all; to take away a number give minute and gross".into()));
            }
            if minute.is_some() || gross.is_some() || valid.is_some() || engaged.is_some() {
                return Err(("remove", "it goes with start and end, not with minute, gross, valid and engaged".into()));
            }
            let start = start.map(|text| minute_of("start", &text)).transpose()?.unwrap_or(Minute::MIN);
            let end = end.map(|text| end_of(&text)).transpose()?;
            if end.is_some_and(|end| end <= start) {
                return Err(("end", "it is not after start".into()));
            }
            return Ok(Change::Remove(Removal { video, space, start, end }));
        }
        if start.is_some() || end.is_some() {
            return Err(("start", "a range goes with \"remove\": \"all\"; a number is of one minute".into()));
        }
        let text = minute.ok_or_else(|| ("minute", "it is missing; give minute and gross, or \"remove\": \"all\"".to_owned()))?;
        let minute = minute_of("minute", &text)?;
        let gross = gross.unwrap_or_default();
        let counts = Counts { gross, valid: valid.unwrap_or(gross), engaged: engaged.unwrap_or_default() };
        for (name, number) in [("gross", counts.gross), ("valid", counts.valid), ("engaged", counts.engaged)] {
            if !(-LARGEST..=LARGEST).contains(&number) {
                return Err((name, format!("it is between -{LARGEST} and {LARGEST}")));
            }
        }
        if counts == Counts::ZERO {
            return Err(("gross", "nothing is to be changed; give gross, valid or engaged".into()));
        }
        Ok(Change::Add(Addition { video, space, minute, counts }))
    }
}

fn minute_of(name: &'static str, text: &str) -> Result<Minute, (&'static str, String)> {
    let minute = parse_time(name, text).map(Minute::of).map_err(|problem| (name, problem.detail().to_owned()))?;
    if (Minute::MIN..Minute::MAX).contains(&minute) { Ok(minute) } else { Err((name, "it is outside the years 1 to 5999".into())) }
}

fn end_of(text: &str) -> Result<Minute, (&'static str, String)> {
    let at = parse_time("end", text).and_then(|at| minute_up("end", at));
    at.map_err(|problem| ("end", problem.detail().to_owned()))
}

/// 400 for more than one adjustment takes.
pub(super) fn too_large(limit: usize) -> Problem {
    bad_body(format!("more than {limit} minutes would be changed; ask for shorter ranges or fewer videos at once")).with("limit", limit)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: Value) -> Result<Asked, Problem> {
        Asked::read(serde_json::from_value(body).map_err(|error| bad_body(error.to_string()))?, None)
    }

    fn body(change: Value) -> Value {
        json!({"id": "a", "reason": "bots", "changes": [change]})
    }

    #[test]
    fn changes_of_one_minute_are_one_and_spaces_are_told_apart() {
        let minute = json!({"video": "v", "minute": "2026-11-20T12:34:56Z", "gross": -3});
        let mut twice = minute.clone();
        twice["engaged"] = json!(1);
        let mut nowhere = minute.clone();
        nowhere["space"] = Value::Null;
        let asked = read(json!({"reason": "bots", "changes": [minute, twice, nowhere]})).unwrap();
        let of = |space, counts| Addition { video: "v".into(), space, minute: Minute(29_919_634), counts };
        let expected = [
            of(Space::OfVideo, Counts { gross: -6, valid: -6, engaged: 1 }),
            of(Space::Given(None), Counts { gross: -3, valid: -3, engaged: 0 }),
        ];
        assert_eq!((asked.additions.as_slice(), asked.dry_run, asked.id.is_none()), (&expected[..], true, true));
    }

    #[test]
    fn the_same_request_has_the_same_hash_whatever_its_name() {
        let change = || json!({"video": "v", "remove": "all"});
        let request = |body: Value| read(body).unwrap().request;
        let first = request(body(change()));
        assert_eq!(request(json!({"id": "b", "reason": "bots", "changes": [change()], "dry_run": false})), first);
        assert_ne!(request(json!({"id": "a", "reason": "bots!", "changes": [change()]})), first);
        assert_ne!(request(json!({"id": "a", "reason": "bots", "changes": [{"video": "v", "space": null, "remove": "all"}]})), first);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let minute = "2026-11-20T12:34:00Z";
        for (asked, words) in [
            (json!({"reason": "x", "dry_run": false, "changes": [{"video": "v", "remove": "all"}]}), "id: it is missing"),
            (json!({"id": "undo:x", "reason": "x", "changes": [{"video": "v", "remove": "all"}]}), "begin with undo:"),
            (json!({"id": "x".repeat(101), "reason": "x", "changes": [{"video": "v", "remove": "all"}]}), "at most 100"),
            (json!({"id": "x", "reason": " ", "changes": [{"video": "v", "remove": "all"}]}), "say why"),
            (json!({"id": "x", "reason": "a\nb", "changes": [{"video": "v", "remove": "all"}]}), "control"),
            (json!({"id": "x", "reason": "x", "changes": []}), "1 to 1000"),
            (body(json!({"video": "", "remove": "all"})), "changes[0].video"),
            (body(json!({"video": "v", "space": "", "remove": "all"})), "changes[0].space"),
            (body(json!({"video": "v", "remove": "some"})), "changes[0].remove"),
            (body(json!({"video": "v", "remove": "all", "gross": -1})), "not with minute"),
            (body(json!({"video": "v", "remove": "all", "start": minute, "end": minute})), "not after start"),
            (body(json!({"video": "v", "gross": -1})), "changes[0].minute: it is missing"),
            (body(json!({"video": "v", "minute": minute})), "nothing is to be changed"),
            (body(json!({"video": "v", "minute": "noon", "gross": 1})), "RFC 3339"),
            (body(json!({"video": "v", "minute": minute, "gross": 1_000_000_000_001_i64})), "changes[0].gross"),
            (body(json!({"video": "v", "start": minute, "gross": 1})), "a number is of one minute"),
            (
                json!({"id": "x", "reason": "x", "changes": [
                    {"video": "v", "start": minute, "remove": "all"}, {"video": "v", "end": "2026-11-20T13:00:00Z", "remove": "all"}]}),
                "overlap",
            ),
        ] {
            let problem = read(asked.clone()).err().unwrap();
            assert!(problem.status() == 400 && problem.detail().contains(words), "{asked}: {}", problem.detail());
        }
    }
}
