//! Any bytes are an event or a refusal, the short way and the long way say the same, and an event survives being written and
//! read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas::json;

fuzz_target!(|bytes: &[u8]| {
    for line in json::lines(bytes).chain([bytes]) {
        let noted = json::decode_noting(line);
        let decoded = json::decode_without_scan(line);
        assert_eq!(json::decode(line), decoded);
        assert_eq!(noted.as_ref().map(|noted| &noted.event), decoded.as_ref());
        assert_eq!(noted.is_ok_and(|noted| noted.has_others), decoded.is_ok() && json::others(line).is_some());
        match decoded {
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
