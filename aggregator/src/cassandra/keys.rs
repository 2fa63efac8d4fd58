//! Keys: one partition for the log's, so that all are read at once.
//!
//! What a key does not have is left unset. A key is made once and revoked once: a write without a revocation, however late it comes, leaves
//! the one that is there.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use schemas::key::{AllowedOrigin, SecretHash};
use schemas::{KeyId, KeyRecord, Millis, Scope};
use scylla::DeserializeRow;
use scylla::value::MaybeUnset;

use super::Inner;
use super::error::{Failure, damaged};
use crate::store::StoreError;

#[derive(DeserializeRow)]
struct Stored {
    id: String,
    name: Option<String>,
    hash: Option<String>,
    scopes: Option<Vec<String>>,
    public: Option<bool>,
    origins: Option<Vec<String>>,
    events_per_second: Option<i64>,
    created_at: Option<i64>,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl Inner {
    pub(super) async fn read_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let what = format!("the keys of log {}", self.log_id);
        let found = self.session.execute_unpaged(&self.statements.read_keys, (&*self.log_id.0,)).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let rows = rows.rows::<Stored>().map_err(|error| damaged(&what, &error))?;
        rows.map(|row| decode(row.map_err(|error| damaged(&what, &error))?)).collect()
    }

    pub(super) async fn write_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let origins: Vec<&str> = key.origins.iter().map(AllowedOrigin::as_str).collect();
        let instant = |at: Option<Millis>| MaybeUnset::from_option(at.map(|at| at.0));
        let values = (
            &*self.log_id.0,
            key.id.as_str(),
            key.name.as_str(),
            key.hash.to_string(),
            scopes,
            key.public,
            origins,
            MaybeUnset::from_option(key.events_per_second.map(|n| i64::from(n.get()))),
            key.created_at.0,
            instant(key.expires_at),
            instant(key.revoked_at),
        );
        self.session.execute_unpaged(&self.statements.write_key, values).await.map_err(Failure::from)?;
        Ok(())
    }
}

fn decode(stored: Stored) -> Result<KeyRecord, StoreError> {
    let what = format!("key {}", stored.id);
    let Stored { id, name: Some(name), hash: Some(hash), scopes: Some(scopes), created_at: Some(created_at), .. } = stored else {
        return Err(damaged(&what, &"its row is not whole"));
    };
    let scope = |text: String| Scope::parse(&text).ok_or_else(|| damaged(&what, &format!("there is no scope {text:?}")));
    let origin = |text: String| AllowedOrigin::parse(&text).map_err(|error| damaged(&what, &format!("origin {text:?} {error}")));
    let limit = |n: i64| {
        let n = u32::try_from(n).ok().and_then(NonZeroU32::new);
        n.ok_or_else(|| damaged(&what, &"events_per_second is out of range"))
    };
    Ok(KeyRecord {
        id: KeyId::parse(&id).ok_or_else(|| damaged(&what, &"its id has another form"))?,
        name,
        hash: SecretHash::parse(&hash).ok_or_else(|| damaged(&what, &"its hash has another form"))?,
        scopes: scopes.into_iter().map(scope).collect::<Result<BTreeSet<_>, _>>()?,
        public: stored.public.unwrap_or(false),
        origins: stored.origins.unwrap_or_default().into_iter().map(origin).collect::<Result<_, _>>()?,
        events_per_second: stored.events_per_second.map(limit).transpose()?,
        created_at: Millis(created_at),
        expires_at: stored.expires_at.map(Millis),
        revoked_at: stored.revoked_at.map(Millis),
    })
}
