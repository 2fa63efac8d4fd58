//! The journal of adjustments, in one table: notes as all others, told apart by the first byte of their keys.
//!
//! ```text
//! e  id                 an entry
//! t  created_at  id     the same by time; the value says nothing
//! p  plan \0 part       what a part changes
//! d  plan \0 part       how it has ended
//! ```

use std::collections::BTreeMap;

use schemas::{AdjustmentEntry, AdjustmentPart, Millis, PartEnd};

use super::open::Inner;
use super::table::{damaged, decode_note, encode_note};
use crate::store::StoreError;

const WHAT: &str = "the journal of adjustments";

impl Inner {
    /// Keeps the first of a name. All of it is durable at once.
    pub(super) fn create_adjustment(&self, entry: AdjustmentEntry, parts: &[AdjustmentPart]) -> Result<AdjustmentEntry, StoreError> {
        // Looked at and written under one right to write.
        let mut writer = self.writer()?;
        if let Some(kept) = self.read_adjustment(&entry.id)? {
            return Ok(kept);
        }
        let mut changes = vec![
            (&self.adjustments, entry_key(&entry.id).into(), encode_note(&entry, &WHAT)?.into()),
            (&self.adjustments, time_key(entry.created_at, &entry.id).into(), [].into()),
        ];
        for (index, part) in (0..).zip(parts) {
            changes.push((&self.adjustments, part_key(b'p', &entry.plan, index).into(), encode_note(part, &WHAT)?.into()));
        }
        self.commit(&mut writer, changes, &[])?;
        Ok(entry)
    }

    pub(super) fn read_adjustment(&self, id: &str) -> Result<Option<AdjustmentEntry>, StoreError> {
        let bytes = self.get(&self.adjustments, &entry_key(id), &WHAT)?;
        bytes.map(|bytes| decode_note(&bytes, WHAT)).transpose()
    }

    pub(super) fn read_adjustments(&self, before: Option<&(Millis, String)>, limit: usize) -> Result<Vec<AdjustmentEntry>, StoreError> {
        let end = before.map_or_else(|| vec![b't' + 1], |(at, id)| time_key(*at, id));
        let keys = self.adjustments.range(vec![b't']..end).rev().take(limit);
        let read = |entry: fjall::Guard| {
            let (key, _) = entry.into_inner().map_err(|error| self.fault(&WHAT, &error))?;
            let id = key.get(9..).and_then(|id| std::str::from_utf8(id).ok());
            let id = id.ok_or_else(|| damaged(&WHAT, &format!("key {key:?}")))?;
            self.read_adjustment(id)?.ok_or_else(|| damaged(&WHAT, &format!("{id} is gone")))
        };
        keys.map(read).collect()
    }

    pub(super) fn read_adjustment_part(&self, plan: &str, part: u32) -> Result<Option<AdjustmentPart>, StoreError> {
        let bytes = self.get(&self.adjustments, &part_key(b'p', plan, part), &WHAT)?;
        bytes.map(|bytes| decode_note(&bytes, WHAT)).transpose()
    }

    pub(super) fn end_adjustment_part(&self, plan: &str, part: u32, end: PartEnd) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let key = part_key(b'd', plan, part);
        let stored = self.get(&self.adjustments, &key, &WHAT)?.map(|bytes| decode_note(&bytes, WHAT)).transpose()?;
        let bytes = encode_note(&end.kept_with(stored), &WHAT)?;
        self.commit(&mut writer, [(&self.adjustments, key.into(), bytes.into())], &[])
    }

    pub(super) fn read_adjustment_ends(&self, plan: &str) -> Result<BTreeMap<u32, PartEnd>, StoreError> {
        let read = |entry: fjall::Guard| {
            let (key, bytes) = entry.into_inner().map_err(|error| self.fault(&WHAT, &error))?;
            let part = key.last_chunk::<4>().ok_or_else(|| damaged(&WHAT, &format!("key {key:?}")))?;
            Ok((u32::from_be_bytes(*part), decode_note(&bytes, WHAT)?))
        };
        self.adjustments.prefix(plan_prefix(b'd', plan)).map(read).collect()
    }
}

fn entry_key(id: &str) -> Vec<u8> {
    [b"e", id.as_bytes()].concat()
}

fn time_key(at: Millis, id: &str) -> Vec<u8> {
    // The sign bit turned, so that bytes sort as numbers do.
    let at = at.0.cast_unsigned() ^ (1 << 63);
    [b"t", &at.to_be_bytes()[..], id.as_bytes()].concat()
}

fn plan_prefix(kind: u8, plan: &str) -> Vec<u8> {
    [&[kind], plan.as_bytes(), &[0]].concat()
}

fn part_key(kind: u8, plan: &str, part: u32) -> Vec<u8> {
    [&plan_prefix(kind, plan)[..], &part.to_be_bytes()].concat()
}
