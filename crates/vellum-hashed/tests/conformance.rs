//! The suite that every page table passes.

use vellum_core::{OutOfFrames, Ref};
use vellum_hashed::{Asid, Chained, Clustered, Cuckoo, Htab, Line8, Space, Tsb, TsbBuffer};
use vellum_radix::{Radix, Walker, X86_64};
use vellum_testkit::checker::Hardware;
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

/// Chains behind a buffer.
struct BufferedChains;

impl Design for BufferedChains {
    type Shared<'a> = Chained<&'a Arena>;
    type Table<'s> = Tsb<Space<'s, Chained<&'s Arena>>, &'s Arena>;

    fn shared(arena: &Arena) -> Result<Chained<&Arena>, OutOfFrames> {
        Chained::new(arena)
    }

    fn table<'s>(shared: &'s Chained<&Arena>, space: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        let buffer = TsbBuffer::new(*shared.memory(), 0)?;
        Ok(Tsb::new(Chains::table(shared, space)?, buffer))
    }
}

conformance!(chained_tsb: super::BufferedChains);

/// A radix table behind a buffer.
struct BufferedRadix;

impl Design for BufferedRadix {
    type Shared<'a> = &'a Arena;
    type Table<'s> = Tsb<Radix<X86_64<4>, &'s Arena>, &'s Arena>;

    fn shared(arena: &Arena) -> Result<&Arena, OutOfFrames> {
        Ok(arena)
    }

    fn table<'s>(arena: &'s &Arena, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        let buffer = TsbBuffer::new(*arena, 0)?;
        Ok(Tsb::new(Radix::new(*arena)?, buffer))
    }

    /// What may be cached of the nodes does not go when the buffer answers for a while.
    fn hardware<'s>(arena: &'s &Arena, table: &Self::Table<'s>) -> Option<Hardware<'s>> {
        // SAFETY: the arena reaches every frame of its own, and tables change their words through
        // atomics, in this thread.
        let walker = unsafe {
            Walker::<X86_64<4>, _, _>::new(table.table().root(), *arena, |pa| arena.is_in_use(pa))
        };
        Some(Box::new(move |va, sink| match walker.walk(va, &mut |r: Ref| sink(r)) {
            Ok(item) => item.span,
            Err(e) => panic!("{e}"),
        }))
    }
}

conformance!(radix4_tsb: super::BufferedRadix);
/// Lines in open addressing, in one order or the other.
struct Lines<const ROBIN_HOOD: bool>;

impl<const ROBIN_HOOD: bool> Design for Lines<ROBIN_HOOD> {
    type Shared<'a> = Line8<&'a Arena, ROBIN_HOOD>;
    type Table<'s> = Space<'s, Line8<&'s Arena, ROBIN_HOOD>>;

    fn shared(arena: &Arena) -> Result<Line8<&Arena, ROBIN_HOOD>, OutOfFrames> {
        Line8::new(arena)
    }

    fn table<'s>(
        shared: &'s Line8<&Arena, ROBIN_HOOD>,
        space: u16,
    ) -> Result<Self::Table<'s>, OutOfFrames> {
        Ok(shared.space(Asid::new(space).expect("a small number")).expect("a new number"))
    }
}

conformance!(line8: super::Lines<false>);
conformance!(line8_robin_hood: super::Lines<true>);
