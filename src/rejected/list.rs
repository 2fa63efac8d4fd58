//! `tallymark rejected list` and `show`.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
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
    #[arg(long, conflicts_with_all = ["ndjson", "csv"])]
    json: bool,
    /// The same, one a line, as they are found.
    #[arg(long, conflicts_with = "csv")]
    ndjson: bool,
    /// As a table for spreadsheets, as they are found.
    #[arg(long)]
    csv: bool,
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
    if args.csv {
        return print_csv(&args, &server).await;
    }
    let (mut letters, mut found, mut cursor, mut more) = (Vec::new(), 0, None, true);
    while more && found < args.limit {
        let mut page = server.rejected(&ask(&args, found, cursor)).await?;
        let read = page.get_mut("letters").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        found += read.len() as u64;
        if !args.ndjson {
            letters.extend(read);
        } else if !put(&read.iter().map(|letter| format!("{letter}\n")).collect::<String>()) {
            return Ok(ExitCode::SUCCESS);
        }
        cursor = page.get("cursor").and_then(Value::as_u64);
        more = cursor.is_some();
    }
    match (args.json, args.ndjson) {
        (true, _) => put(&format!("{:#}\n", json!({ "letters": letters, "more": more }))),
        (_, true) => true,
        _ => put(&table(&letters, more)),
    };
    Ok(ExitCode::SUCCESS)
}

/// The next page's question.
fn ask(args: &ListArgs, found: u64, cursor: Option<u64>) -> Vec<(&'static str, String)> {
    let mut ask = args.filter.given();
    ask.push(("limit", (args.limit - found).min(PAGE).to_string()));
    ask.extend(cursor.map(|cursor| ("cursor", cursor.to_string())));
    ask
}

/// Prints pages of the server's own CSV as one.
async fn print_csv(args: &ListArgs, server: &Server) -> Result<ExitCode, ClientError> {
    let (mut found, mut cursor, mut is_first) = (0, None, true);
    while found < args.limit && (is_first || cursor.is_some()) {
        let page;
        (page, cursor) = server.rejected_csv(&ask(args, found, cursor)).await?;
        found += rows(&page);
        let (_, rest) = page.split_once('\n').unwrap_or_default();
        if !put(if is_first { &page } else { rest }) {
            break;
        }
        is_first = false;
    }
    Ok(ExitCode::SUCCESS)
}

/// How many rows a page of CSV has below its header; a text may have lines of its own.
fn rows(page: &str) -> u64 {
    csv::Reader::from_reader(page.as_bytes()).records().count() as u64
}

/// Prints; whether somebody still reads.
fn put(text: &str) -> bool {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
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
