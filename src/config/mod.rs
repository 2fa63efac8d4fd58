//! The settings of a server: one table of keys, each with its default, what is allowed and what it means.
//!
//! Flags go over environment variables (`TALLYMARK_...`), these over one TOML file, and that over the defaults.
//! Nothing is ignored: an unknown key or variable is an error that names the nearest known one, and every value is
//! checked at the start with a message that says where it came from.

mod check;
mod sources;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemas::FoldSettings;
use thiserror::Error;

pub(crate) use check::print_all;
pub(crate) use sources::{Given, load, near_hint};
pub(crate) use value::{duration, duration_ms};

/// Every setting of a server, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) insecure: bool,
    pub(crate) fold: FoldSettings,
    pub(crate) retention_ms: i64,
    pub(crate) accept_gap: bool,
    pub(crate) accept_truncated_log: bool,
    pub(crate) flush_interval: Duration,
    pub(crate) resident_cells: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_events: usize,
    pub(crate) max_inflight_bytes: u32,
    pub(crate) max_connections: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
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
    set: fn(&mut Settings, &str) -> Option<()>,
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
        meaning: "allow `listen` beyond this machine although nothing asks for a key yet: anyone who can connect can write and read counts",
        set: |s, text| put(&mut s.insecure, value::switch(text)),
    },
    Key {
        name: "sources",
        default: "2",
        allowed: "a whole number from 1 to 1024",
        meaning: "how many sources (partitions) the log has, each with a fold of its own; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.sources, number(text, 1..=1_024)),
    },
    Key {
        name: "spread",
        default: "1",
        allowed: "a whole number from 1 to `sources`",
        meaning: "over how many sources one video's events are spread; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.spread, number(text, 1..=1_024)),
    },
    Key {
        name: "grace",
        default: "10s",
        allowed: "a duration from 0 to 10m",
        meaning: "how long after its end a minute stays open before it is rolled up; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.grace_ms, length(text, 0..=600_000)),
    },
    Key {
        name: "max_skew",
        default: "60s",
        allowed: "a duration from 0 to 1h",
        meaning: "an event may be so far ahead of the log clock, else it is rejected as in_future; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.max_skew_ms, length(text, 0..=3_600_000)),
    },
    Key {
        name: "max_lateness",
        default: "7d",
        allowed: "a duration from 1m to 3650d",
        meaning: "an event may be so far behind the log clock, else it is rejected as too_old unless it is historical; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.max_lateness_ms, length(text, 60_000..=3_650 * DAY_MS)),
    },
    Key {
        name: "dedup_minutes",
        default: "10",
        allowed: "a whole number of minutes from 0 (off) to 1440",
        meaning: "how far back, in log time, a second event with the same id is known as a duplicate; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.dedup_minutes, number(text, 0..=1_440)),
    },
    Key {
        name: "minute_ttl",
        default: "0",
        allowed: "0 (keep) or a duration longer than `max_lateness`, at most 36500d",
        meaning: "how long minute counts are kept; 0 keeps them; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.minute_ttl_ms, length(text, 0..=36_500 * DAY_MS)),
    },
    Key {
        name: "hour_ttl",
        default: "0",
        allowed: "0 (keep) or a duration longer than `max_lateness`, at most 36500d",
        meaning: "how long hour counts are kept; 0 keeps them, and so are days and years always; fixed when the data directory is made",
        set: |s, text| put(&mut s.fold.hour_ttl_ms, length(text, 0..=36_500 * DAY_MS)),
    },
    Key {
        name: "retention",
        default: "7d",
        allowed: "0 (keep) or a duration from 1h to 36500d",
        meaning: "how long raw events are kept in the log; never less than a restart needs",
        set: |s, text| put(&mut s.retention_ms, length(text, 0..=36_500 * DAY_MS).filter(|ms| *ms == 0 || *ms >= 3_600_000)),
    },
    Key {
        name: "accept_gap",
        default: "false",
        allowed: "true or false",
        meaning: "start although the log has lost records that were not folded yet; they are counted as lost",
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
        meaning: "how many bytes of request bodies may be in memory at once; beyond it producers are told to come back (503)",
        set: |s, text| {
            put(
                &mut s.max_inflight_bytes,
                value::bytes(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (1 << 20..=1 << 31).contains(n)),
            )
        },
    },
    Key {
        name: "max_connections",
        default: "1024",
        allowed: "a whole number from 1 to 100000",
        meaning: "how many HTTP connections may be open at once; more wait to be accepted",
        set: |s, text| put(&mut s.max_connections, number(text, 1..=100_000)),
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
    ConfigError::Value { key: key.name, value: value.to_owned(), origin: origin.clone(), allowed }
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
            let nonsense = if key.name == "data" { "" } else { "purple" };
            let error = with(&[(key.name, nonsense)]).unwrap_err().to_string();
            assert!(error.contains(key.name) && error.contains(key.allowed) && error.contains("from default"), "{error}");
        }
    }

    #[test]
    fn the_architecture_document_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md");
        let document = std::fs::read_to_string(path).unwrap();
        for key in KEYS {
            let row = format!("| `{}` | `{}` | {} | {} |", key.name, key.default, key.allowed, key.meaning);
            assert!(document.contains(&row), "docs/architecture.md lacks this row:\n{row}");
        }
    }

    #[test]
    fn values_that_do_not_go_together_are_refused() {
        for (changes, says) in [
            ([("sources", "2"), ("spread", "3")], "`sources`, which is 2"),
            ([("max_lateness", "7d"), ("minute_ttl", "7d")], "which is 604800s"),
            ([("max_lateness", "7d"), ("hour_ttl", "1d")], "hour_ttl"),
            ([("max_body", "32MiB"), ("max_inflight", "16MiB")], "which is 33554432 bytes"),
        ] {
            let error = with(&changes).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(with(&[("max_lateness", "7d"), ("minute_ttl", "90d"), ("hour_ttl", "400d")]).is_ok());
    }
}
