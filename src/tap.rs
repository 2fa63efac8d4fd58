//! `tallymark tap`: the log's records, decoded, one JSON object a line on stdout.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use thiserror::Error;

use crate::client::{ClientError, Identity, Lines, RecordsAsk, Server};

/// What `tallymark tap` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tallymark tap --limit 10                 the oldest ten records that the log holds
  tallymark tap --follow                   what comes in from now on
  tallymark tap --video v1 | jq .event.ts  one video's events")]
pub(crate) struct TapArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    #[command(flatten)]
    identity: Identity,
    /// Only this source; all of them without it.
    #[arg(long, value_name = "N")]
    source: Option<u32>,
    /// Where to begin: an offset, start or end. Without it at the start, or with --follow at the end.
    #[arg(long, value_name = "OFFSET")]
    from: Option<String>,
    /// Go on with what comes in.
    #[arg(long)]
    follow: bool,
    /// Only this video's events.
    #[arg(long, value_name = "ID")]
    video: Option<String>,
    /// At most so many lines.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Why nothing (more) can be shown.
#[derive(Debug, Error)]
pub(crate) enum TapError {
    #[error("{0}")]
    Server(#[from] ClientError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Prints records until their end, or for ever.
///
/// # Errors
/// If the server does not answer, or ends the stream early.
pub(crate) async fn tap(args: TapArgs) -> Result<ExitCode, TapError> {
    let server = Server::at(&args.url, &args.identity)?;
    let ask = RecordsAsk { source: args.source, from: args.from, limit: args.limit, video: args.video, follow: args.follow };
    let mut lines = Lines::of(server.records(&ask).await?);
    let mut out = std::io::stdout().lock();
    while let Some(mut line) = lines.next().await? {
        line.push(b'\n');
        match out.write_all(&line).and_then(|()| out.flush()) {
            // Whoever reads has had enough (`| head`).
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
