//! `tallymark top`: the most viewed, as a table on the terminal.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::client::{ClientError, Identity, Server, TopAsk};
use crate::terminal;

/// What `tallymark top` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Windows are in UTC: hour (this hour), today, yesterday, 7d and 30d (the last days with this one). What is counted are closed minutes, up to
about a minute ago. The change compares whole hours of the window with the same hours of the one before.

Examples:
  tallymark top
  tallymark top --window 7d --limit 50
  tallymark top --spaces --rising
  tallymark top --window 30d --json | jq -r '.entries[].id'
  watch -n 5 tallymark top --window hour")]
pub(crate) struct TopArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    #[command(flatten)]
    identity: Identity,
    /// The range: hour, today, yesterday, 7d or 30d.
    #[arg(long, value_name = "WINDOW", default_value = "today")]
    window: String,
    /// The most entries, up to 1,000.
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: u64,
    /// Spaces (channels) rather than videos.
    #[arg(long)]
    spaces: bool,
    /// Those that gained most over the window before, rather than the most viewed.
    #[arg(long)]
    rising: bool,
    /// The server's own answer (`/v1/top/...`), as JSON.
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
///
/// # Errors
/// If no server answers, or it refuses the question.
pub(crate) async fn top(args: TopArgs) -> Result<ExitCode, ClientError> {
    let ask = TopAsk { spaces: args.spaces, window: args.window, limit: args.limit, rising: args.rising };
    let list = Server::at(&args.url, &args.identity)?.top(&ask).await?;
    if args.json {
        println!("{list:#}");
    } else {
        print!("{}", table(&list));
    }
    Ok(ExitCode::SUCCESS)
}

/// The longest text of a cell, in characters.
const WIDEST: usize = 48;

/// The list for people.
fn table(list: &Value) -> String {
    let name = if list["dimension"] == "space" { "name" } else { "title" };
    let mut rows = vec![["#", "id", name, "views", "change", "growth"].map(str::to_owned)];
    let entries = list.get("entries").and_then(Value::as_array).into_iter().flatten();
    rows.extend(entries.map(|entry| {
        let growth = entry.get("growth").and_then(Value::as_f64).map_or_else(String::new, |growth| format!("{:+.0} %", growth * 100.0));
        [shown(&entry["rank"]), shown(&entry["id"]), shown(&entry[name]), shown(&entry["views"]), signed(&entry["change"]), growth]
    }));
    let mut out = String::new();
    if rows.len() > 1 {
        align(&rows, &mut out);
    } else {
        let _ = writeln!(out, "Nothing was viewed.");
    }
    let [start, end, through, as_of] = ["start", "end", "complete_through", "as_of"].map(|member| shown(&list[member]));
    let _ = writeln!(out, "\nFrom {start} to {end}; complete through {through}, as of {as_of}.");
    let range =
        |member: &str| ["start", "end"].map(|end| list.pointer(&format!("/{member}/{end}")).map(shown).unwrap_or_default()).join(" to ");
    if list["previous"].is_object() {
        let _ = writeln!(out, "The change compares {} with {}.", range("compared"), range("previous"));
    }
    if let Some(seconds) = list.get("stale_seconds").and_then(Value::as_u64) {
        let _ = writeln!(out, "The store does not answer: this is the list of {seconds} s ago.");
    }
    out
}

/// Columns side by side: texts to the left, numbers to the right.
fn align(rows: &[[String; 6]], out: &mut String) {
    let mut widths = [0; 6];
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| if matches!(column, 1 | 2) { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// A value for people.
fn shown(value: &Value) -> String {
    terminal::shown(value, WIDEST)
}

/// A change with its sign.
fn signed(value: &Value) -> String {
    let text = shown(value);
    if text.is_empty() || text.starts_with('-') { text } else { format!("+{text}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list() -> Value {
        json!({
            "dimension": "video", "start": "2026-11-20T00:00:00Z", "end": "2026-11-21T00:00:00Z",
            "compared": {"start": "2026-11-20T00:00:00Z", "end": "2026-11-20T14:00:00Z"},
            "previous": {"start": "2026-11-19T00:00:00Z", "end": "2026-11-19T14:00:00Z"},
            "complete_through": "2026-11-20T14:37:00Z", "as_of": "2026-11-20T14:38:12.345Z",
            "entries": [
                {"rank": 1, "id": "v1", "title": "How glass is made", "views": 1250, "change": 240, "growth": 0.25},
                {"rank": 2, "id": "äöü", "title": null, "views": 7, "change": -3, "growth": null}
            ]
        })
    }

    #[test]
    fn a_list_is_a_table_and_says_what_it_is_of() {
        let expected = "\
#  id   title              views  change  growth
1  v1   How glass is made   1250    +240   +25 %
2  äöü                         7      -3

From 2026-11-20T00:00:00Z to 2026-11-21T00:00:00Z; complete through 2026-11-20T14:37:00Z, as of 2026-11-20T14:38:12.345Z.
The change compares 2026-11-20T00:00:00Z to 2026-11-20T14:00:00Z with 2026-11-19T00:00:00Z to 2026-11-19T14:00:00Z.
";
        assert_eq!(table(&list()), expected);
    }

    #[test]
    fn what_strangers_wrote_does_not_steer_the_terminal() {
        let mut list = list();
        list["entries"][0]["title"] = json!("\u{1b}[31mred\u{202e}");
        list["entries"][1]["title"] = json!("x".repeat(500));
        let table = table(&list);
        assert!(table.contains("\u{fffd}[31mred\u{fffd} ") && !table.contains('\u{1b}'), "{table}");
        assert!(table.lines().take(3).all(|line| line.chars().count() < 90) && table.contains("xxx…"), "{table}");
    }

    #[test]
    fn an_empty_list_and_an_old_one_say_so() {
        let list = json!({"dimension": "space", "entries": [], "previous": null, "stale_seconds": 12});
        let table = table(&list);
        assert!(table.starts_with("Nothing was viewed.") && table.contains("12 s ago") && !table.contains("compares"), "{table}");
    }
}
