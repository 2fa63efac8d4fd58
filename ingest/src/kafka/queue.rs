//! A partition's queue of its own, and the messages in it: all that readers need of librdkafka below rdkafka.
//!
//! rdkafka hands messages out one by one, each in an event of its own; that costs more than twice the CPU of taking many at once.
//! So messages are taken here, by the hundred, and lent from here:
//!
//! ```text
//! librdkafka's fetchers ──> queue ──take──> taken ──message──> Message (lends its payload) ──pass──> given back
//! ```
//!
//! A message that was taken and not passed stays here and is lent next; it is given back when the queue is dropped. Payloads and headers
//! are not copied, and nothing is allocated or locked for a message beyond what librdkafka does.
#![expect(unsafe_code, reason = "rdkafka has no safe wrapper for batches; it costs 2.4 times the CPU; each use is argued for below")]

use std::ffi::{CStr, CString, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use schemas::Offset;

use super::context::Context;
use super::growth::Growth;
use super::header::{self, Show};

/// How many messages are taken at once: enough to spread the cost of a call, few enough that they are still in the CPU's cache when
/// they are lent.
const BATCH: usize = 512;

/// A partition's queue, split off from its consumer's common one, with the messages that were taken from it. It is for one reader.
///
/// Invariants, which the safety of this module rests on: `native` is a queue that librdkafka gave to this value alone, and it is
/// live. The pointers in `taken` from `next` on are live messages that librdkafka gave to this value alone; those before are not
/// used again. `_consumer` keeps the client alive until all of these have been given back.
pub(super) struct Queue {
    native: NonNull<sys::rd_kafka_queue_t>,
    taken: Vec<*mut sys::rd_kafka_message_t>,
    next: usize,
    signal: Arc<Signal>,
    /// Whether messages are laid out as [`Inside`] says.
    inside_known: bool,
    _consumer: Arc<BaseConsumer<Context>>,
}

/// What librdkafka's threads do when the queue stops being empty.
struct Signal {
    /// Unless set, the queue is empty.
    filled: AtomicBool,
    growth: Arc<Growth>,
}

/// A message that was taken, or an error that stood in its place; lent by its queue, which does not pass it meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    native: NonNull<sys::rd_kafka_message_t>,
    inside_known: bool,
    queue: PhantomData<&'a Queue>,
}

/// What stood in a queue in place of a message.
#[derive(Debug)]
pub(super) struct Fault {
    /// A code of librdkafka's, or one of a broker's that librdkafka need not know.
    pub(super) code: i32,
    /// Where in the partition, if that is known.
    pub(super) at: Option<Offset>,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn is(&self, code: RDKafkaErrorCode) -> bool {
        self.code == code as i32
    }
}

// SAFETY: librdkafka's queues and messages may be used by any thread, one at a time: it has no state for a thread that concerns
// them. Nothing else refers to them or to `taken` (see the invariants), the signal is made of an atomic and a lock, and the consumer
// is Sync.
unsafe impl Send for Queue {}

impl Queue {
    /// Splits a partition's queue off; nothing if the partition has none. To be called before the partition is assigned.
    pub(super) fn split(consumer: &Arc<BaseConsumer<Context>>, topic: &str, partition: i32, growth: &Arc<Growth>) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: The client is live as long as `consumer`. The name is copied.
        let native = unsafe { sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition) };
        let queue = Self {
            native: NonNull::new(native)?,
            taken: Vec::with_capacity(BATCH),
            next: 0,
            signal: Arc::new(Signal { filled: AtomicBool::new(true), growth: Arc::clone(growth) }),
            // SAFETY: It returns a constant.
            inside_known: unsafe { sys::rd_kafka_version() } == INSIDE_VERSION,
            _consumer: Arc::clone(consumer),
        };
        let signal = Arc::as_ptr(&queue.signal).cast_mut().cast::<c_void>();
        // SAFETY: The queue is live. Forwarding to nothing is how a queue is split off. `signal` lives as long as `queue`, which
        // turns the callback off before it goes.
        unsafe {
            sys::rd_kafka_queue_forward(queue.native.as_ptr(), ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(queue.native.as_ptr(), Some(filled), signal);
        }
        Some(queue)
    }

    /// The message that is so many places behind the first that has been taken and not passed.
    pub(super) fn message(&self, ahead: usize) -> Option<Message<'_>> {
        let native = NonNull::new(*self.taken.get(self.next + ahead)?)?;
        Some(Message { native, inside_known: self.inside_known, queue: PhantomData })
    }

    /// Gives the first messages back that have been taken and not passed, at most so many.
    pub(super) fn pass(&mut self, count: usize) {
        for _ in 0..count {
            let Some(Message { native, .. }) = self.message(0) else { return };
            self.next += 1;
            // SAFETY: It is live and this queue's alone, and behind `next` from here on, so not used again. What was borrowed from it
            // was borrowed from this queue, which is borrowed mutably here.
            unsafe { sys::rd_kafka_message_destroy(native.as_ptr()) }
        }
    }

    /// Takes more messages when all have been lent: what is here, or what comes within `wait`. Returns whether there are any.
    pub(super) fn take(&mut self, wait: Duration) -> bool {
        if self.next < self.taken.len() {
            return true;
        }
        self.taken.clear();
        self.next = 0;
        // Lowered before the look, so that it is up again if anything comes after it.
        if self.signal.filled.swap(false, Ordering::AcqRel) {
            self.take_up_to(BATCH, 0);
            if self.taken.len() == BATCH {
                self.signal.filled.store(true, Ordering::Release);
            }
        }
        if self.taken.is_empty() && !wait.is_zero() {
            // One: for more than there are, librdkafka would wait until the time is up.
            self.take_up_to(1, c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX).max(1));
            self.signal.filled.store(true, Ordering::Release);
        }
        !self.taken.is_empty()
    }

    /// Fills `taken`, which must be empty, from the queue.
    fn take_up_to(&mut self, count: usize, timeout_ms: c_int) {
        let count = count.min(self.taken.capacity());
        // SAFETY: The queue is live. `taken` has room for `count` pointers, and librdkafka writes no more than that from its start
        // on; it returns how many are messages that are now the caller's (or -1, which counts as none), and these are initialised.
        unsafe {
            let got = sys::rd_kafka_consume_batch_queue(self.native.as_ptr(), timeout_ms, self.taken.as_mut_ptr(), count);
            self.taken.set_len(usize::try_from(got).unwrap_or(0).min(count));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.pass(self.taken.len());
        // SAFETY: The queue is live and not used after this. The callback is called with the queue's lock held, which turning it off
        // takes: so it is not running and not called again when `signal` goes. The client goes after this, with the field `_consumer`.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.native.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.native.as_ptr());
        }
    }
}

/// Called by librdkafka's threads with the queue's lock held whenever the queue stops being empty: it must do nothing slow.
unsafe extern "C" fn filled(_: *mut sys::rd_kafka_t, signal: *mut c_void) {
    // SAFETY: It is the pointer that `split` gave, to a `Signal` that lives until the callback has been turned off; it is shared, and
    // only its shared methods are used.
    let signal = unsafe { &*signal.cast::<Signal>() };
    signal.filled.store(true, Ordering::Release);
    signal.growth.grow();
}

impl<'a> Message<'a> {
    /// Its offset, or where the fault is; nothing if that is unknown.
    pub(super) fn offset(&self) -> Option<Offset> {
        // SAFETY: The message is live as long as its queue is lent; its fields are read alone, so that no reference covers a code that the bindings may not name.
        let offset = unsafe { (&raw const (*self.native.as_ptr()).offset).read() };
        u64::try_from(offset).ok().map(Offset)
    }

    /// Why it is no message, if it is none.
    pub(super) fn fault(&self) -> Option<Fault> {
        // SAFETY: The message is live. The code is read as the number it is, as a broker's code may have no name in the bindings.
        let code = unsafe { (&raw const (*self.native.as_ptr()).err).cast::<i32>().read() };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as i32 {
            return None;
        }
        // Of a fault, the payload is what librdkafka says of it.
        Some(Fault { code, at: self.offset(), text: String::from_utf8_lossy(self.payload()).into_owned() })
    }

    /// Its payload; empty if it has none.
    pub(super) fn payload(&self) -> &'a [u8] {
        // SAFETY: The message is live as long as its queue is lent is, and so is its payload of `len` bytes, which nobody changes. It is null if
        // there is none.
        unsafe {
            let (payload, len) = ((&raw const (*self.native.as_ptr()).payload).read(), (&raw const (*self.native.as_ptr()).len).read());
            if payload.is_null() { &[] } else { slice::from_raw_parts(payload.cast::<u8>(), len) }
        }
    }

    /// Its timestamp, in ms; nothing if it has none.
    pub(super) fn timestamp_ms(&self) -> Option<i64> {
        // SAFETY: The message is live. The pointer for the timestamp's type may be null.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.native.as_ptr(), ptr::null_mut()) };
        (timestamp != -1).then_some(timestamp)
    }

    /// Shows each header.
    pub(super) fn headers(&self, show: &mut Show<'_>) {
        match self.header_bytes() {
            Some(bytes) => drop(header::each(bytes, show)),
            None => self.parsed_headers(show),
        }
    }

    /// Its headers as they lie in it, with their count; empty if it is of a format that has none. Nothing if that cannot be told.
    fn header_bytes(&self) -> Option<&[u8]> {
        if !self.inside_known {
            return None;
        }
        // SAFETY: The message is live, is not a fault (faults have no headers and nobody asks for them), and is the front of an
        // `Inside`, as the version of librdkafka is the one that it was copied from. All of it is initialised (it is allocated as
        // zeros) and set before the message is queued. The bytes are a part of the fetched data that the message keeps alive.
        unsafe {
            let headers = (&raw const (*self.native.as_ptr().cast::<Inside>()).rest.headers).read();
            let len = usize::try_from(headers.len).ok()?;
            Some(if headers.data.is_null() { &[] } else { slice::from_raw_parts(headers.data, len) })
        }
    }

    /// The headers that librdkafka finds. It makes a list of them, with an allocation for each and some more.
    fn parsed_headers(&self, show: &mut Show<'_>) {
        let (mut headers, mut key, mut value, mut len) = (ptr::null_mut(), ptr::null(), ptr::null(), 0);
        let done = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        // SAFETY: The message is live, and not a fault. Its list of headers is made by the first call, belongs to it and is not
        // changed after that: keys (strings that end with NUL) and values (`len` bytes, or null) are live as long as its queue is lent is.
        // Out pointers are to locals and are read only if the call says that it has set them.
        unsafe {
            if sys::rd_kafka_message_headers(self.native.as_ptr(), &raw mut headers) != done {
                return;
            }
            for at in 0.. {
                if sys::rd_kafka_header_get_all(headers, at, &raw mut key, &raw mut value, &raw mut len) != done {
                    return;
                }
                let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), len));
                show(CStr::from_ptr(key).to_bytes(), value);
            }
        }
    }
}

/// The version of librdkafka that [`Inside`] was copied from: 2.12.1, final. With any other it is not used.
const INSIDE_VERSION: c_int = 0x020c_01ff;

/// The front of what librdkafka 2.12.1 keeps of a message that it fetched: `rd_kafka_msg_t` in `rdkafka_msg.h`.
#[repr(C)]
struct Inside {
    message: sys::rd_kafka_message_t,
    link: [*mut c_void; 2],
    flags: c_int,
    timestamp_type: c_int,
    timestamp: i64,
    headers: *mut c_void,
    status: c_int,
    broker_id: i32,
    rest: Rest,
}

/// The union at the end, as far as it concerns consumers: `rkm_u.consumer.binhdrs`.
#[repr(C)]
union Rest {
    headers: HeaderBytes,
    /// Aligns the union as the producers' half of it does.
    _producer: i64,
}

/// The front of `rd_kafkap_bytes_t` in `rdkafka_proto.h`.
#[derive(Clone, Copy)]
#[repr(C)]
struct HeaderBytes {
    len: i32,
    data: *const u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_messages_was_copied_from_the_librdkafka_that_is_built() {
        assert_eq!(sys::RD_KAFKA_VERSION, INSIDE_VERSION, "copy `Inside` from its rdkafka_msg.h anew: reading headers is slow until then");
    }
}
