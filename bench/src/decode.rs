//! What it costs to decode JSON events that lie in memory, on one thread.

use std::hint::black_box;

use schemas::json;

use crate::events::{Generator, Shape};
use crate::usage::per_cpu_second;

/// Decodes the events of a shape: events per CPU-second.
pub(crate) fn run(shape: &Shape) -> f64 {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for view in Generator::new(shape) {
        view.write_json(&mut bytes);
        ends.push(bytes.len());
    }
    per_cpu_second(shape.events, || {
        let mut start = 0;
        for &end in &ends {
            black_box(json::decode(&bytes[start..end]).unwrap());
            start = end;
        }
    })
}
