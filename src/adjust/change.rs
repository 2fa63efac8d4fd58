//! The commands that change counts. Each request may be sent again: it has a name, and what has one name is done once. So this waits and
//! repeats until the adjustment has ended.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};

use super::At;
use super::journal::whole;
use crate::client::{ClientError, Server};
use crate::terminal::shown;

/// What goes with each change.
#[derive(Args, Debug)]
struct Why {
    /// Why: it is kept for ever.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// What else is to be known of it.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Its name, such as a ticket's; a new one if left out. What has one name is done once.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Do it. Without this it is only said what would be done.
    #[arg(long, alias = "yes")]
    publish: bool,
    #[command(flatten)]
    at: At,
}

/// Which space's counts change, too.
#[derive(Args, Debug)]
struct Space {
    /// The space (channel) that these views named; that of the video's metadata if left out.
    #[arg(long, value_name = "ID")]
    space: Option<String>,
    /// These views named no space.
    #[arg(long, conflicts_with = "space")]
    no_space: bool,
}

/// How much.
#[derive(Args, Debug)]
struct Numbers {
    /// How many views.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    gross: Option<i64>,
    /// How many valid views; as many as --gross if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    valid: Option<i64>,
    /// How many engagements.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    engaged: Option<i64>,
}

/// What `tallymark adjust add` is told.
#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    /// The video.
    #[arg(value_name = "VIDEO")]
    video: String,
    #[command(flatten)]
    space: Space,
    /// The minute, by any time in it: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME")]
    minute: String,
    #[command(flatten)]
    numbers: Numbers,
    #[command(flatten)]
    why: Why,
}

/// What `tallymark adjust remove` is told.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// The video.
    #[arg(value_name = "VIDEO")]
    video: String,
    #[command(flatten)]
    space: Space,
    /// A number of one minute, by any time in it: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["start", "end"], required_unless_present_any = ["start", "end"])]
    minute: Option<String>,
    #[command(flatten)]
    numbers: Numbers,
    /// All from here on (inclusive).
    #[arg(long, value_name = "TIME", conflicts_with_all = ["gross", "valid", "engaged"])]
    start: Option<String>,
    /// All up to here (exclusive).
    #[arg(long, value_name = "TIME", conflicts_with_all = ["gross", "valid", "engaged"])]
    end: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// What `tallymark adjust delete` is told.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// The video.
    #[arg(value_name = "VIDEO")]
    video: String,
    #[command(flatten)]
    space: Space,
    #[command(flatten)]
    why: Why,
}

/// What `tallymark adjust undo` is told.
#[derive(Args, Debug)]
pub(crate) struct UndoArgs {
    /// The adjustment's name, as the list shows it.
    #[arg(value_name = "ID")]
    id: String,
    /// Why; that it is an undoing, and the first reason, if left out.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// What else is to be known of it.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Do it. Without this it is only said what would be done.
    #[arg(long, alias = "yes")]
    publish: bool,
    #[command(flatten)]
    at: At,
}

pub(super) async fn add(args: AddArgs) -> Result<ExitCode, ClientError> {
    let change = numbers(&args.video, &args.space, &args.minute, &args.numbers, 1);
    ask(change, args.why).await
}

pub(super) async fn remove(args: RemoveArgs) -> Result<ExitCode, ClientError> {
    let change = match &args.minute {
        Some(minute) => numbers(&args.video, &args.space, minute, &args.numbers, -1),
        None => all(&args.video, &args.space, args.start.as_deref(), args.end.as_deref()),
    };
    ask(change, args.why).await
}

pub(super) async fn delete(args: DeleteArgs) -> Result<ExitCode, ClientError> {
    ask(all(&args.video, &args.space, None, None), args.why).await
}

pub(super) async fn undo(args: UndoArgs) -> Result<ExitCode, ClientError> {
    let mut body = Map::new();
    put(&mut body, "reason", args.reason);
    put(&mut body, "note", args.note);
    body.insert("dry_run".into(), json!(!args.publish));
    let server = Server::at(&args.at.url, &args.at.identity)?;
    done(&server, What::Undo(&args.id), &Value::Object(body), args.publish, args.at.json).await
}

fn numbers(video: &str, space: &Space, minute: &str, numbers: &Numbers, sign: i64) -> Map<String, Value> {
    let mut change = of_video(video, space);
    change.insert("minute".into(), json!(minute));
    for (name, number) in [("gross", numbers.gross), ("valid", numbers.valid), ("engaged", numbers.engaged)] {
        put(&mut change, name, number.map(|number| number * sign));
    }
    change
}

fn all(video: &str, space: &Space, start: Option<&str>, end: Option<&str>) -> Map<String, Value> {
    let mut change = of_video(video, space);
    change.insert("remove".into(), json!("all"));
    put(&mut change, "start", start);
    put(&mut change, "end", end);
    change
}

fn of_video(video: &str, space: &Space) -> Map<String, Value> {
    let mut change = Map::from_iter([("video".to_owned(), json!(video))]);
    if space.no_space {
        change.insert("space".into(), Value::Null);
    }
    put(&mut change, "space", space.space.as_deref());
    change
}

fn put(body: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value.into());
    }
}

async fn ask(change: Map<String, Value>, why: Why) -> Result<ExitCode, ClientError> {
    let id = why.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let mut body = Map::from_iter([("id".to_owned(), json!(id)), ("reason".to_owned(), json!(why.reason))]);
    put(&mut body, "note", why.note);
    body.insert("changes".into(), json!([change]));
    body.insert("dry_run".into(), json!(!why.publish));
    let server = Server::at(&why.at.url, &why.at.identity)?;
    done(&server, What::Adjust, &Value::Object(body), why.publish, why.at.json).await
}

/// What is asked for.
#[derive(Clone, Copy)]
enum What<'a> {
    Adjust,
    Undo(&'a str),
}

/// How long a server may be away, and how long an adjustment may stand still.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_secs(1);

/// Asks until it has ended, and says what became of it.
async fn done(server: &Server, what: What<'_>, body: &Value, publish: bool, json: bool) -> Result<ExitCode, ClientError> {
    let (mut begun, mut before) = (Instant::now(), 0);
    let answer = loop {
        let asked = match what {
            What::Adjust => server.adjust(body).await,
            What::Undo(id) => server.undo_adjustment(id, body).await,
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(ClientError::Refused { status: 429 | 503, .. } | ClientError::Unreachable { .. })
                if publish && begun.elapsed() < PATIENCE =>
            {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !is_under_way(&answer) || !publish {
            break answer;
        }
        // Each part that ends is a reason to wait on.
        let ended = ended_parts(&answer);
        if ended > before {
            (begun, before) = (Instant::now(), ended);
        } else if begun.elapsed() > PATIENCE {
            break answer;
        }
    };
    if json {
        println!("{answer:#}");
    } else {
        print!("{}", summary(&answer));
    }
    let is_good = answer.get("dry_run") == Some(&json!(true)) || answer.get("state") == Some(&json!("taken"));
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_under_way(answer: &Value) -> bool {
    answer.get("dry_run") == Some(&json!(false)) && matches!(answer.get("state").and_then(Value::as_str), Some("planned" | "under_way"))
}

fn ended_parts(answer: &Value) -> usize {
    let parts = answer.get("parts").and_then(Value::as_array).into_iter().flatten();
    parts.filter(|part| part.get("state") != Some(&json!("planned"))).count()
}

/// The longest name, in characters.
const WIDEST: usize = 128;

fn summary(answer: &Value) -> String {
    let mut out = String::new();
    let id = shown(answer.get("id").unwrap_or(&Value::Null), WIDEST);
    let _ = match answer.get("state").and_then(Value::as_str) {
        _ if answer.get("dry_run") == Some(&json!(true)) => writeln!(out, "This can be done: say --publish to do it."),
        Some("taken") => writeln!(out, "Done."),
        Some("planned" | "under_way") => {
            writeln!(out, "Not done yet; it goes on by itself. Is an aggregator running? See: tallymark adjust show '{id}'")
        }
        Some("refused") => writeln!(out, "Refused: other adjustments came first, and it would take away more than there is."),
        Some("taken_in_part") => {
            writeln!(out, "Done in part: other adjustments came first. What was done can be undone: tallymark adjust undo '{id}'")
        }
        _ => writeln!(out, "It was interrupted so long ago that the log no longer tells whether all of it was done."),
    };
    out + &whole(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_is_done_and_what_is_left_to_do() {
        let answer = |state: &str, dry_run: bool| json!({"id": "a\u{1b}", "state": state, "dry_run": dry_run, "parts": [{"state": state}]});
        for (state, dry_run, words) in [
            ("planned", true, "say --publish"),
            ("taken", false, "Done."),
            ("under_way", false, "tallymark adjust show 'a\u{fffd}'"),
            ("refused", false, "more than there is"),
            ("taken_in_part", false, "tallymark adjust undo"),
            ("unknown", false, "no longer tells"),
        ] {
            let said = summary(&answer(state, dry_run));
            assert!(said.contains(words) && !said.contains('\u{1b}'), "{state}: {said}");
        }
        assert!(
            is_under_way(&answer("planned", false)) && !is_under_way(&answer("planned", true)) && !is_under_way(&answer("taken", false))
        );
        assert_eq!((ended_parts(&answer("taken", false)), ended_parts(&answer("planned", false))), (1, 0));
    }

    #[test]
    fn changes_are_those_of_the_api() {
        let space = Space { space: None, no_space: true };
        let taken = Numbers { gross: Some(4), valid: None, engaged: Some(1) };
        assert_eq!(
            Value::Object(numbers("v", &space, "60", &taken, -1)),
            json!({"video": "v", "space": null, "minute": "60", "gross": -4, "engaged": -1})
        );
        let space = Space { space: Some("s".into()), no_space: false };
        assert_eq!(Value::Object(all("v", &space, Some("60"), None)), json!({"video": "v", "space": "s", "remove": "all", "start": "60"}));
    }
}
