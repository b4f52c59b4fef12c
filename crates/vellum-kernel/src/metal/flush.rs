//! Making CPUs forget: vellum-tlb's protocol over the local APIC, with vellum-x86's instructions.
//!
//! ```text
//!   Space::edit -> Batch -> everywhere() = SHOOTDOWN.every()
//!                              |                        |
//!                   Apic: Interrupts               ThisCpu: Local
//!                   send: vector 240 ----------->  vellum_x86::plan, on the CPU that was hit
//!                   (apic)                         serve() by `interrupts`, or by who waits
//! ```
//!
//! There is one address space, the kernel's, so every flush concerns every CPU that is online.
//!
//! # Lock order
//!
//! Whoever waits for something that another CPU holds, with interrupts off, serves in between
//! ([`waiting`]): the holder may be waiting for this CPU's flush.

use super::descriptors::{self, CPUS};
use super::interrupts::vector;
use super::{apic, image, machine, processors};
use vellum_core::{Flush, Invalidate};
use vellum_tlb::{Ceiling, CpuSet, Interrupts, Local, Reach, Shootdown, Tags};
use vellum_x86::{Pcid, Target};
use x86_64::instructions::interrupts::without_interrupts;

// SAFETY: the kernel's tables are used by CPUs that are online: both call `online` before they load
// them, and neither ever goes offline; a third, or a second that comes too late, halts under the boot
// tables. No space is loaded by anybody. CPU numbers are below `CPUS`.
static SHOOTDOWN: Shootdown<Apic, ThisCpu, CPUS> = unsafe { Shootdown::new(Apic, ThisCpu) };

/// More than so many pages are never flushed one by one, whatever the clock says.
const MOST_PAGES: u64 = 512;

/// Flushes the kernel's space, on all CPUs.
pub(crate) fn everywhere() -> impl Invalidate {
    SHOOTDOWN.every()
}

/// This CPU takes part in flushes from here on, and has nothing cached.
///
/// # Safety
///
/// It has its number, and its APIC is on, unless it is the only one, or serves as soon as it is.
pub(crate) unsafe fn online() {
    // SAFETY: no space is ever loaded.
    unsafe { SHOOTDOWN.online() };
}

/// Has flushes go page by page as long as that is quicker on this CPU, by its clock; returns up to
/// how many pages that is. For a CPU alone: what it drops is not counted.
pub(crate) fn calibrate() -> u64 {
    let one = || machine::cpu().flush_page(image::parts()[0].start);
    let measured = Ceiling::measure(machine::time_stamp, one, || machine::cpu().flush_everything());
    let ceiling = measured.count().min(MOST_PAGES);
    SHOOTDOWN.set_ceiling(Ceiling::new(ceiling));
    ceiling
}

/// Does what other CPUs have left for this one.
pub(crate) fn serve() {
    SHOOTDOWN.serve();
}

/// Asks until there is an answer, serving flushes in between; `None` after about `rounds` rounds.
pub(crate) fn waiting<R>(rounds: u64, mut ask: impl FnMut() -> Option<R>) -> Option<R> {
    for _ in 0..rounds {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        serve();
        core::hint::spin_loop();
    }
    None
}

/// The local APIC, as the protocol sees it.
#[derive(Debug)]
struct Apic;

// SAFETY: without interrupts nothing takes the CPU away from `f`, and no handler runs (but for NMIs,
// which end the machine, and for traps, whose handler calls the protocol only where a page fault
// changes tables: none does inside it). Each CPU has a number of its own.
unsafe impl Interrupts for Apic {
    fn masked<R>(&self, f: impl FnOnce(usize) -> R) -> R {
        without_interrupts(|| f(descriptors::number()))
    }

    fn send(&self, cpus: &CpuSet) {
        for cpu in cpus.iter().filter_map(processors::bus_number) {
            apic::send(cpu, vector::FLUSH);
        }
    }
}

/// The CPU that a call runs on.
#[derive(Debug)]
struct ThisCpu;

impl ThisCpu {
    fn forget(reach: Reach, flushes: &[Flush], ceiling: u64) {
        match Self::target(reach) {
            Some(target) => machine::cpu().flush(target, flushes, ceiling),
            None => machine::cpu().flush_everything(),
        }
    }

    fn target(reach: Reach) -> Option<Target> {
        let loaded = machine::cpu().loaded()?.pcid();
        Some(match reach {
            Reach::Every => Target { shared: true, ..Target::current(loaded) },
            Reach::Space(Tags { kernel, user }) => Target {
                pcid: Pcid::try_from(kernel).ok()?,
                user: user.map(Pcid::try_from).transpose().ok()?,
                shared: false,
                loaded,
            },
        })
    }
}

// SAFETY: `Cpu::flush` drops what its flushes cover, of the tags that the target names, interior
// entries and all sizes of leaves included (SDM vol. 3A, 5.10.4.1); what has no tag that fits is
// dropped with everything. INVLPG, INVPCID and MOV to CR3 are serializing: stores before them are
// done, and walks after them begin anew.
unsafe impl Local for ThisCpu {
    const CACHES_ABSENCE: bool = false;

    fn flush_ranges(&self, reach: Reach, flushes: &[Flush]) {
        // How many pages are few was decided by the sender.
        Self::forget(reach, flushes, u64::MAX);
    }

    fn flush_space(&self, tags: Tags) {
        match Self::target(Reach::Space(tags)) {
            Some(target) => machine::cpu().flush_space(target),
            None => self.flush_all(),
        }
    }

    fn flush_all(&self) {
        machine::cpu().flush_everything();
    }

    fn leave(&self) {
        // There is no root but the kernel's, and it is no space's.
    }
}

/// A flush that is left out on other CPUs: what a test looks for the consequences of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HereOnly(());

impl HereOnly {
    /// # Safety
    ///
    /// What is unmapped or narrowed with it may still be used by the other CPU: it stays whose it was,
    /// until a flush [`everywhere`].
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: not on other CPUs; who makes one has promised that it does not matter.
unsafe impl Invalidate for HereOnly {
    fn flush(&self, flushes: &[Flush]) {
        let ceiling = SHOOTDOWN.ceiling().count();
        without_interrupts(|| ThisCpu::forget(Reach::Every, flushes, ceiling));
    }
}
