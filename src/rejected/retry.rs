//! `tallymark rejected retry`: request by request through the dead letters, until nothing that was begun is left undone.
//!
//! Each request may be sent again: what it has counted is not counted twice. So this waits and repeats where the server says so, and in
//! the end goes through the letters once more if some were still being counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{At, Filter};
use crate::client::{ClientError, Server};
use crate::terminal::shown;

/// What `tallymark rejected retry` is told.
#[derive(Args, Debug)]
pub(crate) struct RetryArgs {
    /// These, by their names (source/offset/index), and no filter.
    #[arg(value_name = "LETTER", conflicts_with_all = ["reason", "stage", "source", "start", "end"])]
    letters: Vec<schemas::LetterId>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    filter: Filter,
    /// Count them however old they are.
    #[arg(long)]
    historical: bool,
    /// Replace a member of the event: of one letter. May be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = member)]
    set: Vec<(String, Value)>,
    /// Do it. Without this it is only said what would be done.
    #[arg(long)]
    publish: bool,
    /// The summary as JSON.
    #[arg(long)]
    json: bool,
}

/// A member of an event: `ts` and `watch_ms` may be numbers, everything else is text.
fn member(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("it is NAME=VALUE, such as video_id=v7")?;
    let number = value.parse::<i64>().ok().filter(|_| matches!(name, "ts" | "watch_ms"));
    Ok((name.to_owned(), number.map_or_else(|| json!(value), |number| json!(number))))
}

/// The server's account of one request, and of many of them together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Account {
    dry_run: bool,
    looked_at: u64,
    matched: u64,
    counted: u64,
    already_counted: u64,
    duplicate: u64,
    unfinished: u64,
    unknown: u64,
    still_rejected: BTreeMap<String, u64>,
    examples: Vec<Value>,
    #[serde(skip_serializing)]
    cursor: Option<String>,
    #[serde(skip_serializing)]
    progress: f64,
}

/// The most letters that a summary explains.
const EXAMPLES: usize = 10;
/// How long a server may be away, or busy, before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it is waited for what others have begun to count.
const FINISHES_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// The server looks for so many names at once.
const NAMES: usize = 100;

impl Account {
    fn add(&mut self, more: Self) {
        self.dry_run = more.dry_run;
        self.looked_at += more.looked_at;
        self.matched += more.matched;
        self.counted += more.counted;
        self.already_counted += more.already_counted;
        self.duplicate += more.duplicate;
        self.unfinished += more.unfinished;
        self.unknown += more.unknown;
        for (reason, count) in more.still_rejected {
            *self.still_rejected.entry(reason).or_default() += count;
        }
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(more.examples.into_iter().take(room));
    }

    /// The account of the last pass, told as that of all since the first.
    fn since(self, first: &Self) -> Self {
        let counted = (self.counted + self.already_counted).saturating_sub(first.already_counted);
        Self { counted, already_counted: first.already_counted, ..self }
    }
}

/// Counts, and says what became of it.
pub(super) async fn retry(args: RetryArgs) -> Result<ExitCode, ClientError> {
    let server = Server::at(&args.at.url, &args.at.identity)?;
    let bar = bar();
    let begun = Instant::now();
    let first = pass(&server, &args, &bar).await?;
    let mut last = first.clone();
    while args.publish && last.unfinished > 0 && begun.elapsed() < FINISHES_WITHIN {
        bar.set_message(format!("{} are being counted", last.unfinished));
        tokio::time::sleep(PAUSE).await;
        last = pass(&server, &args, &bar).await?;
    }
    bar.finish_and_clear();
    let account = last.since(&first);
    if args.json {
        println!("{:#}", json!(account));
    } else {
        print!("{}", summary(&account));
    }
    Ok(if args.publish && account.unfinished > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {msg}  ETA {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1_000).with_style(style)
}

/// Goes through all letters once.
async fn pass(server: &Server, args: &RetryArgs, bar: &ProgressBar) -> Result<Account, ClientError> {
    let mut account = Account::default();
    if args.letters.is_empty() {
        let mut cursor = None;
        loop {
            let answer = ask(server, body(args, &[], cursor.as_deref())).await?;
            bar.set_position(thousandths(answer.progress));
            cursor.clone_from(&answer.cursor);
            account.add(answer);
            bar.set_message(format!("{} counted", account.counted));
            if cursor.is_none() {
                return Ok(account);
            }
        }
    }
    for names in args.letters.chunks(NAMES) {
        account.add(ask(server, body(args, names, None)).await?);
    }
    Ok(account)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a bar, cut to its ends")]
fn thousandths(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 1_000.0) as u64
}

fn body(args: &RetryArgs, names: &[schemas::LetterId], cursor: Option<&str>) -> Value {
    let mut body = Map::new();
    for (name, value) in args.filter.given() {
        // A number, if it is one.
        let value = value.parse::<u32>().ok().filter(|_| name == "source").map_or_else(|| json!(value), |number| json!(number));
        body.insert(name.to_owned(), value);
    }
    if !names.is_empty() {
        body.insert("letters".to_owned(), names.iter().map(ToString::to_string).collect());
    }
    if !args.set.is_empty() {
        body.insert("set".to_owned(), Value::Object(args.set.iter().cloned().collect()));
    }
    body.insert("historical".to_owned(), json!(args.historical));
    body.insert("dry_run".to_owned(), json!(!args.publish));
    body.extend(cursor.map(|cursor| ("cursor".to_owned(), json!(cursor))));
    Value::Object(body)
}

/// Sends a request, again and again if the server is busy or away for a moment.
async fn ask(server: &Server, body: Value) -> Result<Account, ClientError> {
    let begun = Instant::now();
    loop {
        let wait = match server.retry_rejected(&body).await {
            Ok(answer) => return Ok(answer),
            Err(ClientError::Refused { status: 429 | 503, retry_after, .. }) if begun.elapsed() < PATIENCE => retry_after,
            Err(ClientError::Unreachable { .. }) if begun.elapsed() < PATIENCE => None,
            Err(error) => return Err(error),
        };
        tokio::time::sleep(wait.unwrap_or(PAUSE).min(PATIENCE)).await;
    }
}

/// The longest explanation, in characters.
const WIDEST: usize = 200;

fn summary(account: &Account) -> String {
    let Account { dry_run, matched, counted, already_counted, duplicate, unfinished, unknown, still_rejected, examples, .. } = account;
    let mut out = String::new();
    let _ = match dry_run {
        true => writeln!(out, "{matched} rejected events are meant. {counted} of them can be counted now: say --publish to do it."),
        false => writeln!(out, "{matched} rejected events are meant. {counted} of them were counted."),
    };
    for (count, says) in [
        (*already_counted, "were counted by an earlier retry"),
        (*duplicate, "have the event id of one that is counted: duplicates stay uncounted"),
        (*unfinished, "are being counted, or were when a retry broke off: run this again"),
        (
            *unknown,
            "were being counted when a retry broke off, so long ago that the log no longer tells whether they are: they are left alone",
        ),
    ] {
        if count > 0 {
            let _ = writeln!(out, "{count} {says}.");
        }
    }
    if !still_rejected.is_empty() {
        let reasons: Vec<String> = still_rejected.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = writeln!(out, "{} cannot be counted as they are: {}.", still_rejected.values().sum::<u64>(), reasons.join(", "));
    }
    for example in examples {
        let part = |name: &str| shown(example.get(name).unwrap_or(&Value::Null), WIDEST);
        let _ = writeln!(out, "  {}  {}  {}", part("letter"), part("reason"), part("detail"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(counted: u64, already_counted: u64, unfinished: u64) -> Account {
        Account { matched: counted + already_counted + unfinished, counted, already_counted, unfinished, ..Account::default() }
    }

    #[test]
    fn what_an_earlier_pass_began_and_a_later_one_found_counted_was_counted() {
        let (first, last) = (account(10, 3, 5), account(1, 17, 0));
        let all = last.since(&first);
        assert_eq!((all.counted, all.already_counted, all.unfinished), (15, 3, 0));
        assert_eq!(first.clone().since(&first), first);
    }

    #[test]
    fn requests_add_up() {
        let of = |reason: &str, examples: usize| Account {
            counted: 2,
            still_rejected: [(reason.to_owned(), 3)].into(),
            examples: vec![json!({"letter": "0/1/2"}); examples],
            ..Account::default()
        };
        let mut sum = of("too_old", 7);
        sum.add(of("too_old", 7));
        sum.add(of("bad_id", 7));
        assert_eq!((sum.counted, sum.still_rejected["too_old"], sum.still_rejected["bad_id"], sum.examples.len()), (6, 6, 3, 10));
    }

    #[test]
    fn a_summary_says_what_is_left_to_do() {
        let mut account = Account { dry_run: true, ..account(4, 1, 0) };
        account.still_rejected = [("too_old".to_owned(), 2), ("bad_id".to_owned(), 1)].into();
        account.examples = vec![json!({"letter": "0/12/0", "reason": "bad_id", "detail": "video_id \u{1b}[2J"})];
        let expected = "\
5 rejected events are meant. 4 of them can be counted now: say --publish to do it.
1 were counted by an earlier retry.
3 cannot be counted as they are: bad_id 1, too_old 2.
  0/12/0  bad_id  video_id \u{fffd}[2J
";
        assert_eq!(summary(&account), expected);
    }

    #[test]
    fn members_are_texts_but_for_times() {
        assert_eq!(member("video_id=7"), Ok(("video_id".to_owned(), json!("7"))));
        assert_eq!(member("ts=1763642096789"), Ok(("ts".to_owned(), json!(1_763_642_096_789_i64))));
        assert_eq!(member("ts=2026-11-20T12:00:00Z"), Ok(("ts".to_owned(), json!("2026-11-20T12:00:00Z"))));
        assert_eq!(member("title=a=b"), Ok(("title".to_owned(), json!("a=b"))));
        assert!(member("=x").is_err() && member("x").is_err());
    }
}
