//! One batch over HTTP, in one request or, if something in it cannot be taken, in several.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::answer::{Again, Answer, Cause, Refused, Verdict, judge};
use crate::builder::{BuildError, Target};
use crate::event::named;
use crate::observer::Rejected;
use crate::view::now_ms;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer answers are none of a collector.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Smaller bodies go as they are.
const MIN_GZIP_BYTES: usize = 512;

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    url: Url,
    authorization: Option<HeaderValue>,
    gzip: AtomicBool,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Delivery {
    Answered { accepted: u64, rejected_total: u64, rejected: Vec<Rejected> },
    Again(Again),
}

impl Http {
    pub(crate) fn new(target: Target, timeout: Duration, gzip: bool) -> Result<Self, BuildError> {
        // A redirect is an answer that somebody has to look at; a POST must not become a GET somewhere else.
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("tallymark-client-rust/", env!("CARGO_PKG_VERSION")));
        #[cfg(feature = "tls")]
        let (client, refused): (_, fn(String) -> BuildError) = match target.roots {
            roots if roots.is_empty() => (client, BuildError::Start),
            // Whether they can be used is seen here.
            roots => (client.tls_certs_merge(roots), BuildError::Certificate),
        };
        #[cfg(not(feature = "tls"))]
        let refused = BuildError::Start;
        let client = client.build().map_err(|error| refused(chain(&error)))?;
        Ok(Self { client, url: target.url, authorization: target.authorization, gzip: AtomicBool::new(gzip) })
    }

    /// Sends lines of events. If a part of them fails after others were answered, all are to be sent again: ids make that harmless.
    pub(crate) async fn deliver(self: Arc<Self>, body: Arc<Vec<u8>>, events: u32) -> Delivery {
        let mut parts = vec![(0, body.len(), events)];
        let (mut accepted, mut rejected_total, mut rejected) = (0, 0, Vec::new());
        while let Some((from, to, events)) = parts.pop() {
            let Some(part) = body.get(from..to).filter(|_| events > 0) else { continue };
            match self.post(part, events).await {
                Verdict::Taken { refused_total, refused } => {
                    accepted += u64::from(events).saturating_sub(refused_total);
                    rejected_total += refused_total;
                    rejected.extend(with_names(part, refused));
                }
                Verdict::Split { reason, detail } => match middle(part, events) {
                    Some((at, before)) => {
                        parts.push((from + at, to, events - before));
                        parts.push((from, from + at, before));
                    }
                    None => {
                        rejected_total += u64::from(events);
                        rejected.extend(with_names(part, vec![Refused { index: 0, reason, detail }]));
                    }
                },
                Verdict::Plain => {
                    self.gzip.store(false, Ordering::Relaxed);
                    parts.push((from, to, events));
                }
                Verdict::Again(again) => {
                    return Delivery::Again(Again { in_doubt: again.in_doubt || accepted > 0, ..again });
                }
            }
        }
        Delivery::Answered { accepted, rejected_total, rejected }
    }

    async fn post(&self, body: &[u8], events: u32) -> Verdict {
        let gzip = (self.gzip.load(Ordering::Relaxed) && body.len() >= MIN_GZIP_BYTES).then(|| compressed(body)).flatten();
        let compressed = gzip.is_some();
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-ndjson");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if compressed {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let now_ms = now_ms();
        let request = request.header("tallymark-sent-at", now_ms).body(gzip.unwrap_or_else(|| body.to_vec()));
        match read(request).await {
            Ok((status, retry_after, answer)) => {
                let answer = Answer { status, retry_after: retry_after.as_deref(), body: &answer };
                judge(answer, events, compressed, now_ms / 1_000)
            }
            Err(error) => {
                // Only a connection that was never made has certainly taken nothing.
                let in_doubt = !error.is_connect() && !error.is_builder();
                Verdict::Again(Again { cause: Cause::NoAnswer(chain(&error.without_url())), retry_after: None, in_doubt })
            }
        }
    }
}

async fn read(request: reqwest::RequestBuilder) -> reqwest::Result<(u16, Option<String>, Vec<u8>)> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
            break;
        }
        answer.extend_from_slice(&chunk);
    }
    Ok((status, retry_after, answer))
}

/// The fastest level: views are so alike that others save little more.
fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).ok()
}

/// Where the second half of the lines begins, and how many lines are before it; `None` for a single line.
fn middle(body: &[u8], events: u32) -> Option<(usize, u32)> {
    let before = events / 2;
    let ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let at = usize::try_from(before).ok().and_then(|before| ends.take(before).last())?;
    (at < body.len()).then_some((at, before))
}

/// What the server refused, with the ids of the events.
fn with_names(body: &[u8], mut refused: Vec<Refused>) -> Vec<Rejected> {
    refused.sort_by_key(|refused| refused.index);
    let mut lines = body.split(|byte| *byte == b'\n').enumerate();
    let named = |Refused { index, reason, detail }: Refused| {
        let (event_id, video_id) = lines.by_ref().find(|(n, _)| *n == index).map(|(_, line)| named(line)).unwrap_or_default();
        Rejected { event_id, video_id, reason, detail }
    };
    refused.into_iter().map(named).collect()
}

/// An error with what it was caused by.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_halved_between_lines() {
        assert_eq!(middle(b"aa\nb\nc\n", 3), Some((3, 1)));
        assert_eq!(middle(b"aa\nb\nc\nd\n", 4), Some((5, 2)));
        // One line is not halved, whatever the number says.
        assert_eq!((middle(b"a\n", 1), middle(b"a\n", 2), middle(b"a", 9)), (None, None, None));
    }

    #[test]
    fn refused_events_are_named_by_their_place() {
        let body =
            b"{\"event_id\":\"a\",\"video_id\":\"v\"}\n{\"event_id\":\"b\",\"video_id\":\"w\"}\n{\"event_id\":\"c\",\"video_id\":\"x\"}\n";
        let refused = |index| Refused { index, reason: "r".into(), detail: String::new() };
        let names: Vec<String> = with_names(body, vec![refused(2), refused(0), refused(99)]).into_iter().map(|r| r.event_id).collect();
        assert_eq!(names, ["a", "c", ""]);
    }
}
