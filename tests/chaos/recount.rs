//! An independent count: reads the topic from its start with a plain consumer, knows JSON, columns and ids, and shares nothing with
//! the fold.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;

use crate::columns;
use crate::notes::{Cells, add};

const PATIENCE: Duration = Duration::from_secs(60);

/// A view as any consumer would read it.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct View {
    pub(crate) event_id: String,
    pub(crate) video_id: String,
    pub(crate) space_id: Option<String>,
    pub(crate) ts: i64,
}

/// All messages of a topic from its start to where it ends now, each once.
pub(crate) struct Messages {
    consumer: BaseConsumer,
    topic: String,
    /// The offset after the last message read, by partition.
    next: BTreeMap<i32, i64>,
}

impl Messages {
    pub(crate) fn new(brokers: &str, topic: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", format!("recount-{topic}")).set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "error");
        Self { consumer: config.create().unwrap(), topic: topic.to_owned(), next: BTreeMap::new() }
    }

    /// Reads on to where the topic ends now; new partitions from their start.
    fn read(&mut self, mut each: impl FnMut(&BorrowedMessage<'_>)) {
        let ends = self.ends();
        let mut list = TopicPartitionList::new();
        for partition in ends.keys() {
            let from = Offset::Offset(self.next.get(partition).copied().unwrap_or(0));
            list.add_partition_offset(&self.topic, *partition, from).unwrap();
        }
        self.consumer.assign(&list).unwrap();
        let begun = Instant::now();
        while ends.iter().any(|(partition, end)| self.next.get(partition).copied().unwrap_or(0) < *end) {
            assert!(begun.elapsed() < PATIENCE, "the recount stands at {:?} of {ends:?}", self.next);
            if let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(200)) {
                each(&message);
                self.next.insert(message.partition(), message.offset() + 1);
            }
        }
        self.consumer.unassign().unwrap();
    }

    /// Where each partition ends now.
    fn ends(&self) -> BTreeMap<i32, i64> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions().iter().map(|partition| partition.id());
        partitions.map(|partition| (partition, self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE).unwrap().1)).collect()
    }

    /// The payloads of all.
    pub(crate) fn all(&mut self) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        self.read(|message| payloads.push(message.payload().unwrap_or_default().to_vec()));
        payloads
    }
}

/// What has been counted.
pub(crate) struct Recount {
    messages: Messages,
    ids: HashSet<Box<str>>,
    pub(crate) cells: Cells,
    /// Events that were there before.
    pub(crate) repeats: u64,
}

impl Recount {
    pub(crate) fn new(brokers: &str, topic: &str) -> Self {
        Self { messages: Messages::new(brokers, topic), ids: HashSet::new(), cells: Cells::new(), repeats: 0 }
    }

    /// Counts what has come since the last time.
    pub(crate) fn read(&mut self) {
        let Self { messages, ids, cells, repeats } = self;
        messages.read(|message| count(message, ids, cells, repeats));
    }

    /// The offset after the last message read, by partition.
    pub(crate) fn next(&self) -> &BTreeMap<i32, i64> {
        &self.messages.next
    }
}

fn count(message: &BorrowedMessage<'_>, ids: &mut HashSet<Box<str>>, cells: &mut Cells, repeats: &mut u64) {
    let payload = message.payload().unwrap_or_default();
    let lines = |lines: &[&[u8]]| lines.iter().filter_map(|line| serde_json::from_slice::<View>(line).ok()).collect();
    // What is no event counts for nothing.
    let views: Vec<View> = match content_type(message).as_deref() {
        None | Some("application/json") => lines(&[payload]),
        Some("application/x-ndjson") => lines(&payload.split(|byte| *byte == b'\n').collect::<Vec<_>>()),
        Some(columns::CONTENT_TYPE) => columns::views(payload),
        // Ticks, and what nobody knows.
        Some(_) => return,
    };
    for view in views {
        if ids.insert(view.event_id.into()) {
            add(cells, &view.video_id, view.space_id.as_deref(), view.ts);
        } else {
            *repeats += 1;
        }
    }
}

fn content_type(message: &BorrowedMessage<'_>) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == "content-type")?;
    header.value.map(|value| String::from_utf8_lossy(value).into_owned())
}
