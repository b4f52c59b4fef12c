//! [`copy_from`]: what a boot loader's table maps, in a table of ours.
//!
//! ```text
//!   CR3 --> their nodes  --Walker-->  leaves, with the rights that all levels leave  --map-->  Radix
//! ```
//!
//! Theirs stay as they are, and may be given up once ours are loaded.

use crate::{Corrupt, Flaw, Format, Radix, Walker, X86_64};
use core::error::Error;
use core::fmt;
use core::ops::ControlFlow;
use vellum_core::{
    Cause, Direct, Entry, Memory, PageTable, PhysAddr, PhysMap, RangeError, Run, VirtAddr, pte,
};

/// Bits 58:52 of a leaf, which are software's; ours have none there.
const SOFTWARE: u64 = 0x7f << 52;

/// Why a table was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyError {
    /// The table to be copied is corrupt.
    Corrupt(Corrupt),
    /// A leaf has something in the software bits 58:52, which would be lost.
    SoftwareBits {
        /// Its first address.
        va: VirtAddr,
        /// The entry.
        raw: u64,
    },
    /// Our table refuses a leaf: out of frames, most likely.
    Refused(Cause),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(corrupt) => corrupt.fmt(f),
            Self::SoftwareBits { va, raw } => {
                write!(f, "the leaf {raw:#018x} at {va} has software bits that would be lost")
            }
            Self::Refused(cause) => cause.fmt(f),
        }
    }
}

impl Error for CopyError {}

/// A new table in `memory` that maps what the walker's maps: same frames, same sizes of leaves, the
/// rights that all of its levels leave, accessed and dirty as they are.
///
/// Entries that are not present stay behind, and so do links to a node above (recursive mappings,
/// which would show the old tables). Nothing is loaded: that is the caller's, with
/// [`Radix::root`] and `Cr3::write`. A leaf at a time; [`X86Mapper`](super::X86Mapper) has an example.
/// Where levels are chosen at run time, the result is one variant of [`X86Any`](crate::X86Any).
///
/// # Errors
///
/// [`CopyError`]; all nodes were given back then.
pub fn copy_from<const LEVELS: usize, M, P, R>(
    walker: &Walker<X86_64<LEVELS>, P, R>,
    memory: M,
) -> Result<Radix<X86_64<LEVELS>, M>, CopyError>
where
    M: Memory,
    P: PhysMap,
    R: Fn(PhysAddr) -> bool,
{
    let mut table = Radix::new(memory).map_err(|e| CopyError::Refused(e.into()))?;
    // SAFETY: the table was made here, and no CPU has loaded it.
    #[allow(unsafe_code, reason = "nothing flushes a table that nobody has")]
    let mut gather = unsafe { Direct::new(|_| {}) };
    let mut result = Ok(());
    for (va, len) in X86_64::<LEVELS>::CANONICAL.halves() {
        let visited = walker.visit(va, len, &mut |told| {
            let (span, page, raw) = match told {
                Ok(item) => (item.span, item.page, item.raw),
                Err(Corrupt { flaw: Flaw::Loop, .. }) => return ControlFlow::Continue(()),
                Err(corrupt) => {
                    result = Err(CopyError::Corrupt(corrupt));
                    return ControlFlow::Break(());
                }
            };
            let Entry::Leaf(pa, attr) = span.entry else { return ControlFlow::Continue(()) };
            if raw & pte::PRESENT == 0 {
                return ControlFlow::Continue(());
            }
            if raw & SOFTWARE != 0 {
                result = Err(CopyError::SoftwareBits { va: span.va, raw });
                return ControlFlow::Break(());
            }
            let run = Run::new(span.va, pa, span.len, attr).with_leaves_up_to(page);
            match table.map(run, &mut gather) {
                Ok(()) => ControlFlow::Continue(()),
                Err(RangeError { cause, .. }) => {
                    result = Err(CopyError::Refused(cause));
                    ControlFlow::Break(())
                }
            }
        });
        result = result.and(visited.map_err(CopyError::Refused));
        if result.is_err() {
            break;
        }
    }
    match result {
        Ok(()) => Ok(table),
        Err(e) => {
            table.retire(&mut gather);
            Err(e)
        }
    }
}
