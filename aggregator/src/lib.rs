//! How records become counts: one fold for each source, a store of cells, and the workers between them.
//!
//! | module | holds |
//! |---|---|
//! | [`store`] | [`CountStore`]: the seam to the store |
//! | [`embedded`] | [`EmbeddedStore`]: the store on this machine's disk |
//! | [`conformance`] | what every store must do, as one suite over any implementation |

pub mod conformance;
pub mod embedded;
pub mod store;

pub use embedded::EmbeddedStore;
pub use store::{CountStore, ImportProgress, Slice, SliceRow, StoreError, VideoInfo};
