//! A client that asks again and again over kept connections, a thread for each: as fast as answers come, or at a rate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::server::connect;

/// Who asks, and what.
pub(crate) struct Load<Q> {
    /// So many connections ask at once.
    pub(crate) connections: usize,
    /// What each must be answered with.
    pub(crate) status: u16,
    /// Given the number of a connection: what writes its requests, one after the other, into an empty buffer.
    pub(crate) requests: Q,
}

/// Writes one request after the other.
pub(crate) type Requests<'a> = Box<dyn FnMut(&mut Vec<u8>) + 'a>;

/// The same question again and again.
pub(crate) fn asking(path: &str) -> Load<impl Fn(usize) -> Requests<'static> + Sync + use<>> {
    let question = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes();
    let requests = move |_| -> Requests<'static> {
        let question = question.clone();
        Box::new(move |out| out.extend_from_slice(&question))
    };
    Load { connections: 8, status: 200, requests }
}

impl<R: FnMut(&mut Vec<u8>), Q: Fn(usize) -> R + Sync> Load<Q> {
    /// As fast as answers come: how many there were, and in how many seconds.
    pub(crate) fn flood(&self, address: &str, lasting: Duration) -> (f64, f64) {
        let asked = Instant::now();
        let end = asked + lasting;
        let answers: usize = self
            .on_each(address, move |client, _| {
                let mut answers = 0;
                while Instant::now() < end {
                    client.ask();
                    answers += 1;
                }
                answers
            })
            .into_iter()
            .sum();
        (answers as f64, asked.elapsed().as_secs_f64())
    }

    /// So many a second: how long each took from when it was due, in ms, sorted.
    pub(crate) fn paced(&self, address: &str, rate: f64, lasting: Duration) -> Vec<f64> {
        let between = Duration::from_secs_f64(self.connections as f64 / rate);
        let began = Instant::now();
        let mut times: Vec<f64> = self
            .on_each(address, move |client, n| {
                // Not all at the same moment.
                let first = began + between * n as u32 / self.connections as u32;
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

    fn on_each<T: Send>(&self, address: &str, work: impl Fn(&mut Client<R>, usize) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|n| {
                    let work = &work;
                    scope.spawn(move || work(&mut Client::new(address, self.status, (self.requests)(n)), n))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

/// One connection and its questions.
struct Client<R> {
    connection: TcpStream,
    requests: R,
    status: u16,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl<R: FnMut(&mut Vec<u8>)> Client<R> {
    fn new(address: &str, status: u16, requests: R) -> Self {
        Self { connection: connect(address), requests, status, request: Vec::new(), answer: vec![0; 1 << 20] }
    }

    /// Asks, and reads the whole answer, which must be the right one.
    fn ask(&mut self) {
        self.request.clear();
        (self.requests)(&mut self.request);
        self.connection.write_all(&self.request).unwrap();
        let mut have = 0;
        loop {
            let read = self.connection.read(&mut self.answer[have..]).unwrap();
            assert!(read > 0, "the server closed the connection");
            have += read;
            if whole(&self.answer[..have]) {
                let right = self.answer.starts_with(format!("HTTP/1.1 {}", self.status).as_bytes());
                assert!(right, "{}", String::from_utf8_lossy(&self.answer[..have]));
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
