//! The suite that every page table passes.

use vellum_core::OutOfFrames;
use vellum_hashed::{Asid, Chained, Space};
use vellum_testkit::{Arena, conformance, suite::Design};

/// Chains of nodes in a directory that grows.
struct Chains;

impl Design for Chains {
    type Shared<'a> = Chained<&'a Arena>;
    type Table<'s> = Space<'s, Chained<&'s Arena>>;

    fn shared(arena: &Arena) -> Result<Chained<&Arena>, OutOfFrames> {
        Chained::new(arena)
    }

    fn table<'s>(shared: &'s Chained<&Arena>, space: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

conformance!(chained: super::Chains);
