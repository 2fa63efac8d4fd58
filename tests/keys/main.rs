//! Keys, TLS and pages on the real program: what lets somebody in, and everything that must not.
//!
//! | module | holds |
//! |---|---|
//! | `scene` | a server with keys of every kind, and requests as they are, byte by byte |
//! | `life` | making, listing and revoking; commands with keys; beyond loopback |
//! | `abuse` | how one gets past a door: a test each |
//! | `framing` | requests that mean two things |
//! | `pages` | browsers |
//! | `encrypted` | TLS |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first fault")]

mod abuse;
mod encrypted;
mod framing;
mod life;
mod pages;
mod scene;
#[path = "../support/mod.rs"]
mod support;
