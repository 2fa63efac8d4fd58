//! The store on Cassandra or ScyllaDB: its options from the settings, its tables as `tallymark migrate` makes them.

use std::sync::Arc;

use aggregator::cassandra::{self as store, CassandraOptions, CassandraStore, MigratePlan, TlsFiles};
use aggregator::{CountStore, StoreError};
use schemas::LogId;

use super::{BackendError, read_named};
use crate::config::Settings;

/// Connects to the keyspace of a log.
pub(super) async fn open(settings: &Settings, log_id: LogId) -> Result<Arc<dyn CountStore>, BackendError> {
    let store = CassandraStore::open(options(settings)?, log_id, &settings.fold).await;
    Ok(Arc::new(store.map_err(|error| with_way_out(error, settings))?))
}

/// Makes the keyspace and its tables, or sees that they are as they should be.
pub(super) async fn migrate(settings: &Settings, log_id: LogId, fill_lists: bool) -> Result<Vec<String>, BackendError> {
    let plan = MigratePlan { replication: settings.replication, log_id, settings: settings.fold.clone(), fill_lists };
    store::migrate(&options(settings)?, &plan).await.map_err(|error| with_way_out(error, settings))
}

/// At the start of a program, nodes that do not answer are mostly the wrong ones.
fn with_way_out(error: StoreError, settings: &Settings) -> BackendError {
    match error {
        StoreError::Unavailable(detail) => {
            let addresses = settings.cassandra.nodes.join(",");
            BackendError::Unreachable { server: "Cassandra or ScyllaDB", what: "node", key: "cassandra_nodes", addresses, detail }
        }
        other => other.into(),
    }
}

fn options(settings: &Settings) -> Result<CassandraOptions, BackendError> {
    let cassandra = settings.cassandra.clone();
    let password = cassandra.password_file.as_deref().map(|path| read_named("cassandra_password_file", path)).transpose()?;
    let tls = cassandra.ca_file.map(|ca| TlsFiles { ca, certificate: cassandra.certificate_file, key: cassandra.key_file });
    Ok(CassandraOptions {
        nodes: cassandra.nodes,
        keyspace: cassandra.keyspace,
        datacenter: cassandra.datacenter,
        user: cassandra.user,
        password: password.map(|text| text.lines().next().unwrap_or_default().to_owned()),
        tls,
    })
}
