//! What reading and writing a columnar batch costs, in nanoseconds of CPU per event.
//!
//! `cargo run --release -p tallymark-schemas --example batch_rate`

use std::hint::black_box;
use std::time::Instant;

use schemas::view_batch::Writer;
use schemas::{Event, EventHash, Kind, Millis, ViewBatch, json};

const EVENTS: u64 = 500;
const ROUNDS: usize = 41;
const REPEATS: usize = 200;

/// A multiplicative step: the same events in every run.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn events() -> Vec<Event<'static>> {
    let mut state = 7;
    let event = |n: u64| {
        let (a, b, c) = (next(&mut state), next(&mut state), next(&mut state));
        // Few videos have most of the views.
        let video = 100_000 / (1 + a % 100_000);
        Event {
            event_id: format!(
                "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
                a,
                b & 0xffff,
                (b >> 16) & 0xfff,
                c & 0xfff,
                (b * c) & 0xffff_ffff_ffff
            )
            .into(),
            video_id: format!("v{video:06}").into(),
            space_id: Some(format!("c{:03}", video % 1_000).into()),
            viewer_id: Some(format!("u{:05}", c % 100_000).into()),
            ts: Millis(1_763_640_000_000 + i64::try_from(n * 3).unwrap_or_default()),
            watch_ms: Some(b % 100_000),
            kind: Kind::View,
        }
    };
    (0..EVENTS).map(event).collect()
}

/// What is measured; its result keeps the compiler from leaving it out.
type Work<'a> = Box<dyn FnMut() -> u128 + 'a>;

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let events = events();
    let mut writer = Writer::new();
    let mut write = || {
        events.iter().for_each(|event| assert!(writer.push(event, None).is_ok(), "a small batch has room"));
        writer.finish()
    };
    let payload = write();
    let lines: Vec<Vec<u8>> = events
        .iter()
        .map(|event| {
            let mut line = Vec::new();
            json::encode(event, &mut line);
            line
        })
        .collect();
    let Ok(batch) = ViewBatch::read(&payload) else { return };
    println!(
        "{EVENTS} events, {} videos: {} bytes; as JSON {}",
        batch.entries().len(),
        payload.len(),
        lines.iter().map(Vec::len).sum::<usize>()
    );
    let mut kinds: Vec<(&str, Work<'_>)> = vec![
        ("read (check all columns)", Box::new(|| ViewBatch::read(black_box(&payload)).map_or(0, |batch| batch.len() as u128))),
        (
            "views",
            Box::new(|| {
                batch.views().fold(0, |sum, view| sum ^ u128::from(view.entry) ^ u128::from(view.ts.0.cast_unsigned()) ^ view.kind as u128)
            }),
        ),
        ("event_ids with hashes", Box::new(|| batch.event_ids().fold(0, |sum, id| sum ^ id.hash().0))),
        ("hashes of the texts alone", Box::new(|| events.iter().fold(0, |sum, event| sum ^ EventHash::of(&event.event_id).0))),
        ("wholes", Box::new(|| batch.wholes().fold(0, |sum, whole| sum ^ u128::from(whole.event.ts.0.cast_unsigned())))),
        ("write", Box::new(|| write().len() as u128)),
        ("JSON decode", Box::new(|| lines.iter().filter(|line| json::decode(black_box(line)).is_ok()).count() as u128)),
    ];
    let mut took: Vec<Vec<f64>> = kinds.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, run), took) in kinds.iter_mut().zip(&mut took) {
            let started = Instant::now();
            (0..REPEATS).for_each(|_| {
                black_box(run());
            });
            took.push(started.elapsed().as_secs_f64() * 1e9 / (REPEATS as f64 * EVENTS as f64));
        }
    }
    for ((name, _), took) in kinds.iter().zip(took) {
        println!("{name:<28} {:6.2} ns per event", median(took));
    }
}
