//! The keys that a process knows, and what it says of a token. Pure.

use std::collections::HashMap;

use schemas::key::{Ended, SecretHash};
use schemas::{KeyId, KeyRecord, Millis, Token};

/// Why a token is none of a ring's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// There is no such key, or it has another secret: whoever asks is not told which.
    Nobody,
    /// There is, and it has ended.
    Ended(Ended),
}

/// Keys by their ids.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    keys: HashMap<KeyId, KeyRecord>,
    is_needed: bool,
}

impl Ring {
    /// `is_needed`: requests need a key also if there is none.
    pub(crate) fn new(keys: Vec<KeyRecord>, is_needed: bool) -> Self {
        let is_needed = is_needed || !keys.is_empty();
        Self { keys: keys.into_iter().map(|key| (key.id.clone(), key)).collect(), is_needed }
    }

    /// Whether a request needs a key.
    pub(crate) const fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// Whether there is no key, not even one that has ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of a token. Takes as long for an id that there is as for one that there is not.
    ///
    /// # Errors
    /// If there is none that can be used.
    pub(crate) fn find(&self, token: &Token, now: Millis) -> Result<&KeyRecord, Unknown> {
        let key = self.keys.get(token.id());
        let is_right = key.map_or(&SecretHash::NOBODY, |key| &key.hash).matches(&token.hash());
        let key = key.filter(|_| is_right).ok_or(Unknown::Nobody)?;
        key.ended(now).map_or(Ok(key), |ended| Err(Unknown::Ended(ended)))
    }

    /// Whether a key that was good still is.
    pub(crate) fn still_holds(&self, id: &KeyId, now: Millis) -> bool {
        self.keys.get(id).is_some_and(|key| key.ended(now).is_none())
    }

    /// Whether a page of this origin may send events with some public key.
    pub(crate) fn lists_origin(&self, origin: &str, now: Millis) -> bool {
        self.keys.values().any(|key| key.public && key.ended(now).is_none() && key.lists_origin(origin))
    }
}

#[cfg(test)]
mod tests {
    use schemas::Scope;
    use schemas::key::token::RANDOM_BYTES;
    use schemas::key::{AllowedOrigin, NewKey};

    use super::*;

    fn token(n: u8) -> Token {
        Token::from_random([n; RANDOM_BYTES])
    }

    fn key(n: u8) -> KeyRecord {
        let origins = vec![AllowedOrigin::parse("https://a.example").unwrap()];
        let new = NewKey { name: "n".into(), scopes: [Scope::Write].into(), public: true, origins, ..NewKey::default() };
        new.record(&token(n), Millis(0))
    }

    #[test]
    fn only_the_right_secret_of_a_live_key_is_known() {
        let revoked = KeyRecord { revoked_at: Some(Millis(5)), ..key(2) };
        let expired = KeyRecord { expires_at: Some(Millis(100)), ..key(3) };
        let ring = Ring::new(vec![key(1), revoked, expired], false);
        let find = |token: &Token, now| ring.find(token, Millis(now)).map(|key| key.id.clone());
        assert_eq!(find(&token(1), 50), Ok(token(1).id().clone()));
        assert_eq!(find(&token(2), 50), Err(Unknown::Ended(Ended::Revoked(Millis(5)))));
        assert_eq!((find(&token(3), 99).is_ok(), find(&token(3), 100)), (true, Err(Unknown::Ended(Ended::Expired(Millis(100))))));
        assert_eq!(find(&token(4), 50), Err(Unknown::Nobody));
        for n in 1..=3 {
            // The id of one, the secret of another: what has ended is not told either.
            let (id, secret) = (token(n).reveal(), token(4).reveal());
            let mixed = Token::parse(&format!("{}{}", &id[..20], &secret[20..])).unwrap();
            assert_eq!((mixed.id(), find(&mixed, 50)), (token(n).id(), Err(Unknown::Nobody)));
        }
    }

    #[test]
    fn a_key_is_needed_as_soon_as_there_is_one_or_when_that_is_said() {
        assert!(!Ring::new(Vec::new(), false).is_needed() && Ring::new(Vec::new(), true).is_needed());
        let revoked = KeyRecord { revoked_at: Some(Millis(5)), ..key(2) };
        assert!(Ring::new(vec![revoked], false).is_needed(), "also if all are revoked");
    }

    #[test]
    fn only_live_public_keys_speak_for_a_page() {
        let origin = "https://a.example";
        let lists = |key: KeyRecord| Ring::new(vec![key], false).lists_origin(origin, Millis(50));
        assert!(lists(key(1)));
        assert!(!lists(KeyRecord { revoked_at: Some(Millis(5)), ..key(1) }));
        assert!(!lists(KeyRecord { expires_at: Some(Millis(50)), ..key(1) }));
        assert!(!lists(KeyRecord { public: false, ..key(1) }));
        assert!(!lists(KeyRecord { origins: Vec::new(), ..key(1) }));
    }
}
