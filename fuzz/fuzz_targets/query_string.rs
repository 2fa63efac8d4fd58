//! Any query string is a range that can be answered or a 400.
#![no_main]

use libfuzzer_sys::fuzz_target;
use query::params::{parse, parse_time};
use schemas::{Millis, Minute};

const NOW: Millis = Millis(1_763_640_000_000);

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    match parse(&text, NOW) {
        Ok(range) => assert!(Minute::MIN <= range.start && range.start < range.end && range.end <= Minute::MAX, "{range:?}"),
        Err(problem) => assert_eq!(problem.status().as_u16(), 400, "{problem:?}"),
    }
    if let Ok(at) = parse_time("start", &text) {
        assert!(at.is_representable(), "{at:?}");
    }
});
