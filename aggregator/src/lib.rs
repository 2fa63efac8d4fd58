//! How records become counts: one fold for each source, a store of cells, and the workers between them.
//!
//! ```text
//! EventLog ──read──> worker ──record──> owner ──> fold ──> flush ──> CountStore
//!                    (acts)            (paces)   (decides)
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`fold`] | [`fold::Fold`]: what a record does to the cells. Pure |
//! | [`recovery`] | where a fold begins again, and when it must not. Pure |
//! | [`owner`] | [`owner::Owner`]: what to read, load and write next for one source. Pure |
//! | [`ending`] | what a source that gets no more records leaves. Pure |
//! | [`archive`] | the raw log as Parquet files, and back |
//! | [`backoff`] | how long to wait before trying again. Pure |
//! | [`worker`] | [`worker::Workers`]: the threads that act for owners |
//! | [`store`] | [`CountStore`]: the seam to the store |
//! | [`embedded`] | [`EmbeddedStore`]: the store on this machine's disk |
//! | `cassandra` | `CassandraStore`: the store on a cluster, by CQL (feature `cassandra`) |
//! | [`conformance`] | what every store must do, as one suite over any implementation |
//! | [`metrics`] | what the folds show to Prometheus |

pub mod archive;
pub mod backoff;
#[cfg(feature = "cassandra")]
pub mod cassandra;
pub mod conformance;
pub mod embedded;
pub mod ending;
pub mod fold;
pub mod metrics;
pub mod owner;
pub mod recovery;
pub mod store;
pub mod worker;

#[cfg(feature = "cassandra")]
pub use cassandra::CassandraStore;
pub use embedded::EmbeddedStore;
pub use store::{BucketPage, BucketRow, CountStore, ImportProgress, Slice, SliceRow, SpaceInfo, StoreError, Touched, VideoInfo};
pub use worker::{Backends, Workers};
