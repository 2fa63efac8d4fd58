//! The changes of cells that wait for their rows: one arena of linked nodes, so that parking a change allocates nothing.

use super::cell::Change;

/// No node.
const NONE: u32 = u32::MAX;

/// A waiting cell's changes, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The load that was asked for this parking, 0 if none was yet; answers to any other do not count.
    pub(crate) ticket: u32,
    first: u32,
    last: u32,
}

impl Waiting {
    pub(crate) const NEW: Self = Self { ticket: 0, first: NONE, last: NONE };
}

struct Node {
    change: Change,
    next: u32,
}

/// All parked changes of a source.
pub(crate) struct Parking {
    nodes: Vec<Node>,
    free: u32,
    len: usize,
}

impl Parking {
    pub(crate) const fn new() -> Self {
        Self { nodes: Vec::new(), free: NONE, len: 0 }
    }

    /// How many changes are parked.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Parks a change behind those that wait already.
    pub(crate) fn push(&mut self, waiting: &mut Waiting, change: Change) {
        if self.nodes.get_mut(waiting.last as usize).is_some_and(|last| last.change.absorb(change)) {
            return;
        }
        let node = Node { change, next: NONE };
        let ix = if let Some(free) = self.nodes.get_mut(self.free as usize) {
            let ix = self.free;
            self.free = free.next;
            *free = node;
            ix
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).unwrap_or(NONE)
        };
        match self.nodes.get_mut(waiting.last as usize) {
            Some(last) => last.next = ix,
            None => waiting.first = ix,
        }
        waiting.last = ix;
        self.len += 1;
    }

    /// Takes the first change of those that wait.
    pub(crate) fn pop(&mut self, waiting: &mut Waiting) -> Option<Change> {
        let node = self.nodes.get_mut(waiting.first as usize)?;
        let (ix, next) = (waiting.first, node.next);
        node.next = self.free;
        self.free = ix;
        waiting.first = next;
        if next == NONE {
            waiting.last = NONE;
        }
        self.len -= 1;
        self.nodes.get(ix as usize).map(|node| node.change)
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Counts, Minute, Offset, Stamp};

    use super::*;
    use crate::fold::cell::Op;

    fn change(offset: u64) -> Change {
        Change { offset: Offset(offset), stamp: Stamp(0), through: Minute::NEVER, op: Op::Add(Counts::VIEW) }
    }

    #[test]
    fn two_cells_park_in_turns_and_each_gets_its_own_back_in_order() {
        let mut parking = Parking::new();
        let (mut a, mut b) = (Waiting::NEW, Waiting::NEW);
        for round in 0..3 {
            for offset in 0..10 {
                parking.push(if offset % 3 == 0 { &mut a } else { &mut b }, change(offset));
            }
            assert_eq!(parking.len(), 10);
            let taken = |parking: &mut Parking, waiting: &mut Waiting| -> Vec<u64> {
                std::iter::from_fn(|| parking.pop(waiting)).map(|change| change.offset.0).collect()
            };
            assert_eq!(taken(&mut parking, &mut a), [0, 3, 6, 9], "round {round}");
            assert_eq!(taken(&mut parking, &mut b), [1, 2, 4, 5, 7, 8]);
            assert_eq!((parking.len(), parking.nodes.len()), (0, 10), "the room is used again");
        }
    }

    #[test]
    fn changes_of_one_record_are_one() {
        let (mut parking, mut waiting) = (Parking::new(), Waiting::NEW);
        parking.push(&mut waiting, change(7));
        parking.push(&mut waiting, change(7));
        assert_eq!(parking.len(), 1);
        assert_eq!(parking.pop(&mut waiting).map(|change| change.op), Some(Op::Add(Counts { gross: 2, valid: 2, engaged: 0 })));
    }
}
