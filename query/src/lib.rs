//! How questions are answered: exact counts over time ranges, read from the store and given out over HTTP.
//!
//! ```text
//! GET .../views ──> params ──> calendar (points) ──> plan (buckets) ──> read ──> CountStore
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`params`] | the query string of a range query |
//! | `body` | JSON bodies, within bounds |
//! | `question` | what a range query asks of the store, and what of the sums is its answer |
//! | [`compare`] | the range that a range is compared with |
//! | [`calendar`] | where points begin, in any time zone |
//! | [`plan`] | a range as the fewest stored buckets |
//! | [`read`] | sums of stored cells, and what is complete |
//! | [`cache`] | hot results: pieces that questions share |
//! | [`standing`] | how long an answer lasts, and whether it is stale |
//! | `answer` | a body and its standing as a response |
//! | `formats` | JSON, CSV or Arrow, as the request accepts |
//! | `series` | counts point by point |
//! | `names` | what videos and spaces are called |
//! | [`service`] | [`QueryService`], [`router`]: the routes and the limits that hold for all |
//! | `live` | counts as they change |
//! | `admission` | how many requests at once |
//! | `top` | lists of the most viewed |
//! | `report` | every video of a day |
//! | `views`, `batch`, `days`, `recent`, `video`, `space`, `bulk`, `status`, `records`, `imports` | one kind of question each |
//! | `event` | what became of one event |
//! | `adjust` | counts that people take away or add |
//! | `rejected` | refused events, and how they are counted after all |
//! | [`docs`] | `/openapi.json` |
//! | `api` | what the OpenAPI document says of what these share |
//! | [`error`] | [`QueryError`], and what it is in HTTP |
//! | [`metrics`] | [`Metrics`] |

mod adjust;
mod admission;
mod answer;
mod api;
mod batch;
mod body;
mod bulk;
pub mod cache;
pub mod calendar;
pub mod compare;
mod days;
pub mod docs;
pub mod error;
mod event;
mod formats;
mod imports;
mod live;
pub mod metrics;
mod names;
pub mod params;
pub mod plan;
mod question;
pub mod read;
mod recent;
mod records;
mod rejected;
mod report;
mod series;
pub mod service;
mod space;
pub mod standing;
mod status;
mod top;
mod video;
mod views;

pub use error::QueryError;
pub use metrics::Metrics;
pub use service::{QueryLimits, QueryService, method_not_allowed, not_found, openapi, router};
