//! `tallymark rejected list` and `show`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{At, Filter};
use crate::client::{ClientError, Server};
use crate::terminal::{columns, harmless, shown};

/// What `tallymark rejected list` is told.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    filter: Filter,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// As JSON, with what else is known of each.
    #[arg(long)]
    json: bool,
}

/// What `tallymark rejected show` is told.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Its name: source/offset/index.
    letter: schemas::LetterId,
    #[command(flatten)]
    at: At,
    /// The server's own answer, as JSON.
    #[arg(long)]
    json: bool,
}

/// The server gives at most so many at once.
const PAGE: u64 = 1_000;

/// Asks page by page and prints.
pub(super) async fn list(args: ListArgs) -> Result<ExitCode, ClientError> {
    let server = Server::at(&args.at.url, &args.at.identity)?;
    let (mut letters, mut cursor, mut more) = (Vec::new(), None::<u64>, true);
    while more && (letters.len() as u64) < args.limit {
        let mut ask = args.filter.given();
        ask.push(("limit", (args.limit - letters.len() as u64).min(PAGE).to_string()));
        ask.extend(cursor.map(|cursor| ("cursor", cursor.to_string())));
        let page = server.rejected(&ask).await?;
        letters.extend(page.get("letters").and_then(Value::as_array).into_iter().flatten().cloned());
        cursor = page.get("cursor").and_then(Value::as_u64);
        more = cursor.is_some();
    }
    if args.json {
        println!("{:#}", json!({ "letters": letters, "more": more }));
    } else {
        print!("{}", table(&letters, more));
    }
    Ok(ExitCode::SUCCESS)
}

/// The longest text of a cell, in characters.
const WIDEST: usize = 32;
const WIDEST_DETAIL: usize = 120;

fn table(letters: &[Value], more: bool) -> String {
    if letters.is_empty() {
        return "Nothing was rejected that is meant here.\n".to_owned();
    }
    let mut rows = vec![["letter", "rejected at", "reason", "state", "event", "video", "detail"].map(str::to_owned)];
    rows.extend(letters.iter().map(|letter| {
        let cell = |name: &str| shown(&letter[name], WIDEST);
        let detail = shown(&letter["detail"], WIDEST_DETAIL);
        [cell("letter"), cell("rejected_at"), cell("reason"), cell("state"), cell("event_id"), cell("video_id"), detail]
    }));
    let mut out = columns(&rows);
    if more {
        let _ = writeln!(out, "\nThere are older ones: give a larger --limit, or an earlier --end.");
    }
    out
}

/// Asks for one and prints it.
pub(super) async fn show(args: ShowArgs) -> Result<ExitCode, ClientError> {
    let letter = Server::at(&args.at.url, &args.at.identity)?.letter(&args.letter).await?;
    if args.json {
        println!("{letter:#}");
    } else {
        print!("{}", whole(&letter));
    }
    Ok(ExitCode::SUCCESS)
}

fn whole(letter: &Value) -> String {
    let mut out = String::new();
    for name in [
        "letter",
        "rejected_at",
        "stage",
        "reason",
        "detail",
        "historical",
        "state",
        "counted_by",
        "event_id",
        "video_id",
        "ts",
        "whole_bytes",
    ] {
        if let Some(value) = letter.get(name).filter(|value| !value.is_null()) {
            let _ = writeln!(out, "{name:<12} {}", shown(value, usize::MAX));
        }
    }
    for name in ["text", "hex"] {
        if let Some(original) = letter.get(name).and_then(Value::as_str) {
            let lines: String = original.chars().map(|c| if matches!(c, '\n' | '\t') { c } else { harmless(c) }).collect();
            let _ = writeln!(out, "\n{lines}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Value {
        json!({
            "letter": "0/12/3", "rejected_at": "2026-11-20T14:37:00Z", "stage": "decode", "reason": "bad_id", "detail": "video_id is empty",
            "historical": false, "state": "open", "event_id": "\u{1b}]0;x\u{7}", "video_id": null, "ts": 7, "text": "{\"a\":\n\"\u{1b}[2J\"}"
        })
    }

    #[test]
    fn a_list_is_a_table_and_hostile_ids_do_nothing() {
        let expected = "\
letter  rejected at           reason  state  event   video  detail
0/12/3  2026-11-20T14:37:00Z  bad_id  open   \u{fffd}]0;x\u{fffd}         video_id is empty

There are older ones: give a larger --limit, or an earlier --end.
";
        assert_eq!(table(&[letter()], true), expected);
        assert!(table(&[], false).starts_with("Nothing was rejected"));
    }

    #[test]
    fn one_letter_is_shown_with_its_original_and_what_it_does_to_terminals_is_not_done() {
        let shown = whole(&letter());
        assert!(shown.contains("reason       bad_id\n") && !shown.contains("counted_by"), "{shown}");
        assert!(shown.ends_with("\n{\"a\":\n\"\u{fffd}[2J\"}\n") && !shown.contains('\u{1b}'), "{shown}");
    }
}
