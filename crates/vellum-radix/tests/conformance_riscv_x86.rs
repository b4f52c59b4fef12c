//! RISC-V, 32-bit and flattened x86, and formats chosen at run time, held to the promises of every page
//! table.
//!
//! What the leaves can say is written down here from the manuals, not asked of the code.

use vellum_core::{Attr, Memory, MemoryType, OutOfFrames, PageTable};
use vellum_radix::format::node_order;
use vellum_radix::{Either, Flattened, Format, Radix, RiscV, RiscVAny, Sv32, X86, X86Any, X86Pae};
use vellum_testkit::{Arena, Design};

/// What the leaves of a format can say, and what comes closest to what they cannot.
trait Words {
    fn encodes(attr: Attr) -> bool;
    fn portable(attr: Attr) -> Attr;
}

/// x86 where nothing is missing.
struct X86Words;
/// Of 32 bits: no keys, and no taking away of execution.
struct X86Narrow;
/// PAE: no keys.
struct X86Middle;
/// RISC-V with Svpbmt.
struct RiscVWords;
/// Without it.
struct RiscVBare;

fn rights_of_x86(attr: Attr) -> bool {
    attr.memory().is_some()
        && (attr.contains(Attr::READ) || !attr.intersects(Attr::WRITE | Attr::EXEC))
}

impl Words for X86Words {
    fn encodes(attr: Attr) -> bool {
        rights_of_x86(attr)
    }

    fn portable(attr: Attr) -> Attr {
        attr
    }
}

impl Words for X86Narrow {
    fn encodes(attr: Attr) -> bool {
        let executes = attr.contains(Attr::READ) == attr.contains(Attr::EXEC);
        rights_of_x86(attr) && executes && attr.key() == 0
    }

    fn portable(attr: Attr) -> Attr {
        let execute = if attr.contains(Attr::READ) { Attr::EXEC } else { Attr::NONE };
        attr.with_key(0) | execute
    }
}

impl Words for X86Middle {
    fn encodes(attr: Attr) -> bool {
        rights_of_x86(attr) && attr.key() == 0
    }

    fn portable(attr: Attr) -> Attr {
        attr.with_key(0)
    }
}

fn rights_of_riscv(attr: Attr) -> bool {
    let known = attr.key() == 0 && !attr.contains(Attr::SOFT[2]);
    known && (attr.contains(Attr::READ) || !attr.contains(Attr::WRITE))
}

impl Words for RiscVWords {
    fn encodes(attr: Attr) -> bool {
        let types = [MemoryType::WriteBack, MemoryType::WriteCombining, MemoryType::Uncached];
        rights_of_riscv(attr) && attr.memory().is_some_and(|memory| types.contains(&memory))
    }

    fn portable(attr: Attr) -> Attr {
        let attr = attr.with_key(0) - Attr::SOFT[2];
        match attr.memory() {
            Some(MemoryType::UncachedMinus) => attr.with_memory(MemoryType::Uncached),
            Some(MemoryType::WriteThrough | MemoryType::WriteProtect) => {
                attr.with_memory(MemoryType::WriteBack)
            }
            _ => attr,
        }
    }
}

impl Words for RiscVBare {
    fn encodes(attr: Attr) -> bool {
        rights_of_riscv(attr) && attr.memory() == Some(MemoryType::WriteBack)
    }

    fn portable(attr: Attr) -> Attr {
        (attr.with_key(0) - Attr::SOFT[2]).with_memory(MemoryType::WriteBack)
    }
}

/// RAM for two tables of this format, of which each has nodes in eight places.
const fn frames<F: Format>() -> usize {
    let mut frames = 4 << node_order::<F>(0);
    let mut depth = 1;
    while depth < F::LEVELS.len() {
        frames += 24 << node_order::<F>(depth);
        depth += 1;
    }
    if frames < 1 << 12 { 1 << 12 } else { frames }
}

/// A table a space, of format `F`, whose leaves say what `W` does.
struct Of<F, W>(F, W);

impl<F: Format, W: Words> Design for Of<F, W> {
    type Shared<'a> = &'a Arena;
    type Table<'s> = Radix<F, &'s Arena>;
    const FRAMES: usize = frames::<F>();

    fn shared(arena: &Arena) -> Result<&Arena, OutOfFrames> {
        Ok(arena)
    }

    fn table<'s>(arena: &'s &Arena, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Radix::new(*arena)
    }

    fn encodes(attr: Attr) -> bool {
        W::encodes(attr)
    }

    fn portable(attr: Attr) -> Attr {
        W::portable(attr)
    }
}

/// What is chosen at run time, `BITS` wide.
struct X86Chosen<const BITS: u8>;
struct RiscVChosen<const BITS: u8>;

fn chosen_x86<M: Memory>(mem: M, bits: u8) -> Result<X86Any<M>, OutOfFrames> {
    if bits == 57 { X86Any::five(mem) } else { X86Any::four(mem) }
}

fn chosen_riscv<M: Memory>(mem: M, bits: u8) -> Result<RiscVAny<M>, OutOfFrames> {
    match bits {
        39 => RiscVAny::sv39(mem),
        48 => RiscVAny::sv48(mem),
        _ => RiscVAny::sv57(mem),
    }
}

impl<const BITS: u8> Design for X86Chosen<BITS> {
    type Shared<'a> = &'a Arena;
    type Table<'s> = X86Any<&'s Arena>;

    fn shared(arena: &Arena) -> Result<&Arena, OutOfFrames> {
        Ok(arena)
    }

    fn table<'s>(arena: &'s &Arena, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        chosen_x86(*arena, BITS)
    }
}

impl<const BITS: u8> Design for RiscVChosen<BITS> {
    type Shared<'a> = &'a Arena;
    type Table<'s> = RiscVAny<&'s Arena>;

    fn shared(arena: &Arena) -> Result<&Arena, OutOfFrames> {
        Ok(arena)
    }

    fn table<'s>(arena: &'s &Arena, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        chosen_riscv(*arena, BITS)
    }

    fn encodes(attr: Attr) -> bool {
        RiscVWords::encodes(attr)
    }

    fn portable(attr: Attr) -> Attr {
        RiscVWords::portable(attr)
    }
}

vellum_testkit::conformance!(x86: Of<X86, X86Narrow>);
vellum_testkit::conformance!(x86_pae: Of<X86Pae, X86Middle>);
vellum_testkit::conformance!(sv32: Of<Sv32, RiscVBare>);
vellum_testkit::conformance!(sv39: Of<RiscV<3>, RiscVWords>);
vellum_testkit::conformance!(sv39_without_extensions: Of<RiscV<3, 0>, RiscVBare>);
vellum_testkit::conformance!(sv48: Of<RiscV<4>, RiscVWords>);
vellum_testkit::conformance!(sv57: Of<RiscV<5>, RiscVWords>);
vellum_testkit::conformance!(flattened_above: Of<Flattened<true, false>, X86Words>);
// A node has a quarter of a million entries, more than an interpreter visits.
#[cfg(not(miri))]
vellum_testkit::conformance!(flattened_below: Of<Flattened<false, true>, X86Words>);
#[cfg(not(miri))]
vellum_testkit::conformance!(flattened: Of<Flattened<true, true>, X86Words>);
vellum_testkit::conformance!(x86_64_chosen_4: X86Chosen<48>);
vellum_testkit::conformance!(x86_64_chosen_5: X86Chosen<57>);
vellum_testkit::conformance!(riscv_chosen_39: RiscVChosen<39>);
vellum_testkit::conformance!(riscv_chosen_48: RiscVChosen<48>);

/// The choice is one of space: what is offered in all of them is the same.
#[test]
fn what_is_chosen_is_what_was_asked_for() {
    let arena = Arena::new(64);
    let wide = chosen_x86(&arena, 57).expect("room");
    assert!(matches!(wide, Either::Right(_)) && wide.canonical().bits() == 57);
    let narrow = chosen_riscv(&arena, 39).expect("room");
    assert!(matches!(narrow, Either::Left(_)) && narrow.canonical().bits() == 39);
    vellum_testkit::suite::recording(&vellum_testkit::suite::Recorder::default(), |g| {
        wide.retire(g);
    });
    vellum_testkit::suite::recording(&vellum_testkit::suite::Recorder::default(), |g| {
        narrow.retire(g);
    });
}
