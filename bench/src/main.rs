//! `make bench`: what Tallymark costs, as events per CPU-second, on this machine.
//!
//! Every figure is the median of several runs, with its spread. The runs of all measurements take turns, so that a slow
//! spell of the machine falls on all of them. Ends with a table, and with `bench/summary.json` in the target directory.
//!
//! | module | measures |
//! |---|---|
//! | [`kernel`] | decoding and folding from memory |
//! | [`log`] | appending to the embedded log |
//! | [`program`] | the real binary: import, queries, freshness, memory |
//! | [`events`] | makes the events |
//! | [`usage`] | reads CPU time and memory of a process |
//! | [`report`] | medians, the table and the summary |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a measurement that goes wrong should stop with a trace; its figures are approximate by nature"
)]

mod events;
mod kernel;
mod log;
mod program;
mod report;
mod usage;

use report::{Figure, Report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One measurement: its name, unit, target, and a run of it.
type Bench = (&'static str, &'static str, Option<f64>, Box<dyn FnMut() -> f64>);

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(5);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
    let mut report = Report::default();

    let mut benches: Vec<Bench> = kernel::benches().into_iter().chain(log::benches()).filter(|bench| wanted(bench.0)).collect();
    for run in 0..=runs {
        for (name, unit, target, bench) in &mut benches {
            let value = bench();
            // The first run warms up.
            if run > 0 {
                report.note(name, unit, *target, value);
                eprintln!("{name}: {}", Figure::show(value));
            }
        }
    }
    program::run(&wanted, runs, &mut report);
    report.finish();
}
