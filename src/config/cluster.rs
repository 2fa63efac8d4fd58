//! The settings of Kafka and Cassandra: where they are, how to log in, and the librdkafka properties that go through as they are.
//!
//! As in [`super::value`], a parser returns `None` for what it does not understand, and the caller names what is allowed.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How Kafka is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KafkaSettings {
    /// `host:port,host:port`; empty for the embedded log.
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    /// Empty for one made of this machine's name and the process id.
    pub(crate) client_id: String,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) properties_file: Option<PathBuf>,
}

/// How Cassandra or ScyllaDB is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CassandraSettings {
    /// `host:port` each; empty for the embedded store.
    pub(crate) nodes: Vec<String>,
    pub(crate) keyspace: String,
    pub(crate) datacenter: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) certificate_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
}

impl CassandraSettings {
    /// The first key that lacks another one, and which.
    pub(super) fn incomplete(&self) -> Option<(&'static str, &'static str)> {
        [
            ("cassandra_user", self.user.is_some(), "cassandra_password_file", self.password_file.is_some()),
            ("cassandra_password_file", self.password_file.is_some(), "cassandra_user", self.user.is_some()),
            ("cassandra_certificate_file", self.certificate_file.is_some(), "cassandra_key_file", self.key_file.is_some()),
            ("cassandra_key_file", self.key_file.is_some(), "cassandra_certificate_file", self.certificate_file.is_some()),
            ("cassandra_certificate_file", self.certificate_file.is_some(), "cassandra_ca_file", self.ca_file.is_some()),
        ]
        .into_iter()
        .find_map(|(key, given, needs, there)| (given && !there).then_some((key, needs)))
    }
}

/// `host:port` separated by commas; none for an empty text.
pub(super) fn addresses(text: &str) -> Option<Vec<String>> {
    let list = text.split(',').map(str::trim).filter(|address| !address.is_empty());
    list.map(|address| {
        let (host, port) = address.rsplit_once(':')?;
        let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b));
        (plain && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| address.to_owned())
    })
    .collect()
}

/// A topic's name, so short that the name of its dead letters is one too.
pub(super) fn topic(text: &str) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let plain = (1..=240).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..");
    plain.then(|| text.to_owned())
}

/// A keyspace's name as CQL takes it without quotes.
pub(super) fn keyspace(text: &str) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let plain = (1..=48).contains(&text.len()) && text.bytes().all(allowed) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    plain.then(|| text.to_owned())
}

/// Text without control characters.
pub(super) fn line(text: &str) -> Option<String> {
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// As [`line`]; empty is none.
pub(super) fn optional(text: &str) -> Option<Option<String>> {
    Some(line(text)?).map(|text| (!text.is_empty()).then_some(text))
}

/// A path; empty is none.
pub(super) fn path(text: &str) -> Option<Option<PathBuf>> {
    optional(text).map(|path| path.map(PathBuf::from))
}

/// `NAME=VALUE,NAME=VALUE`, where `\,` is a comma and `\\` a backslash of a value.
pub(super) fn properties(text: &str) -> Option<BTreeMap<String, String>> {
    line(text)?;
    let mut entries = vec![String::new()];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, entries.last_mut()) {
            (',', _) => entries.push(String::new()),
            ('\\', Some(entry)) => entry.push(chars.next().filter(|c| matches!(c, ',' | '\\'))?),
            (other, entry) => entry?.push(other),
        }
    }
    entries.iter().filter(|entry| !entry.trim().is_empty()).map(|entry| property(entry)).collect()
}

/// A file of properties: one on each line, `#` begins a comment line.
///
/// # Errors
/// The number of the first line that is no property, from 1. Not the line: it may hold a secret.
#[cfg(any(feature = "kafka", test))]
pub(crate) fn properties_file(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    lines.map(|(index, line)| property(line).ok_or(index + 1)).collect()
}

fn property(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    plain.then(|| (name.to_owned(), value.trim().to_owned()))
}

/// A text of [`properties`] that gives these; how a table of a file becomes one.
pub(super) fn properties_text<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> String {
    let entries: Vec<String> = entries.map(|(name, value)| format!("{name}={}", value.replace('\\', "\\\\").replace(',', "\\,"))).collect();
    entries.join(",")
}

/// The text of `kafka_properties` without its secrets, to be shown.
pub(super) fn without_secrets(text: &str) -> String {
    const SECRETS: [&str; 5] = ["password", "secret", "key.pem", "token", "oauthbearer.config"];
    let Some(known) = properties(text) else { return "(not shown: it may hold a secret)".into() };
    if !known.keys().any(|name| SECRETS.iter().any(|secret| name.contains(secret))) {
        return text.to_owned();
    }
    properties_text(known.iter().map(|(name, value)| {
        let secret = SECRETS.iter().any(|secret| name.contains(secret));
        (name.as_str(), if secret { "***".to_owned() } else { value.clone() })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
        of.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn addresses_are_hosts_with_ports() {
        assert_eq!(addresses(""), Some(vec![]));
        assert_eq!(addresses("a:9092, b.c-d:1,[::1]:2,"), Some(vec!["a:9092".into(), "b.c-d:1".into(), "[::1]:2".into()]));
        for bad in ["a", "a:", ":1", "a:0", "a:65536", "http://a:1", "a b:1", "a:1;b:2"] {
            assert_eq!(addresses(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_those_that_the_servers_take() {
        assert!(topic("views-2.x_y").is_some() && keyspace("tallymark_2").is_some());
        assert!(["", ".", "a b", "ä", &"x".repeat(241)].iter().all(|bad| topic(bad).is_none()));
        assert!(["", "2x", "Views", "a-b", &"x".repeat(49)].iter().all(|bad| keyspace(bad).is_none()));
    }

    #[test]
    fn properties_are_names_and_values_and_a_comma_can_be_part_of_one() {
        let read = properties("security.protocol=sasl_ssl, a = b=c ,sasl.mechanisms=PLAIN\\,X\\\\,").unwrap();
        assert_eq!(pairs(&read), [("a", "b=c"), ("sasl.mechanisms", "PLAIN,X\\"), ("security.protocol", "sasl_ssl")]);
        assert_eq!(properties(&properties_text(read.iter().map(|(n, v)| (n.as_str(), v.clone())))), Some(read));
        assert_eq!(properties(""), Some(BTreeMap::new()));
        for bad in ["a", "=b", "A=b", "a=\\b", "a=b\n"] {
            assert_eq!(properties(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_of_properties_names_its_bad_line_by_number_alone() {
        let read = properties_file("# TLS\nsecurity.protocol=ssl\n\n  ssl.key.password = a,b \n").unwrap();
        assert_eq!(pairs(&read), [("security.protocol", "ssl"), ("ssl.key.password", "a,b")]);
        assert_eq!(properties_file("a=b\nhunter2\n"), Err(2));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(without_secrets("a=b, c=d"), "a=b, c=d");
        assert_eq!(without_secrets("sasl.username=u,sasl.password=hunter2"), "sasl.password=***,sasl.username=u");
        assert!(!without_secrets("sasl.password:hunter2").contains("hunter2"));
    }
}
