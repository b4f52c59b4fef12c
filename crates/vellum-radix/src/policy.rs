//! What a table refuses beyond what its format cannot express.
//!
//! ```text
//!   WriteXorExecute::Allow     anything that the format has
//!   WriteXorExecute::Refuse    a mapping that becomes writable and executable is an error
//!   WriteXorExecute::Report    it is made, and a function is told: for finding them all first
//! ```
//!
//! Rights are decided by the leaves: the tables above them are permissive, so that changing a leaf
//! is enough, but for nodes that a fork has shared, which are not written through. Only in the part that starts at [`Policy::kernel_from`] do they keep user mode out,
//! which holds even where a leaf there is wrong by accident.

use vellum_core::{Attr, Cause, VirtAddr};

/// What happens to a mapping that is both writable and executable.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum WriteXorExecute {
    /// It is made.
    #[default]
    Allow,
    /// It is refused with [`Cause::WriteAndExecute`].
    Refuse,
    /// It is allowed, and this is called with the first address that it is asked for at; for a range
    /// perhaps more than once, and for what fails then for another reason.
    Report(fn(VirtAddr, Attr)),
}

/// The policy of one table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Of mappings that are writable and executable.
    pub write_xor_execute: WriteXorExecute,
    /// From this address on, rounded down to what an entry of the root spans, tables keep user mode
    /// out, and [`Attr::USER`] is refused with [`Cause::Unencodable`].
    pub kernel_from: Option<VirtAddr>,
}

impl Policy {
    /// Whether it is any but the default.
    pub(crate) const fn refuses_something(&self) -> bool {
        !matches!(self.write_xor_execute, WriteXorExecute::Allow) || self.kernel_from.is_some()
    }

    /// Whether both refuse and report the same, so that a node of one may be in the other.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        use WriteXorExecute::{Allow, Refuse};
        let both = (&self.write_xor_execute, &other.write_xor_execute);
        // Two that report may report to different places.
        matches!(both, (Allow, Allow) | (Refuse, Refuse)) && self.kernel_from == other.kernel_from
    }

    /// Whether a mapping may get these attributes, where only the kernel is or elsewhere.
    ///
    /// # Errors
    ///
    /// [`Cause::WriteAndExecute`], or [`Cause::Unencodable`] for the user's right where only the
    /// kernel is.
    pub(crate) fn check(&self, attr: Attr, is_kernel: bool) -> Result<(), Cause> {
        let both = attr.contains(Attr::WRITE | Attr::EXEC);
        if both && matches!(self.write_xor_execute, WriteXorExecute::Refuse) {
            return Err(Cause::WriteAndExecute(attr));
        }
        if is_kernel && attr.contains(Attr::USER) {
            return Err(Cause::Unencodable(attr));
        }
        Ok(())
    }

    /// Reports a mapping at `va` that is about to be made, if it is to be reported.
    pub(crate) fn report(&self, va: VirtAddr, attr: Attr) {
        match self.write_xor_execute {
            WriteXorExecute::Report(report) if attr.contains(Attr::WRITE | Attr::EXEC) => {
                report(va, attr);
            }
            _ => {}
        }
    }
}
