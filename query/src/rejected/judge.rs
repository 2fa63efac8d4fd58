//! Whether a letter can be counted now: mended if that is asked for, decoded and judged as the fold would. Pure.

use aggregator::fold;
use schemas::dead_letter::Original;
use schemas::retry::Claimed;
use schemas::{Checkpoint, DeadLetter, Millis, Minute, Reason, Stage, json};
use serde_json::{Map, Value};

/// How letters are to be counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct How {
    /// However old they are.
    pub(super) historical: bool,
    /// Members that replace those of the original.
    pub(super) set: Option<Map<String, Value>>,
}

/// Why a letter cannot be counted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// A [`Reason`], or a word of the retry's own.
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl Wrong {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// What a letter counts, by the log clock of its source; `checkpoint` is that of the source.
pub(super) fn judge(letter: &DeadLetter, how: &How, checkpoint: Option<&Checkpoint>) -> Result<Claimed, Wrong> {
    if letter.stage == Stage::Correct {
        return Err(Wrong::new("not_an_event", "it is a correction; its author sends it again"));
    }
    if matches!(letter.reason, Reason::BadBatch | Reason::UnknownRecord) && how.set.is_none() {
        return Err(Wrong::new("not_an_event", "no event can be told of what was sent; give one with set"));
    }
    let not_yet = |detail: &str| Wrong::new("not_yet", detail);
    let checkpoint = checkpoint.filter(|checkpoint| checkpoint.next_offset > letter.offset && checkpoint.clock != Millis::NEVER);
    let checkpoint = checkpoint.ok_or_else(|| not_yet("its record is not stored as folded yet; try again in a moment"))?;
    if checkpoint.has_ended() {
        return Err(Wrong::new("source_ended", "its source takes no more records"));
    }
    let damaged = || Wrong::new("damaged", "its original cannot be read");
    let original = letter.original.bytes().ok_or_else(damaged)?;
    let mended = how.set.as_ref().map(|set| mended(&original, set));
    let raw = mended.as_ref().map_or(&*original, |text| text.as_bytes());
    let event = json::decode(raw).map_err(|rejection| match letter.whole_bytes {
        Some(bytes) => Wrong::new("cut", format!("only the beginning of its {bytes} bytes is kept; send the event again")),
        None => Wrong::new(rejection.reason.as_str(), rejection.detail),
    })?;
    let historical = letter.historical || how.historical;
    fold::judge(event.ts, checkpoint.clock, historical, &checkpoint.settings)
        .map_err(|rejection| Wrong::new(rejection.reason.as_str(), rejection.detail))?;
    if Minute::of(event.ts).start() >= checkpoint.closed {
        return Err(not_yet(&format!("its minute is not closed yet (the watermark is {}); try again in a minute", checkpoint.closed)));
    }
    Ok(Claimed::of(letter.id(), &event, mended.clone()))
}

/// The original with members replaced; from nothing if it is no object.
fn mended(original: &[u8], set: &Map<String, Value>) -> String {
    let mut event: Map<String, Value> = serde_json::from_slice(original).unwrap_or_default();
    event.extend(set.clone());
    Value::Object(event).to_string()
}

/// What can be told of a letter's event for people: its id, its video, its time.
pub(super) fn told(original: &Original) -> [Option<Value>; 3] {
    let event: Option<Map<String, Value>> = original.bytes().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    ["event_id", "video_id", "ts"]
        .map(|member| event.as_ref()?.get(member).filter(|value| is_short(value) && (member == "ts" || value.is_string())).cloned())
}

/// Whatever may have been sent, a list stays a list of short things.
fn is_short(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= 256,
        Value::Number(_) => true,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Counts, FoldSettings, Offset, Source, Stamp, Tally};
    use serde_json::json;

    use super::*;

    const CLOCK: i64 = 1_763_640_000_000;

    fn checkpoint(next_offset: u64) -> Checkpoint {
        Checkpoint {
            next_offset: Offset(next_offset),
            warm_from: Offset(0),
            stamp: Stamp(1),
            clock: Millis(CLOCK),
            append_time: Millis(CLOCK),
            closed: Millis(CLOCK - 60_000),
            adjustments: 0,
            tally: Tally::default(),
            settings: FoldSettings::default(),
        }
    }

    fn letter(reason: Reason, original: &str) -> DeadLetter {
        DeadLetter {
            source: Source(0),
            offset: Offset(7),
            index: 2,
            stage: Stage::of(reason),
            reason,
            detail: String::new(),
            historical: false,
            original: Original::of(original.as_bytes()),
            whole_bytes: None,
        }
    }

    fn event(ts: i64) -> String {
        json!({"event_id": "e", "video_id": "v", "ts": ts}).to_string()
    }

    fn set(members: Value) -> How {
        How { set: members.as_object().cloned(), historical: false }
    }

    fn said(letter: &DeadLetter, how: &How) -> Result<i64, &'static str> {
        judge(letter, how, Some(&checkpoint(8))).map(|claimed| Counts::of(claimed.kind).gross).map_err(|wrong| wrong.reason)
    }

    #[test]
    fn a_letter_is_judged_by_the_clock_of_now_and_not_of_then() {
        let (now, history) = (How::default(), How { historical: true, set: None });
        let (early, old, open) = (event(CLOCK - 60_001), event(CLOCK - 8 * 86_400_000), event(CLOCK));
        assert_eq!(said(&letter(Reason::InFuture, &early), &now), Ok(1));
        assert_eq!(said(&letter(Reason::InFuture, &event(CLOCK + 60_001)), &now), Err("in_future"));
        assert_eq!(said(&letter(Reason::InFuture, &open), &now), Err("not_yet"), "its minute is open");
        assert_eq!(said(&letter(Reason::TooOld, &old), &now), Err("too_old"));
        assert_eq!(said(&letter(Reason::TooOld, &old), &history), Ok(1));
        assert_eq!(said(&DeadLetter { historical: true, ..letter(Reason::BadId, &old) }, &now), Ok(1), "it was sent as historical");
    }

    #[test]
    fn what_is_not_stored_as_folded_may_still_come_again() {
        let letter = letter(Reason::TooOld, &event(CLOCK - 100_000));
        let reason = |checkpoint: Option<Checkpoint>| judge(&letter, &How::default(), checkpoint.as_ref()).map_err(|wrong| wrong.reason);
        assert_eq!(reason(None).unwrap_err(), "not_yet");
        assert_eq!(reason(Some(checkpoint(7))).unwrap_err(), "not_yet");
        assert!(reason(Some(checkpoint(8))).is_ok());
        let ended = Checkpoint { closed: schemas::checkpoint::ENDED, ..checkpoint(8) };
        assert_eq!(reason(Some(ended)).unwrap_err(), "source_ended");
    }

    #[test]
    fn a_mended_event_is_the_original_with_other_members() {
        let original = json!({"event_id": "e", "video_id": "", "ts": CLOCK - 100_000, "player": {"zoom": 2}}).to_string();
        let bad = letter(Reason::BadId, &original);
        assert_eq!(said(&bad, &How::default()), Err("bad_id"));
        let claimed = judge(&bad, &set(json!({"video_id": "w"})), Some(&checkpoint(8))).unwrap();
        assert_eq!(claimed.video, "w");
        let mended: Value = serde_json::from_str(claimed.mended.as_deref().unwrap()).unwrap();
        assert_eq!((&mended["player"]["zoom"], &mended["video_id"]), (&json!(2), &json!("w")));
        let whole = json!({"event_id": "e", "video_id": "w", "ts": CLOCK - 100_000});
        assert_eq!(said(&letter(Reason::BadJson, "\u{0}x"), &set(whole.clone())), Ok(1), "of what is no object nothing stays");
        assert_eq!(said(&letter(Reason::BadBatch, "?"), &How::default()), Err("not_an_event"));
        assert_eq!(said(&letter(Reason::BadBatch, "?"), &set(whole.clone())), Ok(1));
        assert_eq!(said(&letter(Reason::StaleAdjustment, "{}"), &set(whole)), Err("not_an_event"));
    }

    #[test]
    fn an_original_that_is_cut_is_not_guessed_at() {
        let cut = DeadLetter { whole_bytes: Some(5_000_000), ..letter(Reason::BadId, r#"{"event_id":"e","#) };
        assert_eq!(said(&cut, &How::default()), Err("cut"));
    }

    #[test]
    fn little_is_told_of_what_may_be_anything() {
        let long = "x".repeat(300);
        for (original, expected) in [
            (json!({"event_id": "e", "video_id": long, "ts": 7}).to_string(), [Some(json!("e")), None, Some(json!(7))]),
            (json!({"event_id": ["e"], "video_id": 7, "ts": null}).to_string(), [None, None, None]),
            ("nonsense".to_owned(), [None, None, None]),
        ] {
            assert_eq!(told(&Original::of(original.as_bytes())), expected);
        }
    }
}
