//! Random sequences on simulated CPUs: switches, laziness, maps, unmaps, exits, in every policy, with
//! things going on while a CPU waits.

use super::flush;
use super::sim::{CPUS, KERNEL, Policy, Sim};
use crate::InUse;
use core::cell::Cell;
use proptest::prelude::*;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;
use vellum_core::Invalidate;

#[derive(Clone, Copy, Debug)]
enum Op {
    Switch(usize, usize),
    Lazy(usize),
    Leave(usize),
    Map(usize, u64),
    /// CPU, space, first page, count, nodes too.
    Unmap(usize, usize, u64, u64, bool),
    /// Two unmaps under way at once, waited for in this order or the other.
    Overlap(usize, usize, u64, u64, bool),
    MapKernel(u64),
    UnmapKernel(usize, u64),
    /// The space ends, and another takes its place.
    Exit(usize, usize),
    Interrupt(usize),
    OffAndOn(usize),
}

/// More spaces than slots, and than identifiers that are left when all CPUs have one.
const SPACES: usize = 5;
const PAGES: u64 = 12;

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..CPUS;
    let space = 0..SPACES;
    let page = 0..PAGES;
    prop_oneof![
        6 => (cpu.clone(), space.clone()).prop_map(|(cpu, space)| Op::Switch(cpu, space)),
        2 => cpu.clone().prop_map(Op::Lazy),
        1 => cpu.clone().prop_map(Op::Leave),
        6 => (space.clone(), page.clone()).prop_map(|(space, page)| Op::Map(space, page)),
        6 => (cpu.clone(), space.clone(), page.clone(), 1..6_u64, any::<bool>())
            .prop_map(|(cpu, space, page, count, tables)| Op::Unmap(cpu, space, page, count, tables)),
        2 => (cpu.clone(), space.clone(), page.clone(), page, any::<bool>())
            .prop_map(|(cpu, space, one, two, turn)| Op::Overlap(cpu, space, one, two, turn)),
        1 => (0..4_u64).prop_map(Op::MapKernel),
        1 => (cpu.clone(), 0..4_u64).prop_map(|(cpu, page)| Op::UnmapKernel(cpu, page)),
        1 => (cpu.clone(), space).prop_map(|(cpu, space)| Op::Exit(cpu, space)),
        2 => cpu.clone().prop_map(Op::Interrupt),
        1 => cpu.prop_map(Op::OffAndOn),
    ]
}

/// The machine, and which of its spaces are in use.
struct World {
    sim: Rc<Sim>,
    spaces: Vec<usize>,
}

impl World {
    fn new(policy: Policy, global: bool, seed: u64) -> Self {
        let sim: Rc<Sim> = Sim::new(policy, global);
        let spaces = (0..SPACES).map(|_| sim.new_space()).collect();
        let random = Cell::new(seed | 1);
        let count = Cell::new(0_u32);
        sim.while_waiting(move |sim| meanwhile(sim, &random, &count));
        Self { sim, spaces }
    }

    fn apply(&mut self, op: Op) {
        let sim = &self.sim;
        match op {
            Op::Switch(cpu, space) => sim.switch(cpu, self.spaces[space]),
            Op::Lazy(cpu) => sim.lazy(cpu),
            Op::Leave(cpu) => sim.leave(cpu),
            Op::Map(space, page) => sim.map(Some(self.spaces[space]), page),
            Op::Unmap(cpu, space, page, count, tables) => {
                sim.unmap(cpu, self.spaces[space], page..page + count, tables);
            }
            Op::Overlap(cpu, space, one, two, turn) => self.overlap(cpu, space, [one, two], turn),
            Op::MapKernel(page) => sim.map(None, KERNEL + page),
            Op::UnmapKernel(cpu, page) => sim.unmap_kernel(cpu, KERNEL + page..KERNEL + page + 1),
            Op::Exit(cpu, space) => self.exit(cpu, space),
            Op::Interrupt(cpu) => sim.interrupt(cpu),
            Op::OffAndOn(cpu) => {
                sim.leave(cpu);
                sim.offline(cpu);
                sim.online(cpu);
            }
        }
    }

    fn overlap(&self, cpu: usize, space: usize, pages: [u64; 2], turn: bool) {
        let sim = &self.sim;
        let number = self.spaces[space];
        let held = sim.space(number);
        let start = |page: u64| {
            let gone = sim.unlink(Some(number), page..page + 1, false);
            let flusher = sim.flusher(&held);
            (gone, sim.hardware.on(cpu, || flusher.start(&[flush(page..page + 1, false, false)])))
        };
        let mut both = pages.map(start);
        if turn {
            both.reverse();
        }
        for (gone, pending) in both {
            sim.hardware.on(cpu, || pending.wait());
            sim.free(gone);
            sim.check(false);
        }
    }

    fn exit(&mut self, cpu: usize, space: usize) {
        let sim = &self.sim;
        let number = self.spaces[space];
        let held = sim.space(number);
        // Lazy CPUs may have come back meanwhile.
        while let Err(InUse { cpu }) = sim.hardware.on(cpu, || sim.protocol.retire(&held)) {
            sim.leave(cpu);
        }
        // Without a flush.
        sim.free(sim.unlink(Some(number), 0..PAGES + 8, true));
        self.spaces[space] = sim.new_space();
    }
}

/// What other CPUs do while one waits: some take interrupts, go lazy, switch; sooner or later all of
/// them answer.
fn meanwhile(sim: &Sim, random: &Cell<u64>, count: &Cell<u32>) {
    let next = |below: u64| {
        let mut x = random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        random.set(x);
        (x >> 20) % below
    };
    count.set(count.get() + 1);
    let here = sim.hardware.current.get();
    for cpu in (0..CPUS).filter(|&cpu| cpu != here) {
        match next(6) {
            0 if !count.get().is_multiple_of(4) => {}
            1 => {
                if let Some((space, _)) = sim.root(cpu) {
                    sim.lazy(cpu);
                    if next(2) == 0 {
                        sim.switch(cpu, space);
                    }
                }
            }
            2 => sim.leave(cpu),
            _ => sim.interrupt(cpu),
        }
    }
    sim.speculate();
    sim.check(false);
}

fn policies() -> impl Strategy<Value = (u8, bool, bool)> {
    // Widths, pairs, and whether tags are the same on all CPUs (which needs three bits for four).
    prop_oneof![
        (0..=16_u8, any::<bool>()).prop_map(|(bits, paired)| (bits, paired, false)),
        (3..=6_u8).prop_map(|bits| (bits, false, true)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_cpu_uses_what_is_stale_or_another_spaces(
        ops in prop::collection::vec(op(), 1..if cfg!(miri) { 20 } else { 120 }),
        (bits, paired, same) in policies(),
        global in any::<bool>(),
        ceiling in 0..4_u64,
        seed in any::<u64>(),
    ) {
        let policy = if same { Policy::global(bits) } else { Policy::slots(bits, paired) };
        let mut world = World::new(policy, global, seed);
        world.sim.protocol.set_ceiling(crate::Ceiling::new(ceiling));
        for op in ops {
            world.sim.speculate();
            world.apply(op);
            world.sim.check(true);
        }
    }
}

#[test]
fn the_check_sees_a_frame_that_is_freed_without_a_flush() {
    let world = World::new(Policy::slots(12, false), true, 1);
    let sim = &world.sim;
    sim.answer();
    sim.map(Some(0), 3);
    sim.switch(1, 0);
    sim.free(sim.unlink(Some(0), 3..4, false));
    let check = || sim.check(false);
    assert!(std::panic::catch_unwind(core::panic::AssertUnwindSafe(check)).is_err());
    let held = sim.space(0);
    sim.hardware.on(0, || sim.flusher(&held).flush(&[flush(3..4, false, false)]));
    sim.check(true);
}
