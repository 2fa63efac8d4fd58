//! Reading what is missing: each chunk by one task at a time, for all who wait for it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aggregator::StoreError;
use futures_util::FutureExt;
use schemas::{Entity, Millis};
use tokio::time::timeout;

use super::chunk::Chunk;
use super::shelf::{Piece, Shelf};
use super::view::{View, away};
use super::{Cache, ENTITY_PART, Flight, Gathered, broke_off};

/// A reading that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The readings under way. A request that goes away leaves its own to others: each is a task.
pub(super) type Claims = HashMap<(Entity, Chunk), Flight<Arc<Vec<Piece>>>>;

/// Chunks that a task reads; nobody else does until this is dropped, however the task ends.
struct Claimed {
    cache: Arc<Cache>,
    entity: Entity,
    chunks: Vec<Chunk>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut claims = self.cache.claims.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in &self.chunks {
            claims.remove(&(self.entity.clone(), *chunk));
        }
    }
}

impl Cache {
    /// Finds or reads all pieces. A reading that fails is made up for by what is held, however old.
    pub(super) async fn gather(
        self: &Arc<Self>,
        entity: &Entity,
        gathered: &mut Gathered,
        view: &Arc<View>,
        clock: Millis,
    ) -> Result<(), StoreError> {
        if let Some(shelf) = self.shelves.get(entity) {
            let hits = gathered.take(&shelf, view.epoch, |piece| self.is_usable(piece, view), false);
            self.metrics.hits.inc_by(hits);
        }
        while !gathered.is_complete() {
            let mut failed = None;
            for flight in self.claim(entity, gathered, view, clock) {
                match flight.await {
                    Ok(pieces) => pieces.iter().filter(|piece| self.holds_changes(piece, view)).for_each(|piece| gathered.put(piece)),
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return self.fall_back(entity, gathered, view.epoch).ok_or(error);
            }
        }
        Ok(())
    }

    /// Whether a held piece may serve those who have this view.
    fn is_usable(&self, piece: &Piece, view: &View) -> bool {
        (piece.open.is_none() || piece.epoch >= view.epoch) && self.holds_changes(piece, view)
    }

    /// Whether a piece holds all changes that were announced before the view.
    fn holds_changes(&self, piece: &Piece, view: &View) -> bool {
        piece.generation >= view.generation || self.present().touches.changed(piece.chunk) <= piece.generation
    }

    /// The readings to wait for: those of others who were first, and one of our own for the rest.
    fn claim(self: &Arc<Self>, entity: &Entity, gathered: &mut Gathered, view: &Arc<View>, clock: Millis) -> Vec<Flight<Arc<Vec<Piece>>>> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever reads puts on the shelf before the claim goes: what has landed since we looked is there.
        if let Some(shelf) = self.shelves.get(entity) {
            let landed = gathered.take(&shelf, view.epoch, |piece| self.is_usable(piece, view), false);
            self.metrics.coalesced.inc_by(landed);
        }
        let (mut flights, mut chunks) = (Vec::<Flight<_>>::new(), Vec::new());
        for chunk in gathered.missing() {
            match claims.get(&(entity.clone(), chunk)) {
                None => chunks.push(chunk),
                Some(flight) => {
                    self.metrics.coalesced.inc();
                    if !flights.iter().any(|other| other.ptr_eq(flight)) {
                        flights.push(flight.clone());
                    }
                }
            }
        }
        if !chunks.is_empty() {
            self.metrics.misses.inc_by(u64::try_from(chunks.len()).unwrap_or(u64::MAX));
            let keys: Vec<_> = chunks.iter().map(|chunk| (entity.clone(), *chunk)).collect();
            let flight = self.start_fill(entity.clone(), chunks, view, clock);
            claims.extend(keys.into_iter().map(|key| (key, flight.clone())));
            flights.push(flight);
        }
        flights
    }

    fn start_fill(self: &Arc<Self>, entity: Entity, chunks: Vec<Chunk>, view: &Arc<View>, clock: Millis) -> Flight<Arc<Vec<Piece>>> {
        let (cache, view) = (Arc::clone(self), Arc::clone(view));
        let task = tokio::spawn(async move {
            let claimed = Claimed { cache, entity, chunks };
            claimed.cache.fill(&claimed, &view, clock).await.map(Arc::new)
        });
        task.map(|done| done.unwrap_or_else(|_| Err(broke_off()))).boxed().shared()
    }

    async fn fill(&self, Claimed { entity, chunks, .. }: &Claimed, view: &Arc<View>, clock: Millis) -> Result<Vec<Piece>, StoreError> {
        self.metrics.reads.inc();
        let reader = self.reader();
        let runs = chunks.iter().map(|chunk| chunk.run()).collect();
        let mut is_away = self.away.subscribe();
        let cells = tokio::select! {
            cells = timeout(PATIENCE, reader.cells(entity, runs, &view.marks, clock)) => cells.unwrap_or_else(|_| Err(away()))?,
            _ = is_away.wait_for(|away| *away) => return Err(away()),
        };
        let pieces: Vec<Piece> = chunks.iter().map(|chunk| Piece::new(*chunk, view, chunk.pack(&cells))).collect();
        self.hold(entity, &pieces);
        Ok(pieces)
    }

    fn hold(&self, entity: &Entity, pieces: &[Piece]) {
        let put = |shelf: &Shelf| shelf.put(pieces, entity.id.len(), self.bytes / ENTITY_PART);
        // Filled before it is held: the cache admits by weight.
        let first = || {
            let shelf = Shelf::default();
            put(&shelf);
            Arc::new(shelf)
        };
        let entry = self.shelves.entry_by_ref(entity).or_insert_with(first);
        if !entry.is_fresh() && put(entry.value()) {
            self.shelves.insert(entity.clone(), entry.into_value());
        }
        self.metrics.bytes.set(i64::try_from(self.shelves.weighted_size()).unwrap_or(i64::MAX));
    }
}
