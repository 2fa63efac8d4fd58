//! Which days of which source have changed after they were closed: rows that go by themselves after ten minutes.

use schemas::{Offset, Source, Stamp};

use super::Inner;
use super::cells::send;
use super::error::{Failure, damaged};
use super::row::{bigint, source};
use crate::store::{StoreError, Touched};

type Stored = (i32, i32, Option<i64>, Option<i64>);

impl Inner {
    pub(super) async fn write_touched(&self, of: Source, days: &[Touched]) -> Result<(), StoreError> {
        if days.is_empty() {
            return Ok(());
        }
        let number = source(of)?;
        let values = |touched: &Touched| {
            let version = bigint(&format_args!("the version of a touched day of source {of}:"), touched.version.0)?;
            Ok((&*self.log_id.0, number, touched.day, version, touched.stamp.0))
        };
        let values = days.iter().map(values).collect::<Result<Vec<_>, StoreError>>()?;
        Ok(send(&self.session, &self.statements.write_touched, values).await?)
    }

    pub(super) async fn read_touched(&self) -> Result<Vec<(Source, Touched)>, StoreError> {
        let what = format!("the touched days of log {}", self.log_id);
        let found = self.session.execute_unpaged(&self.statements.read_touched, (&*self.log_id.0,)).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let rows = rows.rows::<Stored>().map_err(|error| damaged(&what, &error))?;
        rows.map(|row| decode(row.map_err(|error| damaged(&what, &error))?)).collect()
    }
}

fn decode((source, day, version, stamp): Stored) -> Result<(Source, Touched), StoreError> {
    let what = format!("the touched day {day} of source {source}");
    let (Some(version), Some(stamp)) = (version, stamp) else { return Err(damaged(&what, &"it has no version")) };
    let version = u64::try_from(version).map_err(|error| damaged(&what, &error))?;
    let source = u32::try_from(source).map_err(|error| damaged(&what, &error))?;
    Ok((Source(source), Touched { day, version: Offset(version), stamp: Stamp(stamp) }))
}
