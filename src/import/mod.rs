//! `tallymark import`: files of events into a server, exactly once however often it is interrupted.
//!
//! ```text
//! file ──> rows ──> batch (a thread) ──> send (some requests in flight) ──> server
//!                                          └─ barriers: how far it is, kept on the server
//! start: what does the server know of this content? ──> resume: which uncertain rows does the log hold? ──> skip them
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`mapping`] | which column holds which field |
//! | [`file`] | the file's bytes and the hash of its content |
//! | [`rows`] | rows as events, or as reasons |
//! | [`batch`] | rows as request bodies |
//! | [`send`] | requests, retries, barriers |
//! | [`retry`] | when to try again |
//! | [`resume`] | what the log already holds |
//! | [`standing`] | how the server stands |
//! | [`progress`], [`report`] | what the user sees |

mod batch;
mod file;
mod mapping;
mod progress;
mod report;
pub(crate) mod resume;
mod retry;
mod rows;
mod send;
pub(crate) mod standing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::ImportProgress;
use clap::Args;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::client::{ClientError, Identity, Server};
use batch::BatchSize;
use file::ContentFile;
use mapping::Mapping;
use progress::Progress;
use rows::{Rows, TsUnit};
use send::{Ending, Sender, Sent};
use standing::Standing;

/// What `tallymark import` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tallymark import views.csv.gz --map video_id=item_id,viewer_id=user_id,ts=ts_ms --historical
  tallymark import events.ndjson --to http://10.0.0.5:8080
  tallymark import views.csv --map ts=when --ts-unit s --dry-run

A file is CSV with a header row, or NDJSON (one object a line), plain or gzip. Fields: event_id, video_id, ts, space_id,
viewer_id, watch_ms, kind; video_id and ts are required. Rows without an event_id get one made of the file's content and the
row's number; with `--map event_id=` all do, for files whose ids are unique in themselves only. An import that was interrupted (Ctrl-C, a crash, a power cut) goes on where it was when the same
command is run again, and counts nothing twice; a file that is in already is refused, whatever its name is now.")]
pub(crate) struct ImportArgs {
    /// The files, one after the other.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    to: String,
    #[command(flatten)]
    identity: Identity,
    /// Which column holds which field: field=column,field=column. A column with a field's own name needs no mention.
    #[arg(long, value_name = "FIELD=COLUMN,...", default_value = "")]
    map: String,
    /// What a whole number in ts counts: Unix milliseconds or seconds. RFC 3339 is always understood.
    #[arg(long, value_enum, default_value_t)]
    ts_unit: TsUnit,
    /// Take events of any age; without it those older than `max_lateness` (7 days) are rejected as too_old.
    #[arg(long)]
    historical: bool,
    /// Import a file although its content is in already, or was begun in another way. Its events count again.
    #[arg(long)]
    again: bool,
    /// Read the file and say what would be sent; ask no server.
    #[arg(long)]
    dry_run: bool,
    /// How many requests are in flight.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: u8,
    /// How many events one request holds.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// How long to wait for a server that does not answer before giving up.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_patience)]
    patience: Duration,
}

fn parse_patience(text: &str) -> Result<Duration, String> {
    crate::config::duration(text).ok_or_else(|| "allowed is a duration such as 30s, 5m or 2h".to_owned())
}

/// Why an import cannot go on.
#[derive(Debug, Error)]
pub(crate) enum ImportError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot import {path}: {detail}")]
    File { path: PathBuf, detail: String },
    #[error("{0}")]
    Server(#[from] ClientError),
    #[error(
        "gave up after {patience_s} s without the server: {error}\nWhat was sent is kept on the server: run the same command again{without_again} and it goes on after row {row}."
    )]
    Patience { patience_s: u64, error: ClientError, row: u64, without_again: &'static str },
    #[error(
        "{name} was imported completely before (as {earlier:?}, {rows} rows). Nothing was sent.\nTo count its events once more, say --again."
    )]
    Complete { name: String, earlier: String, rows: u64 },
    #[error(
        "this content was imported before in another way (as {earlier:?}):\n  then: {then}\n  now:  {now}\nNothing was sent. To count its events once more in the new way, say --again."
    )]
    OtherMapping { earlier: String, then: String, now: String },
    #[error(
        "an import of this file was interrupted, and the log of source {source_id} has since dropped the records from which its last \
         events could be known: they began at offset {from}, the log now begins at {start} (retention).\nIt cannot go on without \
         the risk of counting up to a few seconds of it twice. To import the whole file once more, say --again."
    )]
    LogGone { source_id: usize, from: u64, start: u64 },
    #[error("{0}")]
    Broken(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl ImportError {
    fn file(path: &Path, detail: &str) -> Self {
        Self::File { path: path.to_owned(), detail: detail.to_owned() }
    }
}

/// Exit code after Ctrl-C, as shells know it.
const INTERRUPTED: u8 = 130;
/// Requests are sent again in place for so long, unless deduplication reaches less far.
const RETRY_IN_PLACE: Duration = Duration::from_secs(60);
/// So that a columnar batch has room for one more row: four ids of 128 bytes and some numbers.
const BATCH_BYTES: usize = schemas::view_batch::MAX_BYTES - 1_024;
const BATCH_ROWS: u64 = 100_000;

/// Imports all files in order.
///
/// # Errors
/// The first thing that does not let it go on; what was imported before is kept.
pub(crate) async fn import(args: ImportArgs) -> Result<ExitCode, ImportError> {
    let mapping = Mapping::parse(&args.map)?;
    if args.dry_run {
        return dry_run(&args, &mapping).map(|()| ExitCode::SUCCESS);
    }
    let server = Server::at(&args.to, &args.identity)?;
    let stop = stop_on_ctrl_c();
    for path in &args.files {
        if !Import::new(&args, &mapping, &server, path, stop.clone())?.run().await? {
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Turns true at the first Ctrl-C; the second ends the program.
fn stop_on_ctrl_c() -> watch::Receiver<bool> {
    let (sender, stop) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            sender.send_replace(true);
            eprintln!("\nStopping after what is in flight (Ctrl-C again stops at once).");
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(INTERRUPTED.into());
            }
        }
        // Without signals nothing ever stops: keep the sender.
        std::future::pending::<()>().await;
    });
    stop
}

fn dry_run(args: &ImportArgs, mapping: &Mapping) -> Result<(), ImportError> {
    for path in &args.files {
        let file = ContentFile::hash(path)?;
        let mut rows = Rows::open(&file, mapping, args.ts_unit, Arc::default())?;
        println!("{}: {}", file.name(), rows.mapping());
        let (mut usable, mut unusable) = (0u64, batch::Unusable::default());
        while let Some(row) = rows.next()? {
            match row.event {
                Ok(_) => usable += 1,
                Err(rejection) => unusable.add(rejection.reason.as_str(), row.line, &rejection.detail),
            }
        }
        report::dry_run(usable, &unusable);
    }
    Ok(())
}

/// One file's import.
struct Import<'a> {
    args: &'a ImportArgs,
    mapping: &'a Mapping,
    server: &'a Server,
    file: ContentFile,
    stop: watch::Receiver<bool>,
    /// How the rows are read, in the form that is kept on the server.
    way: String,
}

impl<'a> Import<'a> {
    fn new(
        args: &'a ImportArgs,
        mapping: &'a Mapping,
        server: &'a Server,
        path: &Path,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, ImportError> {
        let file = ContentFile::hash(path)?;
        let historical = if args.historical { ";historical" } else { "" };
        let way = format!("{}{historical}", Rows::open(&file, mapping, args.ts_unit, Arc::default())?.mapping());
        Ok(Self { args, mapping, server, file, stop, way })
    }

    /// Imports the file; `false` if the user stopped it.
    async fn run(mut self) -> Result<bool, ImportError> {
        let before = self.first_answer().await?;
        let mut progress = self.progress().await?;
        let resumed_after = progress.events;
        if resumed_after > 0 || !progress.ends.is_empty() {
            eprintln!("{}: going on after row {resumed_after} of an interrupted import", self.file.name());
        } else {
            // The first barrier: whatever this run sends lies behind these ends.
            progress.ends = before.ends();
            self.server.put_import_progress(&self.file.content, &progress).await?;
        }
        let position = Arc::default();
        let mut bar = Progress::new(self.file.bytes, Arc::clone(&position));
        let mut sent = Sent { last_row: progress.events, ..Sent::default() };
        let ending = loop {
            position.store(0, std::sync::atomic::Ordering::Relaxed);
            let ending = match self.stretch(&mut progress, &position, &mut sent, &mut bar).await {
                Err(ImportError::Server(error)) if send::is_outage(&error) => Ending::Outage(error),
                ending => ending?,
            };
            match ending {
                Ending::Outage(error) if !*self.stop.borrow() => self.wait_for_server(error, &sent, &bar).await?,
                ending => break ending,
            }
        };
        bar.finish();
        if let Ending::Complete = ending {
            let after = self.folded(&progress.ends).await?;
            report::complete(&self.file.name(), &sent, resumed_after, bar.rate(&sent), &before, after.as_ref());
            return Ok(true);
        }
        report::stopped(&self.file.name(), &sent, matches!(ending, Ending::Outage(_)), self.without_again());
        Ok(false)
    }

    /// Sends from the last barrier on, leaving out what the log holds behind it.
    async fn stretch(
        &mut self,
        progress: &mut ImportProgress,
        position: &Arc<std::sync::atomic::AtomicU64>,
        sent: &mut Sent,
        bar: &mut Progress,
    ) -> Result<Ending, ImportError> {
        let open = || Rows::open(&self.file, self.mapping, self.args.ts_unit, Arc::clone(position));
        let standing = Standing::ask(self.server).await?;
        let start = resume::uncertain(self.server, &standing, open()?, progress.events, &progress.ends).await?;
        position.store(0, std::sync::atomic::Ordering::Relaxed);
        let rows = open()?;
        let size = BatchSize { events: self.args.batch.into(), bytes: BATCH_BYTES, rows: BATCH_ROWS };
        let (producer, batches) = mpsc::channel(usize::from(self.args.in_flight) * 2);
        let reader = std::thread::Builder::new()
            .name("import-reader".into())
            .spawn(move || batch::produce(rows, &start, size, &producer))
            .map_err(|error| ImportError::Broken(format!("cannot start a thread: {error}")))?;
        let half_reach = Duration::from_secs(standing.dedup_minutes * 30);
        let mut sender = Sender {
            server: self.server,
            historical: self.args.historical,
            in_flight: self.args.in_flight.into(),
            retry_in_place: RETRY_IN_PLACE.min(half_reach),
            content: &self.file.content,
            progress,
            stop: self.stop.clone(),
        };
        let ending = sender.run(batches, sent, &mut |now| bar.show(now)).await;
        // The receiver is gone, so the reader ends at its next batch.
        reader.join().map_err(|_| ImportError::Broken("the reader thread failed".into()))?;
        ending
    }

    /// How the server stands before anything is sent, with everything folded that was in the log (or nearly so).
    async fn first_answer(&self) -> Result<Standing, ImportError> {
        let standing = match Standing::ask(self.server).await {
            Err(error @ ClientError::Unreachable { .. }) => {
                let hint = format!("{error}\nIs the server running? Start it with: tallymark run");
                return Err(ImportError::Broken(hint));
            }
            answer => answer?,
        };
        let ends = standing.ends();
        Ok(self.folded_within(&ends, Duration::from_secs(5)).await?.unwrap_or(standing))
    }

    /// What the server knows of this content; refuses what would count twice.
    async fn progress(&self) -> Result<ImportProgress, ImportError> {
        let fresh = || ImportProgress { file: self.file.name(), mapping: self.way.clone(), ..ImportProgress::default() };
        match self.server.import_progress(&self.file.content).await? {
            None => Ok(fresh()),
            Some(_) if self.args.again => Ok(fresh()),
            Some(known) if known.mapping != self.way => {
                Err(ImportError::OtherMapping { earlier: known.file, then: known.mapping, now: self.way.clone() })
            }
            Some(known) if known.complete => Err(ImportError::Complete { name: self.file.name(), earlier: known.file, rows: known.events }),
            Some(known) => Ok(known),
        }
    }

    /// What to leave out of the command that goes on: --again would begin again.
    const fn without_again(&self) -> &'static str {
        if self.args.again { " (without --again)" } else { "" }
    }

    async fn wait_for_server(&self, mut error: ClientError, sent: &Sent, bar: &Progress) -> Result<(), ImportError> {
        bar.say(&format!("{error}\nWaiting for the server for up to {} s.", self.args.patience.as_secs()));
        let (begun, mut attempt) = (Instant::now(), 0);
        while begun.elapsed() < self.args.patience && !*self.stop.borrow() {
            tokio::time::sleep(retry::delay(attempt, None, send::random())).await;
            attempt += 1;
            match self.server.ready().await {
                Ok(()) => return Ok(()),
                Err(now) => error = now,
            }
        }
        Err(ImportError::Patience { patience_s: begun.elapsed().as_secs(), error, row: sent.last_row, without_again: self.without_again() })
    }

    /// How the server stands when all that was sent is in the store; `None` if it does not get there in time.
    async fn folded(&self, ends: &[u64]) -> Result<Option<Standing>, ImportError> {
        self.folded_within(ends, Duration::from_secs(60)).await
    }

    async fn folded_within(&self, ends: &[u64], patience: Duration) -> Result<Option<Standing>, ImportError> {
        let begun = Instant::now();
        while begun.elapsed() < patience && !*self.stop.borrow() {
            let standing = Standing::ask(self.server).await?;
            if standing.has_folded(ends) {
                return Ok(Some(standing));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(None)
    }
}
