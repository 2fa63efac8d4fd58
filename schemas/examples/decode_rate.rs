//! What decoding one event costs, in nanoseconds: `cargo run --release -p tallymark-schemas --example decode_rate`.
//!
//! Every part runs in short slices that take turns, so that whatever else the machine does hits all of them alike; a figure is
//! the median of a part's slices.

use std::hint::black_box;
use std::time::Instant;

use schemas::{EventHash, Millis, id, json};

const EVENTS: usize = 32_000;
const EVENTS_PER_SLICE: usize = 1_000;
const ROUNDS: usize = 3_000;

/// The events, and of each its id and its time.
#[derive(Default)]
struct Corpus {
    events: Vec<String>,
    ids: Vec<String>,
    times: Vec<String>,
}

/// The same events in every run.
fn corpus() -> Corpus {
    // SplitMix64.
    let mut state = 42_u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut corpus = Corpus::default();
    for second in 0..EVENTS {
        let (a, b) = (random(), random());
        let id = format!("{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 52, b & 0xffff_ffff_ffff);
        let time = format!("2026-11-20T{:02}:{:02}:{:02}.{:03}Z", second / 3_600, second / 60 % 60, second % 60, random() % 1_000);
        let (video, viewer, watch, space) = (random() % 1_000_000, random() % 100_000, random() % 100_000, random() % 1_000);
        corpus.events.push(format!(
            r#"{{"event_id":"{id}","video_id":"v{video}","viewer_id":"u{viewer}","ts":"{time}","watch_ms":{watch},"space_id":"c{space}"}}"#
        ));
        corpus.ids.push(id);
        corpus.times.push(time);
    }
    corpus
}

/// A round of one part: it runs over the slice whose turn it is.
type Part<'a> = Box<dyn Fn(usize) + 'a>;

fn over<'a>(texts: &'a [String], each: fn(&str)) -> Part<'a> {
    Box::new(move |round| {
        let slice = texts.chunks(EVENTS_PER_SLICE).nth(round % (EVENTS / EVENTS_PER_SLICE)).unwrap_or_default();
        slice.iter().for_each(|text| each(black_box(text)));
    })
}

fn main() {
    let Corpus { events, ids, times } = corpus();
    let payloads: Vec<String> = events.chunks(EVENTS_PER_SLICE).map(|slice| slice.join("\n")).collect();
    let lines = |round: usize| {
        let payload = payloads.get(round % payloads.len()).map(String::as_bytes).unwrap_or_default();
        for line in json::lines(payload) {
            black_box(line);
        }
    };
    let parts: [(&str, Part<'_>); 6] = [
        ("decode, without the scanner", over(&events, |event| drop(black_box(json::decode_without_scan(event.as_bytes()))))),
        ("decode", over(&events, |event| drop(black_box(json::decode(event.as_bytes()))))),
        ("lines of NDJSON", Box::new(lines)),
        ("Millis::parse_rfc3339", over(&times, |time| assert!(Millis::parse_rfc3339(time).is_some()))),
        ("check_id", over(&ids, |id| assert!(id::check_id(id).is_ok()))),
        ("EventHash::of", over(&ids, |id| assert_ne!(EventHash::of(id).0, 0))),
    ];
    let mut ns: [Vec<u128>; 6] = Default::default();
    for round in 0..ROUNDS {
        for ((_, part), ns) in parts.iter().zip(&mut ns) {
            let start = Instant::now();
            part(round);
            ns.push(start.elapsed().as_nanos());
        }
    }
    println!("an event has {} bytes", events.iter().map(String::len).sum::<usize>() / EVENTS);
    for ((name, _), mut ns) in parts.iter().zip(ns) {
        ns.sort_unstable();
        let median = ns.get(ns.len() / 2).copied().unwrap_or_default();
        println!("{name:30} {:>6.1} ns", median as f64 / EVENTS_PER_SLICE as f64);
    }
}
