//! The suite that every page table passes.

use vellum_core::OutOfFrames;
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
        Inverted::new(arena, arena.first(), 16)
    }

    fn table<'s>(shared: &'s Inverted<&Arena>, space: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

conformance!(inverted: super::Frames);
conformance!(aliases: super::Aliases);
