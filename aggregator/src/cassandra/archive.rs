//! What is archived: one partition for each source, its head and version static, a row for each file.
//!
//! Changes are conditional: an archive is changed a few times an hour, and two who change it at once must not both. All statements of a
//! change are of one partition, so they are made together. Their timestamps are the cluster's own, and no file's key comes twice, so
//! that nothing is deleted that was written with it.

use schemas::Source;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::value::{CqlValue, Row};

use super::Inner;
use super::error::{Failure, damaged};
use super::row::bigint;
use crate::archive::{ArchiveChange, ArchiveFile, ArchiveHead, Manifest};
use crate::store::StoreError;

/// `head, file`
type Stored = (Option<String>, Option<String>);

impl Inner {
    pub(super) async fn read_archive(&self, source: Source) -> Result<Manifest, StoreError> {
        let what = what(source);
        let key = (&*self.log_id.0, int(source)?);
        // In one answer, so that it is of one version.
        let found = self.session.execute_unpaged(&self.statements.read_archive, key).await.map_err(Failure::from)?;
        let rows = found.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let mut manifest = Manifest::default();
        for row in rows.rows::<Stored>().map_err(|error| damaged(&what, &error))? {
            let (head, file) = row.map_err(|error| damaged(&what, &error))?;
            let head = head.ok_or_else(|| damaged(&what, &"it has files and no head"))?;
            if manifest.head.version == 0 {
                manifest.head = serde_json::from_str::<ArchiveHead>(&head).map_err(|error| damaged(&what, &error))?;
            }
            // A partition without files has one row, of its head alone.
            if let Some(file) = file {
                manifest.files.push(serde_json::from_str::<ArchiveFile>(&file).map_err(|error| damaged(&what, &error))?);
            }
        }
        manifest.files.sort();
        Ok(manifest)
    }

    pub(super) async fn commit_archive(&self, source: Source, change: &ArchiveChange) -> Result<bool, StoreError> {
        let what = what(source);
        let (log, of) = (|| CqlValue::Text(self.log_id.0.to_string()), CqlValue::Int(int(source)?));
        let version = |version| Ok::<_, StoreError>(CqlValue::BigInt(bigint(&what, version)?));
        let before = change.head.version.saturating_sub(1);
        let mut head = vec![version(change.head.version)?, text(&what, &change.head)?, log(), of.clone()];
        let mut batch = Batch::new(BatchType::Unlogged);
        if before == 0 {
            batch.append_statement(BatchStatement::from(self.statements.begin_archive.clone()));
        } else {
            batch.append_statement(BatchStatement::from(self.statements.change_archive.clone()));
            head.push(version(before)?);
        }
        let mut values = vec![head];
        let key = |file: &ArchiveFile| {
            let from = CqlValue::BigInt(bigint(&what, file.from.0)?);
            Ok::<_, StoreError>(vec![log(), of.clone(), CqlValue::Int(file.day), from, CqlValue::Text(file.hash.clone())])
        };
        for file in &change.removed {
            batch.append_statement(BatchStatement::from(self.statements.drop_archive_file.clone()));
            values.push(key(file)?);
        }
        for file in &change.added {
            batch.append_statement(BatchStatement::from(self.statements.add_archive_file.clone()));
            let mut row = key(file)?;
            row.push(text(&what, file)?);
            values.push(row);
        }
        let answer = self.session.batch(&batch, values).await.map_err(Failure::from)?;
        let rows = answer.into_rows_result().map_err(|error| damaged(&what, &error))?;
        let applied = rows.maybe_first_row::<Row>().map_err(|error| damaged(&what, &error))?;
        match applied.as_ref().and_then(|row| row.columns.first()) {
            Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
            other => Err(damaged(&what, &format!("the cluster did not say whether it was changed ({other:?})"))),
        }
    }
}

fn what(source: Source) -> String {
    format!("the archive of source {source}")
}

fn int(source: Source) -> Result<i32, StoreError> {
    i32::try_from(source.0).map_err(|_| StoreError::Failed(format!("source {source} is beyond what the tables can hold")))
}

fn text(what: &str, value: &impl serde::Serialize) -> Result<CqlValue, StoreError> {
    serde_json::to_string(value)
        .map(CqlValue::Text)
        .map_err(|error| StoreError::Failed(format!("{what} cannot be written as JSON: {error}")))
}
