//! How the demo goes: one line that is written anew each second on a terminal, and now and then where there is none.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use serde_json::Value;
use tallymark_client::Stats;

use crate::client::Server;
use crate::import::standing::Standing;

/// Without a terminal a line is kept, so there are fewer.
const KEPT_EVERY: Duration = Duration::from_secs(10);
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// What was shown last.
pub(super) struct Progress<'a> {
    server: &'a Server,
    before: Standing,
    on_terminal: bool,
    shown: Option<(Duration, u64)>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(server: &'a Server, before: Standing) -> Self {
        Self { server, before, on_terminal: stderr().is_terminal(), shown: None }
    }

    /// Shows how it stands, if it is time.
    pub(super) async fn show(&mut self, elapsed: Duration, stats: &Stats) {
        let every = if self.on_terminal { SHOWN_EVERY } else { KEPT_EVERY };
        let (then, sent_then) = self.shown.unwrap_or_default();
        if elapsed < then + every {
            return;
        }
        self.shown = Some((elapsed, stats.sent));
        // A server that does not answer has no figures; the client's go on.
        let status = self.server.status().await.ok();
        let rate = (stats.sent.saturating_sub(sent_then)) / (elapsed - then).as_secs().max(1);
        let line = line(elapsed, rate, stats, status.as_ref().and_then(|status| figures(status, &self.before)));
        let mut stderr = stderr().lock();
        // Nobody may be looking.
        let _ = if self.on_terminal { write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush()) } else { writeln!(stderr, "{line}") };
    }

    /// Leaves the line.
    pub(super) fn end(&self) {
        if self.on_terminal && self.shown.is_some() {
            let _ = writeln!(stderr());
        }
    }
}

/// Events counted since the start (by anybody), and how old the oldest is that is not counted.
fn figures(status: &Value, before: &Standing) -> Option<(u64, Option<f64>)> {
    let now = Standing::read(status)?;
    Some((now.since(before).counted, status.pointer("/totals/lag_seconds").and_then(Value::as_f64)))
}

fn line(elapsed: Duration, rate: u64, stats: &Stats, figures: Option<(u64, Option<f64>)>) -> String {
    let server = match figures {
        None => "the server does not tell".to_owned(),
        Some((counted, None)) => format!("counted {counted}"),
        Some((counted, Some(lag))) => format!("counted {counted} (behind by {lag:.1} s)"),
    };
    let Stats { sent, accepted, on_disk, dropped, .. } = stats;
    let mut line = format!("{:>4} s  {rate}/s  sent {sent}  acknowledged {accepted}  {server}", elapsed.as_secs());
    for (name, n) in [("on disk", on_disk), ("lost", dropped)] {
        if *n > 0 {
            line.push_str(&format!("  {name} {n}"));
        }
    }
    line
}
