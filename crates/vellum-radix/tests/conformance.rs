//! Every format of the crate, held to the promises of every page table.

use vellum_core::{Attr, MemoryType, OutOfFrames};
use vellum_radix::format::node_order;
use vellum_radix::{AArch64, Flat, Format, LoongArch64, Radix, X86_64};
use vellum_testkit::{Arena, Design};

/// What the leaves of some formats can say: from the manuals, not from the code.
trait Words {
    const TYPES: &'static [MemoryType];
    const HAS_KEYS: bool;
}

struct X86;
struct Arm;
struct Loongson;

impl Words for X86 {
    const TYPES: &'static [MemoryType] = &[
        MemoryType::WriteBack,
        MemoryType::WriteThrough,
        MemoryType::UncachedMinus,
        MemoryType::Uncached,
        MemoryType::WriteCombining,
        MemoryType::WriteProtect,
    ];
    const HAS_KEYS: bool = true;
}

impl Words for Arm {
    const TYPES: &'static [MemoryType] = &[
        MemoryType::WriteBack,
        MemoryType::WriteThrough,
        MemoryType::Uncached,
        MemoryType::WriteCombining,
    ];
    const HAS_KEYS: bool = false;
}

impl Words for Loongson {
    const TYPES: &'static [MemoryType] =
        &[MemoryType::WriteBack, MemoryType::Uncached, MemoryType::WriteCombining];
    const HAS_KEYS: bool = false;
}

/// A table a space, of format `F`, whose leaves say what `W` does.
struct Of<F, W = X86>(F, W);

impl<F: Format, W: Words> Design for Of<F, W> {
    type Shared<'a> = &'a Arena;
    type Table<'s> = Radix<F, &'s Arena>;

    /// Room for two roots, and as much again; below a root, for as many nodes whatever their size.
    const FRAMES: usize = {
        let lowest = F::LEVELS.len() - 1;
        let order = if lowest > 0 { node_order::<F>(lowest) } else { 0 };
        max((1 << 12) << order, 4 << node_order::<F>(0))
    };

    fn shared(arena: &Arena) -> Result<&Arena, OutOfFrames> {
        Ok(arena)
    }

    fn table<'s>(arena: &'s &Arena, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Radix::new(*arena)
    }

    fn encodes(attr: Attr) -> bool {
        let rights = attr.contains(Attr::READ) || !attr.intersects(Attr::WRITE | Attr::EXEC);
        let memory = attr.memory().is_some_and(|memory| W::TYPES.contains(&memory));
        rights && memory && (W::HAS_KEYS || attr.key() == 0)
    }

    fn portable(attr: Attr) -> Attr {
        let attr = if W::HAS_KEYS { attr } else { attr.with_key(0) };
        match attr.memory() {
            Some(memory) if W::TYPES.contains(&memory) => attr,
            // Both are not cached.
            Some(MemoryType::UncachedMinus) => attr.with_memory(MemoryType::Uncached),
            Some(_) => attr.with_memory(MemoryType::WriteBack),
            None => attr,
        }
    }
}

vellum_testkit::conformance!(radix4: Of<X86_64<4>>);
vellum_testkit::conformance!(radix5: Of<X86_64<5>>);
#[cfg(not(miri))] // a million entries are more than an interpreter visits
vellum_testkit::conformance!(flat32: Of<Flat<32>>);
// The same format over a space that fits an interpreter.
vellum_testkit::conformance!(flat24: Of<Flat<24>>);

vellum_testkit::conformance!(aarch64_4k: Of<AArch64<12, 48>, Arm>);
vellum_testkit::conformance!(loongarch64_4k: Of<LoongArch64<12>, Loongson>);

/// The same paths of the walker, over other shapes: not again in an interpreter, where nodes of 64
/// KiB take minutes.
#[cfg(not(miri))]
mod other_shapes {
    use super::*;

    vellum_testkit::conformance!(aarch64_4k_39_bits: Of<AArch64<12, 39>, Arm>);
    vellum_testkit::conformance!(aarch64_4k_36_bits: Of<AArch64<12, 36>, Arm>);
    vellum_testkit::conformance!(aarch64_4k_both_halves: Of<AArch64<12, 48, 2>, Arm>);
    vellum_testkit::conformance!(aarch64_16k: Of<AArch64<14, 48>, Arm>);
    vellum_testkit::conformance!(aarch64_16k_36_bits: Of<AArch64<14, 36>, Arm>);
    vellum_testkit::conformance!(aarch64_64k: Of<AArch64<16, 48>, Arm>);
    vellum_testkit::conformance!(aarch64_64k_both_halves: Of<AArch64<16, 48, 2>, Arm>);
    vellum_testkit::conformance!(loongarch64_16k: Of<LoongArch64<14>, Loongson>);
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
