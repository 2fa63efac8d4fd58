//! The HTTP collector.
