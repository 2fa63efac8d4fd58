//! Keys: who may do what. What a store keeps of a key, and the rules by which one is judged. Pure.
//!
//! ```text
//! tm_9f86d081884c7d65_2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
//!    id, public       secret: 256 random bits, shown once; the store keeps its SHA-256
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`token`] | [`Token`]: the text of a key; [`SecretHash`]: what is kept of its secret |
//! | [`origin`] | [`AllowedOrigin`]: from which pages browsers may use a key |
//! | [`new`] | [`NewKey`]: what is asked for when a key is made |

pub mod new;
pub mod origin;
pub mod token;

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::Millis;
pub use new::{BadKey, NewKey};
pub use origin::{AllowedOrigin, BadOrigin};
pub use token::{KeyId, SecretHash, Token};

/// The most keys of one store, revoked ones among them: whoever checks keys holds all of them in memory.
pub const MAX_KEYS: usize = 10_000;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send events.
    Write,
    /// Send events of any age, note the progress of imports, name videos and spaces.
    Import,
    /// Ask.
    Read,
    /// Everything, keys among it.
    Admin,
}

impl Scope {
    /// All, from the least on.
    pub const ALL: [Self; 4] = [Self::Write, Self::Import, Self::Read, Self::Admin];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Import => "import",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    /// That of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    /// Whether whoever has this scope may do what the other one is for.
    pub const fn includes(self, other: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Import => matches!(other, Self::Import | Self::Write),
            Self::Read => matches!(other, Self::Read),
            Self::Write => matches!(other, Self::Write),
        }
    }
}

/// What a store keeps of a key. Nothing of it ever changes but that it is revoked, once and for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Its public name.
    pub id: KeyId,
    /// What it is for, in its maker's words.
    pub name: String,
    /// Of its secret.
    pub hash: SecretHash,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// Whether it may be seen by everybody, as in a web page: then it may only send events.
    #[serde(default)]
    pub public: bool,
    /// The pages from which browsers may use it; none: from no page.
    #[serde(default)]
    pub origins: Vec<AllowedOrigin>,
    /// How many events it may send each second, if it has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<NonZeroU32>,
    /// When it was made, Unix ms.
    pub created_at: Millis,
    /// From when on it is refused, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
    /// When it was revoked, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Millis>,
}

/// Why a key whose secret is right is refused all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody has taken it back.
    Revoked(Millis),
    /// Its time is over.
    Expired(Millis),
}

impl KeyRecord {
    /// Whether it may be used for what the scope is for.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|own| own.includes(scope))
    }

    /// Whether it has ended. A revoked key has also if `now` is before that: clocks differ.
    pub fn ended(&self, now: Millis) -> Option<Ended> {
        match (self.revoked_at, self.expires_at) {
            (Some(at), _) => Some(Ended::Revoked(at)),
            (None, Some(at)) if at <= now => Some(Ended::Expired(at)),
            _ => None,
        }
    }

    /// Whether a browser may use it from a page of this origin, as its header `Origin` says.
    pub fn lists_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.matches(origin))
    }

    /// This record as it is to be kept where another of the same key is: what was revoked stays revoked.
    #[must_use]
    pub fn kept_with(mut self, other: &Self) -> Self {
        self.revoked_at = match (self.revoked_at, other.revoked_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> KeyRecord {
        let new = NewKey { name: "n".into(), scopes: [Scope::Write].into(), ..NewKey::default() };
        new.record(&Token::from_random([7; token::RANDOM_BYTES]), Millis(1_000))
    }

    #[test]
    fn a_scope_allows_what_it_is_for_and_nothing_else() {
        use Scope::{Admin, Import, Read, Write};
        let table: [(&[Scope], &[Scope]); 6] = [
            (&[Write], &[Write]),
            (&[Read], &[Read]),
            (&[Import], &[Write, Import]),
            (&[Admin], &[Write, Import, Read, Admin]),
            (&[Write, Read], &[Write, Read]),
            (&[], &[]),
        ];
        for (has, may) in table {
            let key = KeyRecord { scopes: has.iter().copied().collect(), ..record() };
            for scope in Scope::ALL {
                assert_eq!(key.allows(scope), may.contains(&scope), "{has:?} {scope:?}");
            }
        }
        assert!(Scope::ALL.iter().all(|scope| Scope::parse(scope.as_str()) == Some(*scope)));
        assert_eq!((Scope::parse("Write"), Scope::parse("")), (None, None));
    }

    #[test]
    fn a_key_ends_when_it_is_revoked_or_at_its_time() {
        let at = |revoked: Option<i64>, expires: Option<i64>, now: i64| {
            KeyRecord { revoked_at: revoked.map(Millis), expires_at: expires.map(Millis), ..record() }.ended(Millis(now))
        };
        assert_eq!(at(None, None, i64::MAX), None);
        assert_eq!((at(None, Some(10), 9), at(None, Some(10), 10)), (None, Some(Ended::Expired(Millis(10)))));
        assert_eq!(at(Some(50), Some(10), 0), Some(Ended::Revoked(Millis(50))), "whatever this machine's clock says");
    }

    #[test]
    fn what_was_revoked_stays_revoked() {
        let revoked = |at| KeyRecord { revoked_at: Some(Millis(at)), ..record() };
        assert_eq!(record().kept_with(&revoked(5)), revoked(5));
        assert_eq!(revoked(5).kept_with(&record()), revoked(5));
        assert_eq!(revoked(9).kept_with(&revoked(5)), revoked(5));
        assert_eq!(record().kept_with(&record()), record());
    }

    #[test]
    fn a_record_reads_back_and_holds_no_secret() {
        let key = KeyRecord { events_per_second: NonZeroU32::new(7), expires_at: Some(Millis(9)), ..record() };
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), key);
        assert!(!text.contains(&"07".repeat(32)), "{text}");
    }
}
