//! Offline: views go to the spool; run it again when the server is there, and they are sent, under the ids they had.
//!
//! ```sh
//! cargo run -p tallymark-client --example offline -- http://127.0.0.1:8080
//! ```

use std::time::Duration;

use tallymark_client::{Client, Dropped, LateRetry, Observer, Rejected, Retrying};

/// Says what happens. A real one would count it in the program's metrics.
struct Says;

impl Observer for Says {
    fn accepted(&self, events: u64) {
        println!("{events} views are in Tallymark");
    }

    fn rejected(&self, rejected: &Rejected) {
        println!("{} was refused: {} ({})", rejected.event_id, rejected.reason, rejected.detail);
    }

    fn dropped(&self, dropped: &Dropped) {
        println!("{} views are lost: {:?}", dropped.events, dropped.reason);
    }

    fn retrying(&self, retry: &Retrying) {
        println!("{}; again in {:?}", retry.cause, retry.wait);
    }

    fn spooled(&self, events: u64) {
        println!("{events} views are on disk");
    }

    fn late_retry(&self, late: &LateRetry) {
        println!("{} views were tried {:?} ago and may count twice", late.events, late.in_doubt_for);
    }
}

#[tokio::main]
async fn main() -> Result<(), tallymark_client::BuildError> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:9".to_owned());
    let client = Client::builder(url).spool("offline.spool").observer(Says).build()?;
    println!("{} views were left by the last run", client.stats().found);
    for n in 0..10 {
        client.view("cats").viewer(format!("viewer-{n}")).send();
    }
    let ended = client.shutdown(Duration::from_secs(3)).await;
    println!("{} views wait for the next run", ended.on_disk);
    Ok(())
}
