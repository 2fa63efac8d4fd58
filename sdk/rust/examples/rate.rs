//! Measures: what one `send()` costs the thread that calls it, and how many events one process gets acknowledged by a
//! collector that only counts lines.
//!
//! ```sh
//! cargo run --release -p tallymark-client --example rate
//! ```
//!
//! Each line begins with the name of its figure.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tallymark_client::{Client, Outcome};

type Outcomes = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcomes {
    cost_of_a_call()?;
    for (name, gzip) in [("sdk_rate_gzip", true), ("sdk_rate", false)] {
        events_per_second(name, gzip, false)?;
    }
    // Without fsync.
    events_per_second("sdk_rate_spooled", true, true)
}

/// The queue is large enough for all, so that nothing but the calls is measured; the sender works beside them.
fn cost_of_a_call() -> Outcomes {
    const CALLS: usize = 200_000;
    let url = sink()?;
    let client = Client::builder(url).queue(10_000_000, 1 << 32).build()?;
    let mut each: Vec<u64> = Vec::with_capacity(CALLS);
    let before = cpu_time();
    for n in 0..CALLS {
        let begun = Instant::now();
        let outcome = client.view(video(n)).space("pets").viewer("viewer-0123456789").watch_ms(12_000).send();
        each.push(u64::try_from(begun.elapsed().as_nanos())?);
        if outcome != Outcome::Queued {
            return Err("the queue is full".into());
        }
    }
    let mean = (cpu_time() - before).as_nanos() / CALLS as u128;
    each.sort_unstable();
    let part = |permille: usize| each.get(CALLS * permille / 1_000).copied().unwrap_or_default();
    println!(
        "sdk_call {mean} ns of the thread's time in the mean of send(); on the clock half of the calls within {} ns, 99 % {} ns, 99.9 % {} ns",
        part(500),
        part(990),
        part(999)
    );
    Ok(())
}

/// What this thread has worked, whatever else the machine does.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn events_per_second(name: &str, gzip: bool, spool_first: bool) -> Outcomes {
    const EVENTS: u64 = 2_000_000;
    let url = sink()?;
    let dir = tempfile::tempdir()?;
    let mut builder = Client::builder(url).gzip(gzip).batch(10_000, 2 << 20);
    if spool_first {
        builder = builder.spool(dir.path()).spool_first(true).durability(tallymark_client::Durability::Process);
    }
    let client = tallymark_client::blocking::Client::new(builder.build()?);
    let begun = Instant::now();
    let mut sent = 0;
    while sent < EVENTS {
        match client.view(video(usize::try_from(sent)?)).space("pets").viewer("viewer-0123456789").watch_ms(12_000).send() {
            Outcome::Queued => sent += 1,
            // Faster than the sender: a program that may wait does.
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    client.shutdown(Duration::from_secs(120));
    let seconds = begun.elapsed().as_secs_f64();
    let accepted = client.stats().accepted;
    println!("{name} {:.0} events/s, {accepted} of {sent} acknowledged", accepted as f64 / seconds);
    Ok(())
}

fn video(n: usize) -> String {
    format!("video-{:05}", n.wrapping_mul(2_654_435_761) % 10_000)
}

/// A collector that counts lines, on a thread of its own.
fn sink() -> Result<String, Box<dyn std::error::Error>> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    listener.set_nonblocking(true)?;
    std::thread::spawn(move || -> std::io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async move {
            let app = Router::new().route("/v1/events", post(take)).with_state(Arc::new(()));
            let app = app.layer(axum::extract::DefaultBodyLimit::disable());
            axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await
        })
    });
    Ok(url)
}

async fn take(State(_): State<Arc<()>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let mut plain = Vec::new();
    if headers.contains_key("content-encoding") && flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).is_err() {
        return (StatusCode::BAD_REQUEST, String::new());
    }
    let text: &[u8] = if plain.is_empty() { &body } else { &plain };
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    (StatusCode::ACCEPTED, format!(r#"{{"accepted":{lines},"rejected_total":0,"rejected":[]}}"#))
}
