//! `tallymark adjust list` and `show`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::At;
use crate::client::{ClientError, Server};
use crate::terminal::{columns, shown};

/// What `tallymark adjust list` is told.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    #[command(flatten)]
    at: At,
}

/// What `tallymark adjust show` is told.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Its name, as the list shows it.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    at: At,
}

/// The server gives at most so many at once.
const PAGE: u64 = 1_000;

/// Asks page by page and prints.
pub(super) async fn list(args: ListArgs) -> Result<ExitCode, ClientError> {
    let server = Server::at(&args.at.url, &args.at.identity)?;
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let limit = (args.limit - found.len() as u64).min(PAGE);
        let page = server.adjustments(limit, cursor.as_deref()).await?;
        found.extend(page.get("adjustments").and_then(Value::as_array).into_iter().flatten().cloned());
        cursor = page.get("cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || found.len() as u64 >= args.limit {
            break;
        }
    }
    if args.at.json {
        println!("{:#}", json!({ "adjustments": found, "more": cursor.is_some() }));
    } else {
        print!("{}", table(&found, cursor.is_some()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The longest text of a cell, in characters.
const WIDEST: usize = 40;
const WIDEST_REASON: usize = 120;

fn table(found: &[Value], more: bool) -> String {
    if found.is_empty() {
        return "Nothing was adjusted.\n".to_owned();
    }
    let mut rows = vec![["adjustment", "made at", "state", "gross", "engaged", "by", "undone by", "reason"].map(str::to_owned)];
    rows.extend(found.iter().map(|one| {
        let cell = |name: &str| shown(one.pointer(name).unwrap_or(&Value::Null), WIDEST);
        let reason = shown(one.get("reason").unwrap_or(&Value::Null), WIDEST_REASON);
        [
            cell("/id"),
            cell("/created_at"),
            cell("/state"),
            cell("/total/gross"),
            cell("/total/engaged"),
            cell("/by"),
            cell("/undone_by"),
            reason,
        ]
    }));
    let mut out = columns(&rows);
    if more {
        let _ = writeln!(out, "\nThere are older ones: give a larger --limit.");
    }
    out
}

/// Asks for one and prints it.
pub(super) async fn show(args: ShowArgs) -> Result<ExitCode, ClientError> {
    let adjustment = Server::at(&args.at.url, &args.at.identity)?.adjustment(&args.id).await?;
    if args.at.json {
        println!("{adjustment:#}");
    } else {
        print!("{}", whole(&adjustment));
    }
    Ok(ExitCode::SUCCESS)
}

/// More parts and videos than these are not printed.
const MOST_LINES: usize = 40;

/// An adjustment with what its parts change.
pub(super) fn whole(adjustment: &Value) -> String {
    let mut out = String::new();
    for name in ["id", "state", "created_at", "by", "reason", "note", "undoes", "undone_by", "start", "end", "changes"] {
        if let Some(value) = adjustment.get(name).filter(|value| !value.is_null()) {
            let _ = writeln!(out, "{name:<12} {}", shown(value, usize::MAX));
        }
    }
    let of = |value: &Value, name: &str| shown(value.pointer(name).unwrap_or(&Value::Null), WIDEST);
    let total = |value: &Value| {
        format!("{} gross, {} valid, {} engaged", of(value, "/total/gross"), of(value, "/total/valid"), of(value, "/total/engaged"))
    };
    if adjustment.get("total").is_some() {
        let _ = writeln!(out, "{:<12} {}", "total", total(adjustment));
    }
    let mut lines = Vec::new();
    for part in adjustment.get("parts").and_then(Value::as_array).into_iter().flatten() {
        let place = format!("part {} of source {}: {}", of(part, "/part"), of(part, "/source"), of(part, "/state"));
        let offset = part.get("offset").map_or_else(String::new, |offset| format!(" at {offset}"));
        let detail = part.get("detail").map_or_else(String::new, |detail| format!(" ({})", shown(detail, 300)));
        lines.push(format!("{place}{offset}{detail}"));
        for video in part.get("videos").and_then(Value::as_array).into_iter().flatten() {
            let space = video
                .get("space")
                .filter(|space| !space.is_null())
                .map_or_else(String::new, |space| format!(" (space {})", shown(space, WIDEST)));
            let minutes = format!("{} minutes from {} to {}", of(video, "/minutes"), of(video, "/start"), of(video, "/end"));
            lines.push(format!("  video {}{space}: {}, {minutes}", of(video, "/video"), total(video)));
        }
    }
    let more = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    if more > 0 {
        let _ = writeln!(out, "... and {more} lines more: see --json");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjustment() -> Value {
        let total = json!({"gross": -3, "valid": -3, "engaged": 0});
        json!({
            "id": "a\u{1b}", "state": "taken", "created_at": "2026-11-20T14:37:00Z", "by": null, "reason": "bots", "undone_by": null, "total": total,
            "parts": [{"part": 0, "source": 1, "state": "taken", "offset": 7, "videos": [
                {"video": "v", "space": "s", "minutes": 1, "start": "2026-11-20T14:00:00Z", "end": "2026-11-20T14:01:00Z", "total": total}]}]
        })
    }

    #[test]
    fn a_list_is_a_table_and_hostile_names_do_nothing() {
        let expected = "\
adjustment  made at               state  gross  engaged  by  undone by  reason
a\u{fffd}          2026-11-20T14:37:00Z  taken  -3     0                       bots

There are older ones: give a larger --limit.
";
        assert_eq!(table(&[adjustment()], true), expected);
        assert_eq!(table(&[], false), "Nothing was adjusted.\n");
    }

    #[test]
    fn one_is_shown_with_what_its_parts_change() {
        let shown = whole(&adjustment());
        assert!(
            shown.contains("part 0 of source 1: taken at 7\n  video v (space s): -3 gross, -3 valid, 0 engaged, 1 minutes from"),
            "{shown}"
        );
        assert!(!shown.contains('\u{1b}') && !shown.contains("by "), "{shown}");
    }
}
