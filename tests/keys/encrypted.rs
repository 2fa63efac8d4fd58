//! TLS: whom a client trusts, certificates that are replaced, and handshakes that never end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use reqwest::Certificate;
use tallymark_client::blocking::Client;
use tempfile::TempDir;

use crate::scene::{made, raw};
use crate::support::{PATIENCE, await_some, launch, tallymark, text};

struct Encrypted {
    child: Child,
    address: String,
    certificate: PathBuf,
    key: PathBuf,
    log: PathBuf,
    _dir: TempDir,
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Encrypted {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let (certificate, key, log) = (file("cert.pem"), file("key.pem"), file("stderr"));
        write(&certificate, &key);
        let mut command = tallymark(&["run", "--listen", "127.0.0.1:0", "--data", file("data").to_str().unwrap()]);
        command.args(["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]).args(more);
        command.stderr(File::create(&log).unwrap());
        let (child, address) = launch(command);
        Self { child, address, certificate, key, log, _dir: dir }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Whether somebody who trusts this certificate alone gets an answer, over a connection of its own.
    fn answers(&self, trusted: &[u8]) -> bool {
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .tls_certs_only([Certificate::from_pem(trusted).unwrap()])
            .build()
            .unwrap();
        http.get(format!("{}/livez", self.url())).send().is_ok_and(|response| response.status() == 200)
    }
}

/// Makes a certificate for 127.0.0.1, signed by itself.
fn write(certificate: &Path, key: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(certificate, made.cert.pem()).unwrap();
    made.cert.pem().into_bytes()
}

#[test]
fn commands_speak_tls_to_a_server_whose_authority_they_are_told() {
    let server = Encrypted::start(&[]);
    let (url, ca) = (server.url(), server.certificate.to_str().unwrap());
    let admin = made(&["me", "--scope", "admin", "--url", &url, "--ca", ca]);
    let status = |variable: Option<(&str, &str)>, args: &[&str]| {
        let mut command = tallymark(&[&["keys", "list", "--url", &url, "--key", &admin], args].concat());
        variable.map(|(name, value)| command.env(name, value));
        command.output().unwrap()
    };
    assert!(status(None, &["--ca", ca]).status.success());
    assert!(status(Some(("TALLYMARK_CA", ca)), &[]).status.success());
    let by_system = status(Some(("SSL_CERT_FILE", ca)), &[]);
    assert!(by_system.status.success(), "{}", text(&by_system));
    let untrusted = status(None, &[]);
    assert!(!untrusted.status.success() && text(&untrusted).to_lowercase().contains("certificate"), "{}", text(&untrusted));
    let absent = status(None, &["--ca", "/nowhere.pem"]);
    assert!(text(&absent).contains("/nowhere.pem"), "{}", text(&absent));
}

#[test]
fn the_rust_client_trusts_the_authority_that_it_is_told_of_and_no_other() {
    let server = Encrypted::start(&[]);
    let client = |roots: &[&PathBuf]| {
        let builder = tallymark_client::Client::builder(server.url()).linger(Duration::from_millis(5));
        let builder = builder.backoff(Duration::from_millis(5), Duration::from_millis(50));
        let builder = roots.iter().fold(builder, |builder, root| builder.add_root_certificate(std::fs::read(root).unwrap()));
        Client::new(builder.build().unwrap())
    };
    let other = (server.key.with_file_name("other.pem"), server.key.with_file_name("other-key.pem"));
    write(&other.0, &other.1);
    for (roots, accepted) in [(vec![&other.0, &server.certificate], 1), (vec![&other.0], 0), (vec![], 0)] {
        let client = client(&roots);
        client.view("v").send();
        // Who trusts it is done as soon as it is answered.
        let ended = client.shutdown(if accepted == 1 { PATIENCE } else { Duration::from_millis(500) });
        assert_eq!((client.stats().accepted, ended.dropped), (accepted, 1 - accepted), "{roots:?}");
    }
}

#[test]
fn a_replaced_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let server = Encrypted::start(&["--log-level", "info"]);
    let first = std::fs::read(&server.certificate).unwrap();
    assert!(server.answers(&first));
    std::fs::write(&server.certificate, "-----BEGIN CERTIFICATE-----\nnonsense").unwrap();
    await_some("the broken file is noticed", || {
        std::fs::read_to_string(&server.log).unwrap().contains("the new certificate cannot be used").then_some(())
    });
    assert!(server.answers(&first), "the one before stays");
    let second = write(&server.certificate, &server.key);
    await_some("the new one is used", || server.answers(&second).then_some(()));
    assert!(!server.answers(&first));
    let said = std::fs::read_to_string(&server.log).unwrap();
    assert_eq!(said.matches("the certificate was replaced").count(), 1, "{said}");
}

#[test]
fn nothing_is_answered_in_the_clear_and_no_handshake_lasts() {
    let server = Encrypted::start(&["--header-timeout", "1s", "--max-connections", "4"]);
    let answer = raw(&server.address, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(!answer.contains("HTTP/1.1") && !answer.contains("ok\n"), "{answer:?}");
    // They hold every connection there is, and send nothing or half a hello.
    let mut slow: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    slow[0].write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).unwrap();
    let begun = Instant::now();
    assert!(server.answers(&std::fs::read(&server.certificate).unwrap()));
    assert!(begun.elapsed() < PATIENCE);
    for stream in &mut slow {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // An alert or a reset is an end as well.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn files_that_are_no_certificate_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    write(&certificate, &key);
    let start = |certificate: &str, key: &str| {
        let data = dir.path().join("data");
        let mut command = tallymark(&["run", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
        let output = command.args(["--tls-cert", certificate, "--tls-key", key]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output)
    };
    let (good, own) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    assert!(start("/nowhere.pem", own).contains("`tls_cert` /nowhere.pem"));
    assert!(start(good, good).contains("`tls_key`"));
    assert!(start(own, own).contains("`tls_cert`"));
    let half = text(&tallymark(&["run", "--tls-cert", good]).output().unwrap());
    assert!(half.contains("only together with `tls_key`"), "{half}");
}
