//! Who is interrupted, and what happens there: no less than is needed, and no more.

use super::flush;
use super::sim::{CPUS, Cpu, Hardware, KERNEL, Policy, Sim, Wire};
use crate::{Ceiling, InUse, Shootdown, Tags};
use std::rc::Rc;
use std::vec::Vec;
use vellum_core::{Invalidate, Scope};

fn machine() -> Rc<Sim> {
    let sim = Sim::new(Policy::slots(12, false), true);
    sim.answer();
    sim
}

/// A space with the pages 0 to 7, which `cpus` have loaded.
fn shared(sim: &Rc<Sim>, cpus: &[usize]) -> usize {
    let space = sim.new_space();
    (0..8).for_each(|page| sim.map(Some(space), page));
    cpus.iter().for_each(|&cpu| sim.switch(cpu, space));
    sim.speculate();
    space
}

#[test]
fn a_space_that_no_other_cpu_has_is_flushed_without_an_interrupt() {
    let sim = machine();
    let space = shared(&sim, &[0]);
    sim.unmap(0, space, 1..2, false);
    assert_eq!(sim.hardware.counts.interrupts.get(), 0);
    assert_eq!(sim.cached(0, 1), None);
    sim.check(true);
}

#[test]
fn only_cpus_that_have_the_space_are_interrupted_each_once() {
    let sim = machine();
    let space = shared(&sim, &[0, 1, 3]);
    shared(&sim, &[2]);
    let ranges = [flush(1..2, false, false), flush(5..6, false, false)];
    let gone = [sim.unlink(Some(space), 1..2, false), sim.unlink(Some(space), 5..6, false)];
    let held = sim.space(space);
    sim.hardware.on(0, || sim.flusher(&held).flush(&ranges));
    gone.into_iter().for_each(|gone| sim.free(gone));
    assert_eq!(sim.hardware.counts.interrupts.get(), 2);
    sim.check(true);
}

#[test]
fn a_lazy_cpu_is_left_alone_and_flushes_when_it_comes_back() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    sim.lazy(1);
    let spaces = sim.hardware.counts.spaces.get();
    sim.unmap(0, space, 1..2, false);
    assert_eq!(sim.hardware.counts.interrupts.get(), 0);
    assert!(sim.cached(1, 1).is_some(), "the test shows nothing, unless it has something stale");
    sim.switch(1, space);
    assert_eq!(sim.hardware.counts.spaces.get(), spaces + 1);
    sim.check(true);
}

#[test]
fn a_lazy_cpu_that_has_missed_nothing_comes_back_without_a_flush() {
    let sim = machine();
    let space = shared(&sim, &[1]);
    let spaces = sim.hardware.counts.spaces.get();
    sim.lazy(1);
    sim.switch(1, space);
    assert_eq!(sim.hardware.counts.spaces.get(), spaces);
}

#[test]
fn a_lazy_cpu_is_interrupted_when_nodes_go() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    sim.lazy(1);
    sim.unmap(0, space, 0..4, true);
    assert_eq!(sim.hardware.counts.interrupts.get(), 1);
    sim.check(true);
}

#[test]
fn what_a_cpu_saw_by_interrupts_it_need_not_flush_for_when_it_returns() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    sim.unmap(0, space, 1..2, false);
    shared(&sim, &[1]);
    let spaces = sim.hardware.counts.spaces.get();
    sim.switch(1, space);
    assert_eq!(sim.hardware.counts.spaces.get(), spaces);
    sim.check(true);
}

#[test]
fn few_pages_go_one_by_one_and_many_at_once() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    sim.protocol.set_ceiling(Ceiling::new(3));
    let spaces = sim.hardware.counts.spaces.get();
    sim.unmap(0, space, 0..3, false);
    let counts = &sim.hardware.counts;
    assert_eq!((counts.ranges.get(), counts.spaces.get() - spaces), (2, 0));
    sim.unmap(0, space, 3..7, false);
    assert_eq!((counts.ranges.get(), counts.spaces.get() - spaces), (2, 2));
    sim.check(true);
}

#[test]
fn pages_are_counted_by_their_own_size() {
    let sim = machine();
    shared(&sim, &[0]);
    let (space, spaces) = (sim.space(0), sim.hardware.counts.spaces.get());
    // 4 MiB are two leaves of 2 MiB, not 1024 pages.
    let huge = vellum_core::Flush { page: 21, ..flush(0..1024, false, false) };
    sim.hardware.on(0, || sim.flusher(&space).flush(&[huge]));
    let counts = &sim.hardware.counts;
    assert_eq!((counts.ranges.get(), counts.spaces.get() - spaces), (1, 0));
}

#[test]
fn more_ranges_than_a_request_holds_are_a_flush_of_the_space() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    let ranges: Vec<_> = (0..5).map(|page| flush(page..page + 1, false, false)).collect();
    let gone = sim.unlink(Some(space), 0..5, false);
    let held = sim.space(space);
    sim.hardware.on(0, || sim.flusher(&held).flush(&ranges));
    sim.free(gone);
    sim.check(true);
}

#[test]
fn fresh_mappings_cost_nothing_where_absence_is_not_cached() {
    let sim = machine();
    let space = sim.space(shared(&sim, &[0, 1]));
    let fresh = flush(1..2, false, true).with_scope(Scope::Fresh);
    sim.hardware.on(0, || sim.flusher(&space).flush(&[fresh]));
    assert_eq!((space.generation(), sim.hardware.counts.interrupts.get()), (0, 0));
    sim.hardware.on(0, || sim.flusher(&space).flush(&[]));
    assert_eq!(space.generation(), 0);
}

#[test]
fn two_flushes_overlap_and_each_is_done_when_it_says_so() {
    let sim = machine();
    let space = shared(&sim, &[0, 1, 2]);
    let held = sim.space(space);
    let first_gone = sim.unlink(Some(space), 0..1, false);
    let second_gone = sim.unlink(Some(space), 1..2, false);
    sim.hardware.on(0, || {
        let mut first = sim.flusher(&held).start(&[flush(0..1, false, false)]);
        let mut second = sim.flusher(&held).start(&[flush(1..2, false, false)]);
        assert!(!first.poll() && !second.poll());
        // One interrupt for both on each CPU.
        assert_eq!(sim.hardware.counts.interrupts.get(), 2);
        sim.interrupt(1);
        assert!(!second.poll(), "the other CPU has not answered");
        sim.interrupt(2);
        assert!(second.poll());
        second.wait();
        first.wait();
    });
    sim.free(second_gone);
    sim.free(first_gone);
    sim.check(true);
}

#[test]
fn a_queue_that_is_full_costs_a_flush_of_everything_and_loses_nothing() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    let held = sim.space(space);
    let pages = 0..8;
    let gone = sim.unlink(Some(space), pages.clone(), false);
    sim.hardware.on(0, || {
        let start = |page: u64| sim.flusher(&held).start(&[flush(page..page + 1, false, false)]);
        // Five rounds, of which two find no room.
        let under_way: Vec<_> = (0..5).flat_map(|_| pages.clone()).map(start).collect();
        under_way.into_iter().for_each(super::super::Pending::wait);
    });
    sim.free(gone);
    assert_eq!(sim.hardware.counts.all.get(), CPUS + 1, "once online each, once here");
    sim.check(true);
}

#[test]
fn requests_of_many_cpus_may_come_in_any_order() {
    let sim = machine();
    let space = shared(&sim, &[0, 1, 2]);
    let held = sim.space(space);
    // CPU 1 gets the second change's request and, before the first one's, all of it.
    let gone = sim.unlink(Some(space), 0..2, false);
    let first = sim.hardware.on(0, || sim.flusher(&held).start(&[flush(0..1, false, false)]));
    sim.hardware.on(2, || sim.flusher(&held).flush(&[flush(1..2, false, false)]));
    // By the second generation, the first is seen as well.
    for cpu in 0..3 {
        assert_eq!((sim.cached(cpu, 0), sim.cached(cpu, 1)), (None, None), "CPU {cpu}");
    }
    sim.hardware.on(0, || first.wait());
    sim.free(gone);
    sim.check(true);
}

#[test]
fn cpus_that_flush_at_each_other_with_interrupts_off_both_return() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    let held = sim.space(space);
    // CPU 1 takes no interrupt: while CPU 0 waits, it begins a flush of its own, and waits too.
    let begun = core::cell::Cell::new(false);
    sim.while_waiting(move |sim| {
        if sim.hardware.current.get() == 0 && !begun.replace(true) {
            sim.unmap(1, 0, 5..6, false);
        } else {
            // Nothing: CPU 1 waits for CPU 0, which serves in its own wait only.
            let other = 1 - sim.hardware.current.get();
            sim.hardware.on(other, || sim.protocol.serve());
        }
    });
    let gone = sim.unlink(Some(space), 1..2, false);
    sim.hardware.on(0, || sim.flusher(&held).flush(&[flush(1..2, false, false)]));
    sim.free(gone);
    sim.check(true);
    assert_eq!(held.generation(), 2);
}

#[test]
fn a_retired_space_is_loaded_nowhere() {
    let sim = machine();
    let space = shared(&sim, &[0, 1, 2]);
    let held = sim.space(space);
    let retire = || sim.hardware.on(0, || sim.protocol.retire(&held));
    sim.lazy(0);
    sim.lazy(1);
    assert_eq!(retire(), Err(InUse { cpu: 2 }));
    sim.switch(0, space);
    sim.lazy(2);
    assert_eq!(retire(), Err(InUse { cpu: 0 }));
    sim.leave(0);
    assert_eq!(retire(), Ok(()));
    assert!((0..3).all(|cpu| sim.root(cpu).is_none()));
    sim.free(sim.unlink(Some(space), 0..8, true));
    sim.check(true);
    // Its tags come back with nothing of it.
    let next = shared(&sim, &[0, 1, 2]);
    assert_ne!(sim.space(next).id(), held.id());
    sim.check(true);
}

#[test]
fn a_space_is_retired_from_a_cpu_whose_queue_is_full() {
    let sim = machine();
    let space = shared(&sim, &[1]);
    let held = sim.space(space);
    for _ in 0..20 {
        // Nobody waits for these.
        drop(sim.hardware.on(0, || sim.flusher(&held).start(&[flush(9..10, false, false)])));
    }
    sim.lazy(1);
    assert_eq!(sim.hardware.on(0, || sim.protocol.retire(&held)), Ok(()));
    assert_eq!(sim.root(1), None);
}

#[test]
fn a_cpu_is_in_the_mask_of_the_space_that_it_has_loaded_and_of_no_other() {
    let sim = machine();
    let (first, second) = (shared(&sim, &[1, 2]), shared(&sim, &[3]));
    sim.switch(1, second);
    sim.leave(2);
    sim.lazy(3);
    let cpus = |space| sim.space(space).cpus().iter().collect::<Vec<_>>();
    assert_eq!((cpus(first), cpus(second)), (Vec::new(), Vec::from([1, 3])));
}

#[test]
fn a_cpu_that_was_off_has_missed_nothing_when_it_is_back() {
    let sim = machine();
    shared(&sim, &[0]);
    sim.map(None, KERNEL);
    sim.speculate();
    sim.offline(3);
    sim.unmap_kernel(0, KERNEL..KERNEL + 1);
    assert_eq!(sim.hardware.counts.interrupts.get(), 2);
    sim.online(3);
    sim.check(true);
}

#[test]
fn the_last_of_256_cpus_is_interrupted_like_any_other() {
    let hardware = Rc::new(Hardware::default());
    hardware.cpus.borrow_mut().resize_with(256, Cpu::default);
    let wire = Wire::<false>(Rc::clone(&hardware));
    // SAFETY: nothing is mapped anywhere.
    #[allow(unsafe_code, reason = "calls an unsafe function")]
    let protocol = unsafe { Shootdown::<_, _, 256, 4>::new(wire.clone(), wire) };
    let protocol = Rc::new(protocol);
    let space = protocol.new_space();
    for cpu in [0, 130, 255] {
        // SAFETY: as above; each CPU does so once.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        hardware.on(cpu, || unsafe {
            protocol.online();
            protocol.switch(None, &space, |_| Tags::default());
        });
    }
    let (inner, board) = (Rc::clone(&protocol), Rc::downgrade(&hardware));
    let serve = move |cpu| board.upgrade().unwrap().on(cpu, || inner.serve());
    *hardware.waiting.borrow_mut() = Some(Rc::new(move || [130, 255].into_iter().for_each(&serve)));
    protocol.of(&space).flush(&[flush(1..2, false, false)]);
    assert_eq!((hardware.counts.interrupts.get(), hardware.counts.ranges.get()), (2, 3));
    let interrupted = |cpu: usize| hardware.cpus.borrow()[cpu].interrupted;
    assert!(interrupted(130) && interrupted(255) && !interrupted(0));
    *hardware.waiting.borrow_mut() = None;
}

#[test]
fn two_hundred_and_fifty_six_cpus_have_a_bit_each() {
    let set: crate::CpuSet<4> = [0, 63, 64, 255, 256].into_iter().collect();
    assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
    assert_eq!((set.count(), set.words()[3]), (4, 1 << 63));
    let mut set = set;
    set.remove(64);
    assert!(!set.contains(64) && set.contains(255) && !set.contains(256) && !set.is_empty());
}
