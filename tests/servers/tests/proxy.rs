//! The proxy does to connections what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use test_servers::Proxy;

/// A server that says everything back.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut from, mut to) = (stream.as_ref().unwrap().try_clone().unwrap(), stream.unwrap());
            thread::spawn(move || {
                drop(std::io::copy(&mut from, &mut to));
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What comes back of `ping`, or the error.
fn ask(stream: &mut TcpStream) -> std::io::Result<[u8; 4]> {
    stream.write_all(b"ping")?;
    let mut back = [0; 4];
    stream.read_exact(&mut back)?;
    Ok(back)
}

/// Whether a connection is open and silent, and not cut.
fn no_answer(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[test]
fn bytes_go_through_both_ways_and_are_counted() {
    let proxy = Proxy::before(&echo()).unwrap();
    let mut stream = connect(&proxy);
    assert_eq!(ask(&mut stream).unwrap(), *b"ping");
    assert_eq!(proxy.carried(), 8);
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn the_end_of_one_side_reaches_the_other_and_no_byte_is_lost() {
    let proxy = Proxy::before(&echo()).unwrap();
    let mut stream = connect(&proxy);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut writer = stream.try_clone().unwrap();
    let sending = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sending).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == sent);
}

#[test]
fn a_delay_holds_bytes_back_in_each_direction() {
    let proxy = Proxy::before(&echo()).unwrap();
    let mut stream = connect(&proxy);
    proxy.delay(Duration::from_millis(50));
    let begun = Instant::now();
    assert_eq!(ask(&mut stream).unwrap(), *b"ping");
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_cut_connection_ends_and_the_next_one_works() {
    let proxy = Proxy::before(&echo()).unwrap();
    let mut stream = connect(&proxy);
    ask(&mut stream).unwrap();
    proxy.sever();
    assert!(ask(&mut stream).is_err());
    assert_eq!(ask(&mut connect(&proxy)).unwrap(), *b"ping");
}

#[test]
fn a_black_hole_keeps_connections_open_and_answers_nothing_until_it_heals() {
    let proxy = Proxy::before(&echo()).unwrap();
    let mut old = connect(&proxy);
    ask(&mut old).unwrap();
    proxy.drop_bytes(true);
    let mut new = connect(&proxy);
    for stream in [&mut old, &mut new] {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(no_answer(&ask(stream).unwrap_err()));
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    proxy.heal();
    // A stream with a hole in it must not go on.
    for stream in [&mut old, &mut new] {
        assert!(!no_answer(&ask(stream).unwrap_err()));
    }
    assert_eq!(ask(&mut connect(&proxy)).unwrap(), *b"ping");
}

#[test]
fn refused_clients_cannot_connect_and_those_connected_stay() {
    let proxy = Proxy::before(&echo()).unwrap();
    let mut stream = connect(&proxy);
    ask(&mut stream).unwrap();
    proxy.refuse(true);
    assert_eq!(TcpStream::connect(proxy.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&mut stream).unwrap(), *b"ping");
    proxy.refuse(false);
    assert_eq!(ask(&mut connect(&proxy)).unwrap(), *b"ping");
}

#[test]
fn a_client_of_a_dead_server_is_told_so() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let proxy = Proxy::before(&gone).unwrap();
    assert!(ask(&mut connect(&proxy)).is_err());
}

#[test]
fn a_dropped_proxy_frees_its_address() {
    let target = echo();
    let proxy = Proxy::before(&target).unwrap();
    let address = proxy.address();
    let mut stream = connect(&proxy);
    ask(&mut stream).unwrap();
    drop(proxy);
    assert!(ask(&mut stream).is_err());
    let begun = Instant::now();
    while Proxy::at(&address, &target).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{address} is still taken");
        thread::sleep(Duration::from_millis(5));
    }
}
