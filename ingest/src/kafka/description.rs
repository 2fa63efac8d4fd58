//! A topic's id, partitions and replication, asked of the cluster.
//!
//! The id tells a topic from one of the same name that was made after it was deleted. rdkafka wraps no call that tells it, so this
//! module calls librdkafka's `DescribeTopics` itself.
#![expect(unsafe_code, reason = "librdkafka's DescribeTopics has no safe wrapper; each use is argued for below")]

use std::ffi::{CStr, CString, c_int};
use std::num::NonZeroU32;
use std::ptr;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;

use super::ANSWER_WITHIN;
use super::options::KafkaOptions;
use crate::log::LogError;

/// The id that a cluster without topic ids gives to all.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// What the cluster says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) id: String,
    pub(super) partitions: NonZeroU32,
    /// How many replicas the first partition has.
    pub(super) replication: usize,
}

/// The topic of the options, which is to exist.
pub(super) fn describe_existing<C: ClientContext>(client: &Client<C>, options: &KafkaOptions) -> Result<Description, LogError> {
    match describe(client, &options.topic, ANSWER_WITHIN) {
        Err(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => Err(options.refused(format!("{code}; allow Describe on the topic"))),
        Err(code) => Err(LogError::Unavailable(format!("{} does not describe its topics: {code}", options.brokers))),
        Ok(None) => Err(options.refused("there is no such topic; `tallymark migrate` makes it")),
        Ok(Some(description)) if description.id == NO_ID => {
            Err(options.refused("the cluster gives its topics no ids; it must be Kafka 2.8 or later"))
        }
        Ok(Some(description)) => Ok(description),
    }
}

/// Owns a pointer that librdkafka gave, and gives it back.
struct Given<T> {
    pointer: *mut T,
    give_back: unsafe extern "C" fn(*mut T),
}

impl<T> Given<T> {
    fn new(pointer: *mut T, give_back: unsafe extern "C" fn(*mut T)) -> Result<Self, RDKafkaErrorCode> {
        if pointer.is_null() { Err(RDKafkaErrorCode::Fail) } else { Ok(Self { pointer, give_back }) }
    }
}

impl<T> Drop for Given<T> {
    fn drop(&mut self) {
        // SAFETY: `pointer` is not null, came from librdkafka's constructor (or poll) of its type, is owned by this value alone
        // (neither Copy nor Clone, the field is private to the module and never freed elsewhere), and `give_back` is that type's
        // documented destructor.
        unsafe { (self.give_back)(self.pointer) }
    }
}

/// Asks the cluster; none if it knows no such topic. Blocks for up to `timeout` and a little.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<Description>, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX / 2);
    let mut names = [name.as_ptr()];
    // SAFETY: `client.native_ptr()` is a live client for as long as `client` is borrowed, which is all of this function; librdkafka's
    // functions are thread-safe. `names` holds one pointer to a NUL-terminated string that outlives the calls (librdkafka copies it).
    // A null error buffer of size 0 is allowed. The request, its options and the names are copied by `DescribeTopics`, and the queue
    // is reference-counted by it, so that all may be destroyed while an answer is still to come: it is then discarded.
    // Locals drop in reverse order: event before queue, which is the documented order.
    unsafe {
        let rk = client.native_ptr();
        let collection = Given::new(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Given::new(sys::rd_kafka_AdminOptions_new(rk, operation), sys::rd_kafka_AdminOptions_destroy)?;
        sys::rd_kafka_AdminOptions_set_request_timeout(options.pointer, timeout_ms, ptr::null_mut(), 0);
        let queue = Given::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        sys::rd_kafka_DescribeTopics(rk, collection.pointer, options.pointer, queue.pointer);
        let event = sys::rd_kafka_queue_poll(queue.pointer, timeout_ms.saturating_add(1_000));
        let event = Given::new(event, sys::rd_kafka_event_destroy).map_err(|_| RDKafkaErrorCode::OperationTimedOut)?;
        let error = sys::rd_kafka_event_error(event.pointer);
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        read_answer(event.pointer)
    }
}

/// Copies the one topic's description out of an answer.
///
/// # Safety
/// `event` must be a live event; it is not kept.
unsafe fn read_answer(event: *mut sys::rd_kafka_event_t) -> Result<Option<Description>, RDKafkaErrorCode> {
    // SAFETY: The accessor returns null unless the event is an answer to DescribeTopics. The arrays and what they point to live as
    // long as the event (documented), which the caller keeps; everything read is copied before this returns. An array's first
    // element is read only if its count says that there is one, and every pointer is checked for null before it is used.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 || topics.is_null() || (*topics).is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() { RDKafkaErrorCode::NoError } else { sys::rd_kafka_error_code(error).into() };
        match code {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => return Ok(None),
            other => return Err(other),
        }
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        let text = if uuid.is_null() { ptr::null() } else { sys::rd_kafka_Uuid_base64str(uuid) };
        if text.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let id = CStr::from_ptr(text).to_string_lossy().into_owned();
        let mut partitions = 0;
        let list = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let mut replication = 0;
        if partitions > 0 && !list.is_null() && !(*list).is_null() {
            sys::rd_kafka_TopicPartitionInfo_replicas(*list, &raw mut replication);
        }
        let partitions = u32::try_from(partitions).ok().and_then(NonZeroU32::new).ok_or(RDKafkaErrorCode::LeaderNotAvailable)?;
        Ok(Some(Description { id, partitions, replication }))
    }
}
