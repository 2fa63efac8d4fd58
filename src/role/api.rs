//! The OpenAPI document of a role: what it serves and nothing else. `docs/openapi.json` is that of `tallymark run`, which serves all.

use utoipa::openapi::OpenApi;

use super::{Role, health};
use crate::guard::document_keys;

/// The document.
pub(super) fn document(role: Role) -> OpenApi {
    let collects = role.collects().then(ingest::collect::openapi);
    let answers = role.answers().then(|| [query::openapi(), crate::keys::openapi()]);
    let mut document = query::docs::document(collects.into_iter().chain(answers.into_iter().flatten()).chain([health::openapi()]));
    document_keys(&mut document);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_in_docs_is_what_is_served() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let served = query::docs::json(&document(Role::Run));
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, &served).unwrap();
        }
        let copy = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(copy == served, "docs/openapi.json is not what is served any more; if that is meant, write it anew with: make openapi");
    }

    #[test]
    fn a_role_documents_what_it_serves() {
        let has = |role: Role, path: &str| document(role).paths.paths.contains_key(path);
        for (role, collects, answers) in
            [(Role::Run, true, true), (Role::Collect, true, false), (Role::Query, false, true), (Role::Aggregate, false, false)]
        {
            assert_eq!((has(role, "/v1/events"), has(role, "/v1/site/views")), (collects, answers), "{role:?}");
            assert!(has(role, "/readyz") && has(role, "/openapi.json"), "{role:?}");
        }
    }
}
