use schemas::key::AllowedOrigin;
use schemas::key::token::RANDOM_BYTES;
use schemas::{NewKey, Token};

use super::*;

const PAGE: &str = "https://www.example.com";

/// A key for each scope by its place, and a public one.
fn ring() -> Known {
    let scoped = Scope::ALL.into_iter().map(|scope| NewKey { scopes: [scope].into(), ..NewKey::default() });
    let origins = vec![AllowedOrigin::parse(PAGE).unwrap()];
    let public = NewKey { scopes: [Scope::Write].into(), public: true, origins, ..NewKey::default() };
    let keys = (0..).zip(scoped.chain([public])).map(|(n, new)| new.record(&token(n), Millis(0))).collect();
    Known::Ring(Arc::new(Ring::new(keys, false)))
}

const WRITE: u8 = 0;
const IMPORT: u8 = 1;
const READ: u8 = 2;
const ADMIN: u8 = 3;
const PUBLIC: u8 = 4;
const UNKNOWN: u8 = 9;

fn token(n: u8) -> Token {
    Token::from_random([n + 1; RANDOM_BYTES])
}

fn bearer(n: u8) -> (&'static str, String) {
    ("authorization", format!("Bearer {}", token(n).reveal()))
}

fn ask_at(
    known: &Known,
    peer: &str,
    method: &str,
    route: Option<&str>,
    query: &str,
    headers: &[(&str, String)],
) -> Result<Option<CallerKey>, Refusal> {
    let uri = format!("{}{query}", route.unwrap_or("/nowhere").replace(['{', '}'], "x")).parse().unwrap();
    let headers = headers.iter().map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap())).collect();
    let method = method.parse().unwrap();
    Asked { method: &method, route, uri: &uri, headers: &headers, peer: peer.parse().ok() }.admitted(known, Millis(1))
}

fn ask(method: &str, route: &str, query: &str, headers: &[(&str, String)]) -> Result<Option<CallerKey>, Refusal> {
    ask_at(&ring(), "127.0.0.1", method, Some(route), query, headers)
}

#[test]
fn each_scope_opens_its_own_routes_and_no_other() {
    for (method, route, may) in [
        ("POST", "/v1/events", &[WRITE, IMPORT, ADMIN, PUBLIC][..]),
        ("GET", "/v1/videos/{id}/views", &[READ, ADMIN]),
        ("POST", "/v1/query", &[READ, ADMIN]),
        ("PUT", "/v1/videos/{id}", &[IMPORT, ADMIN]),
        ("GET", "/v1/status", &[READ, IMPORT, ADMIN]),
        ("GET", "/metrics", &[READ, ADMIN]),
        ("GET", "/v1/keys", &[ADMIN]),
        ("DELETE", "/v1/keys/{id}", &[ADMIN]),
        ("DELETE", "/v1/videos/{id}", &[ADMIN]),
    ] {
        for key in [WRITE, IMPORT, READ, ADMIN, PUBLIC] {
            let answer = ask(method, route, "", &[bearer(key)]);
            assert_eq!(answer.is_ok(), may.contains(&key), "{method} {route} {key}: {answer:?}");
            assert!(answer.is_ok() || matches!(answer, Err(Refusal::Lacks(_))), "{answer:?}");
        }
        assert!(matches!(ask(method, route, "", &[]), Err(Refusal::None(_))));
        assert_eq!(ask(method, route, "", &[bearer(UNKNOWN)]), Err(Refusal::Unknown));
    }
    assert_eq!(ask("GET", "/livez", "", &[]), Ok(None));
}

#[test]
fn a_handler_is_told_who_asks() {
    let caller = |key| ask("POST", "/v1/events", "", &[bearer(key)]).unwrap().unwrap();
    assert_eq!((&*caller(WRITE).id, caller(WRITE).may_import), (token(WRITE).id().as_str(), false));
    assert!(caller(IMPORT).may_import && caller(ADMIN).may_import);
}

#[test]
fn events_of_any_age_need_the_scope_import_however_it_is_written() {
    for query in ["?historical=true", "?historical=TRUE", "?h%69storical=true", "?historical=false&historical=true", "?historical"] {
        assert_eq!(ask("POST", "/v1/events", query, &[bearer(WRITE)]), Err(Refusal::Lacks(Scope::Import)), "{query}");
        assert!(ask("POST", "/v1/events", query, &[bearer(IMPORT)]).is_ok());
    }
    assert!(ask("POST", "/v1/events", "?historical=false", &[bearer(WRITE)]).is_ok());
}

#[test]
fn a_page_uses_only_keys_that_list_it() {
    let send = |key, origins: &[&str]| {
        let headers: Vec<_> = [bearer(key)].into_iter().chain(origins.iter().map(|origin| ("origin", (*origin).to_owned()))).collect();
        ask("POST", "/v1/events", "", &headers)
    };
    assert!(send(PUBLIC, &[PAGE]).is_ok() && send(PUBLIC, &[]).is_ok());
    for origins in [
        &["null"][..],
        &["https://www.example.com.evil.com"],
        &["http://www.example.com"],
        &["https://WWW.example.com"],
        &[PAGE, "https://evil.com"],
    ] {
        assert_eq!(send(PUBLIC, origins), Err(Refusal::Origin), "{origins:?}");
    }
    assert_eq!(send(WRITE, &[PAGE]), Err(Refusal::Origin), "a secret key is for no page");
}

#[test]
fn only_a_public_key_is_taken_from_an_address_and_only_with_events() {
    let in_query = |key| format!("?key={}", token(key).reveal());
    assert!(ask("POST", "/v1/events", &in_query(PUBLIC), &[]).is_ok());
    for key in [WRITE, IMPORT, ADMIN] {
        assert_eq!(ask("POST", "/v1/events", &in_query(key), &[]), Err(Refusal::InAddress));
    }
    assert!(matches!(ask("GET", "/v1/site/views", &in_query(READ), &[]), Err(Refusal::Malformed(_))));
    assert!(matches!(ask("GET", "/v1/events", &in_query(PUBLIC), &[]), Err(Refusal::Malformed(_))));
}

#[test]
fn a_path_that_there_is_none_of_is_told_to_those_with_a_key_only() {
    let nowhere = |headers: &[(&str, String)]| ask_at(&ring(), "127.0.0.1", "GET", None, "", headers);
    assert_eq!(nowhere(&[]), Err(Refusal::None(None)));
    assert!(nowhere(&[bearer(PUBLIC)]).is_ok());
}

#[test]
fn without_keys_all_is_open_but_the_first_key_is_made_on_the_machine_itself() {
    let none = Known::Ring(Arc::new(Ring::new(Vec::new(), false)));
    let create = |peer: &str, headers: &[(&str, String)]| ask_at(&none, peer, "POST", Some("/v1/keys"), "", headers);
    assert_eq!(ask_at(&none, "203.0.113.9", "POST", Some("/v1/events"), "?historical=true", &[]), Ok(None));
    assert!(create("127.0.0.1", &[]).is_ok() && create("::1", &[]).is_ok() && create("::ffff:127.0.0.1", &[]).is_ok());
    for peer in ["203.0.113.9", "10.0.0.1", ""] {
        assert_eq!(create(peer, &[]), Err(Refusal::FirstElsewhere), "{peer}");
    }
    for name in ["origin", "x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-proto"] {
        assert_eq!(create("127.0.0.1", &[(name, "127.0.0.1".to_owned())]), Err(Refusal::FirstElsewhere), "{name}");
    }
}

#[test]
fn before_keys_are_known_nobody_is_let_in() {
    let nothing = Known::Nothing("away".into());
    assert!(matches!(ask_at(&nothing, "127.0.0.1", "POST", Some("/v1/events"), "", &[bearer(ADMIN)]), Err(Refusal::NotKnown(_))));
    assert_eq!(ask_at(&nothing, "127.0.0.1", "GET", Some("/livez"), "", &[]), Ok(None));
    let closed = Known::Ring(Arc::new(Ring::new(Vec::new(), true)));
    assert!(matches!(ask_at(&closed, "127.0.0.1", "POST", Some("/v1/keys"), "", &[]), Err(Refusal::None(_))));
}

#[test]
fn refusals_say_what_is_needed_in_the_header_too() {
    let response = ask("GET", "/v1/keys", "", &[bearer(READ)]).unwrap_err().into_response();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"tallymark\", error=\"insufficient_scope\", scope=\"admin\"");
    let response = ask("GET", "/v1/keys", "", &[]).unwrap_err().into_response();
    assert_eq!(
        (response.status(), &response.headers()[header::WWW_AUTHENTICATE]),
        (StatusCode::UNAUTHORIZED, &"Bearer realm=\"tallymark\"".parse().unwrap())
    );
}
