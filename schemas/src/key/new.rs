//! What is asked for when a key is made, and what a key may be.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use thiserror::Error;

use super::{AllowedOrigin, KeyRecord, Scope, Token};
use crate::Millis;
use crate::id::{BadId, check_id};

/// The most origins of one key.
pub const MAX_ORIGINS: usize = 100;

/// A key that is not made yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// Whether it may be seen by everybody.
    pub public: bool,
    /// The pages from which browsers may use it.
    pub origins: Vec<AllowedOrigin>,
    /// How many events it may send each second.
    pub events_per_second: Option<NonZeroU32>,
    /// From when on it is refused.
    pub expires_at: Option<Millis>,
}

/// Why a key cannot be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadKey {
    /// Its name.
    #[error("the name {0}")]
    Name(BadId),
    /// It may do nothing.
    #[error("a key without scopes may do nothing; name some of write, import, read, admin")]
    NoScope,
    /// A public key that may do more than send events.
    #[error("a public key is seen by everybody, so its only scope is write")]
    PublicScope,
    /// Too many origins.
    #[error("a key lists at most {MAX_ORIGINS} origins, and this one {0}")]
    TooManyOrigins(usize),
    /// It would have ended before it began.
    #[error("it expires at or before now; name a time to come, or none")]
    Expired,
    /// Nobody could make another.
    #[error("the first key has the scope admin: without it nobody could make another")]
    FirstWithoutAdmin,
}

impl BadKey {
    /// The member of the request that is wrong.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::NoScope | Self::PublicScope | Self::FirstWithoutAdmin => "scopes",
            Self::TooManyOrigins(_) => "origins",
            Self::Expired => "expires_at",
        }
    }
}

impl NewKey {
    /// Checks that there can be such a key, beside others or as the first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, now: Millis, is_first: bool) -> Result<(), BadKey> {
        check_id(&self.name).map_err(BadKey::Name)?;
        if self.scopes.is_empty() {
            return Err(BadKey::NoScope);
        }
        if self.public && self.scopes.iter().any(|scope| *scope != Scope::Write) {
            return Err(BadKey::PublicScope);
        }
        if self.origins.len() > MAX_ORIGINS {
            return Err(BadKey::TooManyOrigins(self.origins.len()));
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(BadKey::Expired);
        }
        if is_first && !self.scopes.contains(&Scope::Admin) {
            return Err(BadKey::FirstWithoutAdmin);
        }
        Ok(())
    }

    /// What is kept of it.
    pub fn record(self, token: &Token, now: Millis) -> KeyRecord {
        let Self { name, scopes, public, origins, events_per_second, expires_at } = self;
        KeyRecord {
            id: token.id().clone(),
            name,
            hash: token.hash(),
            scopes,
            public,
            origins,
            events_per_second,
            created_at: now,
            expires_at,
            revoked_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_the_member_that_is_wrong() {
        let good = NewKey { name: "n".into(), scopes: [Scope::Write].into(), ..NewKey::default() };
        let now = Millis(10);
        assert_eq!(good.check(now, false), Ok(()));
        let public = |scopes: &[Scope]| NewKey { public: true, scopes: scopes.iter().copied().collect(), ..good.clone() };
        assert_eq!(public(&[Scope::Write]).check(now, false), Ok(()));
        let many = vec![AllowedOrigin::Any; MAX_ORIGINS + 1];
        for (new, why, member) in [
            (NewKey { name: String::new(), ..good.clone() }, BadKey::Name(BadId::Empty), "name"),
            (NewKey { name: "a\nb".into(), ..good.clone() }, BadKey::Name(BadId::Control), "name"),
            (NewKey { scopes: BTreeSet::new(), ..good.clone() }, BadKey::NoScope, "scopes"),
            (public(&[Scope::Write, Scope::Read]), BadKey::PublicScope, "scopes"),
            (public(&[Scope::Admin]), BadKey::PublicScope, "scopes"),
            (public(&[Scope::Import]), BadKey::PublicScope, "scopes"),
            (NewKey { origins: many, ..good.clone() }, BadKey::TooManyOrigins(MAX_ORIGINS + 1), "origins"),
            (NewKey { expires_at: Some(now), ..good.clone() }, BadKey::Expired, "expires_at"),
        ] {
            assert_eq!((new.check(now, false), why.member()), (Err(why), member));
        }
    }

    #[test]
    fn the_first_key_can_make_others() {
        let new = |scope| NewKey { name: "n".into(), scopes: [scope].into(), ..NewKey::default() };
        assert_eq!(new(Scope::Admin).check(Millis(0), true), Ok(()));
        for scope in [Scope::Write, Scope::Import, Scope::Read] {
            assert_eq!(new(scope).check(Millis(0), true), Err(BadKey::FirstWithoutAdmin));
        }
    }
}
