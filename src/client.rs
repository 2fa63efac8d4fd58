//! The client's side of the HTTP API: what `demo`, `import`, `tap`, `top`, `status`, `rejected`, `adjust`, `event` and `keys` ask a server, and who they are
//! to it.
//!
//! Errors say what failed and what to do; whether to try again is the caller's decision.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aggregator::ImportProgress;
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, RequestBuilder, Response, StatusCode, Url};
use schemas::{LetterId, RecordKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Who a command is to a server.
#[derive(Args, Clone, Default)]
pub(crate) struct Identity {
    /// The key, if the server asks for one: tm_... Better given as a variable: arguments are seen by everybody on the machine.
    #[arg(long, value_name = "KEY", env = "TALLYMARK_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// The certificates (PEM) of the authority that signs the server's, beside those that this machine trusts.
    #[arg(long, value_name = "FILE", env = "TALLYMARK_CA")]
    pub(crate) ca: Option<PathBuf>,
}

// Written by hand, so that no log ever holds a key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("key", &self.key.as_ref().map(|_| "(hidden)")).field("ca", &self.ca).finish()
    }
}

/// A server by its address.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    base: Url,
    http: reqwest::Client,
}

/// Why a server did not answer as asked.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// No answer. Whether the request did anything is not known.
    #[error("no answer from {url}: {detail}")]
    Unreachable { url: String, detail: String },
    /// It answered with an error.
    #[error("{url} answered {status}: {detail}")]
    Refused { url: String, status: u16, detail: String, retry_after: Option<Duration>, body: Box<serde_json::Value> },
    /// It answered with something else than this program knows.
    #[error("{url} answered with something unexpected ({detail}); is it a Tallymark of this version?")]
    Unexpected { url: String, detail: String },
    /// It is no address.
    #[error("{0}")]
    Address(String),
}

/// The verdicts on one `POST /v1/events`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Accepted {
    /// So many events are durable in the log.
    pub(crate) accepted: u64,
    /// The others.
    #[serde(default)]
    pub(crate) rejected_total: u64,
    /// The first of them.
    #[serde(default)]
    pub(crate) rejected: Vec<RejectedEvent>,
}

/// One event that was not taken.
#[derive(Debug, Deserialize)]
pub(crate) struct RejectedEvent {
    /// Its place in the request, from 0.
    pub(crate) index: usize,
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) detail: String,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

impl Server {
    /// A server at an `http://` or `https://` address.
    ///
    /// # Errors
    /// If it is no such address, or the key or the certificates cannot be used.
    pub(crate) fn at(url: &str, identity: &Identity) -> Result<Self, ClientError> {
        let bad = |detail: &str| {
            ClientError::Address(format!("{url:?} is not a server's address ({detail}); give one such as http://127.0.0.1:8080"))
        };
        let mut base: Url = url.parse().map_err(|_| bad("not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad("it does not start with http:// or https://"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // A key goes to the server that was named and to no other.
        let mut builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().redirect(reqwest::redirect::Policy::none());
        if let Some(key) = &identity.key {
            builder = builder.default_headers(authorization(key)?);
        }
        if let Some(ca) = &identity.ca {
            builder = builder.tls_certs_merge(authorities(ca)?);
        }
        let http = builder.build().map_err(|error| bad(&error.to_string()))?;
        Ok(Self { base, http })
    }

    /// Its address, for people.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Puts the events of a columnar batch into the log.
    pub(crate) async fn post_events(&self, body: bytes::Bytes, historical: bool) -> Result<Accepted, ClientError> {
        let url = self.url(if historical { "v1/events?historical=true" } else { "v1/events" })?;
        let request = self.http.post(url).header("content-type", RecordKind::ViewBatch.content_type()).body(body);
        match self.json(request).await {
            // None of them could be used: a refusal to the sender of one, a verdict for a file.
            Err(ClientError::Refused { status: 400, body, .. })
                if body.get("rejected").is_some_and(|list| list.as_array().is_some_and(|l| !l.is_empty())) =>
            {
                let member = |name: &str| body.get(name).cloned().unwrap_or_default();
                let verdicts =
                    serde_json::json!({"accepted": 0, "rejected": member("rejected"), "rejected_total": member("rejected_total")});
                serde_json::from_value(verdicts).map_err(|error| self.unexpected("v1/events", &error.to_string()))
            }
            answer => answer,
        }
    }

    /// All keys.
    pub(crate) async fn keys<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        self.json(self.http.get(self.url("v1/keys")?)).await
    }

    /// Makes a key.
    pub(crate) async fn create_key<T: DeserializeOwned>(&self, new: &impl Serialize) -> Result<T, ClientError> {
        self.json(self.http.post(self.url("v1/keys")?).json(new)).await
    }

    /// Revokes a key.
    pub(crate) async fn revoke_key<T: DeserializeOwned>(&self, id: &str) -> Result<T, ClientError> {
        let mut url = self.url("v1/keys")?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(id);
        }
        self.json(self.http.delete(url)).await
    }

    /// How every source stands.
    pub(crate) async fn status(&self) -> Result<serde_json::Value, ClientError> {
        self.json(self.http.get(self.url("v1/status")?)).await
    }

    /// The same question about many entities.
    pub(crate) async fn query(&self, question: &serde_json::Value) -> Result<serde_json::Value, ClientError> {
        self.json(self.http.post(self.url("v1/query")?).json(question)).await
    }

    /// A list of the most viewed.
    pub(crate) async fn top(&self, ask: &TopAsk) -> Result<serde_json::Value, ClientError> {
        let mut url = self.url(if ask.spaces { "v1/top/spaces" } else { "v1/top/videos" })?;
        let sort = if ask.rising { "rising" } else { "views" };
        url.query_pairs_mut().extend_pairs([("window", &*ask.window), ("limit", &ask.limit.to_string()), ("sort", sort)]);
        self.json(self.http.get(url)).await
    }

    /// Refused events, newest first: a page of what is asked for by the names of the API.
    pub(crate) async fn rejected(&self, ask: &[(&str, String)]) -> Result<serde_json::Value, ClientError> {
        let mut url = self.url("v1/rejected")?;
        url.query_pairs_mut().extend_pairs(ask);
        self.json(self.http.get(url)).await
    }

    /// The same page as CSV with its header row, and the cursor to go on with.
    pub(crate) async fn rejected_csv(&self, ask: &[(&str, String)]) -> Result<(String, Option<u64>), ClientError> {
        let mut url = self.url("v1/rejected")?;
        url.query_pairs_mut().append_pair("format", "csv").extend_pairs(ask);
        let response = self.answer(self.http.get(url)).await?;
        let cursor = response.headers().get("tallymark-cursor").and_then(|cursor| cursor.to_str().ok()?.parse().ok());
        let url = response.url().to_string();
        Ok((response.text().await.map_err(|error| unreachable(&url, &error))?, cursor))
    }

    /// One refused event.
    pub(crate) async fn letter(&self, letter: &LetterId) -> Result<serde_json::Value, ClientError> {
        self.json(self.http.get(self.url(&format!("v1/rejected/{letter}"))?)).await
    }

    /// Counts refused events after all.
    pub(crate) async fn retry_rejected<T: DeserializeOwned>(&self, ask: &serde_json::Value) -> Result<T, ClientError> {
        self.json(self.http.post(self.url("v1/rejected/retry")?).json(ask)).await
    }

    /// Takes counts away or adds them, or goes on with it.
    pub(crate) async fn adjust(&self, ask: &serde_json::Value) -> Result<serde_json::Value, ClientError> {
        self.json(self.http.post(self.url("v1/adjustments")?).json(ask)).await
    }

    /// What was adjusted, the last first: a page.
    pub(crate) async fn adjustments(&self, limit: u64, cursor: Option<&str>) -> Result<serde_json::Value, ClientError> {
        let mut url = self.url("v1/adjustments")?;
        url.query_pairs_mut().append_pair("limit", &limit.to_string()).extend_pairs(cursor.map(|cursor| ("cursor", cursor)));
        self.json(self.http.get(url)).await
    }

    /// One adjustment.
    pub(crate) async fn adjustment(&self, id: &str) -> Result<serde_json::Value, ClientError> {
        self.json(self.http.get(self.adjustment_url(&[id])?)).await
    }

    /// Undoes one, or goes on with that.
    pub(crate) async fn undo_adjustment(&self, id: &str, ask: &serde_json::Value) -> Result<serde_json::Value, ClientError> {
        self.json(self.http.post(self.adjustment_url(&[id, "undo"])?).json(ask)).await
    }

    fn adjustment_url(&self, segments: &[&str]) -> Result<Url, ClientError> {
        let mut url = self.url("v1/adjustments/")?;
        let bad = || ClientError::Address(format!("{} takes no path", self.address()));
        url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().extend(segments);
        Ok(url)
    }

    /// What became of an event.
    pub(crate) async fn event(&self, id: &str, video: Option<&str>, within: &str) -> Result<serde_json::Value, ClientError> {
        let mut url = self.url("v1/events/")?;
        let bad = || ClientError::Address(format!("{} takes no path", self.address()));
        url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().push(id);
        url.query_pairs_mut().append_pair("within", within).extend_pairs(video.map(|video| ("video_id", video)));
        self.json(self.http.get(url)).await
    }

    /// Whether it is ready to take and answer requests.
    pub(crate) async fn ready(&self) -> Result<(), ClientError> {
        self.answer(self.http.get(self.url("readyz")?)).await.map(drop)
    }

    /// How far a file has been imported, if at all.
    pub(crate) async fn import_progress(&self, content: &str) -> Result<Option<ImportProgress>, ClientError> {
        match self.json(self.http.get(self.url(&format!("v1/imports/{content}"))?)).await {
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Notes how far a file has been imported.
    pub(crate) async fn put_import_progress(&self, content: &str, progress: &ImportProgress) -> Result<(), ClientError> {
        let url = self.url(&format!("v1/imports/{content}"))?;
        self.answer(self.http.put(url).json(progress)).await.map(drop)
    }

    /// Decoded records, one JSON object a line: to the log's end, or for ever.
    pub(crate) async fn records(&self, ask: &RecordsAsk) -> Result<Response, ClientError> {
        let mut url = self.url("v1/records")?;
        let number = |n: &dyn ToString| n.to_string();
        for (name, value) in [
            ("source", ask.source.map(|n| number(&n))),
            ("from", ask.from.clone()),
            ("limit", ask.limit.map(|n| number(&n))),
            ("video", ask.video.clone()),
            ("follow", ask.follow.then(|| "true".to_owned())),
        ] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        // It may stream for as long as there is something to read.
        Self::checked(self.http.get(url).send().await.map_err(|error| unreachable(self.address(), &error))?).await
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path).map_err(|error| ClientError::Address(format!("{path:?}: {error}")))
    }

    fn unexpected(&self, path: &str, detail: &str) -> ClientError {
        ClientError::Unexpected { url: format!("{}/{path}", self.address()), detail: detail.to_owned() }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.answer(request).await?;
        let url = response.url().to_string();
        let bytes = response.bytes().await.map_err(|error| unreachable(&url, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Unexpected { url, detail: error.to_string() })
    }

    /// Sends a request; an answer that is no success is an error.
    async fn answer(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        Self::checked(request.timeout(ANSWER_TIMEOUT).send().await.map_err(|error| unreachable(self.address(), &error))?).await
    }

    async fn checked(response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = response.url().to_string();
        let retry_after = retry_after(&response);
        let text = response.text().await.unwrap_or_default();
        let body: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = body.get("detail").and_then(serde_json::Value::as_str).map_or_else(|| text.chars().take(200).collect(), str::to_owned);
        Err(ClientError::Refused { url, status: status.as_u16(), detail, retry_after, body: Box::new(body) })
    }
}

fn authorization(key: &str) -> Result<HeaderMap, ClientError> {
    let refused = || ClientError::Address("the key (--key, TALLYMARK_KEY) does not have the form of one: tm_ID_SECRET".to_owned());
    schemas::Token::parse(key.trim()).ok_or_else(refused)?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim())).map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let refused = |detail: String| ClientError::Address(format!("--ca {}: {detail}; it must hold PEM certificates", path.display()));
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| refused(error.to_string()))?;
    if found.is_empty() { Err(refused("it holds none".to_owned())) } else { Ok(found) }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    (response.status() != StatusCode::OK).then(|| Duration::from_secs(seconds))
}

fn unreachable(url: &str, error: &reqwest::Error) -> ClientError {
    // The innermost cause says most: "connection refused" rather than "error sending request".
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    ClientError::Unreachable { url: url.to_owned(), detail: cause.to_string() }
}

/// Which list.
#[derive(Clone, Debug)]
pub(crate) struct TopAsk {
    /// Of spaces rather than videos.
    pub(crate) spaces: bool,
    /// A range by its name.
    pub(crate) window: String,
    pub(crate) limit: u64,
    /// Ranked by rise rather than views.
    pub(crate) rising: bool,
}

/// What to read of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordsAsk {
    pub(crate) source: Option<u32>,
    /// An offset, `start` or `end`.
    pub(crate) from: Option<String>,
    pub(crate) limit: Option<u64>,
    pub(crate) video: Option<String>,
    pub(crate) follow: bool,
}

/// The lines of a response's body.
pub(crate) struct Lines {
    url: String,
    body: BoxStream<'static, Result<bytes::Bytes, reqwest::Error>>,
    buffer: Vec<u8>,
    read: usize,
}

impl Lines {
    pub(crate) fn of(response: Response) -> Self {
        Self { url: response.url().to_string(), body: response.bytes_stream().boxed(), buffer: Vec::new(), read: 0 }
    }

    /// The next line without its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            let rest = self.buffer.get(self.read..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.get(..end).unwrap_or_default().to_vec();
                self.read += end + 1;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.read.min(self.buffer.len()));
            self.read = 0;
            match self.body.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(unreachable(&self.url, &error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }

    pub(crate) fn unexpected(&self, detail: &str) -> ClientError {
        ClientError::Unexpected { url: self.url.clone(), detail: detail.to_owned() }
    }
}
