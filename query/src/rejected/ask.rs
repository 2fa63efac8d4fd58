//! The body of a retry: which letters, and how they are to be counted. Pure.

use std::collections::BTreeMap;

use ingest::Problem;
use schemas::{LetterId, Offset};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Extent;
use super::filter::{FILTER, Filter};
use super::judge::How;
use crate::api;
use crate::body::bad_member;
use crate::params::Params;

/// The most letters that a request looks for by their names.
const NAMES: usize = 100;
/// The most letters that a request counts.
const MOST: usize = 1_000;
/// Which letters, and how.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retry {
    /// Only those refused for this reason.
    #[schema(value_type = Option<api::Reason>)]
    reason: Option<String>,
    /// Only those refused in this stage.
    #[schema(value_type = Option<api::Stage>)]
    stage: Option<String>,
    /// Only those of this source (partition) of the log.
    #[schema(minimum = 0)]
    source: Option<u64>,
    /// Only those refused at or after: RFC 3339 or Unix seconds.
    #[schema(value_type = Option<api::Instant>)]
    start: Option<String>,
    /// Only those refused before: RFC 3339 or Unix seconds.
    #[schema(value_type = Option<api::Instant>)]
    end: Option<String>,
    /// These letters, by their names, and no filter.
    #[schema(min_items = 1, max_items = 100, example = json!(["0/1234/0"]))]
    letters: Option<Vec<String>>,
    /// Members of the event that replace those which were sent: of one letter. The original stays as it is.
    #[schema(value_type = Option<Object>)]
    set: Option<Map<String, Value>>,
    /// Count them however old they are.
    historical: bool,
    /// Only say what would be done.
    #[schema(default = true)]
    dry_run: Option<bool>,
    /// The most letters to work on.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `cursor` of the answer before, to go on behind it.
    cursor: Option<String>,
}

/// What is asked for, checked.
pub(super) struct Asked {
    pub(super) which: Which,
    pub(super) how: How,
    pub(super) dry_run: bool,
    pub(super) limit: usize,
}

pub(super) enum Which {
    Named(Vec<LetterId>),
    /// Those of a filter, in a part of the log if the request goes on.
    Filtered(Filter, Option<Extent>),
}

impl Asked {
    /// # Errors
    /// 400 that names what is wrong.
    pub(super) fn read(retry: Retry) -> Result<Self, Problem> {
        let Retry { reason, stage, source, start, end, letters, set, historical, dry_run, limit, cursor } = retry;
        let given = [reason, stage, source.map(|source| source.to_string()), start, end];
        let given: BTreeMap<&'static str, String> =
            FILTER.into_iter().zip(given).filter_map(|(name, value)| Some((name, value?))).collect();
        let has_filter = !given.is_empty() || cursor.is_some();
        let filter = Filter::read(&Params::of(given))?;
        let limit = limit.unwrap_or(MOST);
        if limit == 0 || limit > MOST {
            return Err(bad_member("limit", format!("it is a whole number of 1 to {MOST}")));
        }
        let which = match letters {
            Some(_) if has_filter => return Err(bad_member("letters", "give names or a filter, not both")),
            Some(names) => Which::Named(named(&names)?),
            None => Which::Filtered(filter, cursor.map(|cursor| extent(&cursor)).transpose()?),
        };
        if set.is_some() && !matches!(&which, Which::Named(names) if names.len() == 1) {
            return Err(bad_member("set", "it mends one letter; name it in letters"));
        }
        Ok(Self { which, how: How { historical, set }, dry_run: dry_run.unwrap_or(true), limit })
    }
}

fn named(names: &[String]) -> Result<Vec<LetterId>, Problem> {
    if names.is_empty() || names.len() > NAMES {
        return Err(bad_member("letters", format!("it has {} items; it has 1 to {NAMES}", names.len())));
    }
    let name = |(place, name): (usize, &String)| name.parse().map_err(|error| bad_member(&format!("letters[{place}]"), error));
    names.iter().enumerate().map(name).collect()
}

/// A cursor: where to go on, and where the log ended when the first request came.
fn extent(cursor: &str) -> Result<Extent, Problem> {
    let parts = cursor.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to) = parts.ok_or_else(|| bad_member("cursor", "it is the cursor of an answer before"))?;
    Ok(Extent { from: Offset(from), to: Offset(to) })
}
