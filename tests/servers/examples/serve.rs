//! One Kafka and one Cassandra on this machine for as long as you like: to try the program by hand.
//!
//! ```sh
//! cargo run --package tallymark-test-servers --example serve
//! ```

use std::io::Read;

fn main() {
    let (kafka, cassandra) = (test_servers::kafka(), test_servers::cassandra());
    println!("export TALLYMARK_KAFKA_BROKERS={}", kafka.bootstrap());
    println!("export TALLYMARK_CASSANDRA_NODES={}", cassandra.contact());
    println!("export TALLYMARK_REPLICATION=1");
    println!("# they run until the end of input (Ctrl-D)");
    // Whatever is typed, and an error too, is only the end of waiting.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
