//! The settings of a server: one table of keys, each with its default, what is allowed and what it means.
//!
//! Flags go over environment variables (`TALLYMARK_...`), these over one TOML file, and that over the defaults.
//! Nothing is ignored: an unknown key or variable is an error that names the nearest known one, and every value is
//! checked at the start with a message that says where it came from.

mod archive;
mod check;
mod cluster;
mod edge;
mod keys;
mod sources;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ingest::collect::enrich::Enrichment;
use ingest::collect::quota::Quotas;
use ipnet::IpNet;
use schemas::FoldSettings;
use thiserror::Error;

pub(crate) use archive::ArchiveSettings;
pub(crate) use check::print_all;
#[cfg(feature = "kafka")]
pub(crate) use cluster::properties_file;
pub(crate) use cluster::{CassandraSettings, KafkaSettings};
pub(crate) use keys::{KEYS, Key};
pub(crate) use sources::{Given, load, near_hint};
pub(crate) use value::{duration, duration_ms};

/// Every setting of a server, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) insecure: bool,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) fold: FoldSettings,
    pub(crate) kafka: KafkaSettings,
    pub(crate) cassandra: CassandraSettings,
    pub(crate) replication: u32,
    pub(crate) retention_ms: i64,
    pub(crate) archive: ArchiveSettings,
    pub(crate) accept_gap: bool,
    pub(crate) accept_truncated_log: bool,
    pub(crate) flush_interval: Duration,
    pub(crate) resident_cells: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_decoded_body_bytes: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) body_bytes_per_second: u32,
    pub(crate) quotas: Quotas,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) enrichment: Enrichment,
    pub(crate) max_events: usize,
    pub(crate) max_inflight_bytes: u32,
    /// None for 0.
    pub(crate) spool_bytes: u64,
    pub(crate) max_connections: usize,
    pub(crate) rate_limit: u32,
    pub(crate) live_streams: usize,
    /// How much memory answers that are asked for again may take, in bytes.
    pub(crate) cache_bytes: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) stop_delay: Duration,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) access_log: bool,
}

/// How the program's own messages are written to stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => name.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

/// Settings, and for each key the text that was taken and its origin, in the order of [`KEYS`].
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    pub(crate) values: Vec<(String, Origin)>,
}

/// Why the settings cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error(
        "cannot read the configuration file {path}: {detail}\nGive another with --config FILE, or leave the option out to use the defaults."
    )]
    File { path: String, detail: String },
    #[error("unknown {what} {name:?} in {origin}{hint}\nAll keys, with their values and meanings: tallymark config check")]
    Unknown { what: &'static str, name: String, origin: String, hint: String },
    #[error("{key} = {value:?} (from {origin}) cannot be used: allowed is {allowed}")]
    Value { key: &'static str, value: String, origin: Origin, allowed: String },
}

/// Reads every key's text into settings, then checks what concerns two keys at once.
fn resolve(values: Vec<(String, Origin)>) -> Result<Loaded, ConfigError> {
    let mut settings = Settings::default();
    for (key, (text, origin)) in KEYS.iter().zip(&values) {
        (key.set)(&mut settings, text).ok_or_else(|| refused(key, text, origin, key.allowed.to_owned()))?;
    }
    let conflict = conflict(&settings);
    if let Some((name, allowed)) = conflict
        && let Some((key, (text, origin))) = KEYS.iter().zip(&values).find(|(key, _)| key.name == name)
    {
        return Err(refused(key, text, origin, allowed));
    }
    Ok(Loaded { settings, values })
}

fn refused(key: &Key, value: &str, origin: &Origin, allowed: String) -> ConfigError {
    ConfigError::Value { key: key.name, value: shown(key, value), origin: origin.clone(), allowed }
}

/// A key's text without secrets, for people.
fn shown(key: &Key, text: &str) -> String {
    if key.name == "kafka_properties" { cluster::without_secrets(text) } else { text.to_owned() }
}

/// The first key whose value does not go with another, and what it may be.
fn conflict(s: &Settings) -> Option<(&'static str, String)> {
    let fold = &s.fold;
    if fold.spread > fold.sources {
        return Some(("spread", format!("a whole number from 1 to `sources`, which is {}", fold.sources)));
    }
    let lateness_s = fold.max_lateness_ms / 1_000;
    for (name, ttl_ms) in [("minute_ttl", fold.minute_ttl_ms), ("hour_ttl", fold.hour_ttl_ms)] {
        if ttl_ms != 0 && ttl_ms <= fold.max_lateness_ms {
            return Some((name, format!("0 (keep) or a duration longer than `max_lateness`, which is {lateness_s}s")));
        }
    }
    match (&s.tls_cert, &s.tls_key) {
        (Some(_), None) => return Some(("tls_cert", "only together with `tls_key`".to_owned())),
        (None, Some(_)) => return Some(("tls_key", "only together with `tls_cert`".to_owned())),
        _ => {}
    }
    if let Some((key, needs)) = s.cassandra.incomplete() {
        return Some((key, format!("only together with `{needs}`")));
    }
    if usize::try_from(s.max_inflight_bytes).is_ok_and(|n| n < s.max_body_bytes) {
        return Some(("max_inflight", format!("a size of at least `max_body`, which is {} bytes", s.max_body_bytes)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let text = |key: &Key| changes.iter().find(|(name, _)| *name == key.name).map_or(key.default, |(_, text)| *text);
        resolve(KEYS.iter().map(|key| (text(key).to_owned(), Origin::Default)).collect())
    }

    #[test]
    fn the_defaults_are_allowed_and_are_the_folds_own() {
        let loaded = with(&[]).unwrap();
        assert_eq!(loaded.settings.fold, FoldSettings::default());
        assert_eq!(loaded.settings.listen, Some("127.0.0.1:8080".parse().unwrap()));
    }

    #[test]
    fn every_key_refuses_nonsense_with_its_name_and_what_is_allowed() {
        for key in KEYS {
            // A line break is allowed in no text but a path's.
            let nonsense = if key.name == "data" { "" } else { "purple\n" };
            let error = with(&[(key.name, nonsense)]).unwrap_err().to_string();
            assert!(error.contains(key.name) && error.contains(key.allowed) && error.contains("from default"), "{error}");
        }
    }

    #[test]
    fn the_architecture_document_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md");
        let document = std::fs::read_to_string(path).unwrap();
        for key in KEYS {
            let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
            let row = format!("| `{}` | {default} | {} | {} |", key.name, key.allowed, key.meaning);
            assert!(document.contains(&row), "docs/architecture.md lacks this row:\n{row}");
        }
    }

    #[test]
    fn a_refused_property_shows_no_secret() {
        let error = with(&[("kafka_properties", "sasl.password=hunter2,nonsense")]).unwrap_err().to_string();
        assert!(error.contains("kafka_properties") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn values_that_do_not_go_together_are_refused() {
        for (changes, says) in [
            ([("sources", "2"), ("spread", "3")], "`sources`, which is 2"),
            ([("max_lateness", "7d"), ("minute_ttl", "7d")], "which is 604800s"),
            ([("max_lateness", "7d"), ("hour_ttl", "1d")], "hour_ttl"),
            ([("max_body", "32MiB"), ("max_inflight", "16MiB")], "which is 33554432 bytes"),
            ([("tls_cert", "c"), ("tls_key", "")], "`tls_key`"),
            ([("tls_cert", ""), ("tls_key", "k")], "`tls_cert`"),
            ([("cassandra_user", "u"), ("cassandra_nodes", "a:1")], "`cassandra_password_file`"),
            ([("cassandra_certificate_file", "c"), ("cassandra_key_file", "k")], "`cassandra_ca_file`"),
        ] {
            let error = with(&changes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(with(&[("max_lateness", "7d"), ("minute_ttl", "90d"), ("hour_ttl", "400d")]).is_ok());
    }
}
