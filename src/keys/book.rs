//! Making, listing and revoking keys, in the store. Used by `/v1/keys` and by `tallymark keys --direct` alike.

use std::sync::Arc;

use aggregator::{CountStore, StoreError};
use schemas::key::token::RANDOM_BYTES;
use schemas::key::{BadKey, MAX_KEYS};
use schemas::{KeyId, KeyRecord, Millis, NewKey, Token};
use thiserror::Error;

/// Why a key was not made, found or revoked.
#[derive(Debug, Error)]
pub(crate) enum KeysError {
    #[error("{0}")]
    Bad(#[from] BadKey),
    #[error("there are {MAX_KEYS} keys, revoked ones among them, and no more can be kept")]
    TooMany,
    #[error("there is no key {0:?}; tallymark keys list shows all")]
    Unknown(String),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the system gives no random bytes: {0}")]
    NoRandom(String),
}

/// The keys of a store.
#[derive(Clone)]
pub(crate) struct Book(pub(crate) Arc<dyn CountStore>);

impl Book {
    /// All, the oldest first.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(crate) async fn list(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let mut keys = self.0.read_keys().await?;
        keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(keys)
    }

    /// Makes a key. The token is the only place where its secret is.
    ///
    /// # Errors
    /// If there cannot be such a key, or it is not known to be durable.
    pub(crate) async fn create(&self, new: NewKey, now: Millis) -> Result<(KeyRecord, Token), KeysError> {
        let others = self.0.read_keys().await?.len();
        new.check(now, others == 0)?;
        if others >= MAX_KEYS {
            return Err(KeysError::TooMany);
        }
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| KeysError::NoRandom(error.to_string()))?;
        let token = Token::from_random(random);
        let record = new.record(&token, now);
        self.0.write_key(record.clone()).await?;
        Ok((record, token))
    }

    /// Revokes a key. One that is revoked already stays as it is.
    ///
    /// # Errors
    /// If there is none, or it is not known to be durable.
    pub(crate) async fn revoke(&self, id: &str, now: Millis) -> Result<KeyRecord, KeysError> {
        let unknown = || KeysError::Unknown(id.chars().take(40).collect());
        let id = KeyId::parse(id).ok_or_else(unknown)?;
        let key = self.0.read_keys().await?.into_iter().find(|key| key.id == id).ok_or_else(unknown)?;
        if key.revoked_at.is_some() {
            return Ok(key);
        }
        let key = KeyRecord { revoked_at: Some(now), ..key };
        self.0.write_key(key.clone()).await?;
        Ok(key)
    }
}
