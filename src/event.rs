//! `tallymark event ID`: was this event counted, and if not, why?

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::client::{ClientError, Identity, Server};
use crate::terminal::shown;

/// What `tallymark event` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
The log's last minutes are looked through. Naming the video makes it quicker: only where its events go to is looked.

Exit code: 0 it is counted, 1 it is not (refused, not folded yet, or not found), 2 no server answered.

Examples:
  tallymark event 0197a3c4-5b1e-7c22-9d8e-0a1b2c3d4e5f
  tallymark event e1 --video v1 --within 2h
  tallymark event e1 --json | jq -r .state")]
pub(crate) struct EventArgs {
    /// The event's id, as it was sent.
    id: String,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    #[command(flatten)]
    identity: Identity,
    /// Its video.
    #[arg(long, value_name = "ID")]
    video: Option<String>,
    /// How far back to look: a number with s, m or h.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    within: String,
    /// The server's own answer, as JSON.
    #[arg(long)]
    json: bool,
}

const NOT_COUNTED: u8 = 1;
const UNREACHABLE: u8 = 2;

/// Asks and prints.
///
/// # Errors
/// If the server refuses the question.
pub(crate) async fn event(args: EventArgs) -> Result<ExitCode, ClientError> {
    let answer = match Server::at(&args.url, &args.identity)?.event(&args.id, args.video.as_deref(), &args.within).await {
        Ok(answer) => answer,
        Err(ClientError::Refused { status: 404, detail, body, .. })
            if body.get("type").and_then(Value::as_str) == Some("/problems/unknown-event") =>
        {
            println!("Not found: {}", shown(&Value::String(detail), 400));
            return Ok(ExitCode::from(NOT_COUNTED));
        }
        Err(error @ ClientError::Unreachable { .. }) => {
            eprintln!("tallymark: {error}");
            return Ok(ExitCode::from(UNREACHABLE));
        }
        Err(error) => return Err(error),
    };
    if args.json {
        println!("{answer:#}");
    } else {
        print!("{}", told(&answer));
    }
    Ok(if answer.get("state").and_then(Value::as_str) == Some("counted") { ExitCode::SUCCESS } else { ExitCode::from(NOT_COUNTED) })
}

const WIDEST: usize = 200;

fn told(answer: &Value) -> String {
    let part = |value: &Value, name: &str| shown(&value[name], WIDEST);
    let mut out = String::new();
    let verdict = match answer["state"].as_str() {
        Some("counted") => "Yes, it is counted.",
        Some("pending") => "Not yet: it is in the log and will be folded in a moment.",
        _ => "No, it was refused.",
    };
    let _ = writeln!(out, "{verdict}");
    for one in answer.get("occurrences").and_then(Value::as_array).into_iter().flatten() {
        let place = |value: &Value| format!("{}/{}/{}", part(value, "source"), part(value, "offset"), part(value, "index"));
        let _ = write!(out, "  {}  {}  {}  video {}", part(one, "append_time"), place(one), part(one, "state"), part(one, "video_id"));
        if one["duplicate_of"].is_object() {
            let _ = write!(out, "  of {}", place(&one["duplicate_of"]));
        }
        let refused = &one["refused"];
        if refused.is_object() {
            let _ = write!(out, "  {}: {}", part(refused, "reason"), part(refused, "detail"));
            let _ = write!(out, " (tallymark rejected show {}", part(refused, "letter"));
            let retried = if refused["letter_state"] == "counted" { "; counted by a retry)" } else { ")" };
            let _ = write!(out, "{retried}");
        }
        let _ = writeln!(out);
    }
    if answer.pointer("/searched/complete") == Some(&Value::Bool(false)) {
        let _ = writeln!(out, "There was no time to read everything: name the video, or look less far back with --within.");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_occurrence_is_a_line_that_says_why() {
        let one = |index: u64, state: &str| json!({"append_time": "2026-11-20T12:00:00Z", "source": 0, "offset": 7, "index": index, "state": state, "video_id": "v\u{1b}"});
        let mut duplicate = one(1, "duplicate");
        duplicate["duplicate_of"] = json!({"source": 0, "offset": 7, "index": 0});
        let mut refused = one(2, "rejected");
        refused["refused"] = json!({"reason": "too_old", "detail": "ts is old", "letter": "0/7/2", "letter_state": "open"});
        let answer = json!({"state": "counted", "occurrences": [one(0, "counted"), duplicate, refused], "searched": {"complete": false}});
        let expected = "\
Yes, it is counted.
  2026-11-20T12:00:00Z  0/7/0  counted  video v\u{fffd}
  2026-11-20T12:00:00Z  0/7/1  duplicate  video v\u{fffd}  of 0/7/0
  2026-11-20T12:00:00Z  0/7/2  rejected  video v\u{fffd}  too_old: ts is old (tallymark rejected show 0/7/2)
There was no time to read everything: name the video, or look less far back with --within.
";
        assert_eq!(told(&answer), expected);
    }
}
