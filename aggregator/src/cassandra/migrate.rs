//! Making a keyspace, and leading its tables from one schema version to the next.
//!
//! Every step may be repeated, and two migrations at once do no harm: both send schema changes through the same node (that with the least
//! host id), which does them one after the other, and the one row of `meta` is written by conditional writes.
//! Each change waits until all nodes agree on the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::{FoldSettings, Tier};
use scylla::client::session::Session;
use scylla::policies::load_balancing::{LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;

use super::error::{Failure, damaged};
use super::meta::{self, Meta};
use super::options::{CassandraOptions, MigratePlan};
use super::schema::{self, Flavour};
use super::{fill, session, ttl};
use crate::backoff;
use crate::store::StoreError;

/// A schema change may take as long as all nodes need.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long nodes may take to know of each other before a keyspace is made.
const NODES_PATIENCE: Duration = Duration::from_secs(10);
/// How often a request is made that fails for reasons that may pass.
const ATTEMPTS: u32 = 8;
/// What a rolling upgrade leaves to do.
const FILL_AGAIN: &str = "lists of the most viewed: what aggregators of the older version count from now on is not in them; when the last of these has \
     stopped, run: tallymark migrate --fill-lists";
const NODES_POLL: Duration = Duration::from_millis(250);

/// Makes the keyspace and its tables, or leads them to the schema of this program, and says in lines what was done. May be repeated.
///
/// # Errors
/// [`StoreError::Unavailable`] if the cluster does not answer: repeat it. [`StoreError::OtherLog`] and [`StoreError::Mismatch`] if the keyspace is
/// for another log, data centre or settings, or of a newer schema. [`StoreError::Open`] if the options cannot be right.
pub async fn migrate(options: &CassandraOptions, plan: &MigratePlan) -> Result<Vec<String>, StoreError> {
    check(options, plan)?;
    let migration = Migration::begin(options, plan).await?;
    let mut done = vec![migration.keyspace().await?];
    done.extend(migration.note_replication()?);
    migration.change(schema::create_meta(&options.keyspace)).await?;
    let meta = migration.meta().await?;
    for version in meta.schema_version.saturating_add(1)..=schema::VERSION {
        migration.tables(version).await?;
        // Before the version says so: one that is killed is made again, and until then no reader takes what is there for whole.
        if version == schema::BY_BUCKET && meta.schema_version > 0 {
            done.push(migration.fill().await?);
            done.push(FILL_AGAIN.to_owned());
        }
        migration.reached(version).await?;
        done.push(format!("schema version {version}: tables made"));
    }
    if plan.fill_lists && meta.schema_version >= schema::BY_BUCKET {
        done.push(migration.fill().await?);
    }
    if meta.schema_version == schema::VERSION {
        done.push(format!("schema version {}: nothing to do", schema::VERSION));
    }
    done.push(match &meta.datacenter {
        Some(name) => format!("log {}: reads and writes at LOCAL_QUORUM in data centre {name}", meta.log_id),
        None => format!("log {}: reads and writes at QUORUM of all data centres", meta.log_id),
    });
    Ok(done)
}

fn check(options: &CassandraOptions, plan: &MigratePlan) -> Result<(), StoreError> {
    if plan.replication == 0 {
        return Err(options.cannot_open("replication must be at least 1; 3 bears the loss of one node"));
    }
    for tier in Tier::ALL {
        ttl::check(&plan.settings, tier).map_err(|detail| options.cannot_open(detail))?;
    }
    Ok(())
}

struct Migration<'a> {
    options: &'a CassandraOptions,
    plan: &'a MigratePlan,
    session: Session,
    /// Through whom every change goes; any node at first.
    coordinator: Option<Arc<dyn LoadBalancingPolicy>>,
    flavour: Flavour,
    /// The keyspace's replication, if it was there already.
    replication: Option<BTreeMap<String, String>>,
    datacenter: Option<String>,
}

impl<'a> Migration<'a> {
    async fn begin(options: &'a CassandraOptions, plan: &'a MigratePlan) -> Result<Self, StoreError> {
        let session = session::connect(options).await?;
        let (datacenter, flavour) = (options.datacenter.clone(), Flavour::of(""));
        let mut migration = Self { options, plan, session, coordinator: None, flavour, replication: None, datacenter };
        let result = migration.run("SELECT release_version FROM system.local WHERE key = 'local'", ()).await?;
        migration.flavour = Flavour::of(&first::<(String,)>(result, "system.local")?.unwrap_or_default().0);
        let query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let result = migration.run(query, (&options.keyspace,)).await?;
        migration.replication = first::<(BTreeMap<String, String>,)>(result, "system_schema.keyspaces")?.map(|(map,)| map);
        if migration.datacenter.is_none() {
            migration.datacenter = migration.only_datacenter(session::datacenters(&migration.session))?;
        }
        session::use_datacenter(&migration.session, migration.datacenter.as_deref());
        if migration.replication.is_none() {
            migration.wait_for_nodes().await?;
        }
        let nobody = || StoreError::Unavailable(format!("{}: no node is connected", options.place()));
        migration.coordinator = Some(coordinator(&migration.session).ok_or_else(nobody)?);
        Ok(migration)
    }

    /// Waits until the data centre has as many nodes as there are to be copies: a cluster that has just started does not know itself yet.
    async fn wait_for_nodes(&self) -> Result<(), StoreError> {
        let (datacenter, wanted) = (self.datacenter.as_deref().unwrap_or_default(), self.plan.replication);
        let deadline = Instant::now() + NODES_PATIENCE;
        loop {
            let state = self.session.get_cluster_state();
            let nodes = state.get_nodes_info().iter().filter(|node| node.datacenter.as_deref() == Some(datacenter));
            let (all, connected) = nodes.fold((0u32, 0u32), |(all, connected), node| (all + 1, connected + u32::from(node.is_connected())));
            if all >= wanted && connected == all {
                return Ok(());
            }
            if Instant::now() >= deadline && all >= wanted {
                tracing::warn!(datacenter, nodes = all, connected, "not all nodes are there; the migration goes on");
                return Ok(());
            }
            if Instant::now() >= deadline {
                let nodes = if all == 1 { "1 node".to_owned() } else { format!("{all} nodes") };
                let detail = format!("data centre {datacenter} has {nodes}, too few for replication {wanted}; add nodes or ask for less");
                return Err(self.options.cannot_open(detail));
            }
            tokio::time::sleep(NODES_POLL).await;
            // What cannot be asked now is asked again.
            let _ = self.session.refresh_metadata().await;
        }
    }

    /// The cluster's data centre, if there is one only. A keyspace that its operator made may lie in several.
    fn only_datacenter(&self, known: BTreeSet<String>) -> Result<Option<String>, StoreError> {
        if known.len() > 1 && self.replication.is_none() {
            let names = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(self.options.cannot_open(format!("the cluster has the data centres {names}; name one as cassandra_datacenter")));
        }
        let one = known.len() == 1;
        Ok(known.into_iter().next().filter(|_| one))
    }

    /// Makes the keyspace if it is not there, and says so.
    async fn keyspace(&self) -> Result<String, StoreError> {
        let (name, wanted) = (&self.options.keyspace, self.plan.replication);
        if self.replication.is_some() {
            return Ok(format!("keyspace {name}: is there"));
        }
        let datacenter = self.datacenter.as_deref().unwrap_or_default();
        self.change(schema::create_keyspace(name, datacenter, wanted)).await?;
        Ok(format!("keyspace {name}: made, with {wanted} copies of each row in data centre {datacenter}"))
    }

    /// An existing keyspace keeps its replication; what that means is said.
    fn note_replication(&self) -> Result<Option<String>, StoreError> {
        let (Some(replication), Some(datacenter)) = (&self.replication, &self.datacenter) else { return Ok(None) };
        let (name, wanted) = (&self.options.keyspace, self.plan.replication.to_string());
        let networked = replication.get("class").is_some_and(|class| class.ends_with("NetworkTopologyStrategy"));
        let copies = replication.get(if networked { datacenter.as_str() } else { "replication_factor" });
        match copies {
            None if networked => Err(self.options.cannot_open(format!(
                "it has no copies in data centre {datacenter}; add them (ALTER KEYSPACE {name} WITH replication = ..., then nodetool rebuild), or name another data centre"
            ))),
            Some(copies) if *copies != wanted => Ok(Some(format!(
                "keyspace {name}: keeps {copies} copies of each row, not {wanted}; to change that: ALTER KEYSPACE {name} WITH replication = \
                 {{'class': 'NetworkTopologyStrategy', '{datacenter}': {wanted}}}; then nodetool repair --full {name} on each node"
            ))),
            _ => Ok(None),
        }
    }

    /// The row of `meta`, written now if there is none, and checked.
    async fn meta(&self) -> Result<Meta, StoreError> {
        if self.read_meta().await?.is_none() {
            let insert = format!(
                "INSERT INTO {}.meta (id, schema_version, log_id, datacenter, settings) VALUES (?, 0, ?, ?, ?) IF NOT EXISTS",
                self.options.keyspace
            );
            let settings = encode_settings(&self.plan.settings)?;
            let datacenter = scylla::value::MaybeUnset::from_option(self.datacenter.as_deref());
            self.run(&insert, (meta::ID, &*self.plan.log_id.0, datacenter, settings)).await?;
        }
        // Whoever wrote it: what is there now is what counts.
        let missing = || damaged(&format!("table {}.meta", self.options.keyspace), &"its row is gone");
        let meta = self.read_meta().await?.ok_or_else(missing)?;
        meta.check(self.options, &self.plan.log_id, &self.plan.settings)?;
        Ok(meta)
    }

    async fn read_meta(&self) -> Result<Option<Meta>, StoreError> {
        meta::read(&self.session, self.options, session::serial_read(self.datacenter.as_deref())).await
    }

    /// Copies what the rollup table holds to where it is kept by bucket.
    async fn fill(&self) -> Result<String, StoreError> {
        let rows = fill::fill(&self.session, &self.options.keyspace).await?;
        Ok(format!("lists of the most viewed: {rows} hour and day counts copied"))
    }

    /// Makes what a version has more than the one before it.
    async fn tables(&self, of: i32) -> Result<(), StoreError> {
        for change in schema::step(of, &self.options.keyspace, &self.flavour) {
            self.change(change).await?;
        }
        Ok(())
    }

    /// The keyspace is of a version, having been of the one before it.
    async fn reached(&self, to: i32) -> Result<(), StoreError> {
        // If another migration was faster, the condition fails, and all is well.
        let update = format!("UPDATE {}.meta SET schema_version = ? WHERE id = ? IF schema_version = ?", self.options.keyspace);
        self.run(&update, (to, meta::ID, to.saturating_sub(1))).await?;
        Ok(())
    }

    /// Changes the schema and waits until all nodes agree on it.
    async fn change(&self, cql: String) -> Result<(), StoreError> {
        self.run(&cql, ()).await.map(drop)
    }

    /// Asks, and asks again for a while if that may help: conditional writes of two migrations at once get into each other's way.
    async fn run(&self, cql: &str, values: impl SerializeRow) -> Result<QueryResult, StoreError> {
        let mut statement = Statement::new(cql);
        statement.set_load_balancing_policy(self.coordinator.clone());
        statement.set_request_timeout(Some(CHANGE_TIMEOUT));
        statement.set_serial_consistency(Some(session::serial_consistency(self.datacenter.as_deref())));
        let mut attempt = 1;
        loop {
            let error = match self.session.query_unpaged(statement.clone(), &values).await {
                Ok(result) => return Ok(result),
                Err(error) => Failure::from(error).error,
            };
            let first_line = cql.lines().next().unwrap_or_default();
            match error {
                StoreError::Unavailable(_) if attempt < ATTEMPTS => tokio::time::sleep(backoff::delay(attempt, jitter())).await,
                StoreError::Unavailable(detail) => return Err(StoreError::Unavailable(format!("{first_line}: {detail}"))),
                StoreError::Failed(detail) => return Err(StoreError::Failed(format!("{first_line}: {detail}"))),
                other => return Err(other),
            }
            attempt += 1;
        }
    }
}

/// Differs between processes that failed together.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(());
    f64::from(u16::try_from(random % 1_000).unwrap_or_default()) / 1_000.0
}

/// Requests to the connected node with the least host id.
fn coordinator(session: &Session) -> Option<Arc<dyn LoadBalancingPolicy>> {
    let state = session.get_cluster_state();
    let node = state.get_nodes_info().iter().filter(|node| node.is_connected()).min_by_key(|node| node.host_id)?;
    Some(SingleTargetLoadBalancingPolicy::new(NodeIdentifier::HostId(node.host_id), None))
}

fn first<T>(result: QueryResult, what: &str) -> Result<Option<T>, StoreError>
where
    T: for<'f> scylla::deserialize::row::DeserializeRow<'f, 'f>,
{
    let rows = result.into_rows_result().map_err(|error| damaged(&what, &error))?;
    rows.maybe_first_row::<T>().map_err(|error| damaged(&what, &error))
}

fn encode_settings(settings: &FoldSettings) -> Result<String, StoreError> {
    serde_json::to_string(settings).map_err(|error| StoreError::Failed(format!("the settings cannot be written as JSON: {error}")))
}
