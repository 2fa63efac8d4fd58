//! A session with the cluster: whom to ask, how long to wait, whose certificate to trust, and what a failure to connect means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, MetadataError, NewSessionError};
use scylla::frame::types::{Consistency, SerialConsistency};
use scylla::policies::load_balancing::{DefaultPolicy, LoadBalancingPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::policies::timestamp_generator::MonotonicTimestampGenerator;

use super::options::CassandraOptions;
use super::tls;
use crate::store::StoreError;

/// A request that takes longer has failed; the owner repeats it.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A node that has not answered for so long is passed over: the request goes to another as well (all of ours may be repeated).
const SECOND_NODE_AFTER: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SCHEMA_AGREEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often an idle connection is tried, and how long its answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Connects. The consistency is that of no data centre until [`use_datacenter`] says otherwise.
///
/// # Errors
/// [`StoreError::Unavailable`] if no node answers; [`StoreError::Open`] if waiting will not help.
pub(super) async fn connect(options: &CassandraOptions) -> Result<Session, StoreError> {
    options.check()?;
    let tls = options.tls.as_ref().map(tls::config).transpose().map_err(|detail| options.cannot_open(detail))?;
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.nodes)
        .tls_context(tls)
        .connection_timeout(CONNECT_TIMEOUT)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .schema_agreement_timeout(SCHEMA_AGREEMENT_TIMEOUT)
        .keyspaces_to_fetch([&options.keyspace])
        // Notes are written under the time of the write: two of one process within a microsecond still have an order.
        .timestamp_generator(Arc::new(MonotonicTimestampGenerator::new()))
        .default_execution_profile_handle(profile(options.datacenter.as_deref()).into_handle());
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        builder = builder.user(user, password);
    }
    let session = builder.build().await.map_err(|error| of_connecting(options, &error))?;
    options.check_datacenter(&datacenters(&session))?;
    Ok(session)
}

/// From now on requests go to the nodes of the keyspace's data centre, and a quorum there is enough.
pub(super) fn use_datacenter(session: &Session, datacenter: Option<&str>) {
    session.get_default_execution_profile_handle().clone().map_to_another_profile(profile(datacenter));
}

/// The names of the cluster's data centres.
pub(super) fn datacenters(session: &Session) -> BTreeSet<String> {
    session.get_cluster_state().get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect()
}

/// The consistency of reads and writes: with either, what was written is read.
pub(super) const fn consistency(datacenter: Option<&str>) -> Consistency {
    if datacenter.is_some() { Consistency::LocalQuorum } else { Consistency::Quorum }
}

/// The consistency of conditional writes, and of reads that must see them.
pub(super) const fn serial_consistency(datacenter: Option<&str>) -> SerialConsistency {
    if datacenter.is_some() { SerialConsistency::LocalSerial } else { SerialConsistency::Serial }
}

/// The consistency of a read that sees every conditional write that was made before it.
pub(super) const fn serial_read(datacenter: Option<&str>) -> Consistency {
    if datacenter.is_some() { Consistency::LocalSerial } else { Consistency::Serial }
}

fn profile(datacenter: Option<&str>) -> ExecutionProfile {
    ExecutionProfile::builder()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .consistency(consistency(datacenter))
        .serial_consistency(Some(serial_consistency(datacenter)))
        .load_balancing_policy(policy(datacenter))
        .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
            max_retry_count: 1,
            retry_interval: SECOND_NODE_AFTER,
        })))
        .build()
}

fn policy(datacenter: Option<&str>) -> Arc<dyn LoadBalancingPolicy> {
    let builder = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
    match datacenter {
        Some(name) => builder.prefer_datacenter(name.to_owned()).build(),
        None => builder.build(),
    }
}

fn of_connecting(options: &CassandraOptions, error: &NewSessionError) -> StoreError {
    let cause = match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken { last_connection_error })) => {
            last_connection_error
        }
        NewSessionError::FailedToResolveAnyHostname(names) => {
            let detail = format!("no address is known for {}; is cassandra_nodes right?", names.join(", "));
            return StoreError::Unavailable(format!("{}: {detail}", options.place()));
        }
        other => return StoreError::Unavailable(format!("{}: {other}", options.place())),
    };
    if let ConnectionError::ConnectionSetupRequestError(refused) = cause {
        match &refused.error {
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, said) => {
                let user = options.user.as_deref().unwrap_or_default();
                return options
                    .cannot_open(format!("the cluster refused user {user} ({said}); check cassandra_user and cassandra_password_file"));
            }
            ConnectionSetupRequestErrorKind::MissingAuthentication => {
                return options.cannot_open("the cluster asks for a login; set cassandra_user and cassandra_password_file");
            }
            _ => {}
        }
    }
    let hint = "is the cluster running, are cassandra_nodes right, and do both sides agree on TLS?";
    StoreError::Unavailable(format!("{}: no node answers ({cause}); {hint}", options.place()))
}
