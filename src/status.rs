//! `tallymark status`: is it working? A table of the sources, and a last line that says so.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::client::{ClientError, Identity, Server};

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
    #[command(flatten)]
    identity: Identity,
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
    let server = Server::at(&args.url, &args.identity)?;
    let ready = server.ready().await;
    let answer = match server.status().await {
        Ok(answer) => answer,
        Err(error @ ClientError::Unreachable { .. }) => {
            println!("No: {error}\nIs it running there? Start it with: tallymark run   (or name another with --url)");
            return Ok(ExitCode::from(UNREACHABLE));
        }
        Err(ClientError::Refused { status: 404, url, .. }) => {
            println!(
                "No: {url} does not tell. It is a part that takes events in or folds them; ask one that answers (tallymark query or run)"
            );
            return Ok(ExitCode::from(UNREACHABLE));
        }
        Err(error @ ClientError::Refused { .. }) => {
            println!("No: {error}");
            return Ok(ExitCode::from(UNREACHABLE));
        }
        Err(error) => return Err(error),
    };
    let troubles = troubles(ready.err().map(|error| error.to_string()), &answer, args.max_lag);
    if args.json {
        println!("{answer:#}");
    } else {
        print!("{}", table(&answer, &troubles));
    }
    Ok(if troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LAGGING) })
}

/// Why it does not work, if it does not: what the server says of itself, of the log and the group, and of how far counting is behind.
fn troubles(unready: Option<String>, status: &Value, max_lag_s: f64) -> Vec<String> {
    let said = status.get("troubles").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    unready.into_iter().chain(said).chain(lag(status, max_lag_s)).collect()
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
fn table(status: &Value, troubles: &[String]) -> String {
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let member = |value: &Value, path: &str| text(value.pointer(path));
    let columns: [(&str, &str); 11] = [
        ("source", "/source"),
        ("owner", "/owner"),
        ("log end", "/end"),
        ("next", "/checkpoint/next_offset"),
        ("lag", "/lag_records"),
        ("lag s", "/lag_seconds"),
        ("age s", "/checkpoint/age_seconds"),
        ("closed", "/checkpoint/closed"),
        ("counted", "/checkpoint/tally/counted"),
        ("duplicate", "/checkpoint/tally/duplicate"),
        ("rejected", "/checkpoint/tally/rejected"),
    ];
    let mut rows = vec![columns.map(|(head, _)| head.to_owned())];
    rows.extend(
        status.get("sources").and_then(Value::as_array).into_iter().flatten().map(|source| columns.map(|(_, path)| member(source, path))),
    );
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  "));
    }
    let totals =
        ["events", "counted", "duplicate", "rejected"].map(|name| format!("{name} {}", member(status, &format!("/totals/tally/{name}"))));
    let _ = write!(out, "\n{}", totals.join("   "));
    let reasons = status.pointer("/totals/tally/rejected_by_reason").and_then(Value::as_object).into_iter().flatten();
    let reasons: Vec<String> = reasons.map(|(reason, n)| format!("{reason} {n}")).collect();
    let _ = writeln!(out, "{}", if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) });
    let _ = match troubles {
        [] => writeln!(out, "Yes: counting is up to date. Complete through {}.", member(status, "/complete_through")),
        some => writeln!(out, "No: {}", some.join("\nNo: ")),
    };
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
    fn the_last_line_answers_the_question() {
        let status = json!({"complete_through": "2026-11-20T12:00:00Z", "sources": [{"source": 0, "owner": "a-1", "end": 12, "checkpoint": null}],
            "totals": {"tally": {"events": 3, "rejected_by_reason": {"too_old": 2}}}});
        let good = table(&status, &[]);
        assert!(
            good.ends_with("\nYes: counting is up to date. Complete through 2026-11-20T12:00:00Z.\n") && good.contains("a-1"),
            "{good}"
        );
        let bad = table(&status, &["source 0 has stopped".into(), "it lags".into()]);
        assert!(bad.ends_with("\nNo: source 0 has stopped\nNo: it lags\n") && bad.contains("(too_old 2)"), "{bad}");
    }

    #[test]
    fn what_the_server_knows_of_the_log_and_the_group_is_told() {
        let status = json!({"troubles": ["nobody folds source 1"], "totals": {"lag_records": null, "lag_seconds": null}});
        assert_eq!(troubles(Some("not ready".into()), &status, 10.0), ["not ready", "nobody folds source 1"]);
    }
}
