//! `tallymark adjust add|remove|delete|list|show|undo`: counts that people take away or add.
//!
//! | module | holds |
//! |---|---|
//! | `change` | the commands that change counts: tried, or done until they have ended |
//! | `journal` | what was done: a list, and one with its parts |

mod change;
mod journal;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::client::{ClientError, Identity};

/// What `tallymark adjust` is told.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Without --publish it is only said what would be done. What is done changes the video, its space and the site, in every tier and list, within
seconds; it is journalled with the reason and who did it, a replay keeps it, and it can be undone. Only minutes that are closed can be
changed (those of the last minute or two are not), and nothing falls below zero.

Exit code: 0 it is done (or could be), 1 it is refused or was not seen to end (ask with tallymark adjust show ID, or run it again with --id ID).")]
pub(crate) enum AdjustCommand {
    /// Add counts to a minute of a video.
    #[command(after_help = "\
Example:
  tallymark adjust add v1 --minute 2026-11-20T12:34:00Z --gross 40 --reason 'lost by a proxy, ticket 4711' --publish")]
    Add(change::AddArgs),
    /// Take counts of a video away: a number in one minute, or all in a range.
    #[command(after_help = "\
Examples:
  tallymark adjust remove v1 --minute 2026-11-20T12:34:00Z --gross 40 --reason 'a click farm, ticket 4711'
  tallymark adjust remove v1 --start 2026-11-20T12:00:00Z --end 2026-11-20T13:00:00Z --reason 'a click farm, ticket 4711' --publish")]
    Remove(change::RemoveArgs),
    /// Take all counts of a video away.
    #[command(after_help = "\
Example:
  tallymark adjust delete v1 --reason 'taken down on request, ticket 4712' --publish

What is counted after the last minute that is closed is not among it: run it again (with another --id) when no more views come.")]
    Delete(change::DeleteArgs),
    /// What was done, the last first.
    List(journal::ListArgs),
    /// One of them with its parts.
    Show(journal::ShowArgs),
    /// Undo one of them: what was taken away is put back, what was added is taken away.
    #[command(after_help = "\
Example:
  tallymark adjust undo ticket-4711 --publish

It is an adjustment of its own (undo:ticket-4711), which is done once however often this is run.")]
    Undo(change::UndoArgs),
}

/// Which server.
#[derive(Args, Debug)]
struct At {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    #[command(flatten)]
    identity: Identity,
    /// The server's own answer, as JSON.
    #[arg(long)]
    json: bool,
}

/// Does it.
///
/// # Errors
/// If no server answers, or it refuses.
pub(crate) async fn adjust(command: AdjustCommand) -> Result<ExitCode, ClientError> {
    match command {
        AdjustCommand::Add(args) => change::add(args).await,
        AdjustCommand::Remove(args) => change::remove(args).await,
        AdjustCommand::Delete(args) => change::delete(args).await,
        AdjustCommand::List(args) => journal::list(args).await,
        AdjustCommand::Show(args) => journal::show(args).await,
        AdjustCommand::Undo(args) => change::undo(args).await,
    }
}
