//! Identifiers that run out while another CPU switches without the lock.

use super::explore;
use crate::{AsidTag, Global, Recent, SpaceId, Stale, Turn};
use core::cell::Cell;
use core::num::NonZeroU64;
use loom::thread;
use std::collections::BTreeMap;
use std::rc::Rc;
use vellum_core::Asid;

/// Three identifiers, two CPUs.
type Few = Global<2, 1>;

struct World {
    global: Few,
    tags: [AsidTag; 5],
    /// What each CPU runs, as identifier and space. (No atomics of loom's.)
    runs: [Cell<Option<(Asid, usize)>>; 2],
}

/// One CPU: whose translations it has under which identifier.
struct Cpu<'a> {
    world: &'a World,
    number: usize,
    recent: Recent<4>,
    tlb: BTreeMap<Asid, usize>,
}

impl<'a> Cpu<'a> {
    fn new(world: &'a World, number: usize) -> Self {
        Self { world, number, recent: Recent::new(), tlb: BTreeMap::new() }
    }

    fn load(&mut self, space: usize) {
        let id = SpaceId(NonZeroU64::new(space as u64 + 1).unwrap());
        let turn = Turn { space: id, generation: 0, left: None };
        let tag = &self.world.tags[space];
        let load = self.world.global.load(self.number, tag, &mut self.recent, turn);
        let asid = load.tags.kernel;
        match load.stale {
            Stale::Nothing => {}
            Stale::Tags => drop(self.tlb.remove(&asid)),
            Stale::All => self.tlb.clear(),
        }
        let owner = *self.tlb.entry(asid).or_insert(space);
        assert_eq!(owner, space, "the identifier {asid} still has another space's translations");
        self.world.runs[self.number].set(Some((asid, space)));
        if let (Some((first, one)), Some((second, two))) =
            (self.world.runs[0].get(), self.world.runs[1].get())
        {
            assert_eq!(first == second, one == two, "spaces {one} and {two}, identifier {first}");
        }
    }
}

fn world() -> Rc<World> {
    Rc::new(World {
        global: Few::new(2).unwrap(),
        tags: core::array::from_fn(|_| AsidTag::new()),
        runs: Default::default(),
    })
}

#[test]
fn a_switch_beside_a_rollover_keeps_its_identifier_or_gets_a_clean_one() {
    explore(|| {
        let world = world();
        let other = {
            let world = Rc::clone(&world);
            thread::spawn(move || {
                let mut cpu = Cpu::new(&world, 1);
                cpu.load(0);
                cpu.load(1);
                cpu.load(0); // without the lock, unless there was a rollover
            })
        };
        let mut cpu = Cpu::new(&world, 0);
        cpu.load(2);
        cpu.load(3); // all are used up by now, or by the other's next switch
        cpu.load(2);
        other.join().unwrap();
    });
}

#[test]
fn a_tag_of_the_new_generation_is_not_used_without_the_flush_that_it_needs() {
    explore(|| {
        let world = world();
        let other = {
            let world = Rc::clone(&world);
            thread::spawn(move || {
                let mut cpu = Cpu::new(&world, 1);
                cpu.load(0);
                cpu.load(1);
                cpu.load(4); // perhaps one that the other CPU has just given a tag
            })
        };
        let mut cpu = Cpu::new(&world, 0);
        cpu.load(2);
        cpu.load(3);
        cpu.load(4);
        other.join().unwrap();
    });
}
