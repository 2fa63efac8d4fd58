//! A topic and a keyspace of their own with one process of each role: for what ends badly on purpose.

use std::sync::atomic::AtomicBool;

use test_servers::Scratch;

use crate::load::Door;
use crate::notes::{Click, now_ms};
use crate::program::{Program, client};
use crate::stage::{migrated, settings};
use crate::support::await_some;
use crate::verdict::get;

/// The set; it ends with this.
pub(crate) struct Small {
    pub(crate) name: String,
    pub(crate) aggregator: Program,
    collector: Program,
    pub(crate) query: Program,
    made: u64,
    pub(crate) directory: Scratch,
}

impl Small {
    /// Makes topic and keyspace and starts the processes.
    pub(crate) fn start(name: &str) -> Self {
        migrated(name);
        let directory = Scratch::new("chaos").unwrap();
        let settings = settings(name);
        let program = |role: &str| Program::new(directory.path(), &format!("{name}-{role}"), role, &settings);
        let (mut aggregator, mut collector, mut query) = (program("aggregate"), program("collect"), program("query"));
        [&mut aggregator, &mut collector, &mut query].into_iter().for_each(Program::start);
        [&mut aggregator, &mut collector, &mut query].into_iter().for_each(Program::await_ready);
        Self { name: name.to_owned(), aggregator, collector, query, made: 0, directory }
    }

    fn body(&mut self, events: u64, age_ms: i64) -> String {
        let clicks = (0..events).map(|number| Click {
            id: format!("{}-{}", self.name, self.made + number),
            video: format!("v{}", number % 50),
            space: None,
            ts_ms: now_ms() - age_ms,
        });
        let body = clicks.map(|click| click.json()).collect();
        self.made += events;
        body
    }

    /// Sends new events of this moment until they are acknowledged.
    pub(crate) fn send(&mut self, events: u64) {
        self.send_late(events, 0);
    }

    /// Sends new events of so many ms ago until they are acknowledged.
    pub(crate) fn send_late(&mut self, events: u64, age_ms: i64) {
        let body = self.body(events, age_ms);
        Door::new(&[self.collector.address().to_owned()]).send(&body, 0, &AtomicBool::new(false));
    }

    /// Sends new events once.
    pub(crate) fn try_send(&mut self, events: u64) -> Result<(), String> {
        let body = self.body(events, 0);
        let url = self.collector.url("/v1/events");
        let answer =
            client(60).post(url).header("content-type", "application/x-ndjson").body(body).send().map_err(|error| error.to_string())?;
        if answer.status() == 202 { Ok(()) } else { Err(answer.text().unwrap_or_default()) }
    }

    /// The views of the site.
    pub(crate) fn counted(&self) -> i64 {
        get(self.query.address(), &whole_site())["total"].as_i64().unwrap()
    }

    pub(crate) fn await_counted(&self, views: i64) {
        await_some(&format!("{views} views are counted"), || (self.counted() == views).then_some(()));
    }
}

fn whole_site() -> String {
    let now_s = now_ms() / 1_000;
    format!("/v1/site/views?step=all&start={}&end={}", now_s - 7_200, now_s + 7_200)
}
