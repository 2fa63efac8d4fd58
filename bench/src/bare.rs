//! What it costs to read a topic and do nothing with it: librdkafka's batches, with the settings that cost the least CPU, and each
//! record's length added up.

use std::ffi::CStr;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as rk;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::topic::Topic;
use crate::usage::own_cpu_seconds;

/// A topic to read.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    brokers: String,
    topic: String,
    partitions: u32,
    records: u64,
}

impl Plan {
    pub(crate) fn of(topic: &Topic) -> Self {
        Self { brokers: topic.brokers.clone(), topic: topic.name.clone(), partitions: topic.partitions, records: topic.records }
    }
}

/// Reads it from its start to its end: records per CPU-second.
pub(crate) fn run(plan: &Plan) -> f64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &plan.brokers)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("max.partition.fetch.bytes", "262144")
        .set("queued.min.messages", "20000")
        .set("fetch.queue.backoff.ms", "1")
        .create()
        .unwrap();
    consumer.fetch_metadata(Some(&plan.topic), Duration::from_secs(10)).unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..plan.partitions {
        assignment.add_partition_offset(&plan.topic, partition.cast_signed(), Offset::Beginning).unwrap();
    }
    let cpu = own_cpu_seconds();
    consumer.assign(&assignment).unwrap();
    let bytes = read(&consumer, plan.records);
    let rate = plan.records as f64 / (own_cpu_seconds() - cpu);
    assert!(bytes > 0);
    rate
}

/// Takes so many records: their bytes.
#[expect(unsafe_code, reason = "the client library has no safe form of its batches, and one call for each record costs twice the CPU")]
fn read(consumer: &BaseConsumer, records: u64) -> usize {
    const SIZE: usize = 10_000;
    let mut messages = vec![std::ptr::null_mut::<rk::rd_kafka_message_t>(); SIZE];
    let (mut taken, mut bytes) = (0, 0);
    // SAFETY: the queue is the consumer's, which outlives this function. Each call writes at most SIZE pointers to whole messages,
    // which are ours until they are destroyed, once each.
    unsafe {
        let queue = rk::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        while taken < records {
            let count = rk::rd_kafka_consume_batch_queue(queue, 100, messages.as_mut_ptr(), SIZE);
            for &message in &messages[..usize::try_from(count).unwrap()] {
                let error = (*message).err;
                assert!(
                    error == rk::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                    "{}",
                    CStr::from_ptr(rk::rd_kafka_err2str(error)).to_string_lossy()
                );
                bytes += (*message).len;
                taken += 1;
                rk::rd_kafka_message_destroy(message);
            }
        }
        rk::rd_kafka_queue_destroy(queue);
    }
    assert_eq!(taken, records, "the topic holds other records than were sent");
    bytes
}
