//! Any JSON object as an event, by serde: escapes, nested values and every way to write a number.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sonic_rs::LazyValue;

use super::numeric_ts;
use crate::event::{Event, Kind};
use crate::id::check_id;
use crate::time::Millis;

/// An object that opens more containers than this is read by a parser that bounds the depth of nesting.
const MANY_CONTAINERS: usize = 64;

/// sonic-rs skips unknown fields by recursion without a bound, so a hostile event could overflow the stack;
/// counting the characters that could open a container costs a few nanoseconds and needs no parsing.
fn has_many_containers(bytes: &[u8]) -> bool {
    memchr::memchr2_iter(b'[', b'{', bytes).nth(MANY_CONTAINERS).is_some()
}

/// The event that `bytes` hold, if they are one.
pub(super) fn event(bytes: &[u8]) -> Option<Event<'_>> {
    let wire: Wire<'_> = if has_many_containers(bytes) { serde_json::from_slice(bytes).ok()? } else { sonic_rs::from_slice(bytes).ok()? };
    wire.into_event()
}

/// What [`others`](super::others) says, by the same parser that read the event: it finds whatever that one passed over.
pub(super) fn others(bytes: &[u8], except: &[&str]) -> Option<String> {
    if has_many_containers(bytes) {
        serde_json::from_slice::<Others<'_, &RawValue>>(bytes).ok()?.write(except, |value| value.get())
    } else {
        sonic_rs::from_slice::<Others<'_, LazyValue<'_>>>(bytes).ok()?.write(except, LazyValue::as_raw_str)
    }
}

/// The names of the fields of [`Wire`].
const FIELDS: [&str; 7] = ["event_id", "video_id", "ts", "space_id", "viewer_id", "watch_ms", "kind"];

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    #[serde(borrow)]
    video_id: Text<'a>,
    ts: Ts,
    #[serde(borrow, default)]
    space_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    viewer_id: Option<Text<'a>>,
    #[serde(default)]
    watch_ms: Option<u64>,
    #[serde(default)]
    kind: Option<Kind>,
}

impl<'a> Wire<'a> {
    fn into_event(self) -> Option<Event<'a>> {
        let optional_ok = |id: &Option<Text<'_>>| id.as_ref().is_none_or(|id| check_id(&id.0).is_ok());
        let ids_ok = check_id(&self.event_id.0).is_ok()
            && check_id(&self.video_id.0).is_ok()
            && optional_ok(&self.space_id)
            && optional_ok(&self.viewer_id);
        ids_ok.then(|| Event {
            event_id: self.event_id.0,
            video_id: self.video_id.0,
            space_id: self.space_id.map(|id| id.0),
            viewer_id: self.viewer_id.map(|id| id.0),
            ts: self.ts.0,
            watch_ms: self.watch_ms,
            kind: self.kind.unwrap_or_default(),
        })
    }
}

/// A string, borrowed unless it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// `ts`: RFC 3339 text or Unix milliseconds.
struct Ts(Millis);

impl<'de> Deserialize<'de> for Ts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TsVisitor;
        impl Visitor<'_> for TsVisitor {
            type Value = Ts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("RFC 3339 text or Unix milliseconds")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ts, E> {
                Millis::parse_rfc3339(text).map(Ts).ok_or_else(|| E::custom("bad ts"))
            }
            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Ts, E> {
                numeric_ts(ms).map(Ts).map_err(|_| E::custom("bad ts"))
            }
            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Ts, E> {
                self.visit_i64(i64::try_from(ms).unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_any(TsVisitor)
    }
}

/// The members of an object that are not fields of an event, in order, with their values as a raw `V`.
struct Others<'a, V>(Vec<(Text<'a>, V)>);

impl<V> Others<'_, V> {
    fn write(&self, except: &[&str], raw: impl Fn(&V) -> &str) -> Option<String> {
        let kept = self.0.iter().filter(|(name, _)| !except.contains(&name.0.as_ref()));
        let members: Vec<_> = kept.map(|(name, value)| format!("{}:{}", Value::from(name.0.as_ref()), raw(value))).collect();
        (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
    }
}

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Others<'a, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OthersVisitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for OthersVisitor<V> {
            type Value = Others<'de, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Others<'de, V>, A::Error> {
                let mut others = Vec::new();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    if FIELDS.contains(&name.0.as_ref()) {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        others.push((name, map.next_value()?));
                    }
                }
                Ok(Others(others))
            }
        }
        deserializer.deserialize_map(OthersVisitor(PhantomData))
    }
}
