//! The image's health check: exits 0 if the program in this container answers `GET /livez`, or `/readyz` if told so
//! (`alive /readyz`), on 127.0.0.1 and the port of `TALLYMARK_LISTEN`; else 1 with the reason on stdout.
//!
//! It does not speak TLS. A server that does answers it with an alert, and that is an answer: it lives.
//!
//! The image has no shell and no curl, so this is all there is. It needs only std and is compiled by `rustc` alone.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Less than the timeout that Docker gives the check, so that the reason can still be said.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// What stands for an alert of TLS (RFC 8446, section 5.1: type 21, version 3.x).
const TLS: &str = "an alert: it speaks TLS alone";

fn main() -> ExitCode {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/livez".to_owned());
    match ask(&path) {
        Ok(status) if status.starts_with("HTTP/1.1 200") => ExitCode::SUCCESS,
        Ok(status) if status == TLS && path == "/livez" => ExitCode::SUCCESS,
        Ok(status) => {
            println!("{path}: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first line of the answer.
fn ask(path: &str) -> std::io::Result<String> {
    let listen = std::env::var("TALLYMARK_LISTEN").unwrap_or_default();
    let port = listen.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    // One read: a status line comes in the first packet.
    let mut head = [0; 256];
    let length = stream.read(&mut head)?;
    if head.starts_with(&[0x15, 0x03]) {
        return Ok(TLS.to_owned());
    }
    let head = String::from_utf8_lossy(&head[..length]);
    Ok(head.lines().next().unwrap_or("an empty answer").to_owned())
}
