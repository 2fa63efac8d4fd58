//! The journal of adjustments.
//!
//! An entry is made by a conditional write, after its parts and its place by time: of two with one name the first stands, and an entry that
//! can be read is whole. What the loser of such a race leaves, or a crash, is named by no entry and looked at by nobody.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{AdjustmentEntry, AdjustmentPart, Millis, PartEnd};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Inner;
use super::error::{Failure, damaged};
use crate::store::StoreError;

/// So many entries and parts are on their way at once.
const AT_ONCE: usize = 8;

impl Inner {
    pub(super) async fn create_adjustment(&self, entry: AdjustmentEntry, parts: &[AdjustmentPart]) -> Result<AdjustmentEntry, StoreError> {
        let log = &*self.log_id.0;
        let mut writes = Vec::with_capacity(parts.len());
        for (index, part) in (0..).zip(parts) {
            writes.push(self.write_adjustment_part(&entry.plan, index, part));
        }
        stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let place = (log, entry.created_at.0, &*entry.id);
        self.session.execute_unpaged(&self.statements.place_adjustment, place).await.map_err(Failure::from)?;
        let values = (log, &*entry.id, encode(&entry)?);
        self.session.execute_unpaged(&self.statements.create_adjustment, values).await.map_err(Failure::from)?;
        // Whoever made it: what is there now is what counts.
        let missing = || damaged(&format!("adjustment {}", entry.id), &"it was written and is not there");
        self.read_entry(&self.statements.read_adjustment_serially, &entry.id).await?.ok_or_else(missing)
    }

    async fn write_adjustment_part(&self, plan: &str, index: i32, part: &AdjustmentPart) -> Result<(), StoreError> {
        let values = (&*self.log_id.0, plan, index, encode(part)?);
        self.session.execute_unpaged(&self.statements.write_adjustment_part, values).await.map_err(Failure::from)?;
        Ok(())
    }

    pub(super) async fn read_adjustment(&self, id: &str) -> Result<Option<AdjustmentEntry>, StoreError> {
        // One that another server is making at this moment is there, or will not be.
        self.read_entry(&self.statements.read_adjustment_serially, id).await
    }

    async fn read_entry(
        &self,
        statement: &scylla::statement::prepared::PreparedStatement,
        id: &str,
    ) -> Result<Option<AdjustmentEntry>, StoreError> {
        let what = format!("adjustment {id}");
        let found = self.session.execute_unpaged(statement, (&*self.log_id.0, id)).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let row = rows.maybe_first_row::<(Option<String>,)>().map_err(|error| damaged(&what, &error))?;
        row.and_then(|(entry,)| entry).map(|entry| decode(&entry, &what)).transpose()
    }

    pub(super) async fn read_adjustments(
        &self,
        before: Option<(Millis, String)>,
        limit: usize,
    ) -> Result<Vec<AdjustmentEntry>, StoreError> {
        let mut found = Vec::new();
        let mut before = before.unwrap_or((Millis(i64::MAX), String::new()));
        while found.len() < limit {
            let places = self.adjustment_places(&before, limit - found.len()).await?;
            let Some(last) = places.last().cloned() else { break };
            before = last;
            let mut entries = Vec::with_capacity(places.len());
            for (at, id) in places {
                entries.push(self.placed_entry(at, id));
            }
            let entries: Vec<_> = stream::iter(entries).buffered(AT_ONCE).try_collect().await?;
            found.extend(entries.into_iter().flatten());
        }
        Ok(found)
    }

    /// The entry at a place, if one was made there.
    async fn placed_entry(&self, at: Millis, id: String) -> Result<Option<AdjustmentEntry>, StoreError> {
        let entry = self.read_entry(&self.statements.read_adjustment, &id).await?;
        Ok(entry.filter(|entry| entry.created_at == at))
    }

    async fn adjustment_places(&self, (at, id): &(Millis, String), limit: usize) -> Result<Vec<(Millis, String)>, StoreError> {
        let what = "the places of adjustments";
        let values = (&*self.log_id.0, at.0, &**id, i32::try_from(limit).unwrap_or(i32::MAX));
        let found = self.session.execute_unpaged(&self.statements.list_adjustments, values).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let rows = rows.rows::<(i64, String)>().map_err(|error| damaged(&what, &error))?;
        rows.map(|row| row.map(|(at, id)| (Millis(at), id)).map_err(|error| damaged(&what, &error))).collect()
    }

    pub(super) async fn read_adjustment_part(&self, plan: &str, part: u32) -> Result<Option<AdjustmentPart>, StoreError> {
        let what = format!("part {part} of the plan {plan}");
        let values = (&*self.log_id.0, plan, column(part));
        let found = self.session.execute_unpaged(&self.statements.read_adjustment_part, values).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let row = rows.maybe_first_row::<(Option<String>,)>().map_err(|error| damaged(&what, &error))?;
        row.and_then(|(part,)| part).map(|part| decode(&part, &what)).transpose()
    }

    /// That a part was taken has a column of its own: nothing that is written later takes it back.
    pub(super) async fn end_adjustment_part(&self, plan: &str, part: u32, end: &PartEnd) -> Result<(), StoreError> {
        let statement = match end {
            PartEnd::Taken { .. } => &self.statements.take_adjustment_part,
            PartEnd::Refused { .. } | PartEnd::Unknown { .. } => &self.statements.leave_adjustment_part,
        };
        let values = (&*self.log_id.0, plan, column(part), encode(end)?);
        self.session.execute_unpaged(statement, values).await.map_err(Failure::from)?;
        Ok(())
    }

    pub(super) async fn read_adjustment_ends(&self, plan: &str) -> Result<BTreeMap<u32, PartEnd>, StoreError> {
        let what = format!("the parts of the plan {plan}");
        let found = self.session.execute_unpaged(&self.statements.read_adjustment_ends, (&*self.log_id.0, plan)).await;
        let rows = found.map_err(Failure::from)?.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let rows = rows.rows::<(i32, Option<String>, Option<String>)>().map_err(|error| damaged(&what, &error))?;
        let mut ends = BTreeMap::new();
        for row in rows {
            let (part, taken, left) = row.map_err(|error| damaged(&what, &error))?;
            if let Some(end) = taken.or(left) {
                let part = u32::try_from(part).map_err(|error| damaged(&what, &error))?;
                ends.insert(part, decode(&end, &what)?);
            }
        }
        Ok(ends)
    }
}

fn column(part: u32) -> i32 {
    i32::try_from(part).unwrap_or(i32::MAX)
}

fn encode(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(format!("an adjustment cannot be written as JSON: {error}")))
}

fn decode<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged(&what, &error))
}
