//! A middleware for axum: every page `/watch/{video}` that was served is a view.
//!
//! ```sh
//! cargo run -p tallymark-client --example axum_middleware -- http://127.0.0.1:8080
//! curl http://127.0.0.1:3000/watch/cats
//! ```

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use tallymark_client::Client;

async fn count_views(State(client): State<Client>, Path(video): Path<String>, request: Request, next: Next) -> Response {
    let viewer = request.headers().get("x-user-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let response = next.run(request).await;
    if response.status().is_success() {
        let view = client.view(video).space("website");
        // It never waits for the network, so that the visitor does not either.
        match viewer {
            Some(viewer) => view.viewer(viewer).send(),
            None => view.send(),
        };
    }
    response
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let client = Client::builder(url).spool("views.spool").build()?;
    let app = Router::new()
        .route("/watch/{video}", get(|Path(video): Path<String>| async move { format!("Here plays {video}.\n") }))
        .route_layer(from_fn_with_state(client.clone(), count_views));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("http://127.0.0.1:3000/watch/cats");
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    let left = client.shutdown(Duration::from_secs(5)).await;
    println!("{} views wait in the spool for the next start", left.on_disk);
    Ok(())
}
