//! The trace that a request belongs to, from the header `traceparent` of W3C Trace Context (Level 1, section 3.2).
//!
//! ```text
//! 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
//! version   trace id                    parent id       flags
//! ```
//!
//! Our lines bear the trace id, so that they can be found from the trace of another system. Nothing is sent anywhere.

use axum::http::HeaderMap;

const BYTES: usize = 55;

/// The trace id: 32 lower-case hexadecimal digits, not all 0. None without the header, or if it does not have this form: then, says the
/// standard, it is as if there were none.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all("traceparent").iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let text = value.to_str().ok()?;
    let mut parts = text.splitn(5, '-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Later versions may add parts, and the first one has none.
    let ends = text.len() == BYTES || version != "00" && text.as_bytes().get(BYTES) == Some(&b'-');
    let sane = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    let not_zero = |text: &str| text.bytes().any(|digit| digit != b'0');
    (ends && sane && not_zero(trace) && not_zero(parent)).then_some(trace)
}

fn hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn of(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", HeaderValue::from_str(value).unwrap());
        }
        let id = trace_id(&headers);
        assert!(id.is_none_or(|id| id == TRACE));
        id.is_some()
    }

    #[test]
    fn a_trace_id_is_taken_as_the_standard_says() {
        for good in ["00-TRACE-00f067aa0ba902b7-01", "00-TRACE-00f067aa0ba902b7-00", "cc-TRACE-00f067aa0ba902b7-01-what-comes-later"] {
            assert!(of(&[&good.replace("TRACE", TRACE)]), "{good}");
        }
        for bad in [
            "",
            "00",
            "ff-TRACE-00f067aa0ba902b7-01",
            "00-TRACE-00f067aa0ba902b7-01-more",
            "cc-TRACE-00f067aa0ba902b7-01.more",
            "00-TRACE-0000000000000000-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-TRACE-00f067aa0ba902b7-0",
            "00-TRACE-00f067aa0ba902b-011",
            "00_TRACE_00f067aa0ba902b7_01",
        ] {
            assert!(!of(&[&bad.replace("TRACE", TRACE)]), "{bad}");
        }
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert!(!of(&[]) && !of(&[&good, &good]));
    }
}
