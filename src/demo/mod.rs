//! `tallymark demo`: a living system. Realistic traffic through the Rust SDK, which knows what the counts must be.
//!
//! ```text
//! traffic (pure, by seed) ──> SDK ──> server
//!        └──> truth: views by video and minute ── --verify ──> the server's answers: equal, or a table of differences
//! ```

mod progress;
mod traffic;
mod truth;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use tallymark_client::{Client, Outcome};
use thiserror::Error;

use crate::client::{ClientError, Identity, Server};
use crate::import::standing::Standing;
use progress::Progress;
use traffic::{Planned, Shape, Traffic};
use truth::Truth;

/// What `tallymark demo` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code: 0 done (and with --verify: every count is exact), 1 counts differ or events are lost, 130 interrupted.

Examples:
  tallymark demo                                              five minutes of views for the server on this machine
  tallymark demo --rate 5000 --duration 1m --verify           as a test: exact, or a table of what is not
  tallymark demo --url https://views.example.org --key tm_load_... --seed 7

The videos of each run have names of their own (demo-RUN-0000 is the most viewed; the last one goes viral), so that runs do not mix.
Some views are late by up to five minutes, some are sent twice: they count at their own minute, and once.")]
pub(crate) struct DemoArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    #[command(flatten)]
    identity: Identity,
    /// Views a second, in the mean of a day.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// For how long views are sent.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    duration: Duration,
    /// How long a day of the curve takes: nights are quiet, noons are busy.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    day: Duration,
    /// How many videos there are.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    videos: u32,
    /// The share of views that come late, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=100))]
    late: u64,
    /// The share of views that are sent twice, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=100))]
    duplicates: u64,
    /// The same seed gives the same views.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Ask the server at the end for every minute of every video, and compare.
    #[arg(long)]
    verify: bool,
    /// Keep what cannot be sent in this directory; without it up to 1,000,000 views wait in memory.
    #[arg(long, value_name = "DIR")]
    spool: Option<std::path::PathBuf>,
    /// How long to wait at the end until all is acknowledged and counted.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    patience: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 3_600);
    let good = crate::config::duration(text).filter(|duration| !duration.is_zero() && *duration <= day);
    good.ok_or_else(|| "allowed is a duration up to a day, such as 30s, 5m or 2h".to_owned())
}

/// Why there is no demo.
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    #[error("{0}{hint}", hint = hint(.0))]
    Server(#[from] ClientError),
    #[error("{0}")]
    Client(#[from] tallymark_client::BuildError),
}

/// What to do about a server that does not answer; one that does says itself what it wants.
const fn hint(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { .. } => "\nIs it running? Start it with: tallymark run   (or name another with --url)",
        _ => "",
    }
}

const FAILED: u8 = 1;
/// Exit code after Ctrl-C, as shells know it.
const INTERRUPTED: u8 = 130;
/// How often views are sent and the clock is looked at.
const STEP: Duration = Duration::from_millis(10);
/// Late changes may be held by caches for a moment.
const CACHES: Duration = Duration::from_secs(15);

/// Sends, and verifies if it is told to.
///
/// # Errors
/// If there is no server, or the SDK cannot start.
pub(crate) async fn demo(args: DemoArgs) -> Result<ExitCode, DemoError> {
    let server = Server::at(&args.url, &args.identity)?;
    let before = Standing::ask(&server).await?;
    let client = client(&args)?;
    let run = run_name();
    greet(&args, &server, &run);
    let mut progress = Progress::new(&server, before);
    let mut truth = Truth::default();
    let interrupted = send(&args, &client, &run, &mut truth, &mut progress).await;
    let ended = tokio::select! {
        ended = client.shutdown(args.patience) => ended,
        // Whoever asks twice does not want to wait.
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let stats = client.stats();
    progress.end();
    println!(
        "Sent {} events ({} views): {} acknowledged, {} rejected, {} lost.",
        stats.sent,
        truth.total(),
        stats.accepted,
        stats.rejected,
        stats.dropped
    );
    if ended.on_disk > 0 {
        println!(
            "{} of them wait in the spool: the server did not take them. Run the demo again with the same --spool to send them.",
            ended.on_disk
        );
    }
    let whole = stats.pending() == 0 && stats.rejected == 0 && stats.dropped == 0;
    let exact = !args.verify || verify(&args, &server, &truth).await?;
    Ok(match (whole && exact, interrupted) {
        (false, _) => ExitCode::from(FAILED),
        (true, true) => ExitCode::from(INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}

fn greet(args: &DemoArgs, server: &Server, run: &str) {
    let (rate, seconds, last, address) = (args.rate, args.duration.as_secs(), args.videos - 1, server.address());
    println!("Sending {rate} views a second for {seconds} s, as videos demo-{run}-0000 to demo-{run}-{last:04}. Look at them meanwhile:");
    println!("  {address}/v1/top/videos?window=hour             the most viewed (closed minutes)");
    println!("  {address}/v1/videos/demo-{run}-0000/views?step=1m   one video by minute");
    println!("  curl -N {address}/v1/videos/demo-{run}-0000/live    its counts as they change");
    println!("  {address}/docs                                  all that can be asked");
}

fn client(args: &DemoArgs) -> Result<Client, DemoError> {
    let mut builder =
        Client::builder(&args.url).queue(1_000_000, 512 * 1024 * 1024).backoff(Duration::from_millis(100), Duration::from_secs(5));
    if let Some(key) = &args.identity.key {
        builder = builder.key(key);
    }
    if let Some(dir) = &args.spool {
        builder = builder.spool(dir);
    }
    Ok(builder.build()?)
}

/// Of this run alone, and in the order of the runs.
fn run_name() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{seconds:x}-{:x}", std::process::id())
}

/// Sends until the time is over; whether it was interrupted.
async fn send(args: &DemoArgs, client: &Client, run: &str, truth: &mut Truth, progress: &mut Progress<'_>) -> bool {
    let shape = Shape {
        videos: args.videos,
        rate: args.rate.into(),
        duration: args.duration,
        day: args.day,
        late_percent: args.late,
        duplicate_percent: args.duplicates,
    };
    let mut traffic = Traffic::new(shape, args.seed);
    let (begun, mut sent, mut n) = (Instant::now(), 0.0, 0_u64);
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut tick = tokio::time::interval(STEP);
    loop {
        let elapsed = begun.elapsed().min(args.duration);
        while sent < traffic.due(elapsed) {
            send_one(client, run, n, traffic.next(elapsed), truth);
            (sent, n) = (sent + 1.0, n + 1);
        }
        if elapsed == args.duration {
            return false;
        }
        tokio::select! {
            _ = tick.tick() => progress.show(elapsed, &client.stats()).await,
            _ = &mut stop => return true,
        }
    }
}

/// Sends a view, and notes it as true if the client took it.
fn send_one(client: &Client, run: &str, n: u64, planned: Planned, truth: &mut Truth) {
    let Planned { video, viewer, watch_ms, late, twice } = planned;
    let at = SystemTime::now().checked_sub(late).unwrap_or(SystemTime::UNIX_EPOCH);
    let ts_ms = at.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0);
    let video_id = format!("demo-{run}-{video:04}");
    let send = || {
        let view = client.view(&*video_id).space(format!("demo-{run}-space-{}", traffic::space_of(video)));
        let view = view.viewer(format!("viewer-{viewer}")).watch_ms(watch_ms).at(at);
        if twice { view.event_id(format!("demo-{run}-{n}")).send() } else { view.send() }
    };
    let mut taken = send() == Outcome::Queued;
    if twice {
        taken |= send() == Outcome::Queued;
    }
    if taken {
        truth.add(&video_id, ts_ms);
    }
}

/// Waits until all is counted, and compares every minute; whether it is exact.
async fn verify(args: &DemoArgs, server: &Server, truth: &Truth) -> Result<bool, DemoError> {
    let begun = Instant::now();
    let ends = Standing::ask(server).await?.ends();
    while !Standing::ask(server).await?.has_folded(&ends) {
        if begun.elapsed() > args.patience {
            println!("Not verified: the server has not counted all of it after {} s; see tallymark status.", args.patience.as_secs());
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let folded = Instant::now();
    let (videos, minutes) = truth.cells();
    loop {
        let differences = truth.differences(server).await?;
        if differences.is_empty() {
            println!("Exact: {} views in {minutes} minutes of {videos} videos, each as it was sent.", truth.total());
            return Ok(true);
        }
        if folded.elapsed() > CACHES {
            println!("Not exact: {} counts differ.", differences.len());
            print!("{}", truth::table(&differences));
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
