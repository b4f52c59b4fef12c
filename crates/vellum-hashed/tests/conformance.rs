//! The suite that every page table passes.

use vellum_core::OutOfFrames;
use vellum_hashed::{Asid, Chained, Clustered, Cuckoo, Htab, Space};
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

/// Blocks of pages; 16, or a line.
struct Blocks<const PAGES: usize>;

impl<const PAGES: usize> Design for Blocks<PAGES> {
    type Shared<'a> = Clustered<&'a Arena, PAGES>;
    type Table<'s> = Space<'s, Clustered<&'s Arena, PAGES>>;

    fn shared(arena: &Arena) -> Result<Clustered<&Arena, PAGES>, OutOfFrames> {
        Clustered::new(arena)
    }

    fn table<'s>(
        shared: &'s Clustered<&Arena, PAGES>,
        space: u16,
    ) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

conformance!(clustered_16: super::Blocks<16>);
conformance!(clustered_6: super::Blocks<6>);

/// Lines in three ways.
struct Ways;

impl Design for Ways {
    type Shared<'a> = Cuckoo<&'a Arena>;
    type Table<'s> = Space<'s, Cuckoo<&'s Arena>>;

    fn shared(arena: &Arena) -> Result<Cuckoo<&Arena>, OutOfFrames> {
        Cuckoo::new(arena)
    }

    fn table<'s>(shared: &'s Cuckoo<&Arena>, space: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

conformance!(cuckoo: super::Ways);

/// PowerPC's groups of eight.
struct Groups;

impl Design for Groups {
    type Shared<'a> = Htab<&'a Arena>;
    type Table<'s> = Space<'s, Htab<&'s Arena>>;

    fn shared(arena: &Arena) -> Result<Htab<&Arena>, OutOfFrames> {
        Htab::new(arena)
    }

    fn table<'s>(shared: &'s Htab<&Arena>, space: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

conformance!(htab: super::Groups);
