//! Headers as they lie in a message of format 2, the only one that has them:
//!
//! ```text
//! count, then for each: length of the key, key, length of the value (-1: null), value     (numbers are zigzag varints)
//! ```
//!
//! librdkafka's list of headers costs half a dozen allocations for each message that has some, and three for each that has none.

/// The most bytes that a number takes.
const VARINT_BYTES_MAX: usize = 10;

/// What is shown a header: its key and its value, if that is not null.
pub(super) type Show<'a> = dyn FnMut(&[u8], Option<&[u8]>) + 'a;

/// Shows each header. Returns nothing if the bytes are not whole (no broker takes such a message); some may have been shown then.
pub(super) fn each(mut bytes: &[u8], show: &mut Show<'_>) -> Option<()> {
    // A header takes three bytes and more: there is none. To look would bring memory into the CPU's cache for nothing.
    if bytes.len() <= 1 {
        return Some(());
    }
    let bytes = &mut bytes;
    for _ in 0..number(bytes)? {
        let key = take(bytes)??;
        show(key, take(bytes)?);
    }
    Some(())
}

/// Takes a length and so many bytes; null if the length is -1.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = number(bytes)?;
    if len == -1 {
        return Some(None);
    }
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(Some(taken))
}

/// Takes a zigzag varint.
fn number(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw = 0_u64;
    for at in 0..VARINT_BYTES_MAX {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        raw |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a failed expectation is a panic")]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn shown(bytes: &[u8]) -> Option<Headers> {
        let mut headers = Headers::new();
        each(bytes, &mut |key, value| headers.push((key.to_vec(), value.map(<[u8]>::to_vec))))?;
        Some(headers)
    }

    fn put(bytes: &mut Vec<u8>, number: i64) {
        let mut raw = ((number << 1) ^ (number >> 63)).cast_unsigned();
        while raw >= 0x80 {
            bytes.push(u8::try_from(raw & 0x7f).unwrap() | 0x80);
            raw >>= 7;
        }
        bytes.push(u8::try_from(raw).unwrap());
    }

    fn written(headers: &Headers) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, i64::try_from(headers.len()).unwrap());
        for (key, value) in headers {
            for part in [Some(key), value.as_ref()] {
                put(&mut bytes, part.map_or(-1, |part| i64::try_from(part.len()).unwrap()));
                bytes.extend(part.into_iter().flatten());
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn headers_are_shown_as_they_were_written(headers in vec((vec(any::<u8>(), 0..300), option::of(vec(any::<u8>(), 0..300))), 0..5)) {
            prop_assert_eq!(shown(&written(&headers)), Some(headers));
        }

        #[test]
        fn headers_that_are_cut_short_are_not_whole(
            headers in vec((vec(any::<u8>(), 0..20), option::of(vec(any::<u8>(), 0..20))), 1..4), cut in any::<prop::sample::Index>()
        ) {
            let bytes = written(&headers);
            // Of the first byte alone nothing is read.
            prop_assert_eq!(shown(&bytes[..2 + cut.index(bytes.len() - 2)]), None);
        }

        #[test]
        fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..40)) {
            let _ = shown(&bytes);
        }
    }

    #[test]
    fn a_key_that_is_null_or_a_length_that_is_negative_is_not_whole() {
        assert_eq!(shown(&[]), Some(vec![]));
        assert_eq!(shown(&[0]), Some(vec![]));
        assert_eq!(shown(&[2, 1, 1]), None);
        assert_eq!(shown(&[2, 0, 3]), None);
    }
}
