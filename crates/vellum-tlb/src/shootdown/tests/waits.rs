//! Nobody waits for ever: CPUs that change what they are in the middle of what others ask of them.
//!
//! ```text
//!   retire     finds active ---> lazy meanwhile: asked again
//!   flush      asks ----> while it is off: the interrupt is lost, the mark in the inbox is not
//!              asks ----> in the midst of a switch: put off until the switch is done
//! ```

use super::flush;
use super::sim::{KERNEL, Policy, Sim};
use crate::shootdown::request::{Request, What};
use core::cell::Cell;
use std::rc::Rc;

fn machine() -> Rc<Sim> {
    Sim::new(Policy::slots(12, false), true)
}

/// A space with the pages 0 to 7, which `cpus` have loaded.
fn shared(sim: &Rc<Sim>, cpus: &[usize]) -> usize {
    let space = sim.new_space();
    (0..8).for_each(|page| sim.map(Some(space), page));
    cpus.iter().for_each(|&cpu| sim.switch(cpu, space));
    sim.speculate();
    space
}

/// CPUs take their interrupts while one waits, after `first` at the first time, and it does not wait for
/// ever.
fn answer_soon(sim: &Rc<Sim>, first: impl Fn(&Sim) + 'static) {
    let rounds = Cell::new(0);
    sim.while_waiting(move |sim| {
        if rounds.replace(rounds.get() + 1) == 0 {
            first(sim);
        }
        assert!(rounds.get() < 100, "a CPU waits for ever");
        sim.interrupt_all();
    });
}

#[test]
fn a_cpu_that_goes_lazy_while_a_space_is_retired_is_asked_to_leave_it() {
    let sim = machine();
    let space = shared(&sim, &[1, 3]);
    let held = sim.space(space);
    // CPU 1 is waited for first; meanwhile the last thread ends on CPU 3, which was active.
    sim.lazy(1);
    answer_soon(&sim, |sim| sim.lazy(3));
    assert_eq!(sim.hardware.on(0, || sim.protocol.retire(&held)), Ok(()));
    assert_eq!((sim.root(1), sim.root(3)), (None, None));
}

#[test]
fn a_cpu_that_was_asked_to_leave_and_came_back_in_between_is_asked_again() {
    let sim = machine();
    let space = shared(&sim, &[1]);
    let held = sim.space(space);
    sim.lazy(1);
    answer_soon(&sim, move |sim| {
        sim.switch(1, space);
        sim.interrupt(1); // it is active: not borrowed, not left
        sim.lazy(1);
    });
    assert_eq!(sim.hardware.on(0, || sim.protocol.retire(&held)), Ok(()));
    assert_eq!(sim.root(1), None);
}

#[test]
fn a_cpu_that_was_asked_while_it_was_off_is_interrupted_again_when_it_is_back() {
    let sim = machine();
    (0..2).for_each(|page| sim.map(None, KERNEL + page));
    sim.offline(3);
    sim.answer();
    sim.unmap_kernel(0, KERNEL + 1..KERNEL + 2);
    // Who had found it online asks only now, and the interrupt does not arrive.
    let request = Request { space: None, generation: 1, what: What::Whole };
    assert!(sim.protocol.cpus[3].post(request).interrupt);
    sim.online(3);
    sim.speculate();
    answer_soon(&sim, |_| ());
    sim.unmap_kernel(0, KERNEL..KERNEL + 1);
    assert_eq!(sim.cached(3, KERNEL), None);
}

#[test]
fn a_request_that_comes_in_the_midst_of_a_switch_is_put_off_and_not_lost() {
    let sim = machine();
    let space = shared(&sim, &[0, 1]);
    let held = sim.space(space);
    let tags = sim.root(1).unwrap().1;
    let mut pending = None;
    let gone = sim.unlink(Some(space), 1..2, false);
    // SAFETY: the root is loaded already, and what it misses comes after the generation was read.
    #[allow(unsafe_code, reason = "calls an unsafe function")]
    sim.hardware.on(1, || unsafe {
        sim.protocol.switch(Some(&held), &held, |_| {
            let start = || sim.flusher(&held).start(&[flush(1..2, false, false)]);
            pending = Some(sim.hardware.on(0, start));
            sim.interrupt(1); // as a page fault does whose handler serves
            tags
        });
    });
    answer_soon(&sim, |_| ());
    sim.hardware.on(0, || pending.unwrap().wait());
    assert_eq!(sim.cached(1, 1), None);
    sim.free(gone);
    sim.check(true);
}
