//! What the OpenAPI document says of keys: for each operation the scopes that open it, from the table that the door itself goes by.

use axum::http::Method;
use schemas::Scope;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};

use super::access::{Access, EVENTS, needed};

/// A key in the header `Authorization`.
const KEY: &str = "key";
/// A public key in an address.
const PUBLIC_KEY: &str = "public_key";

const ABOUT_KEY: &str = "A key, `tm_ID_SECRET`, with one of the scopes that the operation names: `write` sends events, `import` also events of any age, \
    imports and names, `read` asks, `admin` does everything. Whoever runs the server makes keys with `tallymark keys create`. As long as \
    there is none, nothing asks for one.";
const ABOUT_PUBLIC_KEY: &str =
    "A key that was made with `--public`, for pages whose beacons cannot set headers. A secret key is refused here.";

/// Writes into a document what its operations ask for.
pub(crate) fn document_keys(document: &mut OpenApi) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("tm_ID_SECRET").description(Some(ABOUT_KEY)).build();
    let in_address = ApiKey::Query(ApiKeyValue::with_description("key", ABOUT_PUBLIC_KEY));
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme(KEY, SecurityScheme::Http(bearer));
    components.add_security_scheme(PUBLIC_KEY, SecurityScheme::ApiKey(in_address));
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                secure(operation, &method, path);
            }
        }
    }
}

fn secure(operation: &mut Operation, method: &Method, path: &str) {
    let scopes: &[Scope] = match needed(method, Some(path)) {
        Access::Open => &[],
        Access::AnyKey => &Scope::ALL,
        Access::OneOf(scopes) => scopes,
    };
    let mut ways: Vec<SecurityRequirement> = scopes.iter().map(|scope| SecurityRequirement::new(KEY, [scope.as_str()])).collect();
    if *method == Method::POST && path == EVENTS {
        ways.push(SecurityRequirement::new(PUBLIC_KEY, [Scope::Write.as_str()]));
    }
    operation.security = Some(ways);
}
