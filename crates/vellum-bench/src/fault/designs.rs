//! The designs that are measured, over the machine of `ram`.
//!
//! ```text
//!   radix4        the yardstick: what the processor walks
//!   chained       a node a page
//!   clustered16   a node for each 16 pages
//! ```

use super::ram::{Machine, Zone};
use vellum_core::{OutOfFrames, PageTable};
use vellum_fault::host::NoTlb;
use vellum_fault::{Engine, Mmu};
use vellum_hashed::{Asid, Chained, Clustered16, Space};
use vellum_radix::{Radix, X86_64};

/// One of them.
pub(crate) trait Design {
    const NAME: &'static str;
    /// What all spaces have in common.
    type Shared: Sync;
    type Table<'s>: PageTable + Send + Sync;

    fn shared() -> Result<Self::Shared, OutOfFrames>;
    fn table(shared: &Self::Shared, space: u16) -> Option<Self::Table<'_>>;
}

/// The system of a design.
pub(crate) type SystemOf<'s, D> = Machine<<D as Design>::Table<'s>>;

/// The translations of a new space.
pub(crate) fn mmu<'e, 's, D: Design>(
    engine: &'e Engine<SystemOf<'s, D>>,
    shared: &'s D::Shared,
    space: u16,
) -> Mmu<'e, SystemOf<'s, D>> {
    let table = D::table(shared, space).expect("RAM is large enough, and the number free");
    // SAFETY: no CPU caches anything; the table is new, and over the one memory that there is.
    unsafe { engine.mmu(table, NoTlb) }
}

pub(crate) struct Hierarchy;

impl Design for Hierarchy {
    const NAME: &'static str = "radix4";
    type Shared = ();
    type Table<'s> = Radix<X86_64<4>, Zone>;

    fn shared() -> Result<(), OutOfFrames> {
        Ok(())
    }

    fn table((): &(), _: u16) -> Option<Self::Table<'_>> {
        Radix::new(Zone).ok()
    }
}

macro_rules! hashed {
    ($design:ident, $name:literal, $store:ty) => {
        pub(crate) struct $design;

        impl Design for $design {
            const NAME: &'static str = $name;
            type Shared = $store;
            type Table<'s> = Space<'s, $store>;

            fn shared() -> Result<$store, OutOfFrames> {
                <$store>::new(Zone)
            }

            fn table(shared: &$store, space: u16) -> Option<Self::Table<'_>> {
                shared.space(Asid::new(space)?).ok()
            }
        }
    };
}

hashed!(Chains, "chained", Chained<Zone>);
hashed!(Clusters, "clustered16", Clustered16<Zone>);

/// What is done with a design.
pub(crate) trait Visit {
    fn visit<D: Design>(&mut self);
}

/// Their names; the first is the yardstick.
pub(crate) const NAMES: [&str; 3] = [Hierarchy::NAME, Chains::NAME, Clusters::NAME];

/// Calls `visit` with the design of this name.
pub(crate) fn with_design(name: &str, visit: &mut impl Visit) {
    match name {
        Hierarchy::NAME => visit.visit::<Hierarchy>(),
        Chains::NAME => visit.visit::<Chains>(),
        _ => visit.visit::<Clusters>(),
    }
}
