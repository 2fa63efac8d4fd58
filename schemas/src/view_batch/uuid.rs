//! Canonical UUIDs, 36 lower-case characters (RFC 9562, section 4), as their 16 bytes and back.
//!
//! Counting hashes the text of every event id, so it is made eight digits at a time, in registers, and stored as whole words:
//! a hash that reads words just after they were stored in pieces would wait for them.

/// The 16 bytes of a text that is a canonical UUID, of whatever version; none for every other text.
pub(super) fn pack(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let (words, rest) = text.as_chunks::<8>();
    let (&[w0, w1, w2, w3], &[e0, e1, e2, e3]) = (words, rest) else { return None };
    let [w0, w1, w2, w3] = [w0, w1, w2, w3].map(u64::from_le_bytes);
    let digits = [
        w0,
        w1 >> 8 & LOW_4 | w1 >> 48 << 32 | w2 << 48,
        w2 >> 24 & LOW_4 | w3 << 32,
        w3 >> 32 | (u32::from_le_bytes([e0, e1, e2, e3]) as u64) << 32,
    ];
    let bytes = digits.map(from_digits);
    let mut uuid = [0; 16];
    uuid.as_chunks_mut::<4>().0.iter_mut().zip(bytes).for_each(|(to, four)| *to = four);
    // Whatever is no digit, or no dash where one belongs, does not come back as it was.
    (self::text(&uuid) == *text).then_some(uuid)
}

/// Its canonical text, all of it ASCII.
#[inline]
pub(super) fn text(uuid: &[u8; 16]) -> [u8; 36] {
    let whole = u128::from_be_bytes(*uuid);
    let [d0, d1, d2, d3] = [96, 64, 32, 0].map(|shift| to_digits((whole >> shift & 0xffff_ffff) as u32));
    // Eight digits, and four times a dash and four digits, and the rest; the first of each in the lowest byte.
    let words = [
        d0,
        DASH | (d1 & LOW_4) << 8 | DASH << 40 | d1 >> 32 << 48,
        d1 >> 48 | DASH << 16 | (d2 & LOW_4) << 24 | DASH << 56,
        d2 >> 32 | d3 << 32,
    ];
    let mut text = [0; 36];
    text.as_chunks_mut::<8>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_le_bytes());
    if let Some(end) = text.last_chunk_mut() {
        *end = ((d3 >> 32) as u32).to_le_bytes();
    }
    text
}

const DASH: u64 = b'-' as u64;
const LOW_4: u64 = 0xffff_ffff;
const EACH: u64 = 0x0101_0101_0101_0101;

/// Four bytes as hexadecimal digits, the first in the lowest byte.
const fn to_digits(bytes: u32) -> u64 {
    let mut values = bytes as u64;
    // Half a byte into each of eight.
    values = (values | values << 16) & 0x0000_ffff_0000_ffff;
    values = (values | values << 8) & 0x00ff_00ff_00ff_00ff;
    values = (values | values << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // One where a value is 10 or more: six more carry it over 16.
    let letters = (values + 6 * EACH) >> 4 & EACH;
    (values + b'0' as u64 * EACH + letters * (b'a' - b'0' - 10) as u64).swap_bytes()
}

/// The bytes that [`to_digits`] gives for, and anything for what it never gives.
const fn from_digits(digits: u64) -> [u8; 4] {
    let digits = digits.swap_bytes();
    // The low half of a digit is its value, and of a letter 9 less; only letters have the bit 0x40.
    let mut values = (digits & (0x0f * EACH)) + (digits >> 6 & EACH) * 9;
    values = (values | values >> 4) & 0x00ff_00ff_00ff_00ff;
    values = (values | values >> 8) & 0x0000_ffff_0000_ffff;
    (((values | values >> 16) & LOW_4) as u32).to_be_bytes()
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
