//! Answers as they went out, kept to be given again for the moment that they are true.
//!
//! They stand before admission: a request that is answered from here reads nothing, waits for nothing and costs no place. What is kept is
//! the answer to a path, its query and what the request accepts; an open answer until its epoch ends, any other for a second; a stale one never.
//!
//! For each question one request at a time is worked on, and the others wait for what it will have left. Whoever answers without
//! such a turn (it did not wait any longer, or nothing was left for it) drops what is kept and takes the turn's right to leave anything. So whatever
//! is given from here is not older than an answer that was given before.
//!
//! Every answer whose body is in memory has a weak `ETag`, and `If-None-Match` is answered with 304. Of a complete answer it does not tell
//! `complete_through`, which moves on by the minute while nothing else changes.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::watch;
use tokio::time::timeout;
use xxhash_rust::xxh3::Xxh3;

use crate::admission::admit;
use crate::service::QueryService;
use crate::standing::{Lasts, Standing};

/// How long an answer is kept that only late events and corrections can change: with the second in which these are noticed it stays well
/// within [`LATE_CHANGES_SHOW_WITHIN`](super::LATE_CHANGES_SHOW_WITHIN).
const COMPLETE: Duration = Duration::from_secs(1);

/// How long a request waits for another that asks the same.
const PATIENCE: Duration = Duration::from_millis(100);

/// What an answer costs beyond its body and its question, in bytes.
const ANSWER_BYTES: usize = 1_200;

/// An answer may take this part of what there is for all.
const ANSWER_PART: usize = 16;

/// The field of JSON answers that an `ETag` of complete ones leaves out. Within a text its quotes would be escaped.
const COMPLETE_THROUGH: &str = "\"complete_through\":";

/// The answers that are kept.
pub(crate) struct Rendered {
    answers: moka::sync::Cache<String, Arc<Kept>>,
    turns: Mutex<HashMap<String, Arc<Turn>>>,
    bytes: usize,
    began: Instant,
}

#[derive(Debug)]
struct Kept {
    headers: HeaderMap,
    body: Bytes,
    until: Instant,
}

/// Somebody works on an answer.
struct Turn {
    /// Ends when it is over.
    over: watch::Sender<()>,
    /// Others have given a newer answer since.
    overtaken: AtomicBool,
}

/// The turn of the request that works on it; it ends with this.
struct Mine<'a> {
    of: &'a Rendered,
    key: String,
    turn: Arc<Turn>,
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        self.of.turns().remove(&self.key);
        self.turn.over.send_replace(());
    }
}

/// Whose turn it is.
enum Whose<'a> {
    Mine(Mine<'a>),
    Another(watch::Receiver<()>),
}

impl Rendered {
    /// Room for about so many bytes. Epochs are counted from `began`, as those of the pieces.
    pub(crate) fn new(bytes: usize, began: Instant) -> Self {
        let weigh = |key: &String, kept: &Arc<Kept>| u32::try_from(key.len() * 2 + kept.body.len() + ANSWER_BYTES).unwrap_or(u32::MAX);
        let capacity = u64::try_from(bytes).unwrap_or(u64::MAX);
        let answers = moka::sync::Cache::builder().max_capacity(capacity).weigher(weigh).time_to_live(COMPLETE * 2).build();
        Self { answers, turns: Mutex::default(), bytes, began }
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<String, Arc<Turn>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &str, at: Instant) -> Option<Arc<Kept>> {
        self.answers.get(key).filter(|kept| at < kept.until)
    }

    fn turn(&self, key: &str) -> Whose<'_> {
        let mut turns = self.turns();
        if let Some(turn) = turns.get(key) {
            return Whose::Another(turn.over.subscribe());
        }
        let turn = Arc::new(Turn { over: watch::Sender::new(()), overtaken: AtomicBool::new(false) });
        turns.insert(key.to_owned(), Arc::clone(&turn));
        Whose::Mine(Mine { of: self, key: key.to_owned(), turn })
    }

    /// Somebody answers without a turn.
    fn overtake(&self, key: &str) {
        let turns = self.turns();
        if let Some(turn) = turns.get(key) {
            turn.overtaken.store(true, Ordering::Relaxed);
        }
        self.answers.invalidate(key);
    }

    /// Up to when an answer is true that was asked for `at` some moment.
    fn until(&self, lasts: Lasts, at: Instant) -> Instant {
        match lasts {
            Lasts::Open => super::view::epoch_end(self.began, at),
            Lasts::Complete | Lasts::Final => at + COMPLETE,
        }
    }
}

impl Mine<'_> {
    /// Leaves an answer to others.
    fn leave(&self, kept: Arc<Kept>) {
        // Under the lock that whoever overtakes holds.
        let _turns = self.of.turns();
        let fits = kept.body.len() <= self.of.bytes / ANSWER_PART;
        if fits && !self.turn.overtaken.load(Ordering::Relaxed) {
            self.of.answers.insert(self.key.clone(), kept);
        }
    }
}

/// Gives a kept answer, or keeps the one that is given.
pub(crate) async fn keep(service: &QueryService, request: Request, next: Next) -> Response {
    let Some(rendered) = service.rendered.as_ref().filter(|_| request.method() == Method::GET) else {
        return admit(service, request, next).await;
    };
    let at = Instant::now();
    let key = key(&request);
    if let Some(kept) = rendered.get(&key, at) {
        return kept.response(request.headers().get(IF_NONE_MATCH));
    }
    let known = request.headers().get(IF_NONE_MATCH).cloned();
    let mine = match rendered.turn(&key) {
        Whose::Mine(mine) => Some(mine),
        Whose::Another(mut over) => {
            // However it ends, it is time to look.
            let _ = timeout(PATIENCE, over.changed()).await;
            if let Some(kept) = rendered.get(&key, Instant::now()) {
                return kept.response(known.as_ref());
            }
            None
        }
    };
    let response = admit(service, request, next).await;
    match response.extensions().get::<Standing>().copied() {
        Some(standing) if standing.stale.is_none() && response.status() == StatusCode::OK => {
            let until = rendered.until(standing.lasts, at);
            let (response, kept) = render(response, standing, until).await;
            match (mine, &kept) {
                (Some(mine), Some(kept)) => mine.leave(Arc::clone(kept)),
                (Some(_), None) => {}
                (None, _) => rendered.overtake(&key),
            }
            kept.map_or(response, |kept| kept.response(known.as_ref()))
        }
        _ => response,
    }
}

/// What the answer depends on.
fn key(request: &Request) -> String {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut key = String::with_capacity(path.len() + 40);
    key.push_str(path);
    for accept in request.headers().get_all(ACCEPT) {
        key.push('\n');
        key.extend(accept.as_bytes().iter().copied().map(char::from));
    }
    key
}

/// Takes an answer to pieces, if its body is in memory; else it stays as it was.
async fn render(response: Response, standing: Standing, until: Instant) -> (Response, Option<Arc<Kept>>) {
    if response.body().size_hint().exact().is_none() {
        return (response, None);
    }
    let (mut head, body) = response.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        // A body in memory does not fail.
        return (Response::from_parts(head, Body::empty()), None);
    };
    head.headers.remove(CONTENT_LENGTH);
    head.headers.entry(VARY).or_insert(HeaderValue::from_static("accept"));
    if let Some(tag) = tag(&body, standing.lasts) {
        head.headers.insert(ETAG, tag);
    }
    let kept = Kept { headers: head.headers, body, until };
    (Response::default(), Some(Arc::new(kept)))
}

/// The weak tag of a body.
fn tag(body: &[u8], lasts: Lasts) -> Option<HeaderValue> {
    let mut hash = Xxh3::new();
    match std::str::from_utf8(body) {
        Ok(text) if lasts > Lasts::Open => {
            let mut parts = text.split(COMPLETE_THROUGH);
            hash.update(parts.next().unwrap_or_default().as_bytes());
            // Its value is a time or null: it ends with the next comma or brace.
            parts.for_each(|part| hash.update(part.trim_start_matches(|byte| !matches!(byte, ',' | '}')).as_bytes()));
        }
        _ => hash.update(body),
    }
    let mut text = String::with_capacity(20);
    write!(text, "W/\"{:016x}\"", hash.digest()).ok()?;
    HeaderValue::try_from(text).ok()
}

impl Kept {
    /// The answer, or that it is the one that the client has.
    fn response(&self, known: Option<&HeaderValue>) -> Response {
        let tag = self.headers.get(ETAG);
        let is_known = known.zip(tag).is_some_and(|(known, tag)| matches(known.as_bytes(), tag.as_bytes()));
        let body = if is_known { Body::empty() } else { Body::from(self.body.clone()) };
        let mut response = Response::new(body);
        *response.headers_mut() = self.headers.clone();
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }
}

/// Whether a list of tags names this one, weakly compared; `*` names any.
fn matches(list: &[u8], tag: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|one| one == b"*" || opaque(one) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        let ours = br#"W/"0123""#;
        for (list, expected) in [
            (r#"W/"0123""#, true),
            (r#""0123""#, true),
            (r#""x", W/"0123""#, true),
            ("*", true),
            (r#"W/"0124""#, false),
            ("0123", false),
            ("", false),
        ] {
            assert_eq!(matches(list.as_bytes(), ours), expected, "{list}");
        }
    }

    #[test]
    fn the_tag_of_a_complete_answer_is_blind_to_complete_through_alone() {
        let body =
            |total: i64, through: &str| format!(r#"{{"title":"\"complete_through\":\"x\"","total":{total},"complete_through":{through}}}"#);
        let of = |body: String, lasts| tag(body.as_bytes(), lasts).unwrap();
        let (at, later) = (r#""2026-05-05T12:00:00Z""#, r#""2026-05-05T12:01:00Z""#);
        for lasts in [Lasts::Complete, Lasts::Final] {
            assert_eq!(of(body(1, at), lasts), of(body(1, later), lasts));
            assert_eq!(of(body(1, at), lasts), of(body(1, "null"), lasts));
            assert_ne!(of(body(1, at), lasts), of(body(2, at), lasts));
        }
        assert_ne!(of(body(1, at), Lasts::Open), of(body(1, later), Lasts::Open));
    }

    #[test]
    fn who_answers_without_a_turn_takes_what_was_kept_and_what_is_under_way() {
        let began = Instant::now();
        let rendered = Rendered::new(1 << 20, began);
        let kept = |body: &'static str| {
            Arc::new(Kept { headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()), until: began + COMPLETE })
        };
        let given = || rendered.get("/q", began).map(|kept| kept.body.clone());
        let Whose::Mine(first) = rendered.turn("/q") else { unreachable!() };
        assert!(matches!(rendered.turn("/q"), Whose::Another(_)) && matches!(rendered.turn("/other"), Whose::Mine(_)));
        first.leave(kept("first"));
        assert_eq!(given(), Some(Bytes::from_static(b"first")));
        rendered.overtake("/q");
        assert_eq!(given(), None);
        first.leave(kept("old"));
        assert_eq!(given(), None, "somebody has given a newer one");
        drop(first);
        let Whose::Mine(next) = rendered.turn("/q") else { unreachable!() };
        next.leave(kept("next"));
        assert_eq!((given(), rendered.get("/q", began + COMPLETE).is_none()), (Some(Bytes::from_static(b"next")), true));
    }

    #[test]
    fn an_open_answer_lasts_to_the_end_of_its_epoch() {
        let began = Instant::now();
        let rendered = Rendered::new(1 << 20, began);
        let ms = Duration::from_millis;
        assert_eq!(rendered.until(Lasts::Open, began + ms(599)), began + ms(600));
        assert_eq!(rendered.until(Lasts::Open, began + ms(600)), began + ms(800));
        assert_eq!(rendered.until(Lasts::Complete, began + ms(599)), began + ms(1_599));
    }
}
