//! Tallymark counts views exactly. This is the program; the crates beside it hold what it is made of.
//!
//! ```text
//! producers ──> ingest: collector ──> log ──> aggregator: folds ──> store ──> query: planner ──> HTTP answers
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`role`] | `tallymark run`, `collect`, `aggregate`, `query`, `archive`: composes the crates |
//! | [`backends`] | opens log and store: on this machine's disk, or on Kafka and Cassandra |
//! | [`migrate`] | `tallymark migrate`: topics and tables |
//! | [`moving`] | `tallymark move`: takes the counts of one machine along |
//! | [`serve`] | the HTTP server loop |
//! | [`guard`] | what stands before every route |
//! | [`logging`] | the program's own messages |
//! | [`config`] | settings: flags over environment over file over defaults |
//! | [`keys`] | who may do what: `tallymark keys`, `/v1/keys`, and what each process knows of them |
//! | [`tls`] | the certificate, read again when it changes |
//! | [`archive`] | `tallymark archive`: the raw events as Parquet files |
//! | [`import`] | `tallymark import`: files into a server |
//! | [`demo`] | `tallymark demo`: traffic that knows its true totals |
//! | [`tap`] | `tallymark tap`: what the log holds |
//! | [`status`] | `tallymark status`: is it working? |
//! | [`top`] | `tallymark top`: the most viewed |
//! | [`rejected`] | `tallymark rejected`: refused events, and how they are counted after all |
//! | [`adjust`] | `tallymark adjust`: counts that people take away or add |
//! | [`event`] | `tallymark event`: was it counted? |
//! | [`terminal`] | what strangers wrote, on a terminal |
//! | [`client`] | what the commands above ask a server |

mod adjust;
mod archive;
mod backends;
mod client;
mod config;
mod demo;
mod event;
mod guard;
mod import;
mod keys;
mod logging;
mod migrate;
mod moving;
mod rejected;
mod role;
mod serve;
mod status;
mod tap;
mod terminal;
mod tls;
mod top;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use role::Role;

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
  tallymark top --window hour                     the most viewed
  tallymark status                                is it working?

On many machines, with Kafka and Cassandra (or ScyllaDB):
  tallymark migrate --kafka-brokers k1:9092 --cassandra-nodes c1:9042      topics and tables, once
  tallymark collect, tallymark aggregate, tallymark query                  any number of each, with the same settings"
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
    /// Take events in and put them on Kafka: one part of many.
    #[command(after_help = "\
Examples:
  tallymark collect --kafka-brokers k1:9092,k2:9092 --listen 127.0.0.1:8081
  curl http://127.0.0.1:8081/v1/events -d '{\"event_id\":\"e1\",\"video_id\":\"v1\",\"ts\":1774746000000}' -H 'content-type: application/json'

Serves POST /v1/events, /livez, /readyz and /metrics. An event is acknowledged when Kafka has it on enough brokers.
Start any number behind a load balancer that asks /readyz: it is 503 while Kafka does not answer, and at once on SIGTERM;
--stop-delay 5s goes on serving so long, and then open requests end. Producers may write to the topic themselves, too.")]
    Collect(config::Given),
    /// Fold events from Kafka into counts in Cassandra: one part of many.
    #[command(after_help = "\
Examples:
  tallymark aggregate --kafka-brokers k1:9092 --cassandra-nodes c1:9042 --listen 127.0.0.1:8082
  curl http://127.0.0.1:8082/metrics | grep lag

Start any number: they share the partitions as a consumer group (`tallymark status` shows who has which), and more than there are
partitions wait for one to fail. Serves /livez, /readyz and /metrics only. SIGTERM stores what was read and hands the partitions over
at once; after a kill -9 the others notice by themselves and count the rest from the last checkpoint.")]
    Aggregate(config::Given),
    /// Answer questions from Cassandra: one part of many.
    #[command(after_help = "\
Examples:
  tallymark query --kafka-brokers k1:9092 --cassandra-nodes c1:9042 --listen 127.0.0.1:8083
  curl 'http://127.0.0.1:8083/v1/site/views?step=1h'
  tallymark status --url http://127.0.0.1:8083

Start any number behind a load balancer that asks /readyz. Counts need Cassandra alone; /v1/status and /v1/records ask Kafka, too.")]
    Query(config::Given),
    /// Keep the raw events for good as Parquet files, or look at those, check them, and leave a viewer out.
    #[command(after_help = "\
Examples:
  tallymark run --archive ./archive                                                      on one machine, the server keeps it
  tallymark archive --archive s3://bucket/views --kafka-brokers k1:9092 --cassandra-nodes c1:9042      one part of many
  tallymark archive status --archive ./archive
  tallymark archive verify --archive s3://bucket/views --kafka-brokers k1:9092 --cassandra-nodes c1:9042
  tallymark archive forget-viewer u-17 --archive ./archive

Files lie at day=YYYY-MM-DD/source=N/; only those that the manifest in the store names are committed. Two that keep one archive are
harmless. status, verify and forget-viewer open log and store themselves: with a data directory, stop its server first.")]
    Archive(archive::ArchiveCommand),
    /// Make the topics in Kafka and the tables in Cassandra, or see that they are as they should be.
    #[command(after_help = "\
Examples:
  tallymark migrate --kafka-brokers k1:9092 --cassandra-nodes c1:9042 --sources 12
  tallymark migrate --kafka-brokers localhost:9092 --cassandra-nodes localhost:9042 --replication 1      for a try on one machine
  tallymark migrate --kafka-brokers k1:9092 --cassandra-nodes c1:9042 --fill-lists                       at the end of an upgrade

Run it once before the first start and after each upgrade, with the settings that all parts get: `sources`, `spread`, `grace` and the
like are fixed by it. It can be run again at any time; each line says what was done.

An upgrade from a version without lists of the most viewed copies all hour and day counts for them, which takes a while. Aggregators of the
older version may go on meanwhile, but what they count does not come into the lists: when the last of them has stopped, run it once
more with --fill-lists. That, too, may be repeated.")]
    Migrate(migrate::MigrateArgs),
    /// Take the counts of a data directory along to Kafka and Cassandra.
    #[command(after_help = "\
Example:
  tallymark move --data ./data --kafka-brokers k1:9092 --cassandra-nodes c1:9042

Stop the server on the data directory first (SIGTERM), and run `tallymark migrate`. Nothing is lost or counted twice: the old counts are
added to the new ones, whether or not the new servers run already, and a move that was interrupted is made again. An event that was sent
before and is sent again after the move counts twice, as the new log does not know it.")]
    Move(config::Given),
    /// Import files of events (CSV or NDJSON, plain or gzip) into a server.
    Import(import::ImportArgs),
    /// Show what the log holds: decoded records, one a line.
    Tap(tap::TapArgs),
    /// Is it working? Lag, freshness and what became of the events.
    Status(status::StatusArgs),
    /// The most viewed, or those that rise, as a table.
    Top(top::TopArgs),
    /// Make, show and revoke the keys that requests need.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Send realistic traffic that knows its true totals, and verify them.
    Demo(demo::DemoArgs),
    /// Events that were taken in and could not be counted: look at them, and count them after all.
    #[command(subcommand)]
    Rejected(rejected::RejectedCommand),
    /// Take counts away, or add them, with a reason: look at what was done, and undo it.
    #[command(subcommand)]
    Adjust(adjust::AdjustCommand),
    /// Was this event counted, and if not, why?
    Event(event::EventArgs),
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
        Command::Run(given) => on_runtime(role::run(Role::Run, given)),
        Command::Collect(given) => on_runtime(role::run(Role::Collect, given)),
        Command::Aggregate(given) => on_runtime(role::run(Role::Aggregate, given)),
        Command::Query(given) => on_runtime(role::run(Role::Query, given)),
        Command::Archive(command) => on_runtime(archive::archive(command)),
        Command::Migrate(given) => on_runtime(migrate::migrate(given)),
        Command::Move(given) => on_runtime(moving::move_up(given)),
        Command::Import(args) => on_runtime(import::import(args)),
        Command::Tap(args) => on_runtime(tap::tap(args)),
        Command::Status(args) => on_runtime(status::status(args)),
        Command::Top(args) => on_runtime(top::top(args)),
        Command::Keys(command) => on_runtime(keys::keys(command)),
        Command::Demo(args) => on_runtime(demo::demo(args)),
        Command::Rejected(command) => on_runtime(rejected::rejected(command)),
        Command::Adjust(command) => on_runtime(adjust::adjust(command)),
        Command::Event(args) => on_runtime(event::event(args)),
        Command::Config(ConfigCommand::Check(given)) => ended(config::load(&given, std::env::vars_os()).map(|loaded| {
            print!("{}", config::print_all(&loaded));
            ExitCode::SUCCESS
        })),
    }
}

/// What still blocks when a command has ended (a question to a broker that is gone, say) is waited for no longer than this.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Runs a command to its end.
fn on_runtime<E: std::fmt::Display>(command: impl Future<Output = Result<ExitCode, E>>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = ended(runtime.block_on(command));
            runtime.shutdown_timeout(LEFT_BEHIND);
            code
        }
        Err(error) => ended(Err(error)),
    }
}

fn ended<E: std::fmt::Display>(result: Result<ExitCode, E>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("tallymark: {error}");
        ExitCode::FAILURE
    })
}
