//! What was sent, as those who sent it noted it: views of each entity in each minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Views by entity (its path in the API) and minute since 1970.
pub(crate) type Cells = BTreeMap<(String, i64), i64>;

/// One click.
#[derive(Clone, Debug)]
pub(crate) struct Click {
    pub(crate) id: String,
    pub(crate) video: String,
    pub(crate) space: Option<String>,
    pub(crate) ts_ms: i64,
}

impl Click {
    /// As one line of JSON.
    pub(crate) fn json(&self) -> String {
        let space = self.space.as_ref().map(|space| format!(",\"space_id\":\"{space}\"")).unwrap_or_default();
        format!("{{\"event_id\":\"{}\",\"video_id\":\"{}\",\"ts\":{}{space}}}\n", self.id, self.video, self.ts_ms)
    }
}

/// Adds a view to all that it counts for.
pub(crate) fn add(cells: &mut Cells, video: &str, space: Option<&str>, ts_ms: i64) {
    let minute = ts_ms.div_euclid(60_000);
    let space = space.map(|space| format!("spaces/{space}"));
    for entity in [Some(format!("videos/{video}")), space, Some("site".to_owned())].into_iter().flatten() {
        *cells.entry((entity, minute)).or_default() += 1;
    }
}

/// The notes of all who send; cloned, it is the same book.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    cells: Cells,
    sent: u64,
    acknowledged: u64,
}

impl Notes {
    /// Different events that are sent from now on, each as often as it takes. Repeats of old ones are not noted.
    pub(crate) fn sent(&self, clicks: &[Click]) {
        let mut book = self.0.lock().unwrap();
        for click in clicks {
            add(&mut book.cells, &click.video, click.space.as_deref(), click.ts_ms);
        }
        book.sent += clicks.len() as u64;
    }

    /// So many of them are acknowledged.
    pub(crate) fn acknowledged(&self, clicks: usize) {
        self.0.lock().unwrap().acknowledged += clicks as u64;
    }

    /// Events sent, and acknowledged.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let book = self.0.lock().unwrap();
        (book.sent, book.acknowledged)
    }

    pub(crate) fn cells(&self) -> Cells {
        self.0.lock().unwrap().cells.clone()
    }
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
