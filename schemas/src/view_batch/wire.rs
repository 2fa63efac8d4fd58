//! The protobuf wire format, as much of it as a batch needs: tags, varints, and values that lead with their length.
//!
//! Reading is bounded by the bytes at hand: a length that passes them is a fault before anything is done with it.

use super::{Field, bad};
use crate::event::Rejection;

/// How a field's value is laid out, by the code in its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    Fixed32 = 5,
}

impl Type {
    /// The type with a code; groups, which are none of proto3, have none.
    const fn of(tag: u64) -> Option<Self> {
        match tag & 7 {
            0 => Some(Self::Varint),
            1 => Some(Self::Fixed64),
            2 => Some(Self::Length),
            5 => Some(Self::Fixed32),
            _ => None,
        }
    }
}

/// The values of one message's fields.
pub(super) struct Fields<'a, const N: usize> {
    values: [Option<&'a [u8]>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Takes `message` apart. `known` are its fields, by number from 1: none may come twice or in another type. Others are skipped.
    pub(super) fn read(what: &str, message: &'a [u8], known: &[Field; N]) -> Result<Self, Rejection> {
        let mut values = [None; N];
        let mut rest = message;
        while !rest.is_empty() {
            let cut = || bad(format!("{what}: what starts at its byte {} is no whole field", message.len() - rest.len()));
            let (number, wire, value, after) = split_field(rest).ok_or_else(cut)?;
            rest = after;
            let Some((field, slot)) = number.checked_sub(1).and_then(|ix| Some((known.get(ix)?, values.get_mut(ix)?))) else { continue };
            if field.wire != wire || slot.replace(value).is_some() {
                return Err(bad(format!("{what}: {} is not in one packed piece", field.name)));
            }
        }
        Ok(Self { values })
    }

    /// The bytes of a field's value, without their length; none if the field is absent.
    pub(super) fn get(&self, field: Field) -> &'a [u8] {
        let ix = field.number as usize - 1;
        self.values.get(ix).copied().flatten().unwrap_or_default()
    }
}

/// The first field's number, type and value, and what follows it.
fn split_field(bytes: &[u8]) -> Option<(usize, Type, &[u8], &[u8])> {
    let (tag, rest) = split_varint(bytes)?;
    let wire = Type::of(tag)?;
    let (rest, len) = match wire {
        Type::Varint => (rest, rest.len() - split_varint(rest)?.1.len()),
        Type::Fixed64 => (rest, 8),
        Type::Fixed32 => (rest, 4),
        Type::Length => {
            let (len, rest) = split_varint(rest)?;
            (rest, usize::try_from(len).ok()?)
        }
    };
    let (value, after) = rest.split_at_checked(len)?;
    // Field 0 is none; one beyond the numbers that there are is as unknown as any.
    let number = usize::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
    Some((number, wire, value, after))
}

/// The first varint, and what follows it; none if it is cut short or has more than 64 bits.
pub(super) fn split_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte holds the last of the 64 bits.
        if at == 9 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return bytes.get(at + 1..).map(|rest| (value, rest));
        }
    }
    None
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits, and a mark that more follow.
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// How many bytes [`put_varint`] appends.
pub(super) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte, and one byte for zero.
    (value | 1).ilog2() as usize / 7 + 1
}

/// Appends the tag of `field`.
pub(super) fn put_tag(out: &mut Vec<u8>, field: Field) {
    put_varint(out, u64::from(field.number) << 3 | field.wire as u64);
}

/// Appends a field that leads with its length, unless it is empty.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: Field, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_tag(out, field);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// How many bytes [`put_bytes`] appends for so many; fields up to 15 have a tag of one byte.
pub(super) const fn field_len(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { 1 + varint_len(bytes as u64) + bytes }
}

/// A signed number as protobuf's `sint64` has it: small in either direction is short.
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The number that [`zigzag`] made.
pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_and_signs_come_back(value: u64, shift in 0u32..64, rest: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(split_varint(&bytes), Some((value, rest.as_slice())));
            prop_assert_eq!(zigzag(unzigzag(value)), value);
        }
    }

    #[test]
    fn a_varint_has_at_most_64_bits_and_an_end() {
        assert_eq!(split_varint(&[]), None);
        assert_eq!(split_varint(&[0x80]), None);
        assert_eq!(split_varint(&[0xff; 12]), None);
        assert_eq!(split_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Some((u64::MAX, [].as_slice())));
        assert_eq!(split_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
        assert_eq!(split_varint(&[0x80, 0]), Some((0, [].as_slice())), "longer than it must be, and still zero");
    }

    #[test]
    fn small_numbers_are_small_in_both_directions() {
        assert_eq!([0, -1, 1, -2, i64::MAX, i64::MIN].map(zigzag), [0, 1, 2, 3, u64::MAX - 1, u64::MAX]);
    }
}
