//! `/t.js`: the browser's side of the collector as one script, the same for everyone. It is built from `sdk/js` and kept there
//! (`sdk/js/dist/t.js`), so that a build of the program needs no other tools; a test keeps it equal to its source.
//!
//! Pages of any site may load it: it holds nothing that others should not see. Browsers keep it for an hour and then ask whether it
//! is still the same one (`ETag`). It is compressed once, for all who take gzip.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use xxhash_rust::xxh3::xxh3_128;

use crate::Problem;

/// The script, minified.
const SCRIPT: &str = include_str!("../../../sdk/js/dist/t.js");

/// The script compressed; empty if that failed, and then nobody gets it so.
static GZIPPED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(SCRIPT.as_bytes()).and_then(|()| gzip.finish()).unwrap_or_default()
});

/// The script's route.
pub(super) fn router() -> Router {
    Router::from(routes()).method_not_allowed_fallback(other_method)
}

/// What the OpenAPI document says of it.
pub(super) fn openapi() -> OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(script))
}

async fn other_method() -> Problem {
    let title = "This method is not taken here";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, "GET or HEAD /t.js, the script for web pages")
}

/// The script for web pages.
///
/// Counts views and watch time in browsers: `<script async src="https://HOST/t.js" data-key="tm_..." data-video="v1"></script>`.
/// It is the same for all; `ETag` says whether it has changed.
#[utoipa::path(
    get,
    path = "/t.js",
    operation_id = "script",
    tag = "Events",
    responses(
        (status = 200, description = "The script.", body = String, content_type = "text/javascript"),
        (status = 304, description = "The script is still the one that `If-None-Match` names.")
    )
)]
async fn script(headers: HeaderMap) -> Response {
    let gzipped = !GZIPPED.is_empty() && takes_gzip(&headers);
    let body = if gzipped { GZIPPED.as_slice() } else { SCRIPT.as_bytes() };
    let tag = format!("\"{:032x}\"", xxh3_128(body));
    let common = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::VARY, "accept-encoding"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Also pages that are isolated from other origins may load it.
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|value| names(value, &tag)) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let mut response = (common, [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], body).into_response();
    if gzipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether gzip is among the encodings that are taken, and not with weight 0 (RFC 9110, 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let weight = weight.trim().trim_start_matches("q=").parse().unwrap_or(1.0_f32);
        name.trim().eq_ignore_ascii_case("gzip") && weight > 0.0
    })
}

/// Whether a list of tags has this one. The comparison is the weak one, as for every `If-None-Match` (RFC 9110, 13.1.2).
fn names(list: &HeaderValue, tag: &str) -> bool {
    let tags = list.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|one| one.strip_prefix("W/").unwrap_or(one)).any(|one| one == tag || one == "*")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: Method, headers: &[(HeaderName, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri("/t.js").body(Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        router().oneshot(request).await.unwrap()
    }

    async fn get(if_none_match: &[&str]) -> Response {
        let headers: Vec<_> = if_none_match.iter().map(|value| (header::IF_NONE_MATCH, *value)).collect();
        ask(Method::GET, &headers).await
    }

    fn text(response: &Response, name: &str) -> String {
        response.headers()[name].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn any_page_may_load_the_script_and_keep_it_for_an_hour() {
        let response = get(&[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        for (name, value) in [
            ("content-type", "text/javascript; charset=utf-8"),
            ("cache-control", "public, max-age=3600"),
            ("access-control-allow-origin", "*"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(text(&response, name), value);
        }
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, SCRIPT.as_bytes());
    }

    #[tokio::test]
    async fn who_takes_gzip_gets_less_than_three_kilobytes() {
        for accepts in ["gzip", "br, GZIP;q=0.5", "deflate,gzip ; q=1"] {
            let response = ask(Method::GET, &[(header::ACCEPT_ENCODING, accepts)]).await;
            assert_eq!(
                (text(&response, "content-encoding"), text(&response, "vary")),
                ("gzip".into(), "accept-encoding".into()),
                "{accepts}"
            );
            assert_ne!(text(&response, "etag"), text(&get(&[]).await, "etag"));
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert!(body.len() < 3_000, "{}", body.len());
            let mut whole = String::new();
            flate2::read::GzDecoder::new(body.as_ref()).read_to_string(&mut whole).unwrap();
            assert_eq!(whole, SCRIPT);
        }
        for accepts in ["", "br", "gzip;q=0", "identity, gzip; q=0.0", "xgzip"] {
            let response = ask(Method::GET, &[(header::ACCEPT_ENCODING, accepts)]).await;
            assert!(!response.headers().contains_key(header::CONTENT_ENCODING), "{accepts}");
        }
    }

    #[tokio::test]
    async fn the_script_is_only_read() {
        assert_eq!(ask(Method::HEAD, &[]).await.status(), StatusCode::OK);
        let refused = ask(Method::POST, &[]).await;
        assert_eq!((refused.status(), text(&refused, "allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD".into()));
    }

    #[tokio::test]
    async fn who_has_the_script_is_not_sent_it_again() {
        let tag = text(&get(&[]).await, "etag");
        for same in [&[tag.as_str()][..], &["*"], &[&format!("W/{tag}")], &[&format!("\"other\", {tag}")], &["\"other\"", &tag]] {
            let response = get(same).await;
            assert_eq!((response.status(), text(&response, "etag")), (StatusCode::NOT_MODIFIED, tag.clone()), "{same:?}");
            assert!(to_bytes(response.into_body(), usize::MAX).await.unwrap().is_empty());
        }
        for other in [&["\"other\""][..], &[""], &[tag.trim_matches('"')]] {
            assert_eq!(get(other).await.status(), StatusCode::OK, "{other:?}");
        }
    }
}
