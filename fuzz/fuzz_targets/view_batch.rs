//! Any bytes are a columnar batch or a refusal; what can be read is in range, and is the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas::view_batch::Writer;
use schemas::{EventHash, Reason, ViewBatch, json};

fuzz_target!(|bytes: &[u8]| {
    let batch = match ViewBatch::read(bytes) {
        Ok(batch) => batch,
        Err(rejection) => {
            assert!(rejection.reason == Reason::BadBatch && !rejection.detail.is_empty(), "{rejection:?}");
            return;
        }
    };
    let (entries, spaces): (Vec<_>, Vec<_>) = (batch.entries().collect(), batch.spaces().collect());
    let (views, ids, wholes): (Vec<_>, Vec<_>, Vec<_>) = (batch.views().collect(), batch.event_ids().collect(), batch.wholes().collect());
    assert_eq!([views.len(), ids.len(), wholes.len()], [batch.len(); 3]);
    let mut writer = Writer::new();
    for ((view, id), whole) in views.iter().zip(&ids).zip(&wholes) {
        let (entry, event) = (entries[view.entry as usize], &whole.event);
        assert_eq!((entry.video, entry.space.map(|space| spaces[space as usize])), (&*event.video_id, event.space_id.as_deref()));
        assert_eq!(id.hash(), EventHash::of(&event.event_id));
        if whole.check().is_ok() {
            let line = whole.to_json();
            assert_eq!(json::decode(&line).as_ref(), Ok(event), "{}", String::from_utf8_lossy(&line));
            assert!(!line.contains(&b'\n'), "an event is one line");
            if writer.push(event, whole.others).is_ok() {
                let payload = writer.finish();
                let again = ViewBatch::read(&payload).expect("what is written can be read");
                assert_eq!(again.wholes().next().as_ref(), Some(whole));
            }
        }
    }
});
