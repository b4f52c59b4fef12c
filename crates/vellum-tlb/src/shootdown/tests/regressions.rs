//! Flushes that other kernels have missed, by the number under which their trackers have them.
//!
//! Not here, since they are a table's or its caller's to make: flushes that a system call forgot
//! (keystone 341), which the gather collects, and vellum-testkit's checker looks for.

use super::flush;
use super::sim::{CPUS, Frame, KERNEL, Policy, Sim};
use std::rc::Rc;
use vellum_core::{Attr, Batch, Gather, Gone, Invalidate, PhysAddr, Run, Scope, VirtAddr};

fn machine(policy: Policy) -> (Rc<Sim>, usize) {
    let sim = Sim::new(policy, true);
    sim.answer();
    let space = sim.new_space();
    (0..8).for_each(|page| sim.map(Some(space), page));
    (sim, space)
}

fn holds<const ABSENCE: bool>(sim: &Sim<ABSENCE>, frame: Frame) -> bool {
    let cpus = sim.hardware.cpus.borrow();
    cpus.iter().any(|cpu| cpu.leaves.values().any(|&held| held == frame))
}

/// litebox 671 and 848, svsm 1188: the frame went back to the allocator between the store to the
/// table and the flush on other CPUs.
#[test]
fn a_frame_is_delivered_after_the_last_cpu_has_forgotten_it() {
    let (sim, space) = machine(Policy::slots(12, false));
    (0..3).for_each(|cpu| sim.switch(cpu, space));
    let held = sim.space(space);
    let gone = sim.unlink(Some(space), 1..2, false);
    let frame = gone.frames[0];
    sim.speculate();
    assert!(holds(&sim, frame));
    let mut delivered = false;
    sim.hardware.on(0, || {
        let sink = |gone| {
            assert!(matches!(gone, Gone::Run(_)) && !holds(&sim, frame));
            delivered = true;
        };
        // SAFETY: the batch is used with this space alone.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        let mut batch: Batch<_, _, core::convert::Infallible, 4> =
            unsafe { Batch::new(sim.flusher(&held), sink) };
        let (va, pa) = (VirtAddr::new(1 << 12), PhysAddr::new((frame as u64) << 12));
        batch.leaf(Run::new(va, pa, 4096, Attr::RW));
        batch.finish();
    });
    assert!(delivered);
    sim.free(gone);
    sim.check(true);
}

/// litebox 769: kernel pages that become present, on a processor that remembers absence, are not
/// seen by CPUs that were told nothing.
#[test]
fn kernel_pages_that_become_present_are_seen_by_all_where_absence_is_cached() {
    let sim: Rc<Sim<true>> = Sim::new(Policy::global(3), true);
    sim.answer();
    sim.speculate();
    let blind = |sim: &Sim<true>| {
        let cpus = sim.hardware.cpus.borrow();
        cpus.iter().filter(|cpu| cpu.absent.contains(&KERNEL)).count()
    };
    assert_eq!(blind(&sim), CPUS);
    sim.map(None, KERNEL);
    let fresh = flush(KERNEL..KERNEL + 1, false, true).with_scope(Scope::Fresh);
    sim.hardware.on(0, || sim.protocol.every().flush(&[fresh]));
    assert_eq!(blind(&sim), 0);
}

/// nanos 1966: a page is mapped again while the flush of what was there is under way.
#[test]
fn a_page_that_is_remapped_while_its_flush_is_under_way_has_no_old_frame_afterwards() {
    let (sim, space) = machine(Policy::slots(12, false));
    (0..3).for_each(|cpu| sim.switch(cpu, space));
    let held = sim.space(space);
    let gone = sim.unlink(Some(space), 1..2, false);
    let old = gone.frames[0];
    sim.hardware.on(0, || {
        let flush = sim.flusher(&held).start(&[flush(1..2, false, false)]);
        sim.map(Some(space), 1);
        sim.interrupt(1);
        sim.speculate(); // CPU 1 caches the new frame; CPU 2 still has the old one
        assert_eq!(sim.cached(2, 1), Some(old));
        flush.wait();
    });
    sim.speculate();
    assert!(!holds(&sim, old));
    sim.free(gone);
    sim.check(true);
}

/// seL4 107: without identifiers, on more than one CPU, the flush was local.
#[test]
fn without_identifiers_other_cpus_are_flushed_too_and_each_switch_flushes() {
    let (sim, space) = machine(Policy::slots(0, false));
    let other = sim.new_space();
    sim.map(Some(other), 1);
    sim.switch(1, space);
    sim.switch(0, other);
    let held = sim.space(space);
    assert!(sim.cached(1, 1).is_some());
    // From a CPU that does not run the space itself.
    sim.unmap(0, space, 1..2, false);
    assert_eq!(sim.cached(1, 1), None);
    sim.check(true);
    // All spaces have the same tag.
    sim.switch(1, other);
    sim.check(true);
    sim.switch(1, space);
    sim.check(true);
    assert_eq!(held.generation(), 1);
}

/// serenity 3902: a page of the kernel's half that one CPU maps anew for itself ("quick map") was
/// flushed there only, although others see it too.
#[test]
fn a_kernel_page_that_one_cpu_remaps_is_forgotten_by_all_that_are_online() {
    for global in [true, false] {
        let sim: Rc<Sim> = Sim::new(Policy::slots(12, true), global);
        sim.answer();
        sim.map(None, KERNEL);
        let (first, second) = (sim.new_space(), sim.new_space());
        // CPU 0 runs a space, CPU 1 another, having had the first; CPU 2 is lazy, CPU 3 has none.
        sim.switch(1, first);
        sim.switch(0, first);
        sim.switch(1, second);
        sim.switch(2, second);
        sim.lazy(2);
        sim.speculate();
        let old = sim.cached(3, KERNEL).unwrap();
        sim.unmap_kernel(0, KERNEL..KERNEL + 1);
        assert!(!holds(&sim, old), "global: {global}");
        sim.map(None, KERNEL);
        sim.switch(1, first);
        sim.check(true);
    }
}

/// The same through a space's own flusher: a global page of a range that is not known to be the
/// kernel's.
#[test]
fn a_global_range_reaches_cpus_that_do_not_have_the_space() {
    let (sim, space) = machine(Policy::slots(12, false));
    sim.switch(0, space);
    sim.map(None, KERNEL);
    sim.speculate();
    let held = sim.space(space);
    let gone = sim.unlink(None, KERNEL..KERNEL + 1, false);
    let ranges = [flush(1..2, false, false), flush(KERNEL..KERNEL + 1, false, true)];
    sim.hardware.on(0, || sim.flusher(&held).flush(&ranges));
    assert!(!holds(&sim, gone.frames[0]));
    sim.free(gone);
    sim.check(true);
}

/// mimiker 76: the identifier was masked wrongly, so that another space's was flushed.
#[test]
fn each_cpu_flushes_the_identifier_that_the_space_has_there() {
    for paired in [false, true] {
        let (sim, space) = machine(Policy::slots(12, paired));
        let other = sim.new_space();
        (0..8).for_each(|page| sim.map(Some(other), page));
        // The space is the first on CPU 0, and the second on CPU 1.
        sim.switch(0, space);
        sim.switch(1, other);
        sim.switch(1, space);
        let (zero, one) = (sim.root(0).unwrap().1, sim.root(1).unwrap().1);
        assert_ne!(zero, one);
        let before = sim.hardware.cpus.borrow()[1].leaves.len();
        sim.unmap(0, space, 1..2, false);
        sim.check(true);
        // The other's translations on CPU 1 are all there.
        let lost = before - sim.hardware.cpus.borrow()[1].leaves.len();
        assert_eq!(lost, if paired { 2 } else { 1 });
    }
}

/// CVE-2022-39188: who unmaps beside another finds an entry gone, flushes nothing for it, and frees
/// the nodes, while the other's flush has yet to come.
#[test]
fn a_flush_that_returns_has_taken_earlier_changes_with_it() {
    let (sim, space) = machine(Policy::slots(12, false));
    (0..3).for_each(|cpu| sim.switch(cpu, space));
    let held = sim.space(space);
    let early = sim.unlink(Some(space), 1..2, false);
    let pending = sim.hardware.on(1, || sim.flusher(&held).start(&[flush(1..2, false, false)]));
    // CPU 0 finds page 1 gone, and flushes for the rest of the node alone.
    let late = sim.unlink(Some(space), 0..4, true);
    sim.hardware.on(0, || sim.flusher(&held).flush(&[flush(2..4, true, false)]));
    assert!(!holds(&sim, early.frames[0]));
    drop(pending);
    let frame = late.frames[0];
    assert!(frame != early.frames[0]);
}
