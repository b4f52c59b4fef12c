//! Every format of the crate, held to the promises of every page table.

use vellum_core::OutOfFrames;
use vellum_radix::format::node_order;
use vellum_radix::{Flat, Format, Radix, X86_64};
use vellum_testkit::{Arena, Design};

/// A table a space, of format `F`.
struct Of<F>(F);

impl<F: Format> Design for Of<F> {
    type Shared<'a> = &'a Arena;
    type Table<'s> = Radix<F, &'s Arena>;

    /// Room for two roots, and as much again.
    const FRAMES: usize = max(1 << 12, 4 << node_order::<F>(0));

    fn shared(arena: &Arena) -> Result<&Arena, OutOfFrames> {
        Ok(arena)
    }

    fn table<'s>(arena: &'s &Arena, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Radix::new(*arena)
    }
}

vellum_testkit::conformance!(radix4: Of<X86_64<4>>);
vellum_testkit::conformance!(radix5: Of<X86_64<5>>);
#[cfg(not(miri))] // a million entries are more than an interpreter visits
vellum_testkit::conformance!(flat32: Of<Flat<32>>);
// The same format over a space that fits an interpreter.
vellum_testkit::conformance!(flat24: Of<Flat<24>>);

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
