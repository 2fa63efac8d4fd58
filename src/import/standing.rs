//! How the server stands, as `/v1/status` says: where each source's log ends, how far it is folded, what became of its events.

use serde_json::Value;

use crate::client::{ClientError, Server};

/// All sources, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) sources: Vec<SourceStanding>,
    /// For how many minutes of log time ids are remembered.
    pub(crate) dedup_minutes: u64,
}

/// One source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceStanding {
    pub(crate) log_start: u64,
    pub(crate) log_end: u64,
    pub(crate) next_offset: u64,
    pub(crate) counted: u64,
    pub(crate) duplicate: u64,
    pub(crate) rejected: std::collections::BTreeMap<String, u64>,
}

impl Standing {
    /// Asks the server.
    ///
    /// # Errors
    /// If it does not answer, or not as expected.
    pub(crate) async fn ask(server: &Server) -> Result<Self, ClientError> {
        let status = server.status().await?;
        let url = format!("{}/v1/status", server.address());
        let troubles = status.get("troubles").and_then(Value::as_array).filter(|troubles| !troubles.is_empty());
        Self::read(&status).ok_or_else(|| match troubles {
            // A log that does not answer is one that may answer later, as if the server itself had said so.
            Some(troubles) => ClientError::Refused {
                url,
                status: 503,
                detail: troubles.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
                retry_after: None,
                body: Box::default(),
            },
            None => ClientError::Unexpected { url, detail: "the status has another form".into() },
        })
    }

    /// Reads the body of `/v1/status`.
    pub(crate) fn read(status: &Value) -> Option<Self> {
        let sources = status.get("sources")?.as_array()?.iter().map(SourceStanding::read).collect::<Option<_>>()?;
        let settings = status.get("settings");
        let dedup_minutes = settings.and_then(|settings| settings.get("dedup_minutes")).and_then(Value::as_u64).unwrap_or(1);
        Some(Self { sources, dedup_minutes })
    }

    /// The logs' ends, by source.
    pub(crate) fn ends(&self) -> Vec<u64> {
        self.sources.iter().map(|source| source.log_end).collect()
    }

    /// Whether everything below `ends` is in the store.
    pub(crate) fn has_folded(&self, ends: &[u64]) -> bool {
        self.sources.len() >= ends.len() && self.sources.iter().zip(ends).all(|(source, end)| source.next_offset >= *end)
    }

    /// What became of the events folded since `before`.
    pub(crate) fn since(&self, before: &Self) -> Folded {
        let sum = |standing: &Self, figure: fn(&SourceStanding) -> u64| standing.sources.iter().map(figure).sum::<u64>();
        let change = |figure: fn(&SourceStanding) -> u64| sum(self, figure).saturating_sub(sum(before, figure));
        let mut rejected = std::collections::BTreeMap::<String, u64>::new();
        for (reason, n) in self.sources.iter().flat_map(|source| &source.rejected) {
            *rejected.entry(reason.clone()).or_default() += n;
        }
        for (reason, n) in before.sources.iter().flat_map(|source| &source.rejected) {
            rejected.entry(reason.clone()).and_modify(|now| *now = now.saturating_sub(*n));
        }
        rejected.retain(|_, n| *n > 0);
        Folded { counted: change(|s| s.counted), duplicate: change(|s| s.duplicate), rejected }
    }
}

/// What became of some events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) counted: u64,
    pub(crate) duplicate: u64,
    pub(crate) rejected: std::collections::BTreeMap<String, u64>,
}

impl Folded {
    /// All of them.
    pub(crate) fn events(&self) -> u64 {
        self.counted + self.duplicate + self.rejected.values().sum::<u64>()
    }
}

impl SourceStanding {
    fn read(source: &Value) -> Option<Self> {
        let begun = Self { log_start: source.get("start")?.as_u64()?, log_end: source.get("end")?.as_u64()?, ..Self::default() };
        let Some(checkpoint) = source.get("checkpoint").filter(|checkpoint| !checkpoint.is_null()) else { return Some(begun) };
        let tally = checkpoint.get("tally")?;
        let rejected = tally.get("rejected_by_reason")?.as_object()?;
        Some(Self {
            next_offset: checkpoint.get("next_offset")?.as_u64()?,
            counted: tally.get("counted")?.as_u64()?,
            duplicate: tally.get("duplicate")?.as_u64()?,
            rejected: rejected.iter().filter_map(|(reason, n)| Some((reason.clone(), n.as_u64()?))).collect(),
            ..begun
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(next_offset: u64, counted: u64, too_old: u64) -> Standing {
        Standing::read(&serde_json::json!({
            "settings": {"dedup_minutes": 10},
            "sources": [{"source": 0, "start": 0, "end": 9, "checkpoint": {"next_offset": next_offset,
                         "tally": {"counted": counted, "duplicate": 1, "rejected_by_reason": {"too_old": too_old}}}}],
        }))
        .unwrap()
    }

    #[test]
    fn the_change_between_two_standings_is_what_was_folded() {
        let folded = standing(9, 7, 3).since(&standing(2, 2, 3));
        assert_eq!(folded, Folded { counted: 5, ..Folded::default() });
        assert_eq!(standing(9, 7, 5).since(&standing(2, 2, 3)).rejected, [("too_old".to_owned(), 2)].into());
        assert_eq!(standing(9, 7, 5).since(&Standing::default()).events(), 13);
    }

    #[test]
    fn folded_means_every_source_has_passed_its_end() {
        assert!(standing(9, 0, 0).has_folded(&[9]) && standing(9, 0, 0).has_folded(&[]));
        assert!(!standing(8, 0, 0).has_folded(&[9]) && !standing(9, 0, 0).has_folded(&[9, 0]));
    }
}
