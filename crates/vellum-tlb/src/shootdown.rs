//! How one CPU makes others forget translations, and waits until they have.
//!
//! ```text
//!   CPU 0: flush(ranges of A)              CPU 1: runs A           CPU 2: kernel thread, A borrowed
//!   ------------------------               -------------           --------------------------------
//!   (the table has been changed)
//!   generation of A: 6 -> 7
//!   who is in A's mask?  1, 2
//!   is it lazy, or gone?                                           lazy: skipped
//!   queue (A, 7, ranges); interrupt  --->  seen = 6: ranges are
//!   own TLB                                all it lacks: flush
//!   wait until it has seen 7         <---  seen = 7
//!   return: frames may be freed
//!                                                                  comes back to A: generation 7,
//!                                                                  seen 6: flushes all of A first
//! ```
//!
//! What holds the protocol together are generations, not the queue. A CPU knows how much it has seen of
//! the space that it has loaded; a request that does not follow directly on that makes it flush the
//! whole space; a request that was lost for want of room makes it flush everything. So a request is only
//! ever advice on how to flush *less*.
//!
//! There are two kinds of generations: one for each [`Space`], and one for *every* space, which counts
//! the flushes of the kernel's half and of global pages, and concerns all CPUs that are online.
//!
//! # Invariants
//!
//! - A CPU's `seen` is at most what it has flushed for, of the space that it has `loaded`.
//! - While a root is loaded, the space's mask has the CPU, and its `loaded` says the space or
//!   *switching*.
//! - `flush` returns only when each CPU of the mask has seen its generation, or has had the space
//!   not loaded at some moment after the generation went up, or has had it borrowed only (and the
//!   flush is of leaves: for interior entries those are interrupted too, since a walk may begin at any
//!   time, and must not meet a node that was freed).
//! - `loaded`, `seen` and the tags of a CPU are stored by that CPU alone, with interrupts off.
//!
//! # Ordering: who sees whom
//!
//! ```text
//!   switch to A, on CPU c                     flush of A, generation g
//!   ---------------------                     ------------------------
//!   1  loaded[c] = switching    (SeqCst)      a  change the table
//!   2  mask of A |= c           (SeqCst)      b  generation of A += 1    (SeqCst)
//!   3  read generation of A     (SeqCst)      c  read mask of A          (SeqCst)
//!   4  forget what is stale, load the root    d  read loaded[c]          (SeqCst)
//!   5  seen[c], loaded[c] = A   (release)     e  read seen[c]            (acquire)
//! ```
//!
//! 2-3 and b-c are the two halves of one pattern: each writes its own word, then reads the other's. All
//! four are sequentially consistent, so in their one order either 2 is before c, and the flush
//! sees the CPU; or b is before 3, and the switch sees the generation, which brings a with it (b
//! releases, 3 acquires), and forgets in 4. On x86, 2 is a locked instruction, and so is 1: the full
//! barrier that the pattern needs. 1-3 and b-d are the same pattern for a CPU that is in the mask
//! already, since it borrows the space: if d finds it lazy, 1 comes after, hence b before 3.
//!
//! While d finds *switching*, the CPU may be on its way in or out, and is waited for: a few hundred
//! instructions with interrupts off. If it finds another space, the CPU has been out of A since b, and
//! reads at least g in 3 when it returns. If it finds A, then e reads what the CPU had seen when it came
//! to A or later (5 stores `seen` first): if that is at least g and of A, the CPU has seen g; if it
//! is of another space already, it was stored after that one's root had taken the place of A's, and the
//! CPU has been out of A since b as well.
//!
//! In each case what the CPU stored through old translations is ordered before what the flush reads
//! (5 releases, e acquires), and so are the flushes that it did.
//!
//! Each of these orderings was weakened by hand once; what models see of that is in `interleavings`.
//!
//! Sources: Intel SDM vol. 3A, 5.10.4 and 5.10.5 "Propagation of Paging-Structure Changes to Multiple
//! Processors"; Black et al., "Translation Lookaside Buffer Consistency: A Software Approach",
//! ASPLOS 1989. That CPUs which borrow a space are skipped and compare generations is how Linux has it
//! (arch/x86/mm/tlb.c, by description); that a CPU's pair of words is the acknowledgment is not.

mod ceiling;
mod cpu;
mod cpus;
mod request;
mod seams;
mod send;
mod space;
mod switch;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use ceiling::Ceiling;
pub use cpus::CpuSet;
pub use seams::{Interrupts, Local, Reach};
pub use send::{Flusher, Pending};
pub use space::Space;
pub use switch::InUse;

use crate::sync::{AtomicU64, array};
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::Ordering::Relaxed;
use cpu::Cpu;
use cpus::CpuMask;

/// The protocol between up to `CPUS` CPUs (at most 64 × `WORDS`), over interrupts `I` and the local
/// flushes `L`.
///
/// 2.3 KiB a CPU, no heap, no lock. A kernel has one, in a static.
pub struct Shootdown<I, L, const CPUS: usize, const WORDS: usize = 1> {
    interrupts: I,
    local: L,
    cpus: [Cpu; CPUS],
    online: CpuMask<WORDS>,
    /// The generation of what concerns every space.
    every: AtomicU64,
    /// The number of the next space.
    next: AtomicU64,
    ceiling: AtomicU64,
}

impl<I: Interrupts<WORDS>, L: Local, const CPUS: usize, const WORDS: usize>
    Shootdown<I, L, CPUS, WORDS>
{
    /// Of CPUs that are all offline. More `CPUS` than 64 × `WORDS` do not compile.
    ///
    /// # Safety
    ///
    /// A CPU uses the tables that are flushed through this value only while it is
    /// [`online`](Self::online), those of a space only while it is loaded by
    /// [`switch`](Self::switch); and the CPU numbers of `interrupts` are below `CPUS`.
    #[cfg(not(loom))]
    #[allow(unsafe_code, reason = "that a flush reaches all who have to know rests on it")]
    pub const unsafe fn new(interrupts: I, local: L) -> Self {
        const { assert!(CPUS <= 64 * WORDS, "a mask has 64 CPUs a word") };
        Self {
            interrupts,
            local,
            cpus: array![Cpu::new(); CPUS],
            online: CpuMask::new(),
            every: AtomicU64::new(0),
            next: AtomicU64::new(1),
            ceiling: AtomicU64::new(Ceiling::DEFAULT.count()),
        }
    }

    /// # Safety
    ///
    /// As where loom is not.
    #[cfg(loom)]
    #[allow(unsafe_code, reason = "as where loom is not")]
    pub unsafe fn new(interrupts: I, local: L) -> Self {
        Self {
            interrupts,
            local,
            cpus: array![Cpu::new(); CPUS],
            online: CpuMask::new(),
            every: AtomicU64::new(0),
            next: AtomicU64::new(1),
            ceiling: AtomicU64::new(Ceiling::DEFAULT.count()),
        }
    }

    /// A space that no CPU has loaded.
    pub fn new_space(&self) -> Space<WORDS> {
        // It would take centuries to come round; and 0 is `MIN`'s neighbour only then.
        let id = NonZeroU64::new(self.next.fetch_add(1, Relaxed)).unwrap_or(NonZeroU64::MIN);
        Space::new(id)
    }

    /// Up to how many pages are flushed one by one.
    pub fn set_ceiling(&self, ceiling: Ceiling) {
        self.ceiling.store(ceiling.count(), Relaxed);
    }

    /// Up to how many pages are flushed one by one.
    pub fn ceiling(&self) -> Ceiling {
        Ceiling::new(self.ceiling.load(Relaxed))
    }

    /// What it was made of.
    pub const fn interrupts(&self) -> &I {
        &self.interrupts
    }

    /// What it was made of.
    pub const fn local(&self) -> &L {
        &self.local
    }
}

impl<I, L, const CPUS: usize, const WORDS: usize> fmt::Debug for Shootdown<I, L, CPUS, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shootdown").field("online", &self.online).finish_non_exhaustive()
    }
}
