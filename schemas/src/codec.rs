//! The byte reader and writer under the stored forms: fixed-width integers, big-endian.
//!
//! Values lead with a format byte. Keys flip the sign bit of signed integers, so that bytes sort as numbers do.

use thiserror::Error;

/// Why stored bytes cannot be read. It means damage or a newer program; never skip it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The bytes end inside a field, or go on after the last.
    #[error("stored {what} has {len} bytes, which is not a whole value")]
    Length {
        /// What was being read.
        what: &'static str,
        /// How many bytes there are.
        len: usize,
    },
    /// The format byte is none that this version writes.
    #[error("stored {what} has format {format}, which this version does not know; was it written by a newer tallymark?")]
    Format {
        /// What was being read.
        what: &'static str,
        /// The format byte.
        format: u8,
    },
    /// A field holds what no version writes.
    #[error("stored {what} holds an impossible {field}")]
    Field {
        /// What was being read.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// Reads fields from the front of a stored value.
pub(crate) struct Reader<'a> {
    what: &'static str,
    whole: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, whole: bytes.len(), rest: bytes }
    }

    pub(crate) const fn error(&self, field: &'static str) -> CodecError {
        CodecError::Field { what: self.what, field }
    }

    const fn length(&self) -> CodecError {
        CodecError::Length { what: self.what, len: self.whole }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.length())?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn format(&mut self, known: u8) -> Result<(), CodecError> {
        let format = self.u8()?;
        if format == known { Ok(()) } else { Err(CodecError::Format { what: self.what, format }) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, CodecError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, CodecError> {
        self.array().map(i32::from_be_bytes)
    }

    /// An `i32` whose sign bit was flipped for sorting.
    pub(crate) fn sorted_i32(&mut self) -> Result<i32, CodecError> {
        Ok((self.u32()? ^ 0x8000_0000).cast_signed())
    }

    /// Text up to a NUL.
    pub(crate) fn terminated_text(&mut self) -> Result<&'a str, CodecError> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| self.length())?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| self.error("text"))
    }

    /// All that is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn end(self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.length()) }
    }
}

/// An `i32` as bytes that sort as the numbers do.
pub(crate) const fn sorted_i32(value: i32) -> [u8; 4] {
    (value.cast_unsigned() ^ 0x8000_0000).to_be_bytes()
}
