//! The HTTP server loop: a bounded number of connections, each with a bound on how long its TLS handshake and a request's head may take.
//!
//! A client that sends slowly or nothing holds its connection for `header_timeout` at most; one connection more than
//! `max_connections` waits in the kernel's queue. A stop lets open requests end, for `drain_timeout` at most.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::guard::{Guarded, MAX_HEAD_BYTES};
use crate::tls::Tls;

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many connections are open at once.
    pub(crate) max_connections: usize,
    /// How long a request's head may take, and before it a handshake.
    pub(crate) header_timeout: Duration,
    /// How long open requests may take after a stop.
    pub(crate) drain_timeout: Duration,
}

/// After a failed accept (out of file descriptors, mostly) the next one waits a moment.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves `app` until `stop` resolves, then lets open requests end. With `tls` every connection is encrypted.
pub(crate) async fn serve(listener: TcpListener, app: Guarded, bounds: Bounds, tls: Option<Tls>, stop: impl Future<Output = ()>) {
    let open = Arc::new(Semaphore::new(bounds.max_connections));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.header_timeout).max_header_size(MAX_HEAD_BYTES);
    // What a connection reads ahead: a thousand that all send cost 64 MiB, not 400.
    http.max_buf_size(MAX_HEAD_BYTES);
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let permit = Arc::clone(&open).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            next = next => next,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Without it small answers wait for the client's acknowledgement; it failing costs only that.
        let _ = stream.set_nodelay(true);
        let connection = Connection { http: http.clone(), app: app.clone(), peer, watcher: graceful.watcher() };
        let acceptor = tls.as_ref().map(Tls::acceptor);
        tokio::spawn(async move {
            match acceptor {
                None => connection.serve(stream).await,
                Some(acceptor) => match timeout(bounds.header_timeout, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection.serve(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                    Err(_) => tracing::debug!("a handshake took too long"),
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(bounds.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(seconds = bounds.drain_timeout.as_secs(), "some requests had not ended and were cut off");
    }
}

/// What serves a connection, encrypted or not.
struct Connection {
    http: http1::Builder,
    app: Guarded,
    peer: SocketAddr,
    watcher: Watcher,
}

impl Connection {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { http, app, peer, watcher } = self;
        let answer = service_fn(move |request: Request<Incoming>| {
            let answering = app.clone().answer(request.map(Body::new), peer);
            async move { Ok::<_, Infallible>(answering.await) }
        });
        // Broken pipes and timeouts are the client's affair.
        if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), answer)).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
