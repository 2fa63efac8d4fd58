//! A compressed body, decoded while it arrives: gzip (RFC 1952) or zstd (RFC 8878, with the window of RFC 9659).
//!
//! ```text
//! chunk ──> pieces of 4 KiB ──> Decoder::push ──> decoded parts, each to be counted before the next is made
//! ```
//!
//! Pure. A bomb costs little: what decodes to more than [`MAX_RATIO`] times its size is broken off within a piece of where that
//! shows, and the caller breaks off when the decoded bytes pass their limit. A zstd window has at most [`MAX_WINDOW_BYTES`].

use std::io::Write;

use flate2::write::MultiGzDecoder;
use thiserror::Error;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

/// The codings that are taken, as an error and `Accept-Encoding` name them.
pub const ACCEPTED: &str = "gzip, zstd";

/// So many times its size a body may decode to; events compress to a tenth or a thirtieth.
pub const MAX_RATIO: u64 = 100;

/// Up to so many decoded bytes the ratio does not matter.
const FREE_BYTES: u64 = 1 << 20;

/// RFC 9659: the largest window that a sender of `Content-Encoding: zstd` may use is 8 MB.
const MAX_WINDOW_LOG: u32 = 23;
/// The same in bytes.
pub const MAX_WINDOW_BYTES: usize = 1 << MAX_WINDOW_LOG;

/// What a decoder needs beside its window, about.
const STATE_BYTES: usize = 256 << 10;

/// How much memory a body of so many decoded bytes takes at most while it is decoded.
pub(super) fn memory(decoded_bytes: usize) -> usize {
    decoded_bytes.saturating_add(decoded_bytes.min(MAX_WINDOW_BYTES)).saturating_add(STATE_BYTES)
}

/// How many decoded bytes of those that are wanted fit into a memory.
pub(super) fn most_decoded(wanted_bytes: usize, memory_bytes: u32) -> usize {
    let room = usize::try_from(memory_bytes).unwrap_or(usize::MAX).saturating_sub(STATE_BYTES);
    wanted_bytes.min((room / 2).max(room.saturating_sub(MAX_WINDOW_BYTES)))
}

/// So much is decoded at a time, so that a piece that expands as much as gzip can (1,032 times) makes 4 MiB.
pub const PIECE_BYTES: usize = 4 << 10;
const PART_BYTES: usize = 64 << 10;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// One gzip member or several.
    Gzip,
    /// One zstd frame or several.
    Zstd,
}

impl Coding {
    /// The coding of a name, if it is taken.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            // RFC 9110, 8.4.1.3: x-gzip is the same.
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Undecodable {
    /// It is not what its coding says, or ends early.
    #[error("the {} body cannot be decoded: {detail}", .coding.name())]
    Damaged {
        /// What it should be.
        coding: Coding,
        /// What is wrong.
        detail: String,
    },
    /// It decodes to far more than events do.
    #[error("the {} body decodes to more than {MAX_RATIO} times its size", .coding.name())]
    Bomb {
        /// What it is.
        coding: Coding,
    },
}

/// Decodes one body.
pub struct Decoder {
    inner: Inner,
    taken: u64,
    made: u64,
}

enum Inner {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd(Box<Zstd>),
}

struct Zstd {
    context: DCtx<'static>,
    part: Vec<u8>,
    /// Whether the last frame is whole.
    whole: bool,
}

impl Decoder {
    /// A decoder for one body.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(coding: Coding) -> Result<Self, Undecodable> {
        let inner = match coding {
            Coding::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Coding::Zstd => Inner::Zstd(Box::new(Zstd::new()?)),
        };
        Ok(Self { inner, taken: 0, made: 0 })
    }

    /// About how much memory it holds.
    pub fn bytes(&self) -> usize {
        match &self.inner {
            Inner::Gzip(_) => STATE_BYTES,
            // The window is touched as it fills.
            Inner::Zstd(_) => STATE_BYTES + usize::try_from(self.made).unwrap_or(usize::MAX).min(MAX_WINDOW_BYTES),
        }
    }

    /// Decodes the next piece, of at most [`PIECE_BYTES`], and gives what it makes to `take`, part by part.
    ///
    /// # Errors
    /// What is wrong with the piece, or why `take` wants no more. The decoder is of no use then.
    pub fn push<E: From<Undecodable>>(&mut self, piece: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.taken += piece.len() as u64;
        let most = FREE_BYTES.max(self.taken.saturating_mul(MAX_RATIO));
        let (coding, made) = (self.coding(), &mut self.made);
        let mut counted = |part: &[u8]| {
            *made += part.len() as u64;
            if *made > most { Err(Undecodable::Bomb { coding }.into()) } else { take(part) }
        };
        match &mut self.inner {
            Inner::Gzip(gzip) => {
                let written = gzip.write_all(piece).and_then(|()| gzip.flush());
                // What came before a fault does not matter: the body is refused.
                written.map_err(|error| damaged(coding, error.to_string()))?;
                let part = std::mem::take(gzip.get_mut());
                if part.is_empty() { Ok(()) } else { counted(&part) }
            }
            Inner::Zstd(zstd) => zstd.push(piece, &mut counted),
        }
    }

    /// Whether the body may end here.
    ///
    /// # Errors
    /// If it ends early.
    pub fn finish(&mut self) -> Result<(), Undecodable> {
        let coding = self.coding();
        let whole = match &mut self.inner {
            Inner::Gzip(gzip) => gzip.try_finish().is_ok(),
            Inner::Zstd(zstd) => zstd.whole,
        };
        if whole { Ok(()) } else { Err(damaged(coding, "it ends early, or its checksum is wrong".to_owned())) }
    }

    const fn coding(&self) -> Coding {
        match self.inner {
            Inner::Gzip(_) => Coding::Gzip,
            Inner::Zstd(_) => Coding::Zstd,
        }
    }
}

impl Zstd {
    fn new() -> Result<Self, Undecodable> {
        let mut context = DCtx::try_create().ok_or_else(|| damaged(Coding::Zstd, "there is no memory for it".to_owned()))?;
        context.init().and_then(|_| context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))).map_err(fault)?;
        Ok(Self { context, part: vec![0; PART_BYTES], whole: false })
    }

    fn push<E: From<Undecodable>>(&mut self, piece: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            loop {
                let mut output = OutBuffer::around(self.part.as_mut_slice());
                let hint = self.context.decompress_stream(&mut output, &mut input).map_err(fault)?;
                let made = output.pos();
                self.whole = hint == 0;
                if made > 0 {
                    take(self.part.get(..made).unwrap_or_default())?;
                }
                // A full part may have more behind it.
                if made < PART_BYTES || self.whole {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn fault(code: usize) -> Undecodable {
    damaged(Coding::Zstd, get_error_name(code).to_lowercase())
}

const fn damaged(coding: Coding, detail: String) -> Undecodable {
    Undecodable::Damaged { coding, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn encoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => gzip(bytes),
            Coding::Zstd => zstd(bytes),
        }
    }

    /// The decoded bytes, or how many were made before the fault.
    fn decoded(coding: Coding, body: &[u8], piece_bytes: usize) -> Result<Vec<u8>, (Undecodable, usize)> {
        let mut decoder = Decoder::new(coding).unwrap();
        let mut made = Vec::new();
        for piece in body.chunks(piece_bytes) {
            let pushed = decoder.push::<Undecodable>(piece, &mut |part| {
                made.extend_from_slice(part);
                Ok(())
            });
            pushed.map_err(|error| (error, made.len()))?;
        }
        decoder.finish().map_err(|error| (error, made.len()))?;
        Ok(made)
    }

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

    #[test]
    fn a_bomb_is_broken_off_soon_after_it_shows() {
        for coding in BOTH {
            let bomb = encoded(coding, &vec![b' '; 64 << 20]);
            let (error, made) = decoded(coding, &bomb, PIECE_BYTES).unwrap_err();
            assert_eq!(error, Undecodable::Bomb { coding });
            assert!(made <= 1 << 20, "{coding:?}: {made}");
        }
    }

    #[test]
    fn what_events_compress_to_is_no_bomb() {
        let line = |i: usize| format!("{{\"event_id\":\"{i}\",\"video_id\":\"v\",\"ts\":{}}}\n", 1_763_642_096_789 + i);
        let body: String = (0..100_000).map(line).collect();
        for coding in BOTH {
            assert!(decoded(coding, &encoded(coding, body.as_bytes()), PIECE_BYTES).unwrap() == body.as_bytes(), "{coding:?}");
        }
    }

    #[test]
    fn a_last_piece_that_makes_many_parts_makes_all_of_them() {
        let body = vec![b' '; 10 * PART_BYTES + 1];
        for coding in BOTH {
            assert!(decoded(coding, &encoded(coding, &body), PIECE_BYTES).unwrap() == body, "{coding:?}");
        }
    }

    #[test]
    fn a_body_that_is_cut_damaged_empty_or_followed_by_more_is_none() {
        for coding in BOTH {
            let whole = encoded(coding, b"{\"event_id\":\"e\"}");
            for len in 0..whole.len() {
                assert!(matches!(decoded(coding, &whole[..len], PIECE_BYTES), Err((Undecodable::Damaged { .. }, _))), "{coding:?} {len}");
            }
            assert!(decoded(coding, &[&whole[..], b"more"].concat(), PIECE_BYTES).is_err());
            assert_eq!(decoded(coding, &[&whole[..], &whole[..]].concat(), 1).unwrap().len(), 32, "several of them are one body");
            assert!(decoded(coding, b"{\"event_id\":\"e\"}", PIECE_BYTES).is_err(), "it is not compressed at all");
        }
        let mut wrong = gzip(b"abc");
        let at = wrong.len() - 5;
        wrong[at] ^= 1;
        assert!(decoded(Coding::Gzip, &wrong, PIECE_BYTES).is_err(), "the checksum tells");
    }

    #[test]
    fn a_window_beyond_eight_megabytes_is_refused() {
        let with_window = |log: u32| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(log)).unwrap();
            encoder.write_all(b"small").unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(decoded(Coding::Zstd, &with_window(23), PIECE_BYTES).unwrap(), b"small");
        assert!(decoded(Coding::Zstd, &with_window(24), PIECE_BYTES).is_err());
    }

    #[test]
    fn the_longest_body_fits_into_the_memory_that_it_is_decoded_in() {
        for (wanted, memory_mib, most) in
            [(8 << 20, 64, 8 << 20), (64 << 20, 64, (56 << 20) - STATE_BYTES), (8 << 20, 8, (4 << 20) - STATE_BYTES / 2)]
        {
            let found = most_decoded(wanted, memory_mib << 20);
            assert_eq!(found, most);
            assert!(memory(found) <= (memory_mib as usize) << 20);
        }
    }

    #[test]
    fn names_have_no_case_and_what_is_unknown_is_none() {
        assert_eq!(
            ["GZip", "x-gzip", "ZSTD", "br", "", "gzip, gzip", "deflate"].map(Coding::named),
            [Some(Coding::Gzip), Some(Coding::Gzip), Some(Coding::Zstd), None, None, None, None]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_come_out_as_they_went_in_in_pieces_of_any_size(bytes in proptest::collection::vec(any::<u8>(), 0..200_000), piece in 1usize..5_000) {
            for coding in BOTH {
                prop_assert_eq!(decoded(coding, &encoded(coding, &bytes), piece).unwrap(), &bytes[..]);
            }
        }

        #[test]
        fn any_damage_is_an_error_or_other_bytes_and_never_a_panic(at in any::<proptest::sample::Index>(), bit in 0u8..8, junk in proptest::collection::vec(any::<u8>(), 0..100)) {
            for coding in BOTH {
                let mut body = encoded(coding, b"some text, some text, some other text");
                let at = at.index(body.len());
                body[at] ^= 1_u8 << bit;
                let _ = decoded(coding, &body, 7);
                let _ = decoded(coding, &junk, 7);
            }
        }
    }
}
