//! What is held of one entity: the pieces of its series that were asked for lately.

use std::mem::size_of;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::chunk::Chunk;
use super::view::View;

/// A piece that nobody asked for in so many epochs (10 minutes) goes when the shelf next changes.
const IDLE_EPOCHS: u32 = 3_000;

/// What an entity costs beyond its pieces, in bytes: the cache's own records of it, the shelf, the key, and what the allocator
/// leaves empty.
///
/// This and [`PIECE_BYTES`] are fitted to what a process grows by, of videos with ten pieces and with four; `cache_rate memory` shows it.
const ENTITY_BYTES: usize = 720;

/// What a piece costs beyond its counts, in bytes: itself, the counts' header (16), and what the allocator rounds up.
const PIECE_BYTES: usize = size_of::<Piece>() + 24;

/// The counts of one chunk, as they were when they were read.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Of which chunk.
    pub(crate) chunk: Chunk,
    /// In which epoch its reading was asked for.
    pub(crate) epoch: u32,
    /// In which epoch it was last asked for.
    used: u32,
    /// The generation of changes that it holds for certain.
    pub(crate) generation: u64,
    /// The view it was read with, unless the whole chunk was complete by then.
    pub(crate) open: Option<Arc<View>>,
    /// The packed counts.
    pub(crate) packed: Arc<[u8]>,
}

impl Piece {
    /// What was read of a chunk with a view.
    pub(crate) fn new(chunk: Chunk, view: &Arc<View>, packed: Vec<u8>) -> Self {
        let open = (!view.marks.is_complete(chunk.end())).then(|| Arc::clone(view));
        Self { chunk, epoch: view.epoch, used: view.epoch, generation: view.generation, open, packed: packed.into() }
    }

    fn weight(&self) -> usize {
        PIECE_BYTES + self.packed.len()
    }
}

/// The pieces of one entity, by chunk.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pieces: Mutex<Vec<Piece>>,
    weight: AtomicU32,
}

impl Shelf {
    /// About how many bytes it takes.
    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The piece of each of `chunks`, if it is here.
    pub(crate) fn find(&self, chunks: impl IntoIterator<Item = Chunk>, epoch: u32) -> Vec<Option<Piece>> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut find = |chunk: Chunk| {
            let at = pieces.binary_search_by_key(&chunk, |piece| piece.chunk).ok()?;
            let piece = pieces.get_mut(at)?;
            piece.used = piece.used.max(epoch);
            Some(piece.clone())
        };
        chunks.into_iter().map(&mut find).collect()
    }

    /// Takes pieces in, for what was here of their chunks; the shelf then holds at most `bytes_max`, if need be without the pieces
    /// that were not asked for the longest. Says whether its weight has changed enough to be weighed again.
    pub(crate) fn put(&self, new: &[Piece], id_bytes: usize, bytes_max: usize) -> bool {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in new {
            match pieces.binary_search_by_key(&piece.chunk, |held| held.chunk) {
                Ok(at) => pieces.get_mut(at).into_iter().for_each(|held| *held = piece.clone()),
                Err(at) => pieces.insert(at, piece.clone()),
            }
        }
        let epoch = new.iter().map(|piece| piece.epoch).max().unwrap_or_default();
        pieces.retain(|piece| piece.used.saturating_add(IDLE_EPOCHS) >= epoch);
        let weigh = |pieces: &[Piece]| ENTITY_BYTES + id_bytes + pieces.iter().map(Piece::weight).sum::<usize>();
        while weigh(&pieces) > bytes_max && !pieces.is_empty() {
            let mut used: Vec<u32> = pieces.iter().map(|piece| piece.used).collect();
            used.sort_unstable();
            let median = used.get(used.len() / 2).copied().unwrap_or_default();
            let before = pieces.len();
            pieces.retain(|piece| piece.used > median);
            debug_assert!(pieces.len() < before);
        }
        if pieces.capacity() > pieces.len() + 2 {
            pieces.shrink_to_fit();
        }
        let weight = u32::try_from(weigh(&pieces)).unwrap_or(u32::MAX);
        weight.abs_diff(self.weight.swap(weight, Ordering::Relaxed)) > weight / 16
    }
}
