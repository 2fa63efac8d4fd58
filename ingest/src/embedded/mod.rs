//! The log on this machine.

/// The embedded log.
pub struct EmbeddedLog {}
