//! The key that a request shows: in the header `Authorization`, or, of a public key that sends events, in the query string. Pure.

use axum::http::{HeaderMap, Uri, header};
use schemas::Token;

/// What a request shows.
#[derive(Clone, Debug)]
pub(super) enum Presented {
    /// No key.
    Nothing,
    /// One, in the header.
    Header(Token),
    /// One, in the query string, where everybody who sees the address sees it.
    Query(Token),
    /// Something that cannot be one, and what is wrong with it.
    Bad(&'static str),
}

const SCHEME: &str = "bearer";

impl Presented {
    /// Reads it. `in_query`: the key may be in the query string.
    pub(super) fn of(headers: &HeaderMap, uri: &Uri, in_query: bool) -> Self {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (in_header, second) = (given.next(), given.next());
        if second.is_some() {
            return Self::Bad("the header Authorization is given twice; give it once");
        }
        let mut keys = pairs(uri).into_iter().filter(|(name, _)| name == "key").map(|(_, value)| value);
        match (in_header, keys.next()) {
            (None, None) => Self::Nothing,
            (Some(_), Some(_)) if in_query => Self::Bad("a key is given in the header and in the query string; give one"),
            (Some(value), _) => of_header(value.as_bytes()).map_or_else(Self::Bad, Self::Header),
            (None, Some(_)) if !in_query => {
                Self::Bad("a key in the query string is taken by POST /v1/events alone; send it as Authorization: Bearer tm_...")
            }
            (None, Some(_)) if keys.next().is_some() => Self::Bad("the parameter key is given twice; give it once"),
            (None, Some(text)) => Token::parse(&text).map_or(Self::Bad(FORM), Self::Query),
        }
    }
}

const FORM: &str = "it does not have the form of a key, which is tm_ID_SECRET; is a part of it missing?";

fn of_header(value: &[u8]) -> Result<Token, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| FORM)?;
    let (scheme, token) = text.split_once(' ').ok_or("the header Authorization is not of the form: Bearer tm_...")?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err("the header Authorization has another scheme than Bearer; send: Bearer tm_...");
    }
    Token::parse(token).ok_or(FORM)
}

/// The parameters of a query string, as the handlers read them. One that cannot be read has none; its handler refuses it.
pub(super) fn pairs(uri: &Uri) -> Vec<(String, String)> {
    let has_any = uri.query().is_some_and(|query| !query.is_empty());
    let read = || axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).map(|query| query.0);
    if has_any { read().unwrap_or_default() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use schemas::key::token::RANDOM_BYTES;

    use super::*;

    fn token(n: u8) -> String {
        Token::from_random([n; RANDOM_BYTES]).reveal()
    }

    fn of(authorization: &[&str], query: &str, in_query: bool) -> Presented {
        let headers = authorization.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect();
        Presented::of(&headers, &format!("/v1/events{query}").parse().unwrap(), in_query)
    }

    #[test]
    fn a_key_is_read_from_the_header_and_where_it_may_be_from_the_query() {
        let bearer = format!("Bearer {}", token(1));
        assert!(matches!(of(&[], "", true), Presented::Nothing));
        for text in [bearer.clone(), bearer.replace("Bearer", "bearer"), bearer.replace("Bearer", "BEARER")] {
            assert!(matches!(of(&[&text], "?a=b", false), Presented::Header(read) if read.reveal() == token(1)), "{text}");
        }
        for query in [format!("?key={}", token(1)), format!("?sent_at=1&%6bey={}", token(1))] {
            assert!(matches!(of(&[], &query, true), Presented::Query(read) if read.reveal() == token(1)), "{query}");
            assert!(matches!(of(&[], &query, false), Presented::Bad(_)), "{query}");
        }
    }

    #[test]
    fn whatever_is_given_twice_or_has_another_form_is_no_key() {
        let (bearer, other) = (format!("Bearer {}", token(1)), format!("Bearer {}", token(2)));
        let (own, twice) = (format!("?key={}", token(1)), format!("?key={}&key={}", token(1), token(1)));
        let (spaced, basic, bare) = (format!("Bearer  {}", token(1)), format!("Basic {}", token(1)), token(1));
        let two_in_one = format!("{bearer}, {other}");
        for (headers, query) in [
            (vec![&*bearer, &*bearer], ""),
            (vec![&*bearer, &*other], ""),
            (vec![&*bearer], &*own),
            (vec![], &*twice),
            (vec![&*spaced], ""),
            (vec![&*basic], ""),
            (vec![&*bare], ""),
            (vec![&*two_in_one], ""),
            (vec!["Bearer"], ""),
            (vec!["Bearer "], ""),
            (vec![""], ""),
            (vec![], "?key="),
            (vec![], "?key=tm_"),
        ] {
            assert!(matches!(of(&headers, query, true), Presented::Bad(_)), "{headers:?} {query}");
        }
    }
}
