//! The store on this machine.

/// The embedded store.
pub struct EmbeddedStore {}
