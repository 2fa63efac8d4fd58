//! Tallymark counts views exactly. This is the program; the crates beside it hold what it is made of.
//!
//! ```text
//! producers ──> ingest: collector ──> log ──> aggregator: folds ──> store ──> query: planner ──> HTTP answers
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`config`] | settings: flags over environment over file over defaults |
//! | [`import`] | `tallymark import`: files into a server |
//! | [`client`] | what the commands above ask a server |

mod client;
mod config;
mod import;

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
  curl 'http://127.0.0.1:8080/v1/site/views?step=1d&start=2026-01-01T00:00:00Z&end=2027-01-01T00:00:00Z'
  tallymark status                                is it working?"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Import files of events (CSV or NDJSON, plain or gzip) into a server.
    Import(import::ImportArgs),
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
        Command::Import(args) => ended(on_runtime(import::import(args))),
        Command::Config(ConfigCommand::Check(given)) => ended(config::load(&given, std::env::vars_os()).map(|loaded| {
            print!("{}", config::print_all(&loaded));
            ExitCode::SUCCESS
        })),
    }
}

/// Runs a client's command to its end.
fn on_runtime<T, E: From<std::io::Error>>(command: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}

fn ended<E: std::fmt::Display>(result: Result<ExitCode, E>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("tallymark: {error}");
        ExitCode::FAILURE
    })
}
