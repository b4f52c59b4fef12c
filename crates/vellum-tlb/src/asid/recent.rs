//! [`Recent`]: what one CPU has seen of the spaces whose tags it used lately, where tags are the same
//! on all CPUs.
//!
//! ```text
//!   tag modulo K     0           1           2         3
//!                 (A, 17)       -         (C, 4)       -
//!                    |          |
//!                    |          nothing was cached since the last flush of all: nothing to forget
//!                    another space's tag belongs here: it may have something cached, and is flushed
//! ```
//!
//! It is a memory, not the truth: who is not found is flushed once too often.

use super::{Load, SpaceId, Stale, Tags, Turn};
use vellum_core::Asid;

#[derive(Clone, Copy, Debug)]
struct Seen {
    space: SpaceId,
    asid: Asid,
    generation: u64,
}

/// One CPU's memory of `K` spaces. `K` of 0 remembers nothing.
#[derive(Clone, Debug)]
pub struct Recent<const K: usize = 64> {
    seen: [Option<Seen>; K],
    /// Where the space is that was loaded last.
    loaded: usize,
}

impl<const K: usize> Recent<K> {
    /// Of a CPU that has nothing cached, or will flush all at its first load, as
    /// [`Global`](super::Global) demands.
    #[must_use]
    pub const fn new() -> Self {
        Self { seen: [None; K], loaded: 0 }
    }

    /// What a CPU has to forget that is about to use `asid` for the space of `turn`; everything, if
    /// `all`. Constant time, but O(K) with `all`.
    pub(super) fn load(&mut self, asid: Asid, turn: Turn, all: bool) -> Load {
        self.note(turn.left);
        if all {
            self.seen = [None; K];
        }
        let index = usize::from(asid.as_u16()).checked_rem(K).unwrap_or(0);
        let mut generation = turn.generation;
        let stale = match self.seen.get(index) {
            _ if all => Stale::All,
            Some(None) => Stale::Nothing,
            Some(Some(seen)) if seen.space == turn.space && seen.asid == asid => {
                generation = generation.max(seen.generation);
                if seen.generation >= turn.generation { Stale::Nothing } else { Stale::Tags }
            }
            _ => Stale::Tags,
        };
        if let Some(slot) = self.seen.get_mut(index) {
            *slot = Some(Seen { space: turn.space, asid, generation });
            self.loaded = index;
        }
        Load { tags: Tags { kernel: asid, user: None }, stale }
    }

    fn note(&mut self, left: Option<(SpaceId, u64)>) {
        if let (Some((space, generation)), Some(Some(seen))) =
            (left, self.seen.get_mut(self.loaded))
        {
            if seen.space == space {
                seen.generation = seen.generation.max(generation);
            }
        }
    }
}

impl<const K: usize> Default for Recent<K> {
    fn default() -> Self {
        Self::new()
    }
}
