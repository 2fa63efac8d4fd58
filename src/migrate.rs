//! `tallymark migrate`: makes the topics and the tables that the roles need, or sees that they are there. Saying it twice does nothing twice.

use std::process::ExitCode;

use clap::Args;

use crate::backends::{Place, migrate as migrate_cluster};
use crate::config::{Given, load};
use crate::role::RoleError;

/// What `tallymark migrate` is told.
#[derive(Args)]
pub(crate) struct MigrateArgs {
    /// Copy all hour and day counts once more for the lists of the most viewed, after an upgrade in which older aggregators went on for a while.
    #[arg(long)]
    fill_lists: bool,
    #[command(flatten)]
    given: Given,
}

/// Makes what is missing, a line for each thing done.
///
/// # Errors
/// If a server cannot be reached, or holds something under these names that would be counted wrongly.
pub(crate) async fn migrate(MigrateArgs { fill_lists, given }: MigrateArgs) -> Result<ExitCode, RoleError> {
    let settings = load(&given, std::env::vars_os())?.settings;
    crate::logging::start(&settings);
    match Place::of(&settings)? {
        Place::Embedded => println!(
            "There is nothing to migrate: without `kafka_brokers` and `cassandra_nodes` log and store lie in {}, and `tallymark run` makes them.",
            settings.data.display()
        ),
        Place::Cluster => {
            migrate_cluster(&settings, fill_lists, |line| println!("{line}")).await?;
            println!("Ready: start tallymark collect, aggregate and query (or run) with the same settings.");
        }
    }
    Ok(ExitCode::SUCCESS)
}
