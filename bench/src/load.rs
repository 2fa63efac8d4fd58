//! A client that asks one question again and again over kept connections, a thread for each: as fast as answers come, or at a rate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::connect;

/// So many connections ask at once.
pub(crate) const CONNECTIONS: usize = 8;

/// As fast as answers come: how many there were in a second.
pub(crate) fn flood(address: &str, path: &str, lasting: Duration) -> f64 {
    let asked = Instant::now();
    let end = asked + lasting;
    let answers: usize = on_each(address, path, move |client, _| {
        let mut answers = 0;
        while Instant::now() < end {
            client.ask();
            answers += 1;
        }
        answers
    })
    .into_iter()
    .sum();
    answers as f64 / asked.elapsed().as_secs_f64()
}

/// So many a second: how long each took from when it was due, in ms, sorted.
pub(crate) fn paced(address: &str, path: &str, rate: f64, lasting: Duration) -> Vec<f64> {
    let between = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let began = Instant::now();
    let mut times: Vec<f64> = on_each(address, path, move |client, n| {
        // Not all at the same moment.
        let first = began + between * n as u32 / CONNECTIONS as u32;
        let mut times = Vec::new();
        for beat in 0.. {
            let due = first + between * beat;
            if due >= began + lasting {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            client.ask();
            times.push(due.elapsed().as_secs_f64() * 1e3);
        }
        times
    })
    .concat();
    times.sort_by(f64::total_cmp);
    times
}

fn on_each<T: Send>(address: &str, path: &str, work: impl Fn(&mut Client, usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let work = &work;
                scope.spawn(move || work(&mut Client::new(address, path), n))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// One connection and its question.
struct Client {
    connection: TcpStream,
    question: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    fn new(address: &str, path: &str) -> Self {
        let question = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes();
        Self { connection: connect(address), question, buffer: vec![0; 1 << 20] }
    }

    /// Asks, and reads the whole answer, which must be a 200.
    fn ask(&mut self) {
        self.connection.write_all(&self.question).unwrap();
        let mut have = 0;
        loop {
            let read = self.connection.read(&mut self.buffer[have..]).unwrap();
            assert!(read > 0, "the server closed the connection");
            have += read;
            if whole(&self.buffer[..have]) {
                assert!(self.buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.buffer[..have]));
                return;
            }
        }
    }
}

/// Whether an answer with a `content-length` is all there.
fn whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let lines = answer[..head].split(|byte| *byte == b'\n');
    let value = lines.filter_map(|line| line.split_at_checked(15)).find(|(name, _)| name.eq_ignore_ascii_case(b"content-length:"));
    let length: usize = std::str::from_utf8(value.expect("a length").1).unwrap().trim().parse().unwrap();
    answer.len() >= head + 4 + length
}
