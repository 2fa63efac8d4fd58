//! Keys: made, listed, revoked, and known to every process within seconds.
//!
//! ```text
//! tallymark keys, /v1/keys ──> Book ──> CountStore::write_key
//!                                       CountStore::read_keys, every 2 s ──> Ring ──> guard: each request
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `ring` | [`Ring`]: the keys that a process knows, and what it says of a token. Pure |
//! | `book` | [`Book`]: making and revoking, in the store |
//! | `watch` | [`Keys`]: the ring of this process, kept as the store has it |
//! | `api` | `/v1/keys` |
//! | `command` | `tallymark keys` |
//!
//! A ring that has had a key never opens again: if the store loses all keys, or all are revoked, nobody is let in.

mod api;
mod book;
mod command;
mod ring;
mod watch;

pub(crate) use api::{openapi, router};
pub(crate) use command::{KeysCommand, keys};
pub(crate) use ring::{Ring, Unknown};
pub(crate) use watch::{Keys, Known, Opening};

use book::{Book, KeysError};
