//! The suite that every page table passes.

use vellum_core::{OutOfFrames, Pfn};
use vellum_inverted::{Asid, Inverted, Space};
use vellum_testkit::{Arena, conformance, suite::Design};

/// Entries for all frames of the arena, so that most leaves have one of their own.
struct Frames;

impl Design for Frames {
    type Shared<'a> = Inverted<&'a Arena>;
    type Table<'s> = Space<'s, Inverted<&'s Arena>>;

    fn shared(arena: &Arena) -> Result<Inverted<&Arena>, OutOfFrames> {
        Inverted::new(arena, arena.first(), arena.count_frames())
    }

    fn table<'s>(shared: &'s Inverted<&Arena>, space: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

/// Entries for none of the frames that are mapped: every leaf is an alias node.
struct Aliases;

impl Design for Aliases {
    type Shared<'a> = Inverted<&'a Arena>;
    type Table<'s> = Space<'s, Inverted<&'s Arena>>;

    fn shared(arena: &Arena) -> Result<Inverted<&Arena>, OutOfFrames> {
        // As many as a leaf of 2 MiB splits into, so that chains stay short.
        Inverted::new(arena, Pfn::new(1 << 39).expect("51 bits"), 512)
    }

    fn table<'s>(shared: &'s Inverted<&Arena>, space: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

conformance!(inverted: super::Frames);
conformance!(aliases: super::Aliases);
