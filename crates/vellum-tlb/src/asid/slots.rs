//! [`Slots`]: a handful of tags of one CPU, each of which remembers its space and what was seen of it.
//!
//! ```text
//!   bits = 12, paired:      slot 0          slot 1          slot 2
//!     kernel tag               1               2               3          0: nobody's, for roots
//!     user tag             0x801           0x802           0x803             without a space
//!     remembers         (space, seen)   (space, seen)       empty
//!
//!   bits = 0: one slot, tag 0: the same space again needs no flush, any other does
//! ```
//!
//! A slot that is taken over is flushed, whoever had it: so a space that ended needs no farewell,
//! and the number of spaces has no limit.
//!
//! # Invariants
//!
//! - No two slots have the same space.
//! - What this CPU has cached with a slot's tags is of the slot's space, and right up to `seen`.

use super::{Load, SpaceId, Stale, Tags, Turn};
use vellum_core::Asid;

#[derive(Clone, Copy, Debug)]
struct Slot {
    space: Option<SpaceId>,
    seen: u64,
    /// When it was last loaded, in loads.
    used: u64,
}

/// The tags of one CPU: at most `K` spaces keep what they have cached here. Six are plenty: a CPU
/// goes round among few spaces, and each further slot only makes a flush of all of them dearer.
#[derive(Clone, Debug)]
pub struct Slots<const K: usize = 6> {
    slots: [Slot; K],
    /// How many of them there are tags for.
    usable: usize,
    /// Slot 0 has this one.
    first: u16,
    /// The bit that tells a user tag from its kernel tag.
    user: Option<u16>,
    loads: u64,
}

impl<const K: usize> Slots<K> {
    /// Tags of `bits` bits (0 to 16; x86: 12 with PCIDs, 0 without); with `paired`, the highest bit
    /// tells the user root's from the kernel root's. `K` of 0 does not compile.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the exponent is at most 16, and the result fits"
    )]
    pub const fn new(bits: u8, paired: bool) -> Self {
        const { assert!(K > 0, "a CPU that has no slot cannot load a space") };
        let bits = if bits > 16 { 16 } else { bits };
        let paired = paired && bits > 0;
        let own = bits - paired as u8;
        // 0 is left out, and 65535, which is no identifier.
        let tags = ((1_u32 << own) as usize).saturating_sub(if own == 16 { 2 } else { 1 });
        let usable = if tags < K { tags } else { K };
        Self {
            slots: [Slot { space: None, seen: 0, used: 0 }; K],
            usable: if usable == 0 { 1 } else { usable },
            first: (usable > 0) as u16,
            user: if paired { Some(1 << own) } else { None },
            loads: 0,
        }
    }

    /// The tags for a space, and whether they are stale. O(K).
    pub fn load(&mut self, turn: Turn) -> Load {
        self.note(turn.left);
        self.loads += 1;
        let found = self.position(turn.space);
        let index = found.unwrap_or_else(|| self.victim());
        let tags = self.tags(index);
        let mut stale = Stale::Tags;
        if let Some(slot) = self.slots.get_mut(index) {
            if found.is_some() && slot.seen >= turn.generation {
                stale = Stale::Nothing;
            }
            let seen = turn.generation.max(if found.is_some() { slot.seen } else { 0 });
            *slot = Slot { space: Some(turn.space), seen, used: self.loads };
        }
        Load { tags, stale }
    }

    /// Forgets which spaces the tags belong to: whoever comes next is flushed. For a CPU that was
    /// off, or whose root somebody else has loaded with tags of these.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.space = None;
        }
    }

    /// How many spaces can have tags at once.
    #[must_use]
    pub const fn usable(&self) -> usize {
        self.usable
    }

    /// What the space that is left has seen meanwhile counts when it comes back.
    fn note(&mut self, left: Option<(SpaceId, u64)>) {
        let Some((space, seen)) = left else { return };
        if let Some(slot) = self.position(space).and_then(|index| self.slots.get_mut(index)) {
            slot.seen = slot.seen.max(seen);
        }
    }

    fn position(&self, space: SpaceId) -> Option<usize> {
        self.slots.iter().take(self.usable).position(|slot| slot.space == Some(space))
    }

    /// An empty slot, or the one that was not loaded for longest.
    fn victim(&self) -> usize {
        let slots = self.slots.iter().take(self.usable).enumerate();
        let key = |slot: &Slot| (slot.space.is_some(), slot.used);
        slots.min_by_key(|(_, slot)| key(slot)).map_or(0, |(index, _)| index)
    }

    #[allow(clippy::cast_possible_truncation, reason = "there are at most 65534 slots in use")]
    fn tags(&self, index: usize) -> Tags {
        let tag = self.first + index as u16;
        Tags {
            kernel: Asid::new(tag).unwrap_or(Asid::ZERO),
            user: self.user.and_then(|bit| Asid::new(tag | bit)),
        }
    }
}
