//! Any bytes are an event or a refusal, and an event survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas::json;

fuzz_target!(|bytes: &[u8]| {
    for line in json::lines(bytes).chain([bytes]) {
        match json::decode(line) {
            Ok(event) => {
                let mut again = Vec::new();
                json::encode(&event, &mut again);
                assert_eq!(json::decode(&again).as_ref(), Ok(&event), "{}", String::from_utf8_lossy(&again));
                assert!(!again.contains(&b'\n'), "an event is one line");
            }
            Err(rejection) => assert!(!rejection.detail.is_empty() && !rejection.detail.contains('\n'), "{rejection:?}"),
        }
    }
});
