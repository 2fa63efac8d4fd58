//! Where the archive lies and how it is kept.

use aggregator::archive::BucketOptions;

use super::cluster;

/// The settings of the archive.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ArchiveSettings {
    /// None: there is no archive.
    pub(crate) place: Option<String>,
    pub(crate) every_ms: i64,
    pub(crate) retention_ms: i64,
    pub(crate) bucket: BucketOptions,
}

/// A path, `file:///PATH` or `s3://BUCKET/PREFIX`; nothing for none.
pub(super) fn place(text: &str) -> Option<Option<String>> {
    let place = cluster::optional(text)?;
    let is_place = place.as_deref().is_none_or(|place| match place.split_once("://") {
        None => true,
        Some(("file", path)) => path.starts_with('/'),
        Some(("s3", bucket)) => bucket.split('/').next().is_some_and(|name| !name.is_empty()),
        Some(_) => false,
    });
    is_place.then_some(place)
}

/// The address of a server; nothing for none.
pub(super) fn endpoint(text: &str) -> Option<Option<String>> {
    let endpoint = cluster::optional(text)?;
    endpoint.as_deref().is_none_or(|url| url.starts_with("http://") || url.starts_with("https://")).then_some(endpoint)
}
