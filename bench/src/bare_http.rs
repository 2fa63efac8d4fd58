//! What HTTP costs without the program: one axum handler that returns bytes it holds, and one that decodes what it is sent and keeps nothing.

use std::hint::black_box;
use std::io::Write;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{get, post};
use schemas::json;

/// Answers every GET with `body` from now on, on an address that it prints.
pub(crate) fn serve(body: String) -> ! {
    let body = Bytes::from(body);
    let answer = async move || ([(CONTENT_TYPE, "application/json")], body);
    listen(Router::new().route("/{*path}", get(answer)))
}

/// Decodes every line that is posted from now on as an event, and says how many there were.
pub(crate) fn parse() -> ! {
    listen(Router::new().route("/{*path}", post(decoded)))
}

async fn decoded(body: Bytes) -> (StatusCode, String) {
    let mut accepted = 0;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        black_box(json::decode(line).unwrap());
        accepted += 1;
    }
    (StatusCode::ACCEPTED, format!(r#"{{"accepted":{accepted},"rejected_total":0,"rejected":[]}}"#))
}

fn listen(app: Router) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, app).await.unwrap();
    });
    std::process::exit(1)
}
