//! How questions are answered.

pub mod calendar;
pub mod params;
pub mod plan;
