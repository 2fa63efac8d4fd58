//! `tallymark status`: is it working? One line that says so, then a table of the sources.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::client::{ClientError, Server};

/// What `tallymark status` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code: 0 all is counted up to now, 1 counting lags or has stopped, 2 no server answered.

Examples:
  tallymark status
  tallymark status --json | jq .totals
  until tallymark status --url http://10.0.0.5:8080; do sleep 1; done")]
pub(crate) struct StatusArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    /// The server's own answer (`/v1/status`), as JSON.
    #[arg(long)]
    json: bool,
    /// Counting lags when the oldest uncounted record may be older than this, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    max_lag: f64,
}

const LAGGING: u8 = 1;
const UNREACHABLE: u8 = 2;

/// Asks and prints.
///
/// # Errors
/// If the address is none, or the answer is not that of a Tallymark.
pub(crate) async fn status(args: StatusArgs) -> Result<ExitCode, ClientError> {
    let server = Server::at(&args.url)?;
    let ready = server.ready().await;
    let answer = match (server.status().await, &ready) {
        (Ok(answer), _) => answer,
        (Err(error @ (ClientError::Unreachable { .. } | ClientError::Refused { .. })), _) => {
            println!("No: {error}\nIs it running there? Start it with: tallymark run   (or name another with --url)");
            return Ok(ExitCode::from(UNREACHABLE));
        }
        (Err(error), _) => return Err(error),
    };
    let trouble = ready.err().map(|error| error.to_string()).or_else(|| lag(&answer, args.max_lag));
    if args.json {
        println!("{answer:#}");
    } else {
        print!("{}", table(&answer, trouble.as_deref()));
    }
    Ok(if trouble.is_some() { ExitCode::from(LAGGING) } else { ExitCode::SUCCESS })
}

/// Why counting is behind, if it is.
fn lag(status: &Value, max_lag_s: f64) -> Option<String> {
    let totals = status.get("totals")?;
    let records = totals.get("lag_records")?.as_u64()?;
    let seconds = totals.get("lag_seconds").and_then(Value::as_f64);
    match seconds {
        Some(seconds) if seconds <= max_lag_s => None,
        Some(seconds) => Some(format!("{records} records are not counted yet, the last counted one is {seconds:.0} s old")),
        None if records == 0 => None,
        None => Some(format!("{records} records are not counted yet, and some source has counted none")),
    }
}

/// The status for people.
fn table(status: &Value, trouble: Option<&str>) -> String {
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let member = |value: &Value, path: &str| text(value.pointer(path));
    let mut out = match trouble {
        None => format!("Yes: counting is up to date. Complete through {}.\n", member(status, "/complete_through")),
        Some(trouble) => format!("No: {trouble}\n"),
    };
    let totals =
        ["events", "counted", "duplicate", "rejected"].map(|name| format!("{name} {}", member(status, &format!("/totals/tally/{name}"))));
    let _ = writeln!(out, "{}\n", totals.join("   "));
    let head = ["source", "log end", "next", "lag", "lag s", "closed", "counted", "duplicate", "rejected"];
    let paths = [
        "/source",
        "/end",
        "/checkpoint/next_offset",
        "/lag_records",
        "/lag_seconds",
        "/checkpoint/closed",
        "/checkpoint/tally/counted",
        "/checkpoint/tally/duplicate",
        "/checkpoint/tally/rejected",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(status.get("sources").and_then(Value::as_array).into_iter().flatten().map(|source| paths.map(|path| member(source, path))));
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  "));
    }
    if let Some(reasons) =
        status.pointer("/totals/tally/rejected_by_reason").and_then(Value::as_object).filter(|reasons| !reasons.is_empty())
    {
        let reasons: Vec<String> = reasons.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        let _ = writeln!(out, "\nrejected: {}", reasons.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lag_is_a_matter_of_time_not_of_records() {
        let status = |records: u64, seconds: Option<f64>| json!({"totals": {"lag_records": records, "lag_seconds": seconds}});
        assert_eq!(lag(&status(0, Some(0.0)), 10.0), None);
        assert_eq!(lag(&status(1_000_000, Some(0.4)), 10.0), None);
        assert!(lag(&status(5, Some(11.0)), 10.0).unwrap().contains("11 s"));
        assert!(lag(&status(5, None), 10.0).is_some());
        assert_eq!(lag(&status(0, None), 10.0), None);
    }

    #[test]
    fn the_first_line_answers_the_question() {
        let status = json!({"complete_through": "2026-11-20T12:00:00Z", "sources": [{"source": 0, "end": 12, "checkpoint": null}],
            "totals": {"tally": {"events": 3, "rejected_by_reason": {"too_old": 2}}}});
        assert!(table(&status, None).starts_with("Yes: counting is up to date. Complete through 2026-11-20T12:00:00Z.\n"));
        let bad = table(&status, Some("source 0 has stopped"));
        assert!(bad.starts_with("No: source 0 has stopped\n") && bad.contains("rejected: too_old 2"), "{bad}");
    }
}
