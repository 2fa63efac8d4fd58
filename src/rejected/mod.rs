//! `tallymark rejected list|show|retry`: refused events, and how they are counted after all.
//!
//! | module | holds |
//! |---|---|
//! | `list` | a table of them, and one with its original |
//! | `retry` | counting them: request by request until all is done, and a summary |

mod list;
mod retry;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::client::{ClientError, Identity};

/// What `tallymark rejected` is told.
#[derive(Subcommand, Debug)]
pub(crate) enum RejectedCommand {
    /// Events that were taken in and could not be counted, newest first.
    #[command(after_help = "\
Examples:
  tallymark rejected list
  tallymark rejected list --reason too_old --start 2026-11-20T00:00:00Z --limit 1000
  tallymark rejected list --stage decode --ndjson --limit 100000 | jq -r .letter
  tallymark rejected list --csv > rejected.csv")]
    List(list::ListArgs),
    /// One of them with its original bytes.
    #[command(after_help = "\
Example:
  tallymark rejected show 0/1234/0        source, offset and index, as the list names it")]
    Show(list::ShowArgs),
    /// Count them after all, each exactly once.
    #[command(after_help = "\
Without --publish it only says what would be done. Whoever retries what, how often, at once or after a crash: an event that can be
counted now is counted exactly once. What is wrong with the others is said by reason.

Examples:
  tallymark rejected retry --reason in_future                         how many could be counted now
  tallymark rejected retry --reason in_future --publish
  tallymark rejected retry --reason too_old --historical --publish    however old they are
  tallymark rejected retry 0/1234/0 --set video_id=v7 --publish       one, mended; its original is kept

Exit code: 0 all that can be counted is, 1 some were begun and not seen counted (run it again).")]
    Retry(retry::RetryArgs),
}

/// Which server.
#[derive(Args, Debug)]
struct At {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    #[command(flatten)]
    identity: Identity,
}

/// Which refused events.
#[derive(Args, Debug, Default)]
struct Filter {
    /// Only those refused for this reason, such as too_old.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only those refused in this stage: decode, classify or correct.
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Only those of this source.
    #[arg(long, value_name = "N")]
    source: Option<u32>,
    /// Only those refused at or after this: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Only those refused before this: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
}

impl Filter {
    /// What is given, by the names of the API.
    fn given(&self) -> Vec<(&'static str, String)> {
        let source = self.source.map(|source| source.to_string());
        let all = [
            ("reason", self.reason.clone()),
            ("stage", self.stage.clone()),
            ("source", source),
            ("start", self.start.clone()),
            ("end", self.end.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Does it.
///
/// # Errors
/// If no server answers, or it refuses.
pub(crate) async fn rejected(command: RejectedCommand) -> Result<ExitCode, ClientError> {
    match command {
        RejectedCommand::List(args) => list::list(args).await,
        RejectedCommand::Show(args) => list::show(args).await,
        RejectedCommand::Retry(args) => retry::retry(args).await,
    }
}
