//! `tallymark archive`: keeps the archive as a part of its own, or looks at it, checks it, and leaves a viewer out of it.

use std::fmt::Write;
use std::process::ExitCode;

use aggregator::archive::{Archive, ArchiveError, Manifest};
use clap::{Args, Subcommand};
use schemas::{Millis, Source};
use serde_json::json;
use thiserror::Error;

use crate::backends::{BackendError, Needs, Place, open_cluster, open_embedded};
use crate::config::{ConfigError, Given, load};
use crate::role::{self, Role, RoleError};

// No doc comment here: it would stand in the help in place of what `main` says.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ArchiveCommand {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    given: Given,
}

#[derive(Subcommand)]
enum What {
    /// How far each source is archived, in how many files.
    Status(LookArgs),
    /// Read the whole archive and compare it with the log, as far as the log still reaches.
    Verify(LookArgs),
    /// Leave a viewer out of the whole archive: events keep counting and name nobody.
    ForgetViewer(ForgetArgs),
}

#[derive(Args)]
struct LookArgs {
    /// The answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: Given,
}

#[derive(Args)]
struct ForgetArgs {
    /// The viewer_id as the events have it: with `viewer_salt`, that is a hash that only lasts a day.
    #[arg(value_name = "VIEWER_ID")]
    viewer_id: String,
    #[command(flatten)]
    given: Given,
}

/// Why it was not done.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("{0}")]
    Role(#[from] RoleError),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Backend(#[from] BackendError),
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error(
        "there is no archive: name its place with --archive, as the process that keeps it has it (a path, file:///PATH or s3://BUCKET/PREFIX)"
    )]
    None,
    #[error("a viewer_id {0}")]
    NoId(schemas::id::BadId),
}

/// Does it.
///
/// # Errors
/// If log, store or files cannot be used.
pub(crate) async fn archive(command: ArchiveCommand) -> Result<ExitCode, CommandError> {
    match command.what {
        None => Ok(role::run(Role::Archive, command.given).await?),
        Some(What::Status(args)) => status(args).await,
        Some(What::Verify(args)) => verify(args).await,
        Some(What::ForgetViewer(args)) => forget(args).await,
    }
}

async fn open(given: &Given) -> Result<Archive, CommandError> {
    let settings = load(given, std::env::vars_os())?.settings;
    crate::logging::start(&settings);
    if settings.archive.place.is_none() {
        return Err(CommandError::None);
    }
    let backends = match Place::of(&settings)? {
        Place::Embedded => open_embedded(&settings)?,
        Place::Cluster => open_cluster(&settings, Needs { dead_letters: false, store: true }).await?,
    };
    let store = backends.store.ok_or(CommandError::None)?;
    let archive = super::open(&settings, backends.log, store)?.ok_or(CommandError::None)?;
    archive.shelf.claim(&archive.log.id()).await?;
    Ok(archive)
}

fn sources(archive: &Archive) -> impl Iterator<Item = Source> + use<> {
    (0..archive.log.sources().get()).map(Source)
}

async fn status(LookArgs { json, given }: LookArgs) -> Result<ExitCode, CommandError> {
    let archive = open(&given).await?;
    let mut shown = Vec::new();
    for source in sources(&archive) {
        let manifest = archive.store.read_archive(source).await.map_err(ArchiveError::from)?;
        let log = std::sync::Arc::clone(&archive.log);
        let end = tokio::task::spawn_blocking(move || log.ends(source)).await;
        let end = end.map_err(|error| ArchiveError::Stopped(error.to_string()))?.map_err(ArchiveError::from)?.end;
        shown.push(line(source, &manifest, end.0));
    }
    if json {
        println!("{:#}", json!({ "place": archive.shelf.to_string(), "sources": shown }));
        return Ok(ExitCode::SUCCESS);
    }
    let columns = ["source", "from", "to", "lag_records", "through", "files", "rows", "bytes"];
    let mut out = columns.map(|column| format!("{column:>12}")).join(" ");
    for line in &shown {
        let text = |column: &&str| match line.get(column) {
            Some(serde_json::Value::String(text)) => text.clone(),
            None | Some(serde_json::Value::Null) => "-".to_owned(),
            Some(other) => other.to_string(),
        };
        let _ = write!(out, "\n{}", columns.iter().map(|column| format!("{:>12}", text(column))).collect::<Vec<_>>().join(" "));
    }
    println!("{out}");
    for (line, gap) in
        shown.iter().flat_map(|line| line.get("gaps").and_then(|gaps| gaps.as_array()).into_iter().flatten().map(move |gap| (line, gap)))
    {
        println!("Lost before they were archived: source {}, offsets {gap}", line.get("source").unwrap_or(&serde_json::Value::Null));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(source: Source, manifest: &Manifest, end: u64) -> serde_json::Value {
    let (files, rows, bytes) = manifest.totals();
    let head = &manifest.head;
    json!({
        "source": source.0,
        "from": head.complete_from.0,
        "to": head.end.0,
        "lag_records": end.saturating_sub(head.end.0),
        "through": head.clock.map(Millis::to_rfc3339),
        "files": files,
        "rows": rows,
        "bytes": bytes,
        "gaps": head.gaps,
        "forgetting": head.forgetting.len(),
    })
}

async fn verify(LookArgs { json, given }: LookArgs) -> Result<ExitCode, CommandError> {
    let archive = open(&given).await?;
    let (mut shown, mut is_sound) = (Vec::new(), true);
    for source in sources(&archive) {
        let found = archive.verify(source).await?;
        is_sound &= found.faults.is_empty();
        if !json {
            let (files, rows, compared) = (found.files, found.rows, found.compared);
            println!("source {source}: {files} files with {rows} rows are whole; {compared} records compared with the log");
            found.faults.iter().for_each(|fault| println!("  {fault}"));
        }
        shown.push(json!({ "source": source.0, "found": found }));
    }
    if json {
        println!("{:#}", json!({ "sound": is_sound, "sources": shown }));
    } else if is_sound {
        println!("Yes: the archive is the log.");
    } else {
        println!("No: see above.");
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn forget(ForgetArgs { viewer_id, given }: ForgetArgs) -> Result<ExitCode, CommandError> {
    schemas::id::check_id(&viewer_id).map_err(CommandError::NoId)?;
    let archive = open(&given).await?;
    archive.ask_to_forget(&viewer_id, Millis::now()).await?;
    for source in sources(&archive) {
        archive.forget_now(source, Millis::now()).await?;
        println!("source {source}: done");
    }
    println!(
        "The archive names this viewer no more; replaced files are removed within an hour, and what is still in the log comes into the archive \
         without the viewer. The log itself forgets by its `retention`."
    );
    Ok(ExitCode::SUCCESS)
}
