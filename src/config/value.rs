//! How a setting's text becomes its value: durations such as `10s`, sizes such as `16MiB`, switches, addresses.
//!
//! Each parser takes the text and returns `None` for what it does not understand; the caller names the key, the
//! value, where it came from and what is allowed.

use std::time::Duration;

/// A whole number and a unit (`ms`, `s`, `m`, `h`, `d`), or a bare `0`: the length in ms.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit_ms)
}

/// A length as [`duration_ms`] reads it.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    u64::try_from(duration_ms(text)?).ok().map(Duration::from_millis)
}

/// A whole number of bytes, or of `KiB`, `MiB`, `GiB`.
pub(crate) fn bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit_bytes = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit_bytes)
}

/// `true` or `false`.
pub(crate) fn switch(text: &str) -> Option<bool> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let table =
            [("0", 0), ("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("5 min", 300_000), ("2h", 7_200_000), ("7d", 604_800_000)];
        for (text, ms) in table {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for bad in ["", "10", "s", "-1s", "1.5s", "1w", "10 S", "99999999999999999999s", "9223372036854775807d", "é"] {
            assert_eq!(duration_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, n) in [("0", 0), ("512", 512), ("1KiB", 1_024), ("16 MiB", 16 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(bytes(text), Some(n), "{text}");
        }
        for bad in ["", "MiB", "1MB", "1.5MiB", "-1", "99999999999999999999"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
