//! The bytes of a file to import: known by the hash of its content, read plain or through gzip, watched for progress.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use xxhash_rust::xxh3::Xxh3;

use super::ImportError;

const BUFFER_BYTES: usize = 256 << 10;

/// A file whose content has been hashed.
#[derive(Clone, Debug)]
pub(crate) struct ContentFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its size in bytes as it lies on disk.
    pub(crate) bytes: u64,
    /// XXH3-128 of these bytes, 32 hexadecimal digits.
    pub(crate) content: String,
}

impl ContentFile {
    /// Reads the file once to know its content.
    ///
    /// # Errors
    /// If it cannot be read, or is not a file that can be read twice.
    pub(crate) fn hash(path: &Path) -> Result<Self, ImportError> {
        let unreadable = |error: io::Error| ImportError::file(path, &error.to_string());
        let mut file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(ImportError::file(path, "it is not a regular file; an import reads its file twice, so save pipes to a file first"));
        }
        let (mut hasher, mut buffer, mut bytes) = (Xxh3::new(), vec![0; BUFFER_BYTES], 0);
        loop {
            let n = file.read(&mut buffer).map_err(unreadable)?;
            let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else { break };
            hasher.update(read);
            bytes += n as u64;
        }
        Ok(Self { path: path.to_owned(), bytes, content: content_name(&hasher) })
    }

    /// The file's name, for people.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// What ids of rows without one begin with.
    pub(crate) fn id_prefix(&self) -> &str {
        self.content.get(..16).unwrap_or(&self.content)
    }

    /// Opens it to be read from its start, unpacked if it is gzip (known by its first two bytes). `position` follows
    /// how many of its bytes on disk have been read.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn open(&self, position: Arc<AtomicU64>) -> io::Result<Box<dyn BufRead + Send>> {
        let watched = Watched { file: File::open(&self.path)?, position, hasher: Xxh3::new(), content: self.content.clone() };
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, watched);
        if raw.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))))
        } else {
            Ok(Box::new(raw))
        }
    }
}

/// Follows what is read, and fails at the end if it was not the content that the file is known by.
struct Watched {
    file: File,
    position: Arc<AtomicU64>,
    hasher: Xxh3,
    content: String,
}

fn content_name(hasher: &Xxh3) -> String {
    format!("{:032x}", hasher.digest128())
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.position.fetch_add(n as u64, Ordering::Relaxed);
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        if n == 0 && !buffer.is_empty() && content_name(&self.hasher) != self.content {
            return Err(io::Error::other("it has been changed while it was read; import the file as it is now, which is another content"));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn plain_and_packed_files_read_alike_and_gzip_members_are_joined() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&plain, b"one\ntwo\n").unwrap();
        let mut bytes = Vec::new();
        for part in ["one\n", "two\n"] {
            let mut gz = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            gz.write_all(part.as_bytes()).unwrap();
            gz.finish().unwrap();
        }
        std::fs::write(&packed, &bytes).unwrap();
        for path in [plain, packed] {
            let file = ContentFile::hash(&path).unwrap();
            let position = Arc::default();
            let mut text = String::new();
            file.open(Arc::clone(&position)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), position.load(Ordering::Relaxed)), ("one\ntwo\n", file.bytes));
        }
    }

    #[test]
    fn a_file_is_known_by_its_content_and_not_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let hash = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            ContentFile::hash(&dir.path().join(name)).unwrap().content
        };
        assert_eq!(hash("a", "x"), hash("b", "x"));
        assert_ne!(hash("a", "x"), hash("a", "y"));
        assert_eq!(hash("a", "x").len(), 32);
    }

    #[test]
    fn a_file_that_changes_while_it_is_imported_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"one\n").unwrap();
        let file = ContentFile::hash(&path).unwrap();
        std::fs::write(&path, b"two\n").unwrap();
        let read = file.open(Arc::default()).unwrap().read_to_string(&mut String::new());
        assert!(read.unwrap_err().to_string().contains("changed"));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(ContentFile::hash(Path::new("/nowhere/x")).unwrap_err().to_string().contains("/nowhere/x"));
        assert!(ContentFile::hash(Path::new("/tmp")).unwrap_err().to_string().contains("regular file"));
    }
}
