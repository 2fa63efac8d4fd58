//! What was sent, by video and minute; and whether a server says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use crate::client::{ClientError, Server};

/// The most points of one question; a server allows 50,000 unless it was told otherwise.
const POINTS: u64 = 10_000;
/// The most entities of one question.
const ENTITIES: u64 = 500;
/// So many differences are shown.
const SHOWN: usize = 30;

/// Views by video and minute (since 1970).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    counts: BTreeMap<(String, i64), i64>,
}

/// A minute that the server counts otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) video: String,
    pub(super) minute: i64,
    pub(super) sent: i64,
    pub(super) counted: i64,
}

impl Truth {
    /// Notes a view that was sent, however often.
    pub(super) fn add(&mut self, video: &str, ts_ms: i64) {
        *self.counts.entry((video.to_owned(), ts_ms.div_euclid(60_000))).or_default() += 1;
    }

    /// How many views there are.
    pub(super) fn total(&self) -> i64 {
        self.counts.values().sum()
    }

    /// How many videos and minutes of them.
    pub(super) fn cells(&self) -> (usize, usize) {
        (self.videos().len(), self.counts.len())
    }

    fn videos(&self) -> BTreeSet<&str> {
        self.counts.keys().map(|(video, _)| video.as_str()).collect()
    }

    /// The first minute and the one after the last.
    fn range(&self) -> Option<(i64, i64)> {
        let minutes = || self.counts.keys().map(|(_, minute)| *minute);
        Some((minutes().min()?, minutes().max()? + 1))
    }

    /// Asks the server for every minute of every video, also for those between in which nothing was sent.
    ///
    /// # Errors
    /// If the server does not answer, or not as expected.
    pub(super) async fn differences(&self, server: &Server) -> Result<Vec<Difference>, ClientError> {
        let Some((start, end)) = self.range() else { return Ok(Vec::new()) };
        let minutes = u64::try_from(end - start).unwrap_or(1);
        let at_once = usize::try_from((POINTS / minutes).clamp(1, ENTITIES)).unwrap_or(1);
        let videos: Vec<&str> = self.videos().into_iter().collect();
        let mut differences = Vec::new();
        for videos in videos.chunks(at_once) {
            let entities: Vec<Value> = videos.iter().map(|video| json!({"dimension": "video", "id": video})).collect();
            let ask = json!({"entities": entities, "start": start * 60, "end": end * 60, "step": "1m"});
            let answer = server.query(&ask).await?;
            for (video, counted) in videos.iter().zip(counts(&answer, videos, start)?) {
                differences.extend(self.compared(video, start, &counted));
            }
        }
        Ok(differences)
    }

    fn compared(&self, video: &str, start: i64, counted: &[i64]) -> Vec<Difference> {
        let sent = |minute| self.counts.get(&(video.to_owned(), minute)).copied().unwrap_or(0);
        let difference =
            |(minute, counted): (i64, &i64)| Difference { video: video.to_owned(), minute, sent: sent(minute), counted: *counted };
        (start..).zip(counted).map(difference).filter(|difference| difference.sent != difference.counted).collect()
    }
}

/// The counts by minute of each of the videos.
fn counts(answer: &Value, videos: &[&str], start: i64) -> Result<Vec<Vec<i64>>, ClientError> {
    let odd = |detail: &str| ClientError::Unexpected { url: "v1/query".to_owned(), detail: detail.to_owned() };
    let results = answer.get("results").and_then(Value::as_array).filter(|results| results.len() == videos.len());
    let results = results.ok_or_else(|| odd("the answer has not one result for each video"))?;
    let of_one = |(result, video): (&Value, &&str)| {
        let id = result.pointer("/entity/id").and_then(Value::as_str);
        let points = result.get("points").and_then(Value::as_array).filter(|_| id == Some(*video))?;
        points.iter().map(|point| point.get("views")?.as_i64()).collect::<Option<Vec<i64>>>()
    };
    let all = results.iter().zip(videos).map(of_one).collect::<Option<Vec<_>>>();
    all.ok_or_else(|| odd(&format!("the counts from minute {start} on have another form")))
}

/// Differences for people.
pub(super) fn table(differences: &[Difference]) -> String {
    let mut text = format!("{:<28} {:<20} {:>10} {:>10} {:>10}\n", "video", "minute (UTC)", "sent", "counted", "difference");
    for Difference { video, minute, sent, counted } in differences.iter().take(SHOWN) {
        let at = schemas::Millis(minute.saturating_mul(60_000)).to_string();
        // A string takes everything.
        let _ = writeln!(text, "{video:<28} {at:<20} {sent:>10} {counted:>10} {:>+10}", counted - sent);
    }
    if differences.len() > SHOWN {
        let _ = writeln!(text, "... and {} more", differences.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minute_that_differs_is_found_also_one_in_which_nothing_was_sent() {
        let mut truth = Truth::default();
        truth.add("a", 60_000);
        truth.add("a", 119_999);
        truth.add("a", 180_000);
        assert_eq!((truth.total(), truth.cells(), truth.range()), (3, (1, 2), Some((1, 4))));
        assert!(truth.compared("a", 1, &[2, 0, 1]).is_empty());
        let found = truth.compared("a", 1, &[1, 5, 1]);
        assert_eq!(found.iter().map(|d| (d.minute, d.sent, d.counted)).collect::<Vec<_>>(), [(1, 2, 1), (2, 0, 5)]);
        assert!(table(&found).contains("1970-01-01T00:02"), "{}", table(&found));
    }

    #[test]
    fn an_answer_about_something_else_is_an_error_and_not_a_count() {
        let answer = json!({"results": [{"entity": {"dimension": "video", "id": "b"}, "points": [{"views": 1}]}]});
        assert_eq!(counts(&answer, &["b"], 0).unwrap(), vec![vec![1]]);
        assert!(counts(&answer, &["a"], 0).is_err());
        assert!(counts(&answer, &["b", "a"], 0).is_err());
        assert!(counts(&json!({}), &["b"], 0).is_err());
    }
}
