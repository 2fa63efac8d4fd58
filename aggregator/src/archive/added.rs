//! What the collector put on an event (`client_ip`, `user_agent`, `received_at`) apart from what the event said itself. Pure.
//!
//! The split is taken only if it can be undone to the byte; else everything stays together as `extra`.

use std::borrow::Cow;

use ingest::collect::enrich::MEMBERS;
use schemas::json;
use serde::Deserialize;

/// The other members of an event in columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Added<'a> {
    pub(super) client_ip: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) received_at: Option<i64>,
    /// The rest, as the text of a JSON object.
    pub(super) extra: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Members {
    client_ip: Option<String>,
    user_agent: Option<String>,
    received_at: Option<i64>,
}

impl<'a> Added<'a> {
    /// Takes other members apart.
    pub(super) fn split(others: Option<&'a str>) -> Self {
        let Some(text) = others else { return Self::default() };
        let whole = || Self { extra: Some(Cow::Borrowed(text)), ..Self::default() };
        if !MEMBERS.iter().any(|name| text.contains(name)) {
            return whole();
        }
        let Ok(Members { client_ip, user_agent, received_at }) = serde_json::from_str(text) else { return whole() };
        let extra = json::others_except(text.as_bytes(), &MEMBERS).map(Cow::Owned);
        let split = Self { client_ip, user_agent, received_at, extra };
        if split.joined().as_deref() == Some(text) { split } else { whole() }
    }

    /// The other members together again.
    pub(super) fn joined(&self) -> Option<String> {
        let mut members = serde_json::Map::new();
        if let Some(client_ip) = &self.client_ip {
            members.insert("client_ip".to_owned(), client_ip.clone().into());
        }
        if let Some(user_agent) = &self.user_agent {
            members.insert("user_agent".to_owned(), user_agent.clone().into());
        }
        if let Some(received_at) = self.received_at {
            members.insert("received_at".to_owned(), received_at.into());
        }
        let extra = self.extra.as_deref();
        if members.is_empty() {
            return extra.map(str::to_owned);
        }
        let added = serde_json::Value::Object(members).to_string();
        // As the collector puts them on.
        Some(match extra.map(|extra| extra.trim_end().strip_suffix('}').unwrap_or(extra)) {
            Some(own) => format!("{own},{}", added.strip_prefix('{').unwrap_or(&added)),
            None => added,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_collector_adds_gets_columns_and_comes_back_to_the_byte() {
        for own in [None, Some(r#"{"player":{"zoom": 1.50}}"#)] {
            let mut added = Added { client_ip: Some("10.0.0.0".into()), received_at: Some(17), ..Added::default() };
            added.extra = own.map(Cow::Borrowed);
            let text = added.joined().unwrap();
            assert_eq!(Added::split(Some(&text)), added, "{text}");
        }
    }

    #[test]
    fn what_would_not_come_back_stays_as_it_is() {
        for text in [
            r#"{"client_ip":7}"#,
            r#"{"client_ip":"a","client_ip":"b"}"#,
            r#"{"received_at":1,"x":2}"#,
            r#"{"client_ip" : "a"}"#,
            r#"{"a":"client_ip"}"#,
            "client_ip",
            r#"{"x":1}"#,
        ] {
            assert_eq!(Added::split(Some(text)), Added { extra: Some(text.into()), ..Added::default() }, "{text}");
        }
        assert_eq!(Added::split(None), Added::default());
    }
}
