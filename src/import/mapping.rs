//! Which column (CSV) or member (NDJSON) of a file holds which field of an event.
//!
//! A field that is not mapped is read from the column of its own name, if the file has one. `field=` leaves it out all the same.

use std::fmt::Write;

use crate::config::near_hint;

use super::ImportError;

/// A field of an event, in the order of [`Field::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    EventId,
    VideoId,
    Ts,
    SpaceId,
    ViewerId,
    WatchMs,
    Kind,
}

impl Field {
    pub(crate) const ALL: [Self; 7] = [Self::EventId, Self::VideoId, Self::Ts, Self::SpaceId, Self::ViewerId, Self::WatchMs, Self::Kind];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EventId => "event_id",
            Self::VideoId => "video_id",
            Self::Ts => "ts",
            Self::SpaceId => "space_id",
            Self::ViewerId => "viewer_id",
            Self::WatchMs => "watch_ms",
            Self::Kind => "kind",
        }
    }

    const fn required(self) -> bool {
        matches!(self, Self::VideoId | Self::Ts)
    }
}

/// Whether a file cannot do without the field of this name.
fn required(name: &str) -> bool {
    Field::ALL.iter().any(|field| field.name() == name && field.required())
}

/// The `--map` option: columns by field, as far as they were given; an empty one leaves its field out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    columns: [Option<String>; 7],
}

impl Mapping {
    /// Reads `field=column,field=column,...`.
    ///
    /// # Errors
    /// If a part is no such pair, or names a field that does not exist or twice.
    pub(crate) fn parse(text: &str) -> Result<Self, ImportError> {
        let mut mapping = Self::default();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (field, column) = pair
                .split_once('=')
                .map(|(field, column)| (field.trim(), column.trim()))
                .filter(|(field, column)| !column.is_empty() || !required(field))
                .ok_or_else(|| ImportError::Usage(format!("--map {pair:?} is not field=column, such as video_id=item_id")))?;
            let names = || Field::ALL.iter().map(|field| field.name());
            let slot = names().position(|name| name == field).and_then(|at| mapping.columns.get_mut(at)).ok_or_else(|| {
                let all: Vec<_> = names().collect();
                ImportError::Usage(format!("--map knows no field {field:?}{}; fields are {}", near_hint(field, names()), all.join(", ")))
            })?;
            if slot.replace(column.to_owned()).is_some() {
                return Err(ImportError::Usage(format!("--map gives {field} twice")));
            }
        }
        Ok(mapping)
    }

    /// The column that was given for a field.
    fn given(&self, field: Field) -> Option<&str> {
        self.columns.iter().zip(Field::ALL).find(|(_, f)| *f == field).and_then(|(column, _)| column.as_deref())
    }

    /// The name under which `field` is looked for; `None` if it is left out.
    pub(crate) fn column(&self, field: Field) -> Option<&str> {
        Some(self.given(field).unwrap_or(field.name())).filter(|column| !column.is_empty())
    }

    /// Whether every field is read from the member of its own name.
    pub(crate) fn is_plain(&self) -> bool {
        Field::ALL.iter().all(|field| self.given(*field).is_none_or(|column| column == field.name()))
    }

    /// Where in `header` each field is.
    ///
    /// # Errors
    /// If a column that was given is not in the header, or a required field has none.
    pub(crate) fn resolve(&self, header: &[String]) -> Result<Columns, ImportError> {
        let mut columns = Columns { at: [None; 7] };
        for (field, slot) in Field::ALL.into_iter().zip(&mut columns.at) {
            let Some(name) = self.column(field) else { continue };
            *slot = header.iter().position(|column| column == name);
            if slot.is_none() && (self.given(field).is_some() || field.required()) {
                return Err(absent(field, name, header, self.given(field).is_some()));
            }
        }
        Ok(columns)
    }

    /// The mapping in one form, by which two imports of a file are known to be alike.
    pub(crate) fn canonical(&self, columns: Option<&Columns>) -> String {
        let mut out = String::new();
        for field in Field::ALL {
            if columns.is_none_or(|columns| columns.of(field).is_some()) {
                let _ = write!(out, "{}{}={}", if out.is_empty() { "" } else { "," }, field.name(), self.column(field).unwrap_or_default());
            }
        }
        out
    }
}

fn absent(field: Field, name: &str, header: &[String], given: bool) -> ImportError {
    let columns = header.join(", ");
    let hint = near_hint(name, header.iter().map(String::as_str));
    let field = field.name();
    ImportError::Usage(if given {
        format!("--map {field}={name}: the file has no column {name:?}{hint} Its columns are: {columns}")
    } else {
        format!("the file has no column {name:?}{hint} Say which one holds {field} with --map {field}=COLUMN. Its columns are: {columns}")
    })
}

/// The place of each field's column in a CSV header, in the order of [`Field::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    at: [Option<usize>; 7],
}

impl Columns {
    pub(crate) fn of(&self, field: Field) -> Option<usize> {
        self.at.iter().zip(Field::ALL).find(|(_, f)| *f == field).and_then(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(columns: &str) -> Vec<String> {
        columns.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn given_columns_and_columns_of_the_same_name_are_found() {
        let mapping = Mapping::parse("video_id=item_id, ts=ts_ms").unwrap();
        let columns = mapping.resolve(&header("event_id,item_id,user_id,ts_ms,extra")).unwrap();
        let at: Vec<_> = Field::ALL.map(|field| columns.of(field)).into();
        assert_eq!(at, [Some(0), Some(1), Some(3), None, None, None, None]);
        assert_eq!(mapping.canonical(Some(&columns)), "event_id=event_id,video_id=item_id,ts=ts_ms");
        assert!(!mapping.is_plain());
        assert!(Mapping::parse("ts=ts").unwrap().is_plain());
    }

    #[test]
    fn a_field_can_be_left_out_although_the_file_has_a_column_of_its_name() {
        let mapping = Mapping::parse("event_id=,video_id=item_id").unwrap();
        let columns = mapping.resolve(&header("event_id,item_id,ts")).unwrap();
        assert_eq!((columns.of(Field::EventId), columns.of(Field::VideoId)), (None, Some(1)));
        assert_eq!(mapping.canonical(Some(&columns)), "video_id=item_id,ts=ts");
        assert!(!mapping.is_plain());
    }

    #[test]
    fn what_cannot_be_mapped_is_explained_with_the_near_name() {
        for (map, says) in [
            ("video_id", "field=column"),
            ("video_id=", "field=column"),
            ("video=item_id", "did you mean \"video_id\"?"),
            ("ts=a,ts=b", "twice"),
        ] {
            let error = Mapping::parse(map).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for (map, says) in [
            ("video_id=item_di,ts=ts_ms", "no column \"item_di\"; did you mean \"item_id\"?"),
            ("video_id=item_id,ts=ts_ms,kind=clap", "item_id, ts_ms"),
            ("video_id=item_id", "--map ts=COLUMN"),
        ] {
            let error = Mapping::parse(map).unwrap().resolve(&header("item_id,ts_ms")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
