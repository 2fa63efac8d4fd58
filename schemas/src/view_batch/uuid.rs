//! Canonical UUIDs, 36 lower-case characters (RFC 9562, section 4), as their 16 bytes and back.

use std::ops::Range;

/// Where the two digits of each byte are; the dashes are between.
const DIGITS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The groups of digits: where in the text, and where among the digits alone.
const GROUPS: [(Range<usize>, Range<usize>); 5] = [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)];

/// The 16 bytes of a text that is a canonical UUID, of whatever version; none for every other text.
pub(super) fn pack(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    if [8, 13, 18, 23].iter().any(|dash| text.get(*dash) != Some(&b'-')) {
        return None;
    }
    let mut uuid = [0; 16];
    for (byte, at) in uuid.iter_mut().zip(DIGITS) {
        *byte = value(*text.get(at)?)? << 4 | value(*text.get(at + 1)?)?;
    }
    Some(uuid)
}

/// Its canonical text, all of it ASCII.
pub(super) fn text(uuid: &[u8; 16]) -> [u8; 36] {
    let mut digits = [0; 32];
    // Arithmetic and no table: the compiler makes a few vector instructions of all 32.
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(uuid) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    let mut text = [b'-'; 36];
    for (to, from) in GROUPS {
        if let (Some(to), Some(from)) = (text.get_mut(to), digits.get(from)) {
            to.copy_from_slice(from);
        }
    }
    text
}

const fn digit(value: u8) -> u8 {
    value + if value < 10 { b'0' } else { b'a' - 10 }
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow obvious text.
    fn plain(uuid: [u8; 16]) -> String {
        let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
    }

    proptest! {
        #[test]
        fn a_uuid_is_its_text(uuid: [u8; 16]) {
            prop_assert_eq!(text(&uuid).to_vec(), plain(uuid).into_bytes());
            prop_assert_eq!(pack(&plain(uuid)), Some(uuid));
        }

        #[test]
        fn only_what_comes_back_as_it_was_is_packed(uuid: [u8; 16], at in 0usize..36, other in any::<char>()) {
            let other: String = plain(uuid).chars().enumerate().map(|(i, c)| if i == at { other } else { c }).collect();
            prop_assert_eq!(pack(&other).is_some_and(|packed| plain(packed) == other), pack(&other).is_some());
            prop_assert_eq!(pack(&plain(uuid).to_uppercase()).is_some(), !plain(uuid).contains(|c: char| c.is_ascii_alphabetic()));
        }
    }

    #[test]
    fn other_ways_to_write_one_are_texts() {
        for other in
            ["", "550e8400e29b41d4a716446655440000", "550E8400-E29B-41D4-A716-446655440000", "{550e8400-e29b-41d4-a716-446655440000}"]
        {
            assert_eq!(pack(other), None, "{other}");
        }
        assert!(pack("550e8400-e29b-41d4-a716-446655440000").is_some());
        assert!(pack("550e8400-e29b-41d4-a716+446655440000").is_none());
    }
}
