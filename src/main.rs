//! Tallymark counts views exactly. This is the program; the crates beside it hold what it is made of.
//!
//! ```text
//! producers ──> ingest: collector ──> log ──> aggregator: folds ──> store ──> query: planner ──> HTTP answers
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`run`] | `tallymark run`: all roles in one process; composes the crates |
//! | [`serve`] | the HTTP server loop |
//! | [`logging`] | the program's own messages |
//! | [`config`] | settings: flags over environment over file over defaults |
//! | [`import`] | `tallymark import`: files into a server |
//! | [`tap`] | `tallymark tap`: what the log holds |
//! | [`status`] | `tallymark status`: is it working? |
//! | [`client`] | what the commands above ask a server |

mod client;
mod config;
mod import;
mod logging;
mod run;
mod serve;
mod status;
mod tap;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exact view counts: events in over HTTP or from files, counts by minute, hour, day out.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Start here:
  tallymark run                                   a server on http://127.0.0.1:8080, data in ./data
  tallymark import views.csv.gz --map video_id=item_id,ts=ts_ms --historical
  curl 'http://127.0.0.1:8080/v1/site/views?step=1h'
  tallymark status                                is it working?"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: take events in, count them, answer.
    #[command(after_help = "\
Examples:
  tallymark run
  tallymark run --data /var/lib/tallymark --listen 127.0.0.1:9090
  TALLYMARK_FLUSH_INTERVAL=250ms tallymark run --config tallymark.toml

Every setting can be given as a flag, as a variable TALLYMARK_NAME, or as a key of the TOML file; the first of these wins.
`tallymark config check` shows what holds. SIGTERM or Ctrl-C stops it without losing anything.")]
    Run(config::Given),
    /// Import files of events (CSV or NDJSON, plain or gzip) into a server.
    Import(import::ImportArgs),
    /// Show what the log holds: decoded records, one a line.
    Tap(tap::TapArgs),
    /// Is it working? Lag, freshness and what became of the events.
    Status(status::StatusArgs),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration and print every key with its value, where that came from, and what it means.
    Check(config::Given),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(given) => on_runtime(run::run(given)),
        Command::Import(args) => on_runtime(import::import(args)),
        Command::Tap(args) => on_runtime(tap::tap(args)),
        Command::Status(args) => on_runtime(status::status(args)),
        Command::Config(ConfigCommand::Check(given)) => ended(config::load(&given, std::env::vars_os()).map(|loaded| {
            print!("{}", config::print_all(&loaded));
            ExitCode::SUCCESS
        })),
    }
}

/// Runs a command to its end.
fn on_runtime<E: std::fmt::Display>(command: impl Future<Output = Result<ExitCode, E>>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => ended(runtime.block_on(command)),
        Err(error) => ended(Err(error)),
    }
}

fn ended<E: std::fmt::Display>(result: Result<ExitCode, E>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("tallymark: {error}");
        ExitCode::FAILURE
    })
}
