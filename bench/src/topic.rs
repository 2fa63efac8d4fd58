//! Topics that hold generated events, in the order of their arrival.
//!
//! A topic is filled with the generator's times as the records' times, and then set to what the log asks for (`LogAppendTime`),
//! which changes no record that is there: its append times are those that a broker would have given to the same traffic live.
//! So an hour of traffic is filled in seconds, and folded as the hour that it is.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode::QueueFull};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use schemas::partition::Partitioner;
use test_servers::KafkaCluster;

use crate::encode::{Encoder, Form, event};
use crate::events::{Expected, Generator, Shape, View};

/// What a topic is to hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) partitions: u32,
    /// Over how many partitions a video's events are spread.
    pub(crate) spread: u32,
    pub(crate) form: Form,
    pub(crate) shape: Shape,
}

impl Plan {
    /// Records over two partitions.
    pub(crate) const fn of(form: Form, shape: Shape) -> Self {
        Self { partitions: 2, spread: 1, form, shape }
    }
}

/// A topic that is filled, and what counts of it must be.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) brokers: String,
    pub(crate) name: String,
    pub(crate) partitions: u32,
    pub(crate) spread: u32,
    pub(crate) records: u64,
    pub(crate) expected: Expected,
}

impl Topic {
    /// Makes and fills one.
    pub(crate) fn filled(kafka: &KafkaCluster, plan: &Plan) -> Self {
        let (began, shape) = (Instant::now(), &plan.shape);
        let mut topic = Self::made(kafka, plan.partitions, plan.spread, "CreateTime");
        eprintln!("filling the topic {}: {} events over {} videos", topic.name, shape.events, shape.videos);
        let mut sender = Sender::new(&topic, plan.form);
        let mut last = None;
        for view in Generator::new(shape) {
            topic.expected.add(&view);
            last = Some(view.now);
            sender.send(view, Some(view.now));
        }
        topic.records = sender.finish(last);
        let setting = "message.timestamp.type=LogAppendTime";
        let args = ["--alter", "--entity-type", "topics", "--entity-name", &topic.name, "--add-config", setting];
        kafka.tool("kafka.admin.ConfigCommand", &args).unwrap();
        eprintln!("filled in {:.1} s", began.elapsed().as_secs_f64());
        topic
    }

    /// Makes an empty one whose records the broker dates, and one for its rejected events.
    pub(crate) fn live(kafka: &KafkaCluster, partitions: u32) -> Self {
        Self::made(kafka, partitions, 1, "LogAppendTime")
    }

    fn made(kafka: &KafkaCluster, partitions: u32, spread: u32, timestamps: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let name = format!("bench-{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let topic = Self { brokers: kafka.bootstrap(), name, partitions, spread, records: 0, expected: Expected::default() };
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", &topic.brokers).create().unwrap();
        let rejected = topic.rejected();
        let of = |name, partitions: u32, timestamps| {
            NewTopic::new(name, partitions.cast_signed(), TopicReplication::Fixed(1))
                .set("message.timestamp.type", timestamps)
                .set("cleanup.policy", "delete")
                .set("retention.ms", "-1")
                .set("max.message.bytes", "2097152")
        };
        let topics = [of(topic.name.as_str(), partitions, timestamps), of(rejected.as_str(), 1, "LogAppendTime")];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        topic
    }

    /// The topic of its rejected events.
    pub(crate) fn rejected(&self) -> String {
        format!("{}.rejected", self.name)
    }
}

/// Sends events to a topic as a producer of many does: in large compressed batches.
pub(crate) struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
    form: Form,
    partitioner: Partitioner,
    /// What waits to be a record, by partition.
    waiting: Vec<Vec<View>>,
    encoder: Encoder,
    texts: [String; 4],
    payload: Vec<u8>,
    sent: u64,
}

impl Sender {
    pub(crate) fn new(topic: &Topic, form: Form) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &topic.brokers)
            .set("linger.ms", "50")
            .set("batch.size", "1000000")
            .set("compression.codec", "lz4")
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "262144")
            .create()
            .unwrap();
        let at_least_one = |n| NonZeroU32::new(n).unwrap();
        Self {
            producer,
            topic: topic.name.clone(),
            form,
            partitioner: Partitioner { sources: at_least_one(topic.partitions), spread: at_least_one(topic.spread) },
            waiting: vec![Vec::new(); topic.partitions as usize],
            encoder: Encoder::default(),
            texts: Default::default(),
            payload: Vec::new(),
            sent: 0,
        }
    }

    /// Sends an event, or keeps it until there are enough for a record. The caller dates the record, or the broker does.
    pub(crate) fn send(&mut self, view: View, at: Option<i64>) {
        let partition = self.partitioner.source(&event(&view, &mut self.texts)).0 as usize;
        self.waiting[partition].push(view);
        if self.waiting[partition].len() >= self.form.events() {
            self.send_record(partition, at);
        }
    }

    fn send_record(&mut self, partition: usize, at: Option<i64>) {
        let views = &mut self.waiting[partition];
        let Some(last) = views.last() else { return };
        let key = format!("v{}", last.video);
        self.payload.clear();
        self.encoder.encode(self.form, views, &mut self.payload);
        views.clear();
        let mut record = BaseRecord::to(&self.topic).payload(&self.payload).partition(i32::try_from(partition).unwrap());
        record = match self.form {
            Form::Json => record.key(&key),
            Form::Batch(_) => {
                let (name, value) = ("content-type", Some(self.form.kind().content_type()));
                record.headers(OwnedHeaders::new().insert(Header { key: name, value }))
            }
        };
        if let Some(at) = at {
            record = record.timestamp(at);
        }
        while let Err((error, back)) = self.producer.send(record) {
            match error {
                KafkaError::MessageProduction(QueueFull) => std::thread::sleep(Duration::from_millis(5)),
                other => panic!("{other}"),
            }
            record = back;
        }
        self.sent += 1;
    }

    /// Sends what waits, dated so, and waits until all is there: how many records were sent.
    pub(crate) fn finish(mut self, at: Option<i64>) -> u64 {
        (0..self.waiting.len()).for_each(|partition| self.send_record(partition, at));
        self.producer.flush(Duration::from_secs(120)).unwrap();
        self.sent
    }
}
