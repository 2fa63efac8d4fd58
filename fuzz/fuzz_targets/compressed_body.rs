//! Any bytes are decoded or refused, within what a body may decode to, and in pieces of any size alike.
#![no_main]

use ingest::collect::coding::{Coding, Decoder, MAX_RATIO, PIECE_BYTES, Undecodable};
use libfuzzer_sys::fuzz_target;

/// Below this the ratio does not matter.
const FREE_BYTES: usize = 1 << 20;

fn decoded(coding: Coding, bytes: &[u8], piece_bytes: usize) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(coding).expect("there is memory");
    let mut made = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        let pushed = decoder.push::<Undecodable>(piece, &mut |part| {
            made.extend_from_slice(part);
            Ok(())
        });
        assert!(made.len() <= FREE_BYTES.max(bytes.len() * MAX_RATIO as usize));
        pushed.ok()?;
    }
    decoder.finish().ok().map(|()| made)
}

fuzz_target!(|bytes: &[u8]| {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let whole = decoded(coding, bytes, PIECE_BYTES);
        // A bomb may be seen earlier or later, and nothing else depends on the pieces.
        if let (Some(whole), Some(by_three)) = (&whole, decoded(coding, bytes, 3)) {
            assert_eq!(*whole, by_three);
        }
    }
});
