//! vellum-x86 on the machine: that each way to flush drops what is stale, what is turned on, and that
//! a pair of roots hides the kernel.
//!
//! Before each flush the stale translation is seen to be there: QEMU keeps one until it is told, so
//! that a flush that does nothing does not pass.

use super::paging::private;
use crate::metal::harness::{Outcome, check, check_eq, fail};
use crate::metal::memory::{self, FRAMES, KernelMemory};
use crate::metal::{Kernel, image, machine, paging, probe};
use core::ptr;
use vellum_core::{
    Attr, Flush, FrameSource, Invalidate, PAGE_SIZE, PhysAddr, PhysMap, Run, VirtAddr,
};
use vellum_x86::{Cpu, ErrorCode, Feature, Pair, Pcid, Target, controls, errata};

/// A flush that is left out.
struct Nowhere;

// SAFETY: it flushes nothing; the test keeps what it unmaps by it, and flushes later.
unsafe impl Invalidate for Nowhere {
    fn flush(&self, _: &[Flush]) {}
}

/// A way to flush a page that is not global.
type Way = (&'static str, fn(&Cpu, VirtAddr));

fn one(page: VirtAddr) -> Flush {
    Flush::new(page, PAGE_SIZE, 12, Attr::NONE)
}

const WAYS: [Way; 6] = [
    ("INVLPG", |cpu, page| cpu.flush_page(page)),
    ("MOV CR3", |cpu, _| cpu.flush_space(Target::current(Pcid::ZERO))),
    ("everything", |cpu, _| cpu.flush_everything()),
    ("a plan by page", |cpu, page| cpu.flush(Target::current(Pcid::ZERO), &[one(page)], 1)),
    ("a plan by space", |cpu, page| cpu.flush(Target::current(Pcid::ZERO), &[one(page)], 0)),
    ("a plan by everything", |cpu, page| {
        let global = Flush { global: true, ..one(page) };
        cpu.flush(Target::current(Pcid::ZERO), &[global], 0);
    }),
];

pub(super) fn each_way_to_flush_drops_what_is_stale(kernel: &Kernel) -> Outcome {
    let page = private(0x18_0000);
    let mut way = [FRAMES.alloc(0)?, FRAMES.alloc(0)?];
    for (frame, value) in way.into_iter().zip(1..) {
        // SAFETY: the frames were just allocated.
        unsafe { probe::store(memory::direct(frame), value)? };
    }
    kernel.space.map(Run::new(page, way[0], PAGE_SIZE, Attr::RW))?;
    for (name, flush) in WAYS {
        let before = probe::load(page)?;
        // SAFETY: both frames stay this test's until the flush below.
        unsafe { kernel.space.remap(page, way, Attr::RW, Nowhere, |_| ())? };
        check!(probe::load(page)? == before, "before {name}, nothing stale is there");
        flush(&machine::cpu(), page);
        check!(probe::load(page)? != before, "{name} leaves a stale translation");
        way.reverse();
    }
    kernel.space.unmap(page, PAGE_SIZE, |_| ())?;
    for frame in way {
        // SAFETY: allocated above; unmapped and flushed.
        unsafe { KernelMemory.free(frame, 0) };
    }
    Ok(())
}

pub(super) fn what_the_cpu_has_is_on(_: &Kernel) -> Outcome {
    let cpu = machine::cpu();
    let features = cpu.features();
    let mut expected = features.set & controls::SWITCHABLE;
    expected.set(Feature::PCID, errata::pcids_are_sound(features, cpu.microcode()));
    check_eq!(cpu.controls().enabled(), expected);
    let always = Feature::NX | Feature::PGE | Feature::SMEP | Feature::SMAP | Feature::UMIP;
    check!(expected.contains(always), "QEMU's CPU lacks some of {always:?}: {expected:?}");
    let five = features.has(Feature::LA57);
    check_eq!((machine::levels() == 5, features.linear_bits == 57), (five, five));
    check_eq!(cpu.mode().canonical.bits(), if five { 57 } else { 48 });
    check_eq!(cpu.loaded().map(|cr3| cr3.pcid()), Some(Pcid::ZERO));
    Ok(())
}

/// Entries of a root.
const ENTRIES: usize = 512;

/// Two roots side by side: the kernel's, and one with the lower half and the image alone.
pub(super) fn a_pair_of_roots_hides_the_kernel(kernel: &Kernel) -> Outcome {
    let roots = FRAMES.alloc(1)?;
    let Some(pair) = Pair::new(roots, Pcid::ZERO) else {
        fail!("{roots} is no place for a pair");
    };
    let table = |root: PhysAddr| KernelMemory.with(root, |bytes| bytes.cast::<u64>());
    let (from, to) = (table(kernel.space.root()), table(roots));
    for index in 0..ENTRIES {
        // SAFETY: the root is mapped and has so many entries, and this CPU changes none meanwhile;
        // what hardware sets in them does not matter for a copy.
        let entry = unsafe { from.add(index).read_volatile() };
        let shown = index < ENTRIES / 2 || index == ENTRIES - 1;
        // SAFETY: both roots were allocated above.
        unsafe {
            ptr::write(to.add(index).as_ptr(), entry);
            ptr::write(to.add(ENTRIES + index).as_ptr(), if shown { entry } else { 0 });
        }
    }
    let Some(own) = machine::cpu().loaded() else {
        fail!("CR3 holds what it cannot");
    };
    let hidden = memory::direct(image::parts()[0].physical());
    let shown = image::parts()[0].start;
    let seen = |cr3| {
        let cpu = machine::cpu();
        // SAFETY: all of them have the image, with the stack and all that runs here; the demand
        // window is not touched. The kernel's mappings are global, so they have to be flushed.
        unsafe { cpu.load(cr3) };
        cpu.flush_everything();
        let seen = (probe::load(shown), probe::load(hidden));
        // SAFETY: back to what was.
        unsafe { cpu.load(own) };
        cpu.flush_everything();
        seen
    };
    let (image_by_user, hidden_by_user) = seen(pair.user());
    let (image_by_kernel, hidden_by_kernel) = seen(pair.kernel());
    let word = probe::load(shown)?;
    check_eq!((image_by_user, image_by_kernel, hidden_by_kernel), (Ok(word), Ok(word), Ok(word)));
    let Err(trap) = hidden_by_user else {
        fail!("the user's root shows the direct map");
    };
    check_eq!((trap.page_fault(), trap.address), (Some(ErrorCode::empty()), hidden));
    check!(hidden < paging::window(), "the window is no part of this");
    // SAFETY: allocated above, and not loaded any more.
    unsafe { FRAMES.free(roots, 1)? };
    Ok(())
}
