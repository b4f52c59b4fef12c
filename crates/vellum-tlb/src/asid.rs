//! Address-space identifiers: which tag a space's translations carry, and what to forget before a
//! CPU uses it.
//!
//! ```text
//!   Slots: per CPU (x86)                         Global: one for all CPUs (Arm, RISC-V)
//!
//!   CPU 0  [1: A, 7] [2: C, 3] [3: -   ]         generation 5   1: A   2: B   3: -  ...
//!   CPU 1  [1: B, 2] [2: A, 9] [3: C, 3]         CPU 0 runs A, CPU 1 runs B; all used up:
//!           tag  |   space, generation of          generation 6   1: A   2: B (reserved), the others
//!                    its changes seen              are free again, and each CPU forgets all, once
//! ```
//!
//! With [`Slots`] a tag means something on one CPU only, so a handful are enough, and each remembers
//! which changes of the space this CPU has seen: a space that comes back unchanged needs no flush. With
//! [`Global`] the tag of a space is the same everywhere, as broadcast invalidations need it, and
//! [`Recent`] remembers per CPU what was seen of which. Both answer with a [`Load`].
//!
//! # Invariants
//!
//! - On one CPU, two spaces have the same tag only if everything of that tag is flushed in between.
//! - A load that says [`Stale::Nothing`] brings back tags that this CPU has used for no other space,
//!   and for which it has seen every change up to the generation that the load was asked for.
//!
//! Sources: Intel SDM vol. 3A, 5.10.1 and 5.10.4; Arm ARM (DDI 0487) D8.16 "ASIDs"; RISC-V
//! Privileged Architecture, 10.2.1 and 12.1.11.

mod global;
mod recent;
mod slots;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use global::{AsidTag, Global, TooFew};
pub use recent::Recent;
pub use slots::Slots;

use core::num::NonZeroU64;
use vellum_core::Asid;

/// A space, as the CPUs know it: a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub(crate) NonZeroU64);

impl SpaceId {
    /// The number itself, from 1.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

/// The identifiers that hardware tags a space's translations with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    /// That of the root with the whole kernel in it; the only one without kernel page-table
    /// isolation.
    pub kernel: Asid,
    /// That of the root that user code runs on, with page-table isolation.
    pub user: Option<Asid>,
}

/// What a CPU has to forget before it uses the tags of a [`Load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stale {
    /// Nothing: what it has cached is right. (x86: CR3 with bit 63 set.)
    Nothing,
    /// All that carries the tags: with a pair, both, before [`switch`](crate::Shootdown::switch)'s `load`
    /// returns, since the next load may say [`Nothing`](Self::Nothing) of both. (x86: CR3 with bit 63
    /// clear for the root that is loaded, INVPCID for the other tag; without INVPCID, everything.)
    Tags,
    /// All that it has cached, of every tag; global translations may stay.
    All,
}

/// How a space is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is stale has to be flushed before the tags are used"]
pub struct Load {
    /// The tags to load it with.
    pub tags: Tags,
    /// What to forget first, or in the same step.
    pub stale: Stale,
}

/// A switch, as the policies see it: which changes of the space to load count, and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The space to load.
    pub space: SpaceId,
    /// The generation of its changes that this CPU must have seen before it runs on it.
    pub generation: u64,
    /// The space whose root is loaded now, and the generation that was seen of that. The same space
    /// if a CPU comes back that only ran in the kernel meanwhile: then nothing need be loaded.
    pub left: Option<(SpaceId, u64)>,
}
