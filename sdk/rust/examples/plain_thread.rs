//! Without async: threads that send, and a main that waits at the end.
//!
//! ```sh
//! cargo run -p tallymark-client --example plain_thread -- http://127.0.0.1:8080
//! ```

use std::time::Duration;

use tallymark_client::{Client, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let client = blocking::Client::new(Client::builder(url).build()?);
    std::thread::scope(|scope| {
        for viewer in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                for video in ["cats", "dogs", "cats"] {
                    client.view(video).space("pets").viewer(format!("viewer-{viewer}")).watch_ms(30_000).send();
                }
            });
        }
    });
    let ended = client.shutdown(Duration::from_secs(5));
    println!("{:?}, lost {}", client.stats(), ended.dropped);
    Ok(())
}
