//! Any bytes are a stored key or value or an error, and what can be read is written again as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas::correction::{self, Adjustment, RepairMark, RepairSet};
use schemas::{CellKey, Checkpoint, DeadLetter, StoredRow};

fuzz_target!(|bytes: &[u8]| {
    for minutes in [true, false] {
        if let Ok(key) = CellKey::decode(bytes, minutes) {
            assert_eq!(key.encode(), bytes, "{key}");
        }
    }
    if let Ok(row) = StoredRow::decode(bytes) {
        assert_eq!(row.encode(), bytes, "{row:?}");
    }
    if let Ok(checkpoint) = Checkpoint::decode(bytes) {
        // A checkpoint of an older version knows fewer reasons; written again it has them all.
        let again = checkpoint.encode();
        assert!(again == bytes || again.len() > bytes.len(), "{checkpoint:?}");
        assert_eq!(Checkpoint::decode(&again), Ok(checkpoint));
    }
    // These are JSON, which has many forms for one value: the value is what must come back.
    if let Ok(letter) = DeadLetter::decode(bytes) {
        assert_eq!(DeadLetter::decode(&letter.encode()).ok().as_ref(), Some(&letter));
        let _ = letter.original.bytes();
    }
    if let Ok(adjustment) = Adjustment::decode(bytes) {
        assert_eq!(Adjustment::decode(&correction::encode(&adjustment)), Ok(adjustment));
    }
    if let Ok(mark) = RepairMark::decode(bytes) {
        assert_eq!(RepairMark::decode(&correction::encode(&mark)), Ok(mark));
    }
    if let Ok(set) = RepairSet::decode(bytes) {
        assert_eq!(RepairSet::decode(&correction::encode(&set)), Ok(set));
    }
});
