//! Where a process listens, what it says when it does, and the signal that ends it.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Role, RoleError};
use crate::config::Settings;

/// Binds the listener.
///
/// # Errors
/// If others could reach it and that was not allowed, or the address cannot be had.
pub(super) async fn listen(settings: &Settings) -> Result<TcpListener, RoleError> {
    // The table of keys always gives one.
    let listen = settings.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
    if !listen.ip().to_canonical().is_loopback() && !settings.insecure {
        return Err(RoleError::Exposed { listen });
    }
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
pub(super) fn greet(role: Role, address: SocketAddr, settings: &Settings, embedded: bool) {
    let who = if role == Role::Run { "Tallymark".to_owned() } else { format!("Tallymark {}", role.name()) };
    let kafka = format!("log {} on {}", settings.kafka.topic, settings.kafka.brokers);
    let cassandra = format!("counts in {} on {}", settings.cassandra.keyspace, settings.cassandra.nodes.join(","));
    let on = match (embedded, role) {
        (true, _) => format!("data in {}", std::fs::canonicalize(&settings.data).unwrap_or_else(|_| settings.data.clone()).display()),
        (false, Role::Collect) => kafka,
        (false, _) => format!("{kafka}, {cassandra}"),
    };
    let now = schemas::Millis::now().to_rfc3339();
    let event = format!(r#"{{"event_id":"e1","video_id":"v1","ts":"{now}"}}"#);
    let mut tries = Vec::new();
    if role.collects() {
        tries.push(format!("curl http://{address}/v1/events -H 'content-type: application/json' -d '{event}'"));
    }
    if role.answers() {
        tries.extend(["v1/videos/v1", "v1/status"].map(|path| format!("curl http://{address}/{path}")));
    } else {
        tries.push(format!("curl http://{address}/readyz"));
    }
    println!("{who} listens on http://{address}, {on}\n\nTry:\n  {}\n", tries.join("\n  "));
}
