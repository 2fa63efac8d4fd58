//! JSON bodies: read within bounds, and refused with the name of the member that is wrong.
//!
//! [`Members`] takes an object apart without reading its values, so that unknown names are found and each value is read by whoever knows it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use ingest::Problem;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::params::{Params, clipped, no_such};

/// The body of a request, whole; `limit_bytes` is that of its route.
pub(crate) fn whole(body: Result<Bytes, BytesRejection>, limit_bytes: usize) -> Result<Bytes, Problem> {
    body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("the body has more than {limit_bytes} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail).with("limit_bytes", limit_bytes)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "body-cut", "The body ended early", "the connection failed before the body was complete")
        }
    })
}

/// The body of a request as JSON.
pub(crate) fn json_body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>, limit_bytes: usize) -> Result<T, Problem> {
    read(&whole(body, limit_bytes)?)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // Serde takes a list for an object whose members stand in their order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(bad_body("the body is a list; it is an object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| bad_body(format!("the body cannot be read: {error}")))
}

pub(crate) fn bad_body(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be used", detail)
}

/// 400 for a member of a body that cannot be used; `name` is its way from the top, such as `entities[3]`.
pub(crate) fn bad_member(name: &str, detail: impl fmt::Display) -> Problem {
    bad_body(format!("{name}: {detail}")).with("member", name)
}

/// The members of a JSON object: each known and given at most once, its value unread.
pub(crate) struct Members<'a>(BTreeMap<&'static str, &'a RawValue>);

impl<'a> Members<'a> {
    /// # Errors
    /// 400 if it is no object, or has a member that is not in `known` or is given twice.
    pub(crate) fn read(body: &'a [u8], known: &[&'static str]) -> Result<Self, Problem> {
        let Pairs(pairs) = read(body)?;
        let mut members = BTreeMap::new();
        for (name, value) in pairs {
            let Some(&name) = known.iter().find(|known| **known == name) else {
                return Err(bad_body(no_such("member", &name, known)).with("member", clipped(&name)));
            };
            if members.insert(name, value).is_some() {
                return Err(bad_member(name, "it is given twice; give it once"));
            }
        }
        Ok(Self(members))
    }

    /// A member that must be there: a list of so many items, unread.
    ///
    /// # Errors
    /// 400 if it is absent, no list, empty or too long.
    pub(crate) fn list(&self, name: &'static str, most: usize) -> Result<Vec<&'a RawValue>, Problem> {
        let value = self.0.get(name).ok_or_else(|| bad_member(name, format!("it is missing; it is a list of 1 to {most}")))?;
        let Items { items, rest } = serde_json::from_str(value.get()).map_err(|_| bad_member(name, "it is not a list"))?;
        match items.len() + rest {
            0 => Err(bad_member(name, format!("it is empty; it is a list of 1 to {most}")).with("limit", most)),
            length if length > most => Err(bad_member(name, format!("it has {length} items; it has at most {most}")).with("limit", most)),
            _ => Ok(items),
        }
    }

    /// The members but for one, as the parameters of a query string: texts, and numbers as they are written. `null` is not given.
    ///
    /// # Errors
    /// 400 for one that is neither text nor number.
    pub(crate) fn params(&self, but: &'static str) -> Result<Params, Problem> {
        let others = self.0.iter().filter(|(name, value)| **name != but && value.get() != "null");
        let text = |(name, value): (&&'static str, &&RawValue)| {
            let text = match value.get().as_bytes().first() {
                Some(b'"') => serde_json::from_str(value.get()).map_err(|error| bad_member(name, error))?,
                Some(b'0'..=b'9' | b'-') => value.get().to_owned(),
                _ => return Err(bad_member(name, "it is neither text nor a number")),
            };
            Ok((*name, text))
        };
        Ok(Params::of(others.map(text).collect::<Result<_, Problem>>()?))
    }
}

/// One item of a list.
///
/// # Errors
/// 400 that names its place.
pub(crate) fn item<'a, T: Deserialize<'a>>(list: &str, place: usize, value: &'a RawValue) -> Result<T, Problem> {
    let name = format!("{list}[{place}]");
    if !value.get().starts_with('{') {
        return Err(bad_member(&name, "it is not an object"));
    }
    serde_json::from_str(value.get()).map_err(|error| {
        // Of serde's word only what is wrong: its lines and columns are those of the item.
        let says = error.to_string();
        bad_member(&name, says.split(" at line ").next().unwrap_or_default())
    })
}

/// More members than any object of ours has are looked at no further.
const PAIRS: usize = 32;

struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taking;
        impl<'de> Visitor<'de> for Taking {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while pairs.len() < PAIRS
                    && let Some(pair) = map.next_entry()?
                {
                    pairs.push(pair);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Taking)
    }
}

/// More items than any list of ours has are only counted.
const ITEMS: usize = 10_000;

struct Items<'a> {
    items: Vec<&'a RawValue>,
    rest: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taking;
        impl<'de> Visitor<'de> for Taking {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
                let (mut items, mut rest) = (Vec::new(), 0);
                while items.len() < ITEMS
                    && let Some(item) = list.next_element()?
                {
                    items.push(item);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    rest += 1;
                }
                Ok(Items { items, rest })
            }
        }
        deserializer.deserialize_seq(Taking)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: [&str; 3] = ["entities", "start", "step"];

    fn said(problem: Problem) -> String {
        let response = axum::response::IntoResponse::into_response(problem);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(axum::body::to_bytes(response.into_body(), 10_000)).unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        for (body, words) in [
            ("", &["bad-body", "EOF"][..]),
            ("[]", &["an object"]),
            ("{\"start\":1,\"start\":2}", &["\"member\":\"start\"", "given twice"]),
            ("{\"entites\":[]}", &["there is no member", "did you mean entities?"]),
            ("{\"start\":1}", &["\"member\":\"entities\"", "missing"]),
            ("{\"entities\":7}", &["entities: it is not a list"]),
            ("{\"entities\":[]}", &["entities: it is empty", "1 to 2"]),
            ("{\"entities\":[1,2,3]}", &["it has 3 items", "\"limit\":2"]),
            ("{\"entities\":[1],\"start\":[]}", &["\"member\":\"start\"", "neither text nor a number"]),
            ("{\"entities\":[1],\"step\":true}", &["\"member\":\"step\""]),
        ] {
            let read = Members::read(body.as_bytes(), &KNOWN).and_then(|members| {
                members.list("entities", 2)?;
                members.params("entities")
            });
            let said = said(read.err().unwrap());
            assert!(words.iter().all(|word| said.contains(word)), "{body}: {said}");
        }
        let many = format!("{{\"entities\":[{}1]}}", "1,".repeat(20_000));
        assert!(said(Members::read(many.as_bytes(), &KNOWN).unwrap().list("entities", 9).err().unwrap()).contains("20001 items"));
    }

    #[test]
    fn values_are_those_of_a_query_string() {
        let body = br#"{"st\u0061rt": 1763640000.5, "step": "1h", "entities": null}"#;
        let params = Members::read(body, &KNOWN).unwrap().params("entities").unwrap();
        assert_eq!((params.get("start").unwrap().as_str(), params.get("step").unwrap().as_str()), ("1763640000.5", "1h"));
        assert!(Members::read(b"{\"step\":null}", &KNOWN).unwrap().params("entities").unwrap().get("step").is_none());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in "([\\[\\]{}:,\"0-9a-z\\\\ ]|\"entities\":|\"start\":){0,40}") {
            if let Ok(members) = Members::read(body.as_bytes(), &KNOWN) {
                let _ = (members.list("entities", 3), members.params("entities"));
            }
        }
    }
}
