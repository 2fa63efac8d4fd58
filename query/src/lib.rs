//! How questions are answered.
