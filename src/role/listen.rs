//! Where a process listens, what it says when it does, and the signal that ends it.

use std::io::Write;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Role, RoleError};
use crate::config::Settings;
use crate::keys::Keys;

/// Where to listen. The table of settings always gives an address.
fn address(settings: &Settings) -> SocketAddr {
    settings.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)))
}

/// Whether other machines can reach it.
fn is_exposed(settings: &Settings) -> bool {
    !address(settings).ip().to_canonical().is_loopback()
}

/// Whether requests need a key also if there is none.
pub(super) fn is_closed(settings: &Settings) -> bool {
    is_exposed(settings) && !settings.insecure
}

/// Sees to it that nobody from elsewhere is let in without a key. `keys_can_be`: this process can know of keys at all.
///
/// # Errors
/// If there is none, and others could reach it, and that was not allowed.
pub(super) fn check_closed(settings: &Settings, keys: &Keys, keys_can_be: bool) -> Result<(), RoleError> {
    if is_exposed(settings) && settings.tls_cert.is_none() && !settings.insecure {
        tracing::warn!(
            "others can reach this process, and it does not encrypt: keys can be read on their way unless something before it does (tls_cert)"
        );
    }
    if !is_closed(settings) || !keys.are_none() {
        return Ok(());
    }
    let way_out = if keys_can_be {
        "Make the first key, with the same settings, and start again: tallymark keys create me --scope admin --direct"
    } else {
        "Set cassandra_nodes too, so that it can read the keys that are kept there."
    };
    Err(RoleError::Exposed { listen: address(settings), way_out })
}

/// Binds the listener.
///
/// # Errors
/// If the address cannot be had.
pub(super) async fn listen(settings: &Settings) -> Result<TcpListener, RoleError> {
    let listen = address(settings);
    TcpListener::bind(listen).await.map_err(|error| {
        let way_out = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "Another program has that port (another tallymark?). Stop it, or choose another port with --listen 127.0.0.1:8081"
            }
            std::io::ErrorKind::PermissionDenied => "Ports below 1024 need permission: choose another with --listen 127.0.0.1:8080",
            std::io::ErrorKind::AddrNotAvailable => {
                "This machine has no such address: --listen takes one of its own, such as 127.0.0.1:8080"
            }
            _ => "Choose another address with --listen",
        };
        RoleError::Listen { listen, error, way_out }
    })
}

/// The first SIGTERM or SIGINT from now on: whoever is greeted may stop the process at once, in order.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = &'static str>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Says where the process listens, what it stands on, and what to try.
pub(super) fn greet(role: Role, address: SocketAddr, settings: &Settings, embedded: bool, needs_key: bool) {
    let who = if role == Role::Run { "Tallymark".to_owned() } else { format!("Tallymark {}", role.name()) };
    let kafka = format!("log {} on {}", settings.kafka.topic, settings.kafka.brokers);
    let cassandra = format!("counts in {} on {}", settings.cassandra.keyspace, settings.cassandra.nodes.join(","));
    let on = match (embedded, role) {
        (true, _) => format!("data in {}", std::fs::canonicalize(&settings.data).unwrap_or_else(|_| settings.data.clone()).display()),
        (false, Role::Collect) => kafka,
        (false, _) => format!("{kafka}, {cassandra}"),
    };
    let now = schemas::Millis::now().to_rfc3339();
    let scheme = if settings.tls_cert.is_some() { "https" } else { "http" };
    let key = if needs_key { "-H \"authorization: Bearer $TALLYMARK_KEY\" " } else { "" };
    let event = format!(r#"{{"event_id":"e1","video_id":"v1","ts":"{now}"}}"#);
    let mut tries = Vec::new();
    if role.collects() {
        tries.push(format!("curl {key}{scheme}://{address}/v1/events -H 'content-type: application/json' -d '{event}'"));
    }
    if role.answers() {
        tries.extend(["v1/videos/v1", "v1/status"].map(|path| format!("curl {key}{scheme}://{address}/{path}")));
    } else {
        tries.push(format!("curl {scheme}://{address}/readyz"));
    }
    let greeting = format!("{who} listens on {scheme}://{address}, {on}\n\nTry:\n  {}\n\n", tries.join("\n  "));
    // Whoever starts it may read the first line and go.
    let _ = std::io::stdout().lock().write_all(greeting.as_bytes());
}
