//! What is archived: one note for each source, a format byte and JSON, as other notes.

use schemas::Source;

use super::open::Inner;
use super::table::{decode_note, encode_note};
use crate::archive::{ArchiveChange, Manifest};
use crate::store::StoreError;

impl Inner {
    pub(super) fn read_archive(&self, source: Source) -> Result<Manifest, StoreError> {
        let what = format!("the archive of source {source}");
        let stored = self.get(&self.archive, &source.0.to_be_bytes(), &what)?;
        Ok(stored.map(|bytes| decode_note(&bytes, &what)).transpose()?.unwrap_or_default())
    }

    pub(super) fn commit_archive(&self, source: Source, change: &ArchiveChange) -> Result<bool, StoreError> {
        // Read and written under one right to write: nobody changes it between.
        let mut writer = self.writer()?;
        let Some(manifest) = self.read_archive(source)?.changed(change) else { return Ok(false) };
        let bytes = encode_note(&manifest, &format_args!("the archive of source {source}"))?;
        self.commit(&mut writer, [(&self.archive, source.0.to_be_bytes().into(), bytes.into())], &[])?;
        Ok(true)
    }
}
