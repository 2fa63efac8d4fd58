//! Events and corrections as JSON, written by hand so that the codecs of the program are on one side of the test only.

use crate::calendar::rfc3339;
use crate::dice::Dice;
use crate::meaning::{Cell, Counts, Entity};

/// The fields of an event.
pub(crate) struct Fields<'a> {
    pub(crate) id: &'a str,
    pub(crate) video: &'a str,
    pub(crate) space: Option<&'a str>,
    pub(crate) ts: i64,
    pub(crate) engaged: bool,
}

/// A JSON string; now and then with an escape that needs none.
fn text(value: &str, dice: &mut Dice) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x80 && dice.below(40) == 0 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A well-formed event in one of the many ways to write it.
pub(crate) fn event(fields: &Fields<'_>, dice: &mut Dice) -> Vec<u8> {
    let ts = match dice.below(4) {
        0 => format!("\"{}\"", rfc3339(fields.ts, 0)),
        1 => format!("\"{}\"", rfc3339(fields.ts, dice.pick(&[60, -330, 765, 1]))),
        _ => fields.ts.to_string(),
    };
    let mut parts = vec![
        format!("\"event_id\":{}", text(fields.id, dice)),
        format!("\"video_id\":{}", text(fields.video, dice)),
        format!("\"ts\":{ts}"),
    ];
    match fields.space {
        Some(space) => parts.push(format!("\"space_id\":{}", text(space, dice))),
        None if dice.percent(10) => parts.push("\"space_id\":null".into()),
        None => {}
    }
    match fields.engaged {
        true => parts.push("\"kind\":\"engaged\"".into()),
        false if dice.percent(20) => parts.push("\"kind\":\"view\"".into()),
        false => {}
    }
    if dice.percent(20) {
        parts.push("\"watch_ms\": 12000".into());
    }
    if dice.percent(10) {
        parts.push("\"unknown\" : {\"a\":[1,{\"ts\":0}], \"event_id\":\"no\"}".into());
    }
    for last in (1..parts.len()).rev() {
        parts.swap(last, dice.below(last + 1));
    }
    format!("{{{}}}", parts.join(if dice.percent(20) { " , " } else { "," })).into_bytes()
}

/// Bytes that are refused, with the reason. None of them holds a newline.
pub(crate) fn malformed(id: &str, ts: i64, dice: &mut Dice) -> (Vec<u8>, &'static str) {
    let long = "x".repeat(129);
    let one = |event_id: &str, video: &str, ts: &str, rest: &str| {
        format!("{{\"event_id\":{event_id},\"video_id\":{video},\"ts\":{ts}{rest}}}").into_bytes()
    };
    let (id, now) = (format!("\"{id}\""), ts.to_string());
    match dice.below(18) {
        0 => (b"{\"event_id\":".to_vec(), "bad_json"),
        1 => (b"[1,2]".to_vec(), "bad_json"),
        2 => (vec![b'{', 0xff, 0xfe, b'}'], "bad_json"),
        3 => (one(&id, "\"v\"", &now, ",\"video_id\":\"v\""), "bad_json"),
        4 => (format!("{{\"event_id\":{id},\"video_id\":\"v\"}}").into_bytes(), "missing_field"),
        5 => (one("null", "\"v\"", &now, ""), "missing_field"),
        6 => (one("7", "\"v\"", &now, ""), "wrong_type"),
        7 => (one(&id, "\"v\"", "true", ""), "wrong_type"),
        8 => (one(&id, "\"v\"", &now, ",\"watch_ms\":-1"), "wrong_type"),
        9 => (one(&id, "\"v\"", &now, ",\"kind\":3"), "wrong_type"),
        10 => (one("\"\"", "\"v\"", &now, ""), "bad_id"),
        11 => (one(&id, &format!("\"{long}\""), &now, ""), "bad_id"),
        12 => (one(&id, "\"v\\u0007\"", &now, ""), "bad_id"),
        13 => (one(&id, "\"v\"", &now, ",\"space_id\":\"\""), "bad_id"),
        14 => (one(&id, "\"v\"", "\"yesterday\"", ""), "bad_ts"),
        15 => (one(&id, "\"v\"", "1.5e12", ""), "bad_ts"),
        16 => (one(&id, "\"v\"", &(ts / 1_000).to_string(), ""), "ts_in_seconds"),
        _ => (one(&id, "\"v\"", &now, ",\"kind\":\"like\""), "unknown_kind"),
    }
}

fn entity(entity: &Entity) -> String {
    let dimension = ["video", "space", "site"][entity.dimension as usize];
    format!("{{\"dimension\":\"{dimension}\",\"id\":\"{}\"}}", entity.id)
}

fn counts(counts: Counts) -> String {
    let [gross, valid, engaged] = counts;
    format!("{{\"gross\":{gross},\"valid\":{valid},\"engaged\":{engaged}}}")
}

fn cell(cell: &Cell) -> String {
    let tier = ["minute", "hour", "day", "year"][cell.tier as usize];
    format!("{{\"tier\":\"{tier}\",\"entity\":{},\"start\":{}}}", entity(&cell.entity), cell.start)
}

fn list<T>(items: &[T], each: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(each).collect::<Vec<_>>().join(","))
}

pub(crate) fn adjustment(after: u64, deltas: &[(i64, Vec<Entity>, Counts)]) -> Vec<u8> {
    let deltas = list(deltas, |(minute, entities, delta)| {
        format!("{{\"minute\":{minute},\"entities\":{},\"counts\":{}}}", list(entities, entity), counts(*delta))
    });
    format!("{{\"after\":{after},\"reason\":\"bots\",\"deltas\":{deltas}}}").into_bytes()
}

pub(crate) fn mark(cells: &[Cell]) -> Vec<u8> {
    format!("{{\"cells\":{}}}", list(cells, cell)).into_bytes()
}

pub(crate) fn set(mark: u64, cells: &[(Cell, Counts)]) -> Vec<u8> {
    let cells = list(cells, |(one, values)| format!("[{},{}]", cell(one), counts(*values)));
    format!("{{\"mark\":{mark},\"cells\":{cells}}}").into_bytes()
}
