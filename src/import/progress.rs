//! How far an import is, for people: a bar on a terminal, else a line every few seconds.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::send::Sent;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on stderr.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    bytes: u64,
    position: Arc<AtomicU64>,
    begun: Instant,
    line_at: Instant,
}

impl Progress {
    /// For a file of so many bytes, of which `position` tells how many have been read.
    pub(crate) fn new(bytes: u64, position: Arc<AtomicU64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{wide_bar} {percent:>3}%  {msg}  ETA {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(bytes).with_style(style)
        });
        Self { bar, bytes, position, begun: Instant::now(), line_at: Instant::now() }
    }

    /// Shows where it is now.
    pub(crate) fn show(&mut self, sent: &Sent) {
        let position = self.position.load(Ordering::Relaxed).min(self.bytes);
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(format!("{} events, {}/s", sent.accepted, self.rate(sent)));
        } else if self.line_at.elapsed() >= LINE_EVERY {
            self.line_at = Instant::now();
            let percent = (position * 100).checked_div(self.bytes).unwrap_or(100);
            let left = self.begun.elapsed().as_secs() * (self.bytes - position);
            let eta_s = left.checked_div(position).unwrap_or_default();
            eprintln!("{percent:>3} %  {} events, {}/s, about {eta_s} s to go", sent.accepted, self.rate(sent));
        }
    }

    /// Says something beside the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Events per second since the start.
    pub(crate) fn rate(&self, sent: &Sent) -> u64 {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        sent.accepted.saturating_mul(1_000).checked_div(ms).unwrap_or_default()
    }
}
