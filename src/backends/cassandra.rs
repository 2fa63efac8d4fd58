//! The store on Cassandra or ScyllaDB: its options from the settings, its tables as `tallymark migrate` makes them.

use std::sync::Arc;

use aggregator::CountStore;
use aggregator::cassandra::{self as store, CassandraOptions, CassandraStore, MigratePlan, TlsFiles};
use schemas::LogId;

use super::{BackendError, read_named};
use crate::config::Settings;

/// Connects to the keyspace of a log.
pub(super) async fn open(settings: &Settings, log_id: LogId) -> Result<Arc<dyn CountStore>, BackendError> {
    Ok(Arc::new(CassandraStore::open(options(settings)?, log_id, &settings.fold).await?))
}

/// Makes the keyspace and its tables, or sees that they are as they should be.
pub(super) async fn migrate(settings: &Settings, log_id: LogId) -> Result<Vec<String>, BackendError> {
    let plan = MigratePlan { replication: settings.replication, log_id, settings: settings.fold.clone() };
    Ok(store::migrate(&options(settings)?, &plan).await?)
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
