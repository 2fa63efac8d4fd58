//! Where the files lie: a directory of this machine, or a bucket of any store that speaks S3.
//!
//! A file is there whole or not at all, and on a disk it is synced, its directories too, before anybody is told. A mark at the root
//! says which log's archive this is.

use std::fmt;
use std::fs::File;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use schemas::{LogId, Millis};

use super::error::ArchiveError;

/// The mark.
const MARK: &str = "tallymark-archive.json";

/// A place for files. Clones share it.
#[derive(Clone)]
pub struct Shelf {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// If it is on this machine.
    root: Option<PathBuf>,
    name: String,
}

/// How a bucket is found that the environment (`AWS_...`) does not describe. Credentials come from there alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketOptions {
    /// The server, such as <https://minio.example:9000>.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
}

/// A file that lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    /// Its place below the root.
    pub path: String,
    /// When it was written.
    pub written: Millis,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Shelf {
    /// The place of a name: `s3://bucket/prefix`, `file:///path` or a path, whose directory is made.
    ///
    /// # Errors
    /// [`ArchiveError::Place`] if there can be no files.
    pub fn open(place: &str, bucket: &BucketOptions) -> Result<Self, ArchiveError> {
        if let Some(rest) = place.strip_prefix("s3://") {
            return Self::in_bucket(place, rest, bucket);
        }
        let refused = |detail: String| ArchiveError::Place { place: place.to_owned(), detail };
        let path = match place.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => {
                return Err(refused("a file: address has three slashes and a whole path, such as file:///var/lib/archive".to_owned()));
            }
            None if place.contains("://") => return Err(refused("allowed are a path, file:///PATH and s3://BUCKET/PREFIX".to_owned())),
            None => place,
        };
        let made = std::fs::create_dir_all(path).and_then(|()| FsPath::new(path).canonicalize());
        let root = made.map_err(|error| refused(format!("{error}; check the directory's owner and permissions")))?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| refused(error.to_string()))?;
        Ok(Self { store: Arc::new(store), prefix: Path::default(), root: Some(root), name: path.to_owned() })
    }

    fn in_bucket(place: &str, rest: &str, options: &BucketOptions) -> Result<Self, ArchiveError> {
        let refused = |detail: String| ArchiveError::Place { place: place.to_owned(), detail };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| refused(error.to_string()))?;
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        let store = builder.build().map_err(|error| refused(error.to_string()))?;
        Ok(Self { store: Arc::new(store), prefix, root: None, name: place.to_owned() })
    }

    /// Sees that this is the archive of a log, and makes it that of this one if it is nobody's.
    ///
    /// # Errors
    /// [`ArchiveError::OtherLog`] if it is another's.
    pub async fn claim(&self, log: &LogId) -> Result<(), ArchiveError> {
        let stored = match self.get(MARK).await {
            Ok(mark) => Some(mark),
            Err(ArchiveError::Damaged { .. }) => None,
            Err(other) => return Err(other),
        };
        let mark = serde_json::json!({ "log": &*log.0 }).to_string();
        let stored = match stored {
            Some(stored) => stored,
            None => {
                self.put(MARK, Bytes::from(mark)).await?;
                // Of two at once, one has written it last.
                self.get(MARK).await?
            }
        };
        let whose = serde_json::from_slice::<serde_json::Value>(&stored).ok();
        let whose = whose.as_ref().and_then(|mark| mark.get("log")?.as_str()).unwrap_or_default();
        if whose == &*log.0 {
            return Ok(());
        }
        Err(ArchiveError::OtherLog { place: self.name.clone(), stored: whose.to_owned(), asked: log.0.to_string() })
    }

    /// Writes a file; when it returns, the file stays.
    ///
    /// # Errors
    /// If it may not be there.
    pub async fn put(&self, path: &str, content: Bytes) -> Result<(), ArchiveError> {
        self.store.put(&self.at(path)?, content.into()).await?;
        if let Some(root) = self.root.clone() {
            let file = root.join(path);
            let synced = tokio::task::spawn_blocking(move || sync(&root, &file)).await;
            let io = |error: std::io::Error| object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(error) };
            synced.map_err(|error| ArchiveError::Stopped(error.to_string()))?.map_err(io)?;
        }
        Ok(())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if it is not there.
    pub async fn get(&self, path: &str) -> Result<Bytes, ArchiveError> {
        match self.store.get(&self.at(path)?).await {
            Ok(found) => Ok(found.bytes().await?),
            Err(object_store::Error::NotFound { .. }) => {
                Err(ArchiveError::Damaged { path: format!("{self}/{path}"), detail: "it is not there".to_owned() })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// If it may still be there.
    pub async fn delete(&self, path: &str) -> Result<(), ArchiveError> {
        match self.store.delete(&self.at(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// All files of an archive that lie there, those that no manifest names among them.
    ///
    /// # Errors
    /// If it cannot be told.
    pub async fn list(&self) -> Result<Vec<Lying>, ArchiveError> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let found: Vec<_> = self.store.list(prefix).try_collect().await?;
        let own = found.into_iter().filter_map(|file| {
            let path = file.location.prefix_match(&self.prefix)?.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            is_ours(&path).then(|| Lying { path, written: Millis(file.last_modified.timestamp_millis()) })
        });
        Ok(own.collect())
    }

    fn at(&self, path: &str) -> Result<Path, ArchiveError> {
        let whole = if self.prefix.as_ref().is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Path::parse(whole).map_err(|error| ArchiveError::Place { place: self.name.clone(), detail: error.to_string() })
    }
}

/// Whether a path has the form of an archive's file: what else lies there is not ours to touch.
fn is_ours(path: &str) -> bool {
    let mut parts = path.split('/');
    let (day, source, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_file =
        name.strip_suffix(".parquet").is_some_and(|name| name.len() == 58 && name.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()));
    day.starts_with("day=") && source.starts_with("source=") && is_file && parts.next().is_none()
}

/// Makes a file and the directories down to it durable.
fn sync(root: &FsPath, file: &FsPath) -> std::io::Result<()> {
    File::open(file)?.sync_all()?;
    let dirs = file.ancestors().skip(1).take_while(|dir| dir.starts_with(root));
    dirs.into_iter().try_for_each(|dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_form_of_our_files_is_ours() {
        let ours = "day=2026-11-22/source=0/00000000000000000000-00000000000000001000-0123456789abcdef.parquet";
        assert!(is_ours(ours));
        for other in ["tallymark-archive.json", "day=2026-11-22/source=0/notes.parquet", "x/day=1/source=0/a.parquet", ""] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_is_refused_with_what_is_allowed() {
        for place in ["ftp://x/y", "file://x/y"] {
            assert!(matches!(Shelf::open(place, &BucketOptions::default()), Err(ArchiveError::Place { .. })), "{place}");
        }
    }

    #[tokio::test]
    async fn a_place_belongs_to_one_log() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path().to_str().unwrap(), &BucketOptions::default()).unwrap();
        for _ in 0..2 {
            shelf.claim(&LogId("a".into())).await.unwrap();
        }
        assert!(matches!(shelf.claim(&LogId("b".into())).await, Err(ArchiveError::OtherLog { .. })));
        assert!(shelf.list().await.unwrap().is_empty());
    }
}
