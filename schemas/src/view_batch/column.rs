//! Columns: checked as a whole once, so that walking along them has nothing left to fail.

use super::wire::{Fields, split_varint};
use super::{Field, bad, field};
use crate::event::Rejection;
use crate::id::MAX_ID_BYTES;

/// A packed column of varints, each known to be whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Varints<'a> {
    bytes: &'a [u8],
    len: usize,
}

/// What one look at all numbers of a column tells of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The largest; 0 of none.
    pub(super) max: u64,
    /// The sum; `u64::MAX` if it is more.
    pub(super) sum: u64,
}

impl<'a> Varints<'a> {
    pub(super) fn check(name: &str, bytes: &'a [u8]) -> Result<(Self, Extent), Rejection> {
        // Most columns are small numbers alone, one byte each; these loops become vector instructions.
        if bytes.is_ascii() {
            let max = bytes.iter().fold(0, |max, byte| max.max(*byte));
            let sum = bytes.iter().map(|byte| u64::from(*byte)).sum();
            return Ok((Self { bytes, len: bytes.len() }, Extent { max: max.into(), sum }));
        }
        let (mut rest, mut len, mut extent) = (bytes, 0, Extent::default());
        while !rest.is_empty() {
            let cut = || bad(format!("{name}: what stands in place {len} is no whole number"));
            let (value, after) = split_varint(rest).ok_or_else(cut)?;
            (rest, len) = (after, len + 1);
            extent = Extent { max: extent.max.max(value), sum: extent.sum.saturating_add(value) };
        }
        Ok((Self { bytes, len }, extent))
    }

    /// How many numbers there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

impl Iterator for Varints<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        let (value, rest) = match *self.bytes {
            [value, ref rest @ ..] if value < 0x80 => (u64::from(value), rest),
            [low, high, ref rest @ ..] if high < 0x80 => (u64::from(low & 0x7f) | u64::from(high) << 7, rest),
            _ => split_varint(self.bytes)?,
        };
        self.bytes = rest;
        self.len -= 1;
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Varints<'_> {}

/// A column of texts; their lengths are known to fall on characters and to end with the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts<'a> {
    lengths: Varints<'a>,
    text: &'a str,
}

impl<'a> Texts<'a> {
    /// Reads the `message` of a field; also the length of its longest text.
    pub(super) fn check(field: Field, message: &'a [u8]) -> Result<(Self, u64), Rejection> {
        let name = field.name;
        let fields = Fields::read(name, message, &field::OF_TEXTS)?;
        let (lengths, Extent { max, sum }) = Varints::check(name, fields.get(field::LENGTHS))?;
        let text = fields.get(field::TEXT);
        let text =
            std::str::from_utf8(text).map_err(|error| bad(format!("{name}: its text is not UTF-8 from byte {}", error.valid_up_to())))?;
        if sum != text.len() as u64 {
            return Err(bad(format!("{name}: its lengths add up to {sum} bytes, and its text has {}", text.len())));
        }
        let texts = Self { lengths, text };
        if !text.is_ascii() && texts.count_whole() != texts.len() {
            return Err(bad(format!("{name}: its text {} begins or ends inside a character", texts.count_whole())));
        }
        Ok((texts, max))
    }

    /// As [`Texts::check`], for a column of one text for each of so many events, or none at all.
    pub(super) fn check_each(field: Field, message: &'a [u8], events: usize) -> Result<Self, Rejection> {
        let (texts, _) = Self::check(field, message)?;
        check_len(field, texts.len(), events)?;
        Ok(texts)
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.lengths.len
    }

    /// Whether each is printable ASCII, and empty or no longer than an id.
    pub(super) fn are_plain(&self) -> bool {
        // Without an early end, which the compiler turns into vector instructions.
        let is_plain = self.text.bytes().fold(true, |plain, byte| plain & (0x20..0x7f).contains(&byte));
        is_plain && self.lengths.into_iter().all(|len| len <= MAX_ID_BYTES as u64)
    }

    /// How many of them are empty.
    pub(super) fn count_empty(&self) -> usize {
        self.lengths.filter(|len| *len == 0).count()
    }

    /// How many of the first ones can be taken off.
    fn count_whole(&self) -> usize {
        let mut rest = *self;
        std::iter::from_fn(|| rest.take_one()).count()
    }

    fn take_one(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.lengths.next()?).ok()?;
        let (text, rest) = self.text.split_at_checked(len)?;
        self.text = rest;
        Some(text)
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        self.take_one()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lengths.size_hint()
    }
}

impl ExactSizeIterator for Texts<'_> {}

/// A column that may be absent has a value for each event otherwise.
pub(super) fn check_len(field: Field, len: usize, events: usize) -> Result<(), Rejection> {
    if len == 0 || len == events { Ok(()) } else { Err(bad(format!("{} has {len} values for {events} events", field.name))) }
}
