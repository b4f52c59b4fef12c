//! What the protocol asks of a machine: interrupts between CPUs, and flushes of the CPU that it is on.
//!
//! ```text
//!               Shootdown<I, L, CPUS>
//!                |                 |
//!      I: Interrupts             L: Local
//!      who am I, masked          INVLPG, INVPCID, CR3 (x86); SFENCE.VMA (RISC-V); TLBI (Arm)
//!      send (APIC, SBI, GIC)
//! ```
//!
//! They are two, because the second is the processor's and the first the board's.

use super::CpuSet;
use crate::asid::Tags;
use vellum_core::Flush;

/// Interrupts between CPUs, which are numbered from 0.
///
/// # Safety
///
/// [`masked`](Self::masked) tells the truth: as long as `f` runs, it runs on the CPU whose number it
/// got, no two CPUs get the same number, and no interrupt handler of that CPU calls the
/// [`Shootdown`](super::Shootdown).
///
/// That [`send`](Self::send) arrives is not a matter of safety: who waits for a CPU that is never
/// interrupted waits for ever.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait Interrupts<const WORDS: usize = 1> {
    /// Calls `f` with the number of this CPU, with interrupts off; then they are as they were.
    /// Calls nest.
    fn masked<R>(&self, f: impl FnOnce(usize) -> R) -> R;

    /// Has each of `cpus` call [`Shootdown::serve`](super::Shootdown::serve) as soon as it takes
    /// interrupts, and returns without waiting for that. Never the CPU that it is called on. What
    /// was stored before the call is visible to the handler (a write to x86's x2APIC needs a fence
    /// before it).
    fn send(&self, cpus: &CpuSet<WORDS>);

    /// One round of waiting for other CPUs.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// Whose translations are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of the space with these tags. Global ones may stay.
    Space(Tags),
    /// Those of every space, and global ones.
    Every,
}

/// Makes the CPU that it is called on forget translations. Called with interrupts off.
///
/// # Safety
///
/// When a call returns, this CPU uses no translation that the call is about and that it cached
/// before; what it stored through such ones comes before whatever it stores afterwards; and walks
/// that it begins afterwards see all stores to tables that came before the call.
///
/// A [`Flush`] with [`Scope::Tables`](vellum_core::Scope::Tables) is about interior entries as well,
/// one with a [`page`](Flush::page) about all leaves of that size and larger ones.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait Local {
    /// Whether the processor caches that something is *not* mapped, or needs a fence before its
    /// walks see a new entry (RISC-V without Svvptc). If not, as on x86, flushes of
    /// [`Scope::Fresh`](vellum_core::Scope::Fresh) are nothing at all.
    const CACHES_ABSENCE: bool;

    /// Forgets the ranges. There are few, and few pages in them.
    fn flush_ranges(&self, reach: Reach, flushes: &[Flush]);

    /// Forgets all of one space: with both tags, where there are two.
    fn flush_space(&self, tags: Tags);

    /// Forgets everything: every tag, global translations, interior entries.
    fn flush_all(&self);

    /// Loads a root that belongs to no space: this CPU runs in the kernel, on the tables of a space
    /// that it only borrows, and that may be going away.
    fn leave(&self);
}
