//! The table of keys: the one place where a setting is named, explained and read.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{LogFormat, Settings, archive, cluster, duration_ms, edge, value};

/// One setting: everything that is known about it but its value.
pub(crate) struct Key {
    /// Its name in the TOML file; the flag is `--name-with-hyphens`, the variable `TALLYMARK_NAME`.
    pub(crate) name: &'static str,
    /// Its default, as one would write it.
    pub(crate) default: &'static str,
    /// What may be written, for people.
    pub(crate) allowed: &'static str,
    /// What it does.
    pub(crate) meaning: &'static str,
    /// Reads a text into the settings; `None` if it is not allowed.
    pub(super) set: fn(&mut Settings, &str) -> Option<()>,
}

const DAY_MS: i64 = 86_400_000;

/// Every key there is.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "data",
        default: "./data",
        allowed: "the path of a directory",
        meaning: "where the log (DATA/log) and the store (DATA/store) are kept; made if absent",
        set: |s, text| {
            s.data = (!text.is_empty()).then(|| text.into())?;
            Some(())
        },
    },
    Key {
        name: "listen",
        default: "127.0.0.1:8080",
        allowed: "an address and a port such as 127.0.0.1:8080 or [::1]:8080; port 0 takes any free one",
        meaning: "where HTTP is served",
        set: |s, text| {
            s.listen = Some(text.parse().ok()?);
            Some(())
        },
    },
    Key {
        name: "insecure",
        default: "false",
        allowed: "true or false",
        meaning: "allow `listen` beyond this machine although there is no key yet: until there is one, anyone who can connect can write and read counts",
        set: |s, text| put(&mut s.insecure, value::switch(text)),
    },
    Key {
        name: "tls_cert",
        default: "",
        allowed: "the path of a file, or nothing",
        meaning: "this server's certificate and those between it and the authority (PEM); with it HTTP is served encrypted alone. A change of the file is noticed",
        set: |s, text| put(&mut s.tls_cert, cluster::path(text)),
    },
    Key {
        name: "tls_key",
        default: "",
        allowed: "the path of a file, or nothing",
        meaning: "the private key (PEM) of that certificate",
        set: |s, text| put(&mut s.tls_key, cluster::path(text)),
    },
    Key {
        name: "sources",
        default: "2",
        allowed: "a whole number from 1 to 1024",
        meaning: "how many sources (partitions) the log is made with, each with a fold of its own; fixed once there is data, also when the topic gets more partitions",
        set: |s, text| put(&mut s.fold.sources, number(text, 1..=1_024)),
    },
    Key {
        name: "spread",
        default: "1",
        allowed: "a whole number from 1 to `sources`",
        meaning: "over how many sources one video's events are spread; fixed once there is data",
        set: |s, text| put(&mut s.fold.spread, number(text, 1..=1_024)),
    },
    Key {
        name: "grace",
        default: "10s",
        allowed: "a duration from 0 to 10m",
        meaning: "how long after its end a minute stays open before it is rolled up; fixed once there is data",
        set: |s, text| put(&mut s.fold.grace_ms, length(text, 0..=600_000)),
    },
    Key {
        name: "max_skew",
        default: "60s",
        allowed: "a duration from 0 to 1h",
        meaning: "an event may be so far ahead of the log clock, else it is rejected as in_future; fixed once there is data",
        set: |s, text| put(&mut s.fold.max_skew_ms, length(text, 0..=3_600_000)),
    },
    Key {
        name: "max_lateness",
        default: "7d",
        allowed: "a duration from 1m to 3650d",
        meaning: "an event may be so far behind the log clock, else it is rejected as too_old unless it is historical; fixed once there is data",
        set: |s, text| put(&mut s.fold.max_lateness_ms, length(text, 60_000..=3_650 * DAY_MS)),
    },
    Key {
        name: "dedup_minutes",
        default: "10",
        allowed: "a whole number of minutes from 0 (off) to 1440",
        meaning: "how far back, in log time, a second event with the same id is known as a duplicate; fixed once there is data",
        set: |s, text| put(&mut s.fold.dedup_minutes, number(text, 0..=1_440)),
    },
    Key {
        name: "minute_ttl",
        default: "0",
        allowed: "0 (keep) or a duration longer than `max_lateness`, at most 36500d",
        meaning: "how long minute counts are kept; 0 keeps them; fixed once there is data",
        set: |s, text| put(&mut s.fold.minute_ttl_ms, length(text, 0..=36_500 * DAY_MS)),
    },
    Key {
        name: "hour_ttl",
        default: "0",
        allowed: "0 (keep) or a duration longer than `max_lateness`, at most 36500d",
        meaning: "how long hour counts are kept; 0 keeps them, and so are days and years always; fixed once there is data",
        set: |s, text| put(&mut s.fold.hour_ttl_ms, length(text, 0..=36_500 * DAY_MS)),
    },
    Key {
        name: "kafka_brokers",
        default: "",
        allowed: "addresses such as kafka1:9092,kafka2:9092, or nothing",
        meaning: "the Kafka that holds the log, by some of its brokers; without it the log lies in `data`",
        set: |s, text| put(&mut s.kafka.brokers, cluster::addresses(text).map(|list| list.join(","))),
    },
    Key {
        name: "kafka_topic",
        default: "views",
        allowed: "1 to 240 letters, digits, dots, hyphens and underscores",
        meaning: "the topic of events; what is rejected goes to TOPIC.rejected",
        set: |s, text| put(&mut s.kafka.topic, cluster::topic(text)),
    },
    Key {
        name: "kafka_group",
        default: "tallymark",
        allowed: "1 to 250 characters",
        meaning: "the consumer group by which aggregators share the partitions",
        set: |s, text| put(&mut s.kafka.group, cluster::line(text).filter(|name| !name.is_empty() && name.len() <= 250)),
    },
    Key {
        name: "kafka_client_id",
        default: "",
        allowed: "one line of text",
        meaning: "the name of this process in Kafka and in `tallymark status`; without it HOST-PID",
        set: |s, text| put(&mut s.kafka.client_id, cluster::line(text)),
    },
    Key {
        name: "kafka_properties",
        default: "",
        allowed: "NAME=VALUE,NAME=VALUE (a comma in a value as \\,), or a table in the file",
        meaning: "any properties of librdkafka, such as security.protocol=ssl; they go over all others. Secrets are better kept in `kafka_properties_file`",
        set: |s, text| put(&mut s.kafka.properties, cluster::properties(text)),
    },
    Key {
        name: "kafka_properties_file",
        default: "",
        allowed: "the path of a file, or nothing",
        meaning: "a file with a property of librdkafka on each line (NAME=VALUE, # begins a comment): the place for passwords",
        set: |s, text| put(&mut s.kafka.properties_file, cluster::path(text)),
    },
    Key {
        name: "cassandra_nodes",
        default: "",
        allowed: "addresses such as node1:9042,node2:9042, or nothing",
        meaning: "the Cassandra or ScyllaDB that holds the counts, by some of its nodes; without it the store lies in `data`",
        set: |s, text| put(&mut s.cassandra.nodes, cluster::addresses(text)),
    },
    Key {
        name: "cassandra_keyspace",
        default: "tallymark",
        allowed: "a name of 1 to 48 lower-case letters, digits and underscores that begins with a letter",
        meaning: "the keyspace; one for each log",
        set: |s, text| put(&mut s.cassandra.keyspace, cluster::keyspace(text)),
    },
    Key {
        name: "cassandra_datacenter",
        default: "",
        allowed: "one line of text",
        meaning: "the data centre whose replicas decide (LOCAL_QUORUM), the same for every process; without it all of them (QUORUM)",
        set: |s, text| put(&mut s.cassandra.datacenter, cluster::optional(text)),
    },
    Key {
        name: "cassandra_user",
        default: "",
        allowed: "one line of text",
        meaning: "the user to log in as; without it nobody logs in",
        set: |s, text| put(&mut s.cassandra.user, cluster::optional(text)),
    },
    Key {
        name: "cassandra_password_file",
        default: "",
        allowed: "the path of a file, or nothing",
        meaning: "a file with that user's password as its first line",
        set: |s, text| put(&mut s.cassandra.password_file, cluster::path(text)),
    },
    Key {
        name: "cassandra_ca_file",
        default: "",
        allowed: "the path of a file, or nothing",
        meaning: "the certificates (PEM) that the nodes' own must be signed by; with it connections use TLS",
        set: |s, text| put(&mut s.cassandra.ca_file, cluster::path(text)),
    },
    Key {
        name: "cassandra_certificate_file",
        default: "",
        allowed: "the path of a file, or nothing",
        meaning: "this client's certificate (PEM), if the nodes ask for one; needs `cassandra_ca_file` and `cassandra_key_file`",
        set: |s, text| put(&mut s.cassandra.certificate_file, cluster::path(text)),
    },
    Key {
        name: "cassandra_key_file",
        default: "",
        allowed: "the path of a file, or nothing",
        meaning: "the key (PEM) of that certificate",
        set: |s, text| put(&mut s.cassandra.key_file, cluster::path(text)),
    },
    Key {
        name: "replication",
        default: "3",
        allowed: "a whole number from 1 to 9",
        meaning: "how many copies of the topics and of the keyspace `tallymark migrate` makes; 3 bear the loss of a machine",
        set: |s, text| put(&mut s.replication, number(text, 1..=9)),
    },
    Key {
        name: "retention",
        default: "7d",
        allowed: "0 (keep) or a duration from 1h to 36500d",
        meaning: "how long raw events are kept in the log: in `data` never less than a restart needs, on Kafka as `tallymark migrate` sets it",
        set: |s, text| put(&mut s.retention_ms, length(text, 0..=36_500 * DAY_MS).filter(|ms| *ms == 0 || *ms >= 3_600_000)),
    },
    Key {
        name: "archive",
        default: "",
        allowed: "a path, file:///PATH, s3://BUCKET/PREFIX, or nothing",
        meaning: "where `tallymark run` and `tallymark archive` keep the raw events for good, as Parquet files by day; without it there is no archive. Keys of a bucket come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
        set: |s, text| put(&mut s.archive.place, archive::place(text)),
    },
    Key {
        name: "archive_every",
        default: "15m",
        allowed: "a duration from 1s to 24h",
        meaning: "how much log time becomes one range of files: so old are the youngest events in the archive at most",
        set: |s, text| put(&mut s.archive.every_ms, length(text, 1_000..=DAY_MS)),
    },
    Key {
        name: "archive_retention",
        default: "0",
        allowed: "0 (keep) or a duration from 1d to 36500d",
        meaning: "how long days are kept in the archive, by event time and append time; 0 keeps them",
        set: |s, text| put(&mut s.archive.retention_ms, length(text, 0..=36_500 * DAY_MS).filter(|ms| *ms == 0 || *ms >= DAY_MS)),
    },
    Key {
        name: "archive_endpoint",
        default: "",
        allowed: "an address such as https://minio.example:9000, or nothing",
        meaning: "the server of the archive's bucket, if it is not Amazon's",
        set: |s, text| put(&mut s.archive.bucket.endpoint, archive::endpoint(text)),
    },
    Key {
        name: "archive_region",
        default: "",
        allowed: "one line of text",
        meaning: "the region of the archive's bucket; without it AWS_REGION, or us-east-1",
        set: |s, text| put(&mut s.archive.bucket.region, cluster::optional(text)),
    },
    Key {
        name: "accept_gap",
        default: "false",
        allowed: "true or false",
        meaning: "start although the log has lost records that were not folded yet (they are counted as lost) or that rebuild the open minutes (these count too little)",
        set: |s, text| put(&mut s.accept_gap, value::switch(text)),
    },
    Key {
        name: "accept_truncated_log",
        default: "false",
        allowed: "true or false",
        meaning: "start although the log has lost acknowledged records at its end, and forget that they were",
        set: |s, text| put(&mut s.accept_truncated_log, value::switch(text)),
    },
    Key {
        name: "flush_interval",
        default: "1s",
        allowed: "a duration from 50ms to 1m",
        meaning: "how often counts are written to the store, and so how fresh answers are",
        set: |s, text| put(&mut s.flush_interval, length(text, 50..=60_000).and_then(millis)),
    },
    Key {
        name: "resident_cells",
        default: "500000",
        allowed: "a whole number from 10000 to 100000000",
        meaning: "about how many cells all folds together keep in memory (100 to 200 bytes each)",
        set: |s, text| put(&mut s.resident_cells, number(text, 10_000..=100_000_000)),
    },
    Key {
        name: "max_body",
        default: "8MiB",
        allowed: "a size from 1KiB to 1GiB",
        meaning: "the largest request body that POST /v1/events takes",
        set: |s, text| put(&mut s.max_body_bytes, value::bytes(text).filter(|n| (1 << 10..=1 << 30).contains(n))),
    },
    Key {
        name: "max_decoded_body",
        default: "8MiB",
        allowed: "a size from 1KiB to 1GiB",
        meaning: "the largest that a compressed body of POST /v1/events may decode to, as far as `max_inflight` has room for it; and at most 100 times its own size",
        set: |s, text| put(&mut s.max_decoded_body_bytes, value::bytes(text).filter(|n| (1 << 10..=1 << 30).contains(n))),
    },
    Key {
        name: "body_timeout",
        default: "30s",
        allowed: "a duration from 1s to 10m",
        meaning: "how long the body of POST /v1/events may take to arrive",
        set: |s, text| put(&mut s.body_timeout, length(text, 1_000..=600_000).and_then(millis)),
    },
    Key {
        name: "body_rate",
        default: "1KiB",
        allowed: "0 (any) or a size up to 1GiB",
        meaning: "how much of the body of POST /v1/events must come each second on average, after 5 s of patience",
        set: |s, text| put(&mut s.body_bytes_per_second, value::bytes(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= 1 << 30)),
    },
    Key {
        name: "max_events",
        default: "50000",
        allowed: "a whole number from 1 to 1000000",
        meaning: "the most events that one POST /v1/events takes",
        set: |s, text| put(&mut s.max_events, number(text, 1..=1_000_000)),
    },
    Key {
        name: "max_inflight",
        default: "64MiB",
        allowed: "a size from 1MiB to 2GiB, at least `max_body`",
        meaning: "how many bytes of request bodies may be in memory at once; beyond it producers are told to come back (503). One caller's have at most half, or one body",
        set: |s, text| {
            put(
                &mut s.max_inflight_bytes,
                value::bytes(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (1 << 20..=1 << 31).contains(n)),
            )
        },
    },
    Key {
        name: "spool_size",
        default: "0",
        allowed: "0 (none) or a size from 1MiB to 1TiB",
        meaning: "how much a collector keeps on this machine's disk (in DATA/spool) while Kafka is away; it is acknowledged, and drained when Kafka is back; 0 refuses events then (503)",
        set: |s, text| {
            put(
                &mut s.spool_bytes,
                value::bytes(text).and_then(|n| u64::try_from(n).ok()).filter(|n| *n == 0 || (1 << 20..=1 << 40).contains(n)),
            )
        },
    },
    Key {
        name: "cache_size",
        default: "128MiB",
        allowed: "0 (keep nothing) or a size from 1MiB to 1TiB",
        meaning: "how much memory is for counts and answers that are asked for again; 0 reads the store for every question",
        set: |s, text| put(&mut s.cache_bytes, value::bytes(text).filter(|n| *n == 0 || (1 << 20..=1 << 40).contains(n))),
    },
    Key {
        name: "max_connections",
        default: "16384",
        allowed: "a whole number from 1 to 1000000",
        meaning: "how many HTTP connections may be open at once; more wait to be accepted. The limit of open files is raised for it as far as the system lets us",
        set: |s, text| put(&mut s.max_connections, number(text, 1..=1_000_000)),
    },
    Key {
        name: "rate_limit",
        default: "5000",
        allowed: "a whole number from 0 (no limit) to 1000000",
        meaning: "how many questions one client (an IPv4 address, or the /64 network of an IPv6 address) may ask each second; more are refused with 429. Behind a proxy all come from its address, unless it is one of `trusted_proxies`",
        set: |s, text| put(&mut s.rate_limit, number(text, 0..=1_000_000)),
    },
    Key {
        name: "key_requests",
        default: "0",
        allowed: "a whole number from 0 (no limit) to 1000000",
        meaning: "how many POST /v1/events one key may send each second; more are refused with 429",
        set: |s, text| put(&mut s.quotas.key.requests, number(text, 0..=1_000_000).map(NonZeroU32::new)),
    },
    Key {
        name: "key_events",
        default: "0",
        allowed: "a whole number from 0 (no limit) to 1000000000",
        meaning: "how many events one key may send each second, unless it has a limit of its own; a request with more is taken and waited off, up to a minute's worth",
        set: |s, text| put(&mut s.quotas.key.events, number(text, 0..=1_000_000_000).map(NonZeroU32::new)),
    },
    Key {
        name: "address_requests",
        default: "0",
        allowed: "a whole number from 0 (no limit) to 1000000",
        meaning: "how many POST /v1/events one client (as in `rate_limit`) may send each second, with whatever key; more are refused with 429",
        set: |s, text| put(&mut s.quotas.address.requests, number(text, 0..=1_000_000).map(NonZeroU32::new)),
    },
    Key {
        name: "address_events",
        default: "0",
        allowed: "a whole number from 0 (no limit) to 1000000000",
        meaning: "how many events one client may send each second, with whatever key; a request with more is taken and waited off, up to a minute's worth",
        set: |s, text| put(&mut s.quotas.address.events, number(text, 0..=1_000_000_000).map(NonZeroU32::new)),
    },
    Key {
        name: "trusted_proxies",
        default: "",
        allowed: "networks and addresses such as 10.0.0.0/8,192.0.2.7,fd00::/8, or nothing",
        meaning: "the proxies whose X-Forwarded-For is believed: it is read from the right, past these only. Without it a client is who connects",
        set: |s, text| put(&mut s.trusted_proxies, edge::networks(text)),
    },
    Key {
        name: "enrich",
        default: "",
        allowed: "some of ip,user_agent,received, or nothing",
        meaning: "what is put on each event that is not historical, as members `client_ip`, `user_agent` and `received_at` (Unix ms); with any of them, what a client says under these names is dropped",
        set: |s, text| edge::members(&mut s.enrichment, text),
    },
    Key {
        name: "client_ip",
        default: "truncated",
        allowed: "full, truncated or off",
        meaning: "how much of the address `enrich` puts on events: all, the network (24 bits of IPv4, 48 of IPv6), or nothing",
        set: |s, text| put(&mut s.enrichment.address_form, edge::address_form(text)),
    },
    Key {
        name: "viewer_salt",
        default: "off",
        allowed: "off or daily",
        meaning: "daily: viewer ids (of who has none: made from address and user agent) are replaced by a hash with a salt that is new each UTC day, at each start and on each instance, and is kept in memory alone",
        set: |s, text| put(&mut s.enrichment.daily_viewers, edge::daily(text)),
    },
    Key {
        name: "live_streams",
        default: "10000",
        allowed: "a whole number from 0 to 1000000",
        meaning: "how many live streams may be open at once; each is a connection of `max_connections`",
        set: |s, text| put(&mut s.live_streams, number(text, 0..=1_000_000)),
    },
    Key {
        name: "header_timeout",
        default: "10s",
        allowed: "a duration from 1s to 10m",
        meaning: "how long a client may take to send a request's head, or stay silent between requests",
        set: |s, text| put(&mut s.header_timeout, length(text, 1_000..=600_000).and_then(millis)),
    },
    Key {
        name: "drain_timeout",
        default: "10s",
        allowed: "a duration from 0 to 10m",
        meaning: "how long a stop (SIGTERM) waits for open requests",
        set: |s, text| put(&mut s.drain_timeout, length(text, 0..=600_000).and_then(millis)),
    },
    Key {
        name: "stop_delay",
        default: "0",
        allowed: "a duration from 0 to 10m",
        meaning: "how long a stop goes on serving while /readyz already says no, so that a load balancer sends requests elsewhere first",
        set: |s, text| put(&mut s.stop_delay, length(text, 0..=600_000).and_then(millis)),
    },
    Key {
        name: "log_level",
        default: "info",
        allowed: "error, warn, info, debug or trace",
        meaning: "which of the program's own messages go to stderr",
        set: |s, text| put(&mut s.log_level, ["error", "warn", "info", "debug", "trace"].contains(&text).then(|| text.to_owned())),
    },
    Key {
        name: "log_format",
        default: "text",
        allowed: "text or json",
        meaning: "how they are written",
        set: |s, text| {
            let format = match text {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            };
            put(&mut s.log_format, format)
        },
    },
    Key {
        name: "access_log",
        default: "false",
        allowed: "true or false",
        meaning: "tell of each request in one line at info; without it at debug. Failures of the service are told at warn",
        set: |s, text| put(&mut s.access_log, value::switch(text)),
    },
];

fn put<T>(slot: &mut T, value: Option<T>) -> Option<()> {
    *slot = value?;
    Some(())
}

fn number<T: std::str::FromStr + PartialOrd>(text: &str, allowed: std::ops::RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|n| allowed.contains(n))
}

fn length(text: &str, allowed_ms: std::ops::RangeInclusive<i64>) -> Option<i64> {
    duration_ms(text).filter(|ms| allowed_ms.contains(ms))
}

fn millis(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}
