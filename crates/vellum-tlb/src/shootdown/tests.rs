//! The protocol on simulated CPUs.
//!
//! ```text
//!   sim           the machine: TLBs that cache all they may; frames that are used again at once
//!   behaviour     what is sent to whom, and what is done there
//!   waits         nobody waits for ever
//!   regressions   flushes that other kernels have missed
//!   properties    random sequences: no CPU ever uses what is stale or another space's
//!   threads       the same with threads for CPUs
//! ```

mod behaviour;
mod properties;
mod regressions;
mod sim;
mod threads;
mod waits;

use core::ops::Range;
use sim::{Gone, Sim};
use vellum_core::{Attr, Flush, Invalidate, Scope, VirtAddr};

/// The flush that unmapping `pages` needs.
fn flush(pages: Range<u64>, tables: bool, global: bool) -> Flush {
    let attr = if global { Attr::GLOBAL } else { Attr::RW };
    let len = (pages.end - pages.start) << 12;
    let flush = Flush::new(VirtAddr::new(pages.start << 12), len, 12, attr);
    if tables { flush.with_scope(Scope::Tables) } else { flush }
}

impl<const ABSENCE: bool> Sim<ABSENCE> {
    /// Unmaps `pages` on CPU `cpu`, flushes, and frees.
    fn unmap(&self, cpu: usize, space: usize, pages: Range<u64>, tables: bool) {
        let gone = self.unlink(Some(space), pages.clone(), tables);
        self.speculate();
        let held = self.space(space);
        self.hardware.on(cpu, || self.flusher(&held).flush(&[flush(pages, tables, false)]));
        self.free(gone);
    }

    /// The same in the kernel's half.
    fn unmap_kernel(&self, cpu: usize, pages: Range<u64>) {
        let gone: Gone = self.unlink(None, pages.clone(), false);
        let flush = flush(pages, false, self.global);
        self.hardware.on(cpu, || self.protocol.every().flush(&[flush]));
        self.free(gone);
    }

    /// CPUs take their interrupts as soon as one waits.
    fn answer(self: &std::rc::Rc<Self>) {
        self.while_waiting(Self::interrupt_all);
    }
}
