//! The same client for programs without async: threads, scripts, plain `main`.
//!
//! ```no_run
//! # fn main() -> Result<(), tallymark_client::BuildError> {
//! use std::time::Duration;
//! use tallymark_client::blocking::Client;
//!
//! let client = Client::new(tallymark_client::Client::builder("http://127.0.0.1:8080").build()?);
//! client.view("cats").space("pets").send();
//! client.shutdown(Duration::from_secs(5));
//! # Ok(()) }
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::{Ended, Stats, View};

/// Sends views from programs without async. `send()` does not block here either; only `flush` and `shutdown` wait.
#[derive(Clone, Debug)]
pub struct Client {
    client: crate::Client,
}

impl Client {
    /// A client whose `flush` and `shutdown` block.
    pub const fn new(client: crate::Client) -> Self {
        Self { client }
    }

    /// A view of a video, to be ended by [`View::send`].
    pub fn view(&self, video_id: impl Into<String>) -> View<'_> {
        self.client.view(video_id)
    }

    /// As [`crate::Client::flush`], for up to `timeout`; whether it was done by then.
    pub fn flush(&self, timeout: Duration) -> bool {
        wait(self.client.flush(), Instant::now().checked_add(timeout)).is_some()
    }

    /// As [`crate::Client::shutdown`].
    pub fn shutdown(&self, timeout: Duration) -> Ended {
        wait(self.client.shutdown(timeout), None).unwrap_or_default()
    }

    /// As [`crate::Client::stats`].
    pub fn stats(&self) -> Stats {
        self.client.stats()
    }
}

impl From<crate::Client> for Client {
    fn from(client: crate::Client) -> Self {
        Self::new(client)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread; `None` if it is not ready by the deadline.
fn wait<T>(future: impl Future<Output = T>, deadline: Option<Instant>) -> Option<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => std::thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => std::thread::park_timeout(left),
        }
    }
}
