//! Any body is taken apart into events, each with a verdict, or refused whole.
#![no_main]

use std::num::NonZeroU32;

use ingest::collect::batch::sort_out;
use ingest::collect::body::{Form, events};
use ingest::collect::enrich::Edge;
use ingest::collect::request::Content;
use libfuzzer_sys::fuzz_target;
use schemas::ViewBatch;
use schemas::partition::Partitioner;

const MAX_EVENTS: usize = 100;

fuzz_target!(|bytes: &[u8]| {
    let two = NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN);
    let partitioner = Partitioner { sources: two, spread: NonZeroU32::MIN };
    for form in [Form::Json, Form::Ndjson] {
        let framed: Result<Vec<&[u8]>, _> = events(form, bytes).and_then(Iterator::collect);
        let sorted = sort_out(Content::Json(form), bytes, &partitioner, MAX_EVENTS, &Edge::plain(false));
        match framed {
            Ok(framed) if framed.len() <= MAX_EVENTS => {
                let batch = sorted.expect("a body that can be taken apart has a verdict on each event");
                let accepted: u64 = batch.appends.iter().map(|append| append.events).sum();
                assert_eq!(accepted + batch.rejected.total(), framed.len() as u64);
            }
            Ok(_) | Err(_) => assert!(sorted.is_err()),
        }
    }
    match (ViewBatch::read(bytes), sort_out(Content::ViewBatch, bytes, &partitioner, MAX_EVENTS, &Edge::plain(false))) {
        (Ok(read), sorted) if read.len() <= MAX_EVENTS => {
            let batch = sorted.expect("a batch that can be read has a verdict on each event");
            let accepted: u64 = batch.appends.iter().map(|append| append.events).sum();
            assert_eq!(accepted + batch.rejected.total(), read.len() as u64);
        }
        (_, sorted) => assert!(sorted.is_err()),
    }
});
