//! What it costs to answer a request over HTTP and do nothing for it: one axum handler that returns bytes it holds.

use std::io::Write;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

/// Serves `body` at every path from now on, on an address that it prints.
pub(crate) fn serve(body: String) -> ! {
    let body = Bytes::from(body);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let answer = async move || ([(CONTENT_TYPE, "application/json")], body);
        let app = Router::new().route("/{*path}", get(answer));
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, app).await.unwrap();
    });
    std::process::exit(1)
}
