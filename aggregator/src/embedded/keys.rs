//! Keys, by id: a format byte and JSON, as other notes. A revocation stays, whatever is written after it.

use schemas::KeyRecord;

use super::open::Inner;
use super::table::{decode_note, encode_note};
use crate::store::StoreError;

impl Inner {
    pub(super) fn read_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.scan_notes(&self.keys, "key").map(|key| key.map(|(_, record)| record)).collect()
    }

    pub(super) fn write_key(&self, key: KeyRecord) -> Result<(), StoreError> {
        let what = format!("key {}", key.id);
        // Read and written under one right to write: a revocation that comes between is not lost.
        let mut writer = self.writer()?;
        let id = key.id.shared();
        let stored = self.get(&self.keys, id.as_bytes(), &what)?;
        let stored = stored.map(|bytes| decode_note::<KeyRecord>(&bytes, &what)).transpose()?;
        let kept = match &stored {
            Some(stored) => key.kept_with(stored),
            None => key,
        };
        let bytes = encode_note(&kept, &what)?;
        self.commit(&mut writer, [(&self.keys, id.as_bytes().into(), bytes.into())], &[])
    }
}
