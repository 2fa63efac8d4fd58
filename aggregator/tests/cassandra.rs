//! The store on a cluster does what every store must do, and what belongs to a cluster: keyspaces, times to live, nodes that go and come.

#![cfg(feature = "cassandra")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aggregator::cassandra::{CassandraOptions, CassandraStore, MigratePlan, TlsFiles, migrate};
use aggregator::conformance::{self, Store};
use aggregator::{CountStore, Slice, StoreError, Touched};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use schemas::{CellKey, Counts, Dimension, Entity, FoldSettings, LogId, Mark, Millis, Minute, Offset, Row, Source, Stamp, StoredRow, Tier};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use test_servers::{CassandraCluster, CassandraPlan, Proxy};

const DAY_MS: i64 = 86_400_000;

/// A keyspace of its own on the shared server.
fn options() -> CassandraOptions {
    options_at(&test_servers::cassandra().contact())
}

fn options_at(contact: &str) -> CassandraOptions {
    static KEYSPACES: AtomicU32 = AtomicU32::new(0);
    let keyspace = format!("t{}", KEYSPACES.fetch_add(1, Ordering::Relaxed));
    CassandraOptions { nodes: vec![contact.into()], keyspace, ..CassandraOptions::default() }
}

fn log() -> LogId {
    LogId("log".into())
}

fn plan() -> MigratePlan {
    MigratePlan { replication: 1, log_id: log(), settings: FoldSettings::default(), fill_lists: false }
}

async fn open(options: &CassandraOptions) -> Result<CassandraStore, StoreError> {
    CassandraStore::open(options.clone(), log(), &FoldSettings::default()).await
}

async fn made(options: &CassandraOptions) -> CassandraStore {
    migrate(options, &plan()).await.unwrap();
    open(options).await.unwrap()
}

async fn cql(options: &CassandraOptions) -> Session {
    SessionBuilder::new().known_nodes(&options.nodes).use_keyspace(&options.keyspace, true).build().await.unwrap()
}

fn refusal<T>(outcome: Result<T, StoreError>) -> (StoreError, String) {
    let error = outcome.err().unwrap();
    let text = error.to_string();
    (error, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_every_claim() {
    if test_servers::skipped() {
        return;
    }
    conformance::all(async || {
        let store: Store = Arc::new(made(&options()).await);
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_for_the_next_session() {
    if test_servers::skipped() {
        return;
    }
    let options = options();
    conformance::fill(Arc::new(made(&options).await)).await;
    conformance::is_filled(Arc::new(open(&options).await.unwrap())).await;
    let again = open(&options).await.unwrap();
    assert_eq!((again.log_id(), again.failure()), (log(), None));
    conformance::is_filled(Arc::new(again)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_may_be_repeated_and_run_at_once() {
    if test_servers::skipped() {
        return;
    }
    let (options, plan) = (options(), plan());
    let (_, text) = refusal(open(&options).await);
    assert!(text.contains("tallymark migrate"), "{text}");
    let outcomes = futures_util::future::join_all((0..4).map(|_| migrate(&options, &plan))).await;
    outcomes.into_iter().for_each(|outcome| assert!(!outcome.unwrap().is_empty()));
    conformance::fill(Arc::new(open(&options).await.unwrap())).await;

    let done = migrate(&options, &plan).await.unwrap().join("\n");
    assert!(done.contains("is there") && done.contains("nothing to do") && done.contains("LOCAL_QUORUM"), "{done}");
    conformance::is_filled(Arc::new(open(&options).await.unwrap())).await;
}

/// Leaves a keyspace as a version of before the lists of the most viewed had it, but for the names of spaces.
async fn make_old(session: &Session) {
    for table in ["views_by_bucket", "touched"] {
        session.query_unpaged(format!("DROP TABLE {table}"), ()).await.unwrap();
    }
    session.query_unpaged("UPDATE meta SET schema_version = 1 WHERE id = 'keyspace' IF EXISTS", ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_of_before_the_lists_is_filled_when_it_is_migrated_and_again_when_it_is_asked_for() {
    if test_servers::skipped() {
        return;
    }
    let options = options();
    let store: Store = Arc::new(made(&options).await);
    conformance::fill(Arc::clone(&store)).await;
    let hours = (0..1_500).flat_map(|n| (0..3).map(move |hour| conformance::hour(&format!("v{n}"), hour * 60, 0)));
    let keys: Vec<_> = hours.chain([conformance::hour("older", 0, 0), conformance::hour("short", 0, 0)]).collect();
    store.write_rows(Arc::new(keys[..4_500].iter().map(|key| (key.clone(), conformance::row(7, 7))).collect())).await.unwrap();
    drop(store);
    let session = cql(&options).await;
    make_old(&session).await;
    let (_, text) = refusal(open(&options).await);
    assert!(text.contains("tallymark migrate"), "{text}");

    // As an older version writes: the rollup table alone.
    let write = async |video: &str, gross: i64, stamp: i64, ttl: i32| {
        let columns = "dimension, entity, tier, bucket, source, gross, valid, engaged, version, through";
        let cql =
            format!("INSERT INTO views_rollup ({columns}) VALUES ('video', ?, 'hour', 0, 0, ?, 0, 0, 1, 0) USING TIMESTAMP ? AND TTL ?");
        session.query_unpaged(cql, (video, gross, stamp, ttl)).await.unwrap();
    };
    write("short", 3, 5, 1_000).await;
    let done = migrate(&options, &plan()).await.unwrap().join("\n");
    // What `fill` writes has as many hours and days of a video and a space.
    assert!(done.contains("4521 hour and day counts copied") && done.contains("--fill-lists"), "{done}");
    let store: Store = Arc::new(open(&options).await.unwrap());
    conformance::is_filled(Arc::clone(&store)).await;
    conformance::assert_kept_by_bucket(&store, &keys).await;
    let left = session.query_unpaged("SELECT TTL(gross) FROM views_by_bucket WHERE dimension = 'video' AND tier = 'hour' AND bucket = 0 AND source = 0 AND entity = 'short'", ()).await;
    let left = left.unwrap().into_rows_result().unwrap().first_row::<(Option<i32>,)>().unwrap().0;
    assert!(left.is_some_and(|left| (1..=1_000).contains(&left)), "a copied row lives no longer: {left:?}");

    // An older aggregator goes on, and the fill is asked for, twice; a row that is newer than what is copied stays.
    write("older", 4, 6, 0).await;
    write("v0", 9, 9, 0).await;
    for _ in 0..2 {
        let done = migrate(&options, &MigratePlan { fill_lists: true, ..plan() }).await.unwrap().join("\n");
        assert!(done.contains("4522 hour and day counts copied") && !done.contains("--fill-lists"), "{done}");
        conformance::assert_kept_by_bucket(&store, &keys).await;
    }
    conformance::is_filled(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_is_for_one_log_one_data_centre_and_one_set_of_rules() {
    if test_servers::skipped() {
        return;
    }
    let options = options();
    migrate(&options, &plan()).await.unwrap();
    let other = LogId("other".into());
    let is_other_log = |error: &StoreError| matches!(error, StoreError::OtherLog { stored, asked } if *stored == log() && *asked == other);
    let (error, text) = refusal(migrate(&options, &MigratePlan { log_id: other.clone(), ..plan() }).await);
    assert!(is_other_log(&error), "{text}");
    let (error, text) = refusal(CassandraStore::open(options.clone(), other.clone(), &FoldSettings::default()).await);
    assert!(is_other_log(&error), "{text}");

    let changed = FoldSettings { grace_ms: 11_000, ..FoldSettings::default() };
    let refusals = [
        refusal(migrate(&options, &MigratePlan { settings: changed.clone(), ..plan() }).await),
        refusal(CassandraStore::open(options.clone(), log(), &changed).await),
    ];
    for (error, text) in refusals {
        assert!(matches!(error, StoreError::Mismatch(_)) && text.contains("grace_ms is 10000 there and 11000 here"), "{text}");
    }
    let elsewhere = CassandraOptions { datacenter: Some("nowhere".into()), ..options.clone() };
    for (_, text) in [refusal(migrate(&elsewhere, &plan()).await), refusal(open(&elsewhere).await)] {
        assert!(text.contains("no data centre nowhere, but"), "{text}");
    }

    cql(&options).await.query_unpaged("UPDATE meta SET schema_version = 1000 WHERE id = 'keyspace' IF EXISTS", ()).await.unwrap();
    for (error, text) in [refusal(migrate(&options, &plan()).await), refusal(open(&options).await)] {
        assert!(matches!(error, StoreError::Mismatch(_)) && text.contains("schema version 1000"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_anything_is_made() {
    if test_servers::skipped() {
        return;
    }
    let options = options();
    let (_, text) = refusal(migrate(&options, &MigratePlan { replication: 3, ..plan() }).await);
    assert!(text.contains("has 1 node, too few for replication 3"), "{text}");
    let forever = FoldSettings { hour_ttl_ms: 8_000 * DAY_MS, ..FoldSettings::default() };
    let (_, text) = refusal(migrate(&options, &MigratePlan { settings: forever, ..plan() }).await);
    assert!(text.contains("time to live"), "{text}");
    let (_, text) = refusal(open(&options).await);
    assert!(text.contains("tallymark migrate"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_may_be_asked_again() {
    let nowhere = CassandraOptions { nodes: vec!["127.0.0.1:1".into()], ..CassandraOptions::default() };
    for (error, text) in [refusal(open(&nowhere).await), refusal(migrate(&nowhere, &plan()).await)] {
        assert!(matches!(error, StoreError::Unavailable(_)) && text.contains("127.0.0.1:1") && text.contains("no node answers"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_carry_their_stamp_as_timestamp_and_their_tiers_time_to_live() {
    if test_servers::skipped() {
        return;
    }
    let options = options();
    let settings = FoldSettings { minute_ttl_ms: 90 * DAY_MS, hour_ttl_ms: 400 * DAY_MS, ..FoldSettings::default() };
    migrate(&options, &MigratePlan { settings: settings.clone(), ..plan() }).await.unwrap();
    let store = CassandraStore::open(options.clone(), log(), &settings).await.unwrap();
    let cell = |tier: Tier| CellKey { bucket: tier.bucket(Minute(0)), ..conformance::minute("v", 0, 0) };
    let stamp = 1_763_700_000_000_000;
    // Each its own stamp, though the rollups go in one mutation.
    let rows = (stamp..).zip(Tier::ALL).map(|(stamp, tier)| (cell(tier), conformance::row(stamp, 1))).collect();
    store.write_rows(Arc::new(rows)).await.unwrap();
    store.write_checkpoint(Source(0), conformance::checkpoint(stamp, 7)).await.unwrap();

    let session = cql(&options).await;
    let read = async |query: &str| {
        let rows = session.query_unpaged(query, ()).await.unwrap().into_rows_result().unwrap();
        rows.rows::<(i64, Option<i32>)>().unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let days_left = |ttl: Option<i32>| ttl.map(|seconds| (seconds + 3_600) / 86_400);
    let minutes = read("SELECT WRITETIME(gross), TTL(gross) FROM views_by_minute").await;
    assert_eq!(minutes.iter().map(|(at, ttl)| (*at, days_left(*ttl))).collect::<Vec<_>>(), [(stamp, Some(91))]);
    let rollups = read("SELECT WRITETIME(through), TTL(through) FROM views_rollup").await;
    // By the names of the tiers: day, hour, year.
    let expected = [(stamp + 2, None), (stamp + 1, Some(401)), (stamp + 3, None)];
    assert_eq!(rollups.iter().map(|(at, ttl)| (*at, days_left(*ttl))).collect::<Vec<_>>(), expected);
    assert_eq!(read("SELECT WRITETIME(tally), TTL(tally) FROM checkpoints").await, [(stamp, None)]);
    let mut by_bucket = read("SELECT WRITETIME(through), TTL(through) FROM views_by_bucket").await;
    by_bucket.sort_unstable();
    assert_eq!(by_bucket.iter().map(|(at, ttl)| (*at, days_left(*ttl))).collect::<Vec<_>>(), [(stamp + 1, Some(401)), (stamp + 2, None)]);
    store.write_touched(Source(0), vec![Touched { day: 7, version: Offset(9), stamp: Stamp(stamp) }]).await.unwrap();
    let touched = read("SELECT WRITETIME(version), TTL(version) FROM touched").await;
    assert!(matches!(touched[..], [(at, Some(ttl))] if at == stamp && (1..=600).contains(&ttl)), "{touched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_reaches_over_days_and_pages_and_not_over_ages() {
    if test_servers::skipped() {
        return;
    }
    let store = made(&options()).await;
    let hours = 12_000;
    let rows = (0..hours).map(|n| (conformance::hour("v", n * 60, 0), conformance::row(1, i64::from(n)))).collect();
    store.write_rows(Arc::new(rows)).await.unwrap();
    let days = 5 * 1_440;
    let rows = (0..days).map(|n| (conformance::minute("v", n, 0), conformance::row(1, i64::from(n)))).collect();
    store.write_rows(Arc::new(rows)).await.unwrap();
    let slice = |tier, start, end| Slice { entity: Entity::new(Dimension::Video, "v"), tier, start: Minute(start), end: Minute(end) };
    let counts =
        async |slice| store.read_slice(slice).await.unwrap().into_iter().map(|row| row.stored.row.counts.gross).collect::<Vec<_>>();
    assert_eq!(counts(slice(Tier::Hour, i32::MIN, i32::MAX)).await, (0..i64::from(hours)).collect::<Vec<_>>());
    assert_eq!(counts(slice(Tier::Minute, 1_439, days - 1)).await, (1_439..i64::from(days - 1)).collect::<Vec<_>>());
    assert_eq!(counts(slice(Tier::Minute, -2_000_000, 3)).await, [0, 1, 2]);

    let (_, text) = refusal(store.read_slice(slice(Tier::Minute, i32::MIN, i32::MAX)).await);
    assert!(text.contains("ask for hours"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writes_within_a_microsecond_the_last_stays() {
    if test_servers::skipped() {
        return;
    }
    let store = made(&options()).await;
    let progress = |events| aggregator::ImportProgress { events, ..aggregator::ImportProgress::default() };
    for round in 0..300 {
        store.write_import("f".into(), progress(round)).await.unwrap();
    }
    assert_eq!(store.read_import("f".into()).await.unwrap(), Some(progress(299)));
    assert_eq!(store.write_limit(), 32, "what never filled the limit does not raise it");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_try_out_what_the_cluster_bears() {
    if test_servers::skipped() {
        return;
    }
    let store = made(&options()).await;
    let before = store.write_limit();
    let rows: Vec<_> = (0..5_000).map(|n| (conformance::minute(&format!("v{n}"), 0, 0), conformance::row(1, n))).collect();
    let started = Instant::now();
    store.write_rows(Arc::new(rows)).await.unwrap();
    println!("5,000 rows of as many partitions in {:?}; limit {}", started.elapsed(), store.write_limit());
    assert!(store.write_limit() > before, "{}", store.write_limit());
}

fn cells() -> impl Strategy<Value = Vec<(CellKey, StoredRow)>> {
    let counts = || any::<[i64; 3]>().prop_map(|[gross, valid, engaged]| Counts { gross, valid, engaged });
    let offset = || (0..=i64::MAX).prop_map(|offset| Offset(offset.cast_unsigned()));
    let key = ("[a-z\\PC]{1,3}", 0u8..3, 0u8..4, -3_000..3_000i32, 0..3u32)
        .prop_filter("an id", |(id, ..)| schemas::id::check_id(id).is_ok())
        .prop_map(|(id, dimension, tier, minute, source)| CellKey {
            entity: Entity::new(Dimension::from_code(dimension).unwrap(), &id),
            bucket: Tier::from_code(tier).unwrap().bucket(Minute(minute)),
            source: Source(source),
        });
    let mark = proptest::option::of((offset(), counts())).prop_map(|mark| mark.map(|(offset, since)| Mark { offset, since }));
    let state = (counts(), offset(), any::<i64>(), mark, 0..2_000_000_000_000_000i64);
    let cell = (key, state).prop_map(|(key, (counts, version, through, mark, stamp))| {
        let through = if key.bucket.tier == Tier::Minute { Millis::NEVER } else { Millis(through) };
        (key, StoredRow { stamp: Stamp(stamp), row: Row { counts, version, through, mark } })
    });
    proptest::collection::vec(cell, 1..300)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_written_in_whatever_parts_the_highest_stamp_reads_back_whole() {
    if test_servers::skipped() {
        return;
    }
    let store = made(&options()).await;
    let mut runner = TestRunner::deterministic();
    let mut kept = std::collections::BTreeMap::<CellKey, StoredRow>::new();
    for _ in 0..10 {
        let rows = cells().new_tree(&mut runner).unwrap().current();
        for (key, row) in &rows {
            let best = kept.entry(key.clone()).or_insert(*row);
            if best.stamp < row.stamp {
                *best = *row;
            }
        }
        let parts = rows.chunks(70).map(|part| store.write_rows(Arc::new(part.to_vec())));
        futures_util::future::join_all(parts).await.into_iter().for_each(Result::unwrap);
        let (keys, expected): (Vec<_>, Vec<_>) = kept.iter().map(|(key, row)| (key.clone(), Some(*row))).unzip();
        assert_eq!(store.read_cells(keys).await.unwrap(), expected);
    }
}

/// What a trace says of tombstones. The server writes traces behind the answer.
async fn tombstones_said(session: &Session, read: &scylla::response::query_result::QueryResult) -> Vec<String> {
    let traced = async {
        loop {
            let events = session.get_tracing_info(&read.tracing_id().unwrap()).await.map(|traced| traced.events).unwrap_or_default();
            let said: Vec<String> =
                events.into_iter().filter_map(|event| event.activity).filter(|said| said.contains("tombstone")).collect();
            if !said.is_empty() {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), traced).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_leaves_a_tombstone() {
    if test_servers::skipped() {
        return;
    }
    let options = options();
    let store = made(&options).await;
    conformance::fill(Arc::new(store.clone())).await;
    store.write_video("bare".into(), aggregator::VideoInfo::default()).await.unwrap();
    store.write_space("bare".into(), aggregator::SpaceInfo::default()).await.unwrap();
    for table in ["views_by_minute", "views_rollup", "views_by_bucket", "checkpoints", "videos", "spaces", "imports"] {
        let cassandra = test_servers::cassandra();
        cassandra.nodetool(0, &["flush", &options.keyspace, table]).unwrap();
        // Reading everything counts the tombstones on the way.
        let session = cql(&options).await;
        let mut statement = scylla::statement::Statement::new(format!("SELECT * FROM {table}"));
        statement.set_tracing(true);
        let read = session.query_unpaged(statement, ()).await.unwrap();
        let said = tombstones_said(&session, &read).await;
        assert!(said.iter().all(|said| said.contains(" 0 tombstone")), "{table}: {said:?}");
    }
}

/// Makes an authority, and a certificate that it signs for an address: `ca.pem`, `node.p12` and, of a stranger, `other.pem`. Java's own tool
/// does it, which is there where Cassandra runs.
fn make_certificates(dir: &Path, address: &str) {
    let keytool = |args: &[&str]| {
        let common = ["-storepass", "secret", "-storetype", "PKCS12"];
        let done = Command::new("keytool").args(args).args(common).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stdout));
    };
    for (authority, store, pem) in [("CN=ca", "ca.p12", "ca.pem"), ("CN=other", "other.p12", "other.pem")] {
        keytool(&["-genkeypair", "-alias", "ca", "-dname", authority, "-ext", "bc:c=ca:true", "-keyalg", "EC", "-keystore", store]);
        keytool(&["-exportcert", "-alias", "ca", "-rfc", "-file", pem, "-keystore", store]);
    }
    let name = format!("san=ip:{address}");
    keytool(&["-genkeypair", "-alias", "node", "-dname", "CN=node", "-keyalg", "EC", "-keystore", "node.p12"]);
    keytool(&["-certreq", "-alias", "node", "-file", "node.csr", "-keystore", "node.p12"]);
    keytool(&["-gencert", "-alias", "ca", "-ext", &name, "-rfc", "-infile", "node.csr", "-outfile", "node.pem", "-keystore", "ca.p12"]);
    keytool(&["-importcert", "-noprompt", "-alias", "ca", "-file", "ca.pem", "-keystore", "node.p12"]);
    keytool(&["-importcert", "-noprompt", "-alias", "node", "-file", "node.pem", "-keystore", "node.p12"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_or_authority_is_said_and_the_right_ones_work() {
    if test_servers::skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The address is known before the node runs; a certificate is for an address.
    let [x, y, ..] = std::process::id().to_be_bytes().map(|byte| byte % 100 + 1);
    let address = format!("127.{}.{x}.{y}", 90 + std::process::id() % 30);
    make_certificates(dir.path(), &address);
    let store = dir.path().join("node.p12");
    let yaml = format!(
        "broadcast_rpc_address: {address}\nclient_encryption_options: {{enabled: true, optional: true, keystore: {}, \
         keystore_password: secret, store_type: PKCS12}}\n",
        store.display()
    );
    let asked = CassandraPlan { nodes: 1, proxies: false, passwords: true, yaml };
    let cluster = tokio::task::spawn_blocking(move || CassandraCluster::with(&asked)).await.unwrap();
    let port = cluster.contact().rsplit_once(':').unwrap().1.to_owned();
    let proxy = Proxy::at(&format!("{address}:{port}"), &cluster.contact()).unwrap();

    let bare = options_at(&proxy.address());
    let (_, text) = refusal(migrate(&bare, &plan()).await);
    assert!(text.contains("cassandra_user"), "{text}");
    let login = |password: &str| CassandraOptions { user: Some("cassandra".into()), password: Some(password.into()), ..bare.clone() };
    let (_, text) = refusal(open(&login("guess")).await);
    assert!(text.contains("refused user cassandra") && !text.contains("guess"), "{text}");
    conformance::fill(Arc::new(made(&login("cassandra")).await)).await;

    let trusting = |authority: &str, nodes: Vec<String>| {
        let tls = TlsFiles { ca: dir.path().join(authority), certificate: None, key: None };
        CassandraOptions { tls: Some(tls), nodes, ..login("cassandra") }
    };
    let store = open(&trusting("ca.pem", vec![proxy.address()])).await.unwrap();
    conformance::is_filled(Arc::new(store)).await;
    let (_, text) = refusal(open(&trusting("other.pem", vec![proxy.address()])).await);
    assert!(text.contains("certificate"), "{text}");
    let (_, text) = refusal(open(&trusting("ca.pem", vec![cluster.contact()])).await);
    assert!(text.contains("certificate"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cluster_is_away_calls_may_be_repeated_and_then_they_succeed() {
    if test_servers::skipped() {
        return;
    }
    let cluster = Arc::new(tokio::task::spawn_blocking(|| CassandraCluster::start(1)).await.unwrap());
    let store = made(&options_at(&cluster.contact())).await;
    conformance::fill(Arc::new(store.clone())).await;
    let key = conformance::minute("later", 0, 0);
    let write = || store.write_rows(Arc::new(vec![(key.clone(), conformance::row(1, 1))]));

    cluster.kill(0);
    assert!(matches!(write().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.read_cells(vec![key.clone()]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.read_checkpoints().await, Err(StoreError::Unavailable(_))));

    let node = Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || {
        node.restart(0);
        node.wait_ready(0);
    })
    .await
    .unwrap();
    let started = Instant::now();
    while let Err(error) = write().await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(store.read_cells(vec![key.clone()]).await.unwrap(), [Some(conformance::row(1, 1))]);
    conformance::is_filled(Arc::new(store)).await;
}
