//! How often something was viewed: ever, today, in the last hour.

use chrono_tz::Tz;
use schemas::{Counts, Entity, Millis, Minute};
use serde::Serialize;
use utoipa::ToSchema;

use crate::calendar::today;
use crate::error::QueryError;
use crate::params::{Params, parse_zone};
use crate::series::{Count, Progress, Time};
use crate::service::QueryService;
use crate::standing::Standing;

/// Gross counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Recent {
    /// Since counting began.
    all_time: Count,
    /// Since midnight in `tz`.
    today: Count,
    /// Of the present minute and the 59 before it.
    last_hour: Count,
}

/// What was counted lately, and what it is worth.
pub(crate) struct Lately {
    pub(crate) views: Recent,
    pub(crate) complete_through: Option<Time>,
    pub(crate) standing: Standing,
    /// Whether anything was ever counted, of any kind.
    pub(crate) was_seen: bool,
}

/// The counts of `entity`; `today` is that of the query's `tz`.
pub(crate) async fn lately(service: &QueryService, entity: &Entity, query_string: Option<&str>) -> Result<Lately, QueryError> {
    let given = Params::read(query_string.unwrap_or_default(), &["tz"])?;
    let tz = given.get("tz").map(|text| parse_zone(text)).transpose()?;
    let now = Millis::now();
    // The present minute counts, so the last hour is its last 60 minutes with the one that runs.
    let hour_end = Minute::of(now).plus(1);
    let ranges = [(Minute::MIN, Minute::MAX), today(tz.unwrap_or(Tz::UTC), now), (hour_end.plus(-60), hour_end)];
    let sums = service.sums(entity, &ranges, now).await?;
    let mut gross = sums.counts.iter().map(|counts| Count(counts.gross));
    let mut next = || gross.next().unwrap_or(Count(0));
    let views = Recent { all_time: next(), today: next(), last_hour: next() };
    let was_seen = sums.counts.iter().any(|counts| *counts != Counts::ZERO);
    Ok(Lately { views, complete_through: Progress::of(&sums.marks).shown(tz), standing: sums.standing, was_seen })
}
