//! The description of the API is true: what it lists is served and nothing else is, and its pages lead somewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod site;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use ingest::problem::kinds::{self, KINDS};
use query::docs;
use serde_json::Value;
use site::Site;
use tower::ServiceExt;

fn document() -> Value {
    serde_json::from_str(&docs::json(&docs::document([query::openapi(), ingest::collect::openapi()]))).unwrap()
}

async fn get(router: &Router, uri: &str) -> Response {
    let request = Request::builder().method(Method::GET).uri(uri).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 24).await.unwrap().to_vec()).unwrap()
}

/// The paths that a router has, which it shows to debuggers alone; its fallback is at `/`.
fn routes(router: &Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    shown
        .split('"')
        .filter(|part| part.starts_with('/') && *part != "/" && !part.contains("__private__axum_fallback"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_nothing_else_is() {
    let site = Site::new();
    let served = site.router.clone().merge(docs::router(&docs::document([query::openapi()])));
    let document = docs::document([query::openapi()]);
    let documented: BTreeSet<String> = document.paths.paths.keys().cloned().collect();
    assert!(documented.contains("/v1/site/views"));
    assert_eq!(routes(&served), documented);
}

#[tokio::test]
async fn a_parameter_is_known_if_and_only_if_it_is_in_the_document() {
    let (site, document) = (Site::new(), document());
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/")) {
        let Some(operation) = item.get("get") else { continue };
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let documented: BTreeSet<&str> =
            parameters.filter(|parameter| parameter["in"] == "query").map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let uri = format!("{}?zzz=1", path.replace("{id}", "v").replace("{date}", "2026-11-20").replace("{day}", "2026-11-20"));
        let body: Value = serde_json::from_str(&text(get(&site.router, &uri).await).await).unwrap_or_default();
        let detail = body["detail"].as_str().unwrap_or_default();
        let Some((_, known)) = detail.split_once("Known here: ") else { continue };
        let known: BTreeSet<&str> = known.split(", ").filter(|name| !name.is_empty()).collect();
        assert_eq!(known, documented, "{path}");
        asked += 1;
    }
    assert!(asked >= 5, "{asked} operations told what they know");
}

#[test]
fn every_description_reads_as_one_hand_wrote_it() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().expect(&at).to_owned()), "{at}: its operationId is another's too");
            assert!(operation["summary"].as_str().expect(&at).ends_with('.'), "{at}: a summary is a sentence");
            let tag = &operation["tags"][0];
            assert!(
                document["tags"].as_array().unwrap().iter().any(|known| known["name"] == *tag),
                "{at}: the group {tag} is not in the list"
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{at}: {parameter} is not explained");
            }
        }
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_reference_shows_every_operation_and_loads_nothing_from_elsewhere() {
    let document = docs::document([query::openapi(), ingest::collect::openapi()]);
    let router = docs::router(&document);
    let response = get(&router, "/docs").await;
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let page = text(response).await;
    for path in document.paths.paths.keys() {
        let shown = path.replace('/', "/<wbr>").replace('{', "<var>{").replace('}', "}</var>");
        assert!(page.contains(&format!("<code>{shown}</code>")), "{path}");
    }
    for needless in ["<script", "style=", "src=\"", "onclick", "@import", "url("] {
        assert!(!page.contains(needless), "{needless}");
    }
    // Every link within the page leads to a place in it, and no place is there twice.
    let ids: Vec<&str> = page.split(" id=").skip(1).map(|rest| rest.trim_start_matches('"').split(['"', '>']).next().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    for to in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.contains(&to), "#{to} leads nowhere");
    }
    assert_eq!(get(&router, "/docs/style.css").await.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
    let served: Value = serde_json::from_str(&text(get(&router, "/openapi.json").await).await).unwrap();
    assert_eq!(served["openapi"], "3.1.0");
}

#[tokio::test]
async fn the_type_of_every_problem_leads_to_its_explanation() {
    let router = docs::router(&docs::document([]));
    for kind in KINDS {
        let response = get(&router, &format!("/problems/{}", kind.name)).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", kind.name);
        assert!(text(response).await.contains(kind.title), "{}", kind.name);
    }
    let response = get(&router, "/problems/none").await;
    assert_eq!(
        (response.status(), &response.headers()[header::CONTENT_TYPE]),
        (StatusCode::NOT_FOUND, &"application/problem+json".parse().unwrap())
    );
}

/// Every file of Rust below a directory.
fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn every_kind_of_problem_in_the_code_is_in_the_table_with_its_status_and_title() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for part in ["ingest/src", "query/src", "src"] {
        sources(&root.join(part), &mut files);
    }
    let mut used = BTreeSet::new();
    for file in files {
        let code = std::fs::read_to_string(&file).unwrap();
        // A problem is made by `Problem::new(StatusCode::X, "kind", "title", ...)`; the title may be a name.
        for made in code.split("::new(").skip(1).filter(|rest| rest.trim_start().starts_with("StatusCode::")) {
            let mut parts = made.splitn(3, ',').map(str::trim);
            let status: StatusCode = status(parts.next().unwrap().trim_start_matches("StatusCode::"));
            let name = parts.next().unwrap().trim_matches('"');
            let kind =
                kinds::find(name).unwrap_or_else(|| panic!("{}: the kind {name} is not in ingest/src/problem/kinds.rs", file.display()));
            assert_eq!(kind.status, status.as_u16(), "{}: {name}", file.display());
            let title = parts.next().unwrap();
            if let Some(title) = title.strip_prefix('"') {
                assert_eq!(title.split('"').next().unwrap(), kind.title, "{}: {name}", file.display());
            }
            used.insert(kind.name);
        }
    }
    let unused: Vec<&str> = KINDS.iter().map(|kind| kind.name).filter(|name| !used.contains(name)).collect();
    assert_eq!(unused, [""; 0], "these are in the table, and nothing in the code is of these kinds");
}

/// A status by the name of its constant.
fn status(name: &str) -> StatusCode {
    (400..600)
        .filter_map(|code| StatusCode::from_u16(code).ok())
        .find(|status| status.canonical_reason().is_some_and(|reason| reason.to_uppercase().replace([' ', '-'], "_") == name))
        .unwrap_or_else(|| panic!("{name}"))
}
