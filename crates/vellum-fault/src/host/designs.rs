//! Every page table of this repository over host RAM, behind one trait: what is generic over
//! [`PageTable`] runs unchanged on each.
//!
//! ```text
//!   Design::Shared     nothing but the RAM, or the one table of all spaces
//!        |
//!        +-- Design::Table, space 1
//!        +-- Design::Table, space 2 ...
//! ```

use super::{HostSystem, NoTlb, Ram};
use crate::engine::Engine;
use crate::mmu::Mmu;
use vellum_core::{OutOfFrames, PageTable};
use vellum_hashed::{Asid, Chained, Clustered, Cuckoo, Htab, Line8, Space};
use vellum_inverted::Inverted;
use vellum_radix::{Radix, X86_64};

/// A design over host RAM.
pub trait Design {
    /// Its name, as `cargo xtask compare` has it.
    const NAME: &'static str;
    /// What the spaces have in common.
    type Shared<'r>;
    /// The table of one space.
    type Table<'s>: PageTable + Send + Sync;

    /// What the spaces have in common.
    ///
    /// # Errors
    ///
    /// Out of RAM.
    fn shared(ram: &Ram) -> Result<Self::Shared<'_>, OutOfFrames>;

    /// An empty table, of the only space with this number.
    ///
    /// # Errors
    ///
    /// Out of RAM, or of numbers.
    fn table<'s>(shared: &'s Self::Shared<'_>, space: u16) -> Result<Self::Table<'s>, OutOfFrames>;
}

/// The system of a design.
pub type SystemOf<'s, D> = HostSystem<'s, <D as Design>::Table<'s>>;

/// The translations of a new space on the host.
pub fn mmu<'e, 's, T: PageTable>(
    engine: &'e Engine<HostSystem<'s, T>>,
    table: T,
) -> Mmu<'e, HostSystem<'s, T>> {
    // SAFETY: the processor caches nothing, so there is nothing to flush; whoever has made the table
    // gives it away, and it is new, or empty at least. Of another memory's table the frames would be
    // others': the host has one RAM a test.
    unsafe { engine.mmu(table, NoTlb) }
}

const NO_NUMBER: OutOfFrames = OutOfFrames { order: 0 };

/// Hierarchical tables of x86-64.
#[derive(Debug)]
pub struct OfLevels<const LEVELS: u8>;

macro_rules! radix {
    ($levels:literal, $name:literal) => {
        impl Design for OfLevels<$levels> {
            const NAME: &'static str = $name;
            type Shared<'r> = &'r Ram;
            type Table<'s> = Radix<X86_64<$levels>, &'s Ram>;

            fn shared(ram: &Ram) -> Result<&Ram, OutOfFrames> {
                Ok(ram)
            }

            fn table<'s>(ram: &'s &Ram, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
                Radix::new(*ram)
            }
        }
    };
}

radix!(4, "radix4");
radix!(5, "radix5");

macro_rules! global {
    ($(#[$doc:meta])* $design:ident, $name:literal, $store:ident<$memory:lifetime $(, $n:literal)?>, $new:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $design;

        impl Design for $design {
            const NAME: &'static str = $name;
            type Shared<'r> = $store<&'r Ram $(, $n)?>;
            type Table<'s> = Space<'s, $store<&'s Ram $(, $n)?>>;

            fn shared(ram: &Ram) -> Result<Self::Shared<'_>, OutOfFrames> {
                $new(ram)
            }

            fn table<'s>(
                shared: &'s Self::Shared<'_>,
                space: u16,
            ) -> Result<Self::Table<'s>, OutOfFrames> {
                let asid = Asid::new(space).ok_or(NO_NUMBER)?;
                shared.space(asid).map_err(|_| NO_NUMBER)
            }
        }
    };
}

global!(
    /// Chains of nodes.
    Chains, "hashed-chained", Chained<'r>, Chained::new
);
global!(
    /// Chains of blocks of 16 pages.
    Clusters16, "hashed-clustered16", Clustered<'r, 16>, Clustered::new
);
global!(
    /// Chains of lines of 6 pages.
    Clusters6, "hashed-clustered6", Clustered<'r, 6>, Clustered::new
);
global!(
    /// Lines of 8 pages, linear probing.
    Lines, "hashed-line8", Line8<'r>, Line8::new
);
global!(
    /// Lines of 8 pages, Robin Hood probing.
    RobinHood, "hashed-robin-hood", Line8<'r, true>, Line8::new
);
global!(
    /// PowerPC's groups.
    Groups, "hashed-htab", Htab<'r>, Htab::new
);
global!(
    /// Elastic cuckoo, three ways.
    Cuckoos, "hashed-cuckoo", Cuckoo<'r>, Cuckoo::new
);
global!(
    /// An entry a frame.
    Frames, "inverted", Inverted<'r>, of_all_frames
);

fn of_all_frames(ram: &Ram) -> Result<Inverted<&Ram>, OutOfFrames> {
    Inverted::new(ram, ram.first(), ram.count_frames())
}

/// Expands `with!(name, Design)` for each design; under Miri, which is slow, for one.
#[macro_export]
macro_rules! for_each_design {
    ($with:ident) => {
        $with!(radix4, $crate::host::designs::OfLevels<4>);
        #[cfg(not(miri))]
        $with!(radix5, $crate::host::designs::OfLevels<5>);
        #[cfg(not(miri))]
        $with!(chained, $crate::host::designs::Chains);
        #[cfg(not(miri))]
        $with!(clustered16, $crate::host::designs::Clusters16);
        #[cfg(not(miri))]
        $with!(clustered6, $crate::host::designs::Clusters6);
        #[cfg(not(miri))]
        $with!(line8, $crate::host::designs::Lines);
        #[cfg(not(miri))]
        $with!(robin_hood, $crate::host::designs::RobinHood);
        #[cfg(not(miri))]
        $with!(htab, $crate::host::designs::Groups);
        #[cfg(not(miri))]
        $with!(cuckoo, $crate::host::designs::Cuckoos);
        #[cfg(not(miri))]
        $with!(inverted, $crate::host::designs::Frames);
    };
}
