//! What a CPU says of itself: which space it loads, borrows and leaves; and how a space ends.
//!
//! ```text
//!              switch(A)                lazy                    switch(B)
//!   no space ------------> A, active ---------> A, borrowed ----------------> B, active
//!       ^                      ^                     |  |
//!       |                      +------ switch(A) ----+  | retire(A) of another CPU, or leave
//!       +-----------------------------------------------+
//! ```

use super::cpu::Has;
use super::request::{Request, What};
use super::{CpuSet, Interrupts, Local, Shootdown, Space};
use crate::asid::{Tags, Turn};
use core::fmt;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

/// A space cannot be retired: this CPU runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The CPU's number.
    pub cpu: usize,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {} runs the address space", self.cpu)
    }
}

impl core::error::Error for InUse {}

#[allow(unsafe_code, reason = "flushes rest on what a CPU says here")]
impl<I: Interrupts<WORDS>, L: Local, const CPUS: usize, const WORDS: usize>
    Shootdown<I, L, CPUS, WORDS>
{
    /// Loads `to` on this CPU, which has `from` loaded or borrowed, or has had it taken while it was
    /// borrowed (by [`retire`](Self::retire), or because its queue was full); `None` if it has no
    /// space. The same space again ends a [`lazy`](Self::lazy) time.
    ///
    /// `load` is told what the CPU must have seen, asks the policy ([`Slots`](crate::Slots) or
    /// [`Global`](crate::Global)) for tags, forgets what that says is stale, loads the root, and
    /// returns the tags. If [`Turn::left`] is the same space, the root is loaded already. It must not
    /// wait for other CPUs: they wait for it. If it [serves](Self::serve), that is put off until it
    /// has returned.
    ///
    /// # Safety
    ///
    /// Called on one CPU that is online. When `load` returns, the CPU has `to`'s root loaded, and it
    /// uses no translation with the tags returned that it cached before it last saw
    /// [`Turn::generation`] of `to`, or for another space. `from` is what it has loaded. No
    /// [`retire`](Self::retire) of `to` has begun that then says that it is done.
    pub unsafe fn switch(
        &self,
        from: Option<&Space<WORDS>>,
        to: &Space<WORDS>,
        load: impl FnOnce(Turn) -> Tags,
    ) {
        self.interrupts.masked(|own| {
            let Some(cpu) = self.cpus.get(own) else { return };
            let left = cpu.loaded();
            cpu.begin_switch();
            if !to.cpus.contains(own, Relaxed) {
                to.cpus.insert(own, SeqCst);
            }
            let generation = to.generation.load(SeqCst);
            let tags = load(Turn { space: to.id, generation, left });
            cpu.end_switch(to.id, generation, tags);
            // What `load` may have put off, if it served.
            cpu.serve(&self.local);
            if let Some(from) = from.filter(|from| from.id != to.id) {
                from.cpus.remove(own, Release);
            }
        });
    }

    /// This CPU keeps its space loaded, but stays in the kernel: a thread without a space of its
    /// own, or the idle loop. Flushes of leaves do not interrupt it any more.
    ///
    /// # Safety
    ///
    /// Until the next [`switch`](Self::switch) on this CPU, it uses no address of the space's own
    /// half. (That it may do so speculatively does not matter.)
    pub unsafe fn lazy(&self) {
        self.interrupts.masked(|own| {
            if let Some(cpu) = self.cpus.get(own) {
                cpu.borrow();
            }
        });
    }

    /// Loads a root that belongs to no space, by `load`, on this CPU, which has `from` loaded.
    ///
    /// # Safety
    ///
    /// When `load` returns, `from`'s root is not loaded. `from` is what was.
    pub unsafe fn leave(&self, from: &Space<WORDS>, load: impl FnOnce()) {
        self.interrupts.masked(|own| {
            let Some(cpu) = self.cpus.get(own) else { return };
            load();
            cpu.unload();
            from.cpus.remove(own, Release);
        });
    }

    /// This CPU uses the kernel's tables from now on. It forgets everything first.
    ///
    /// From here on an [interrupt](Interrupts::send) has to reach it: flushes wait for it. Those
    /// that were lost while it was off do not matter.
    ///
    /// # Safety
    ///
    /// It has no space loaded.
    pub unsafe fn online(&self) {
        self.interrupts.masked(|own| {
            let Some(cpu) = self.cpus.get(own) else { return };
            // The pattern of `switch`: first be seen, then look.
            self.online.insert(own, SeqCst);
            let generation = self.every.load(SeqCst);
            self.local.flush_all();
            cpu.see_every(generation);
            // Who took it for online while it went away may have asked, and told it in vain.
            cpu.serve_unasked(&self.local);
        });
    }

    /// This CPU goes away.
    ///
    /// # Safety
    ///
    /// It has no space loaded, and until it is [`online`](Self::online) again, it uses no kernel
    /// translation that is flushed meanwhile.
    pub unsafe fn offline(&self) {
        self.interrupts.masked(|own| {
            self.online.remove(own, Release);
            self.serve_on(own);
        });
    }

    /// Does what others have left for this CPU: what the interrupt handler of
    /// [`Interrupts::send`] calls, and whoever keeps interrupts off for long may call.
    pub fn serve(&self) {
        self.interrupts.masked(|own| self.serve_on(own));
    }

    pub(super) fn serve_on(&self, own: usize) {
        if let Some(cpu) = self.cpus.get(own) {
            cpu.serve(&self.local);
        }
    }

    /// Makes all CPUs that borrow `space` load another root, and waits for that: then no CPU walks
    /// its tables, and they may be freed without a flush. Its translations stay in TLBs, under tags
    /// that are flushed before anybody uses them again; but for global ones, for which there is
    /// [`every`](Self::every).
    ///
    /// # Errors
    ///
    /// [`InUse`] if a CPU has it loaded and does not only borrow it.
    pub fn retire(&self, space: &Space<WORDS>) -> Result<(), InUse> {
        let mut waiting = space.cpus.load(SeqCst);
        self.ask_to_leave(space, &mut waiting);
        while let Some((index, cpu)) = self.among(waiting).next() {
            match cpu.has(space.id) {
                Has::No => waiting.remove(index),
                Has::Active => return Err(InUse { cpu: index }),
                // It was not lazy yet when it was asked, or when it did what it was asked.
                Has::Lazy if cpu.is_idle() => self.ask_to_leave(space, &mut waiting),
                Has::Lazy | Has::Unclear => self.relax(),
            }
        }
        Ok(())
    }

    /// Asks each of `cpus` that borrows `space` to load another root, and interrupts them all at once;
    /// takes those out that do not have it.
    fn ask_to_leave(&self, space: &Space<WORDS>, cpus: &mut CpuSet<WORDS>) {
        let request = Request { space: Some(space.id), generation: 0, what: What::Leave };
        self.interrupts.masked(|own| {
            let mut interrupts = CpuSet::EMPTY;
            for (index, cpu) in self.among(*cpus) {
                match cpu.has(space.id) {
                    Has::No => cpus.remove(index),
                    Has::Lazy if index == own => cpu.leave_borrowed(&self.local),
                    Has::Lazy if cpu.post(request).interrupt => interrupts.insert(index),
                    Has::Lazy | Has::Active | Has::Unclear => {}
                }
            }
            if !interrupts.is_empty() {
                self.interrupts.send(&interrupts);
            }
        });
    }

    /// One round of waiting, in which this CPU does what others wait for.
    pub(super) fn relax(&self) {
        self.serve();
        self.interrupts.relax();
    }
}
