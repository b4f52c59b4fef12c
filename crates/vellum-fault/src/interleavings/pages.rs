//! Two CPUs at one anonymous page.

use super::{ANON, World, explore, explore_few, explore_with_writer};
use crate::modelled::{Cpu, page};
use crate::{Access, FaultError, RssKind};
use core::sync::atomic::Ordering::{Acquire, Release};
use vellum_cache::Page;
use vellum_core::{Attr, OutOfFrames, PhysAddr};

fn nothing(_: &World, _: &mut Cpu) {}

fn one(world: &World, cpu: &mut Cpu) {
    world.store(cpu, &ANON, (0, 0), 1);
}

fn two(world: &World, cpu: &mut Cpu) {
    world.store(cpu, &ANON, (0, 0), 2);
}

fn two_in_child(world: &World, cpu: &mut Cpu) {
    world.store(cpu, &ANON, (1, 0), 2);
}

/// A page with 100 in it that space 1 has as well.
fn forked(world: &World, cpu: &mut Cpu) {
    world.store(cpu, &ANON, (0, 0), 100);
    world.fork();
}

#[test]
fn two_stores_to_a_new_page_are_in_one_page() {
    explore(2, nothing, [one, two], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (0, 0)), 3);
        assert_eq!(world.space(0).rss().pages(RssKind::Anon), 1);
    });
}

#[test]
fn a_store_to_a_page_that_others_read_as_zeros_is_seen_by_them() {
    fn read_then_store(world: &World, cpu: &mut Cpu) {
        // What it reads first it may have cached.
        assert!(matches!(world.load(cpu, &ANON, (0, 0)), 0 | 2));
        world.store(cpu, &ANON, (0, 0), 1);
        assert!(matches!(world.load(cpu, &ANON, (0, 0)), 1 | 3));
    }
    explore(2, nothing, [read_then_store, two], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (0, 0)), 3);
    });
}

/// One CPU copies the page, the second stores to the copy, and the third hears of that while it may have
/// the page of before still: it has to have lost it by then.
#[test]
fn who_hears_of_a_store_to_a_copy_sees_it() {
    fn copy(world: &World, _: &mut Cpu) {
        world.space(0).fault(&ANON, page(0), Access::Write).unwrap();
    }
    fn store_and_tell(world: &World, cpu: &mut Cpu) {
        let add = |pa| world.machine().ram.add(pa, 1);
        if cpu.access(&world.space(0), 0, Attr::WRITE, add) {
            world.told.store(1, Release);
        }
    }
    fn watch(world: &World, cpu: &mut Cpu) {
        let mut word = 0;
        let mut look = || {
            let load = |pa| word = world.machine().ram.load(pa);
            assert!(cpu.access(&world.space(0), 0, Attr::READ, load));
            word
        };
        look();
        if world.told.load(Acquire) == 1 {
            assert_eq!(look(), 101);
        }
    }
    explore(3, forked, [watch, copy, store_and_tell], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (1, 0)), 100);
    });
}

#[test]
fn two_stores_of_one_space_to_a_page_that_a_child_has_go_to_one_copy() {
    explore_few(3, forked, [one, two], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (0, 0)), 103);
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (1, 0)), 100);
    });
}

#[test]
fn parent_and_child_that_store_at_once_part() {
    explore_few(3, forked, [one, two_in_child], |world, _| {
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (0, 0)), 101);
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (1, 0)), 102);
    });
}

#[test]
fn a_page_that_goes_with_another_space_while_it_is_copied_is_whole() {
    fn go(world: &World, cpu: &mut Cpu) {
        world.own(1).zap(ANON.start, ANON.len).unwrap();
        // The frame, if it is free now, is another page's at once.
        let other = super::Region { family: 8, ..ANON };
        world.store(cpu, &other, (1, 1), 5000);
    }
    explore_with_writer(3, forked, [one, go], |world, _| {
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (0, 0)), 101);
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (1, 1)), 5000);
    });
}

/// The other CPU's copy takes the place of the page, whose frame is then free for a third.
#[test]
fn a_frame_that_was_freed_and_taken_again_is_not_copied_for_what_it_was() {
    fn fault(world: &World, _: &mut Cpu) {
        let mmu = world.space(0);
        while mmu.fault(&ANON, page(0), Access::Write) == Err(FaultError::Retry) {
            loom::thread::yield_now();
        }
    }
    fn fault_and_take(world: &World, cpu: &mut Cpu) {
        fault(world, cpu);
        world.own(1).zap(ANON.start, ANON.len).unwrap();
        let taken = Page::take(world.machine()).unwrap().into_pa();
        world.machine().ram.fill(taken, 5000);
        world.told.store(taken.as_u64() as u32, Release);
    }
    explore_few(4, forked, [fault, fault_and_take], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (0, 0)), 100);
        let taken = PhysAddr::new(u64::from(world.told.load(Acquire)));
        // SAFETY: the share that was let go of above.
        drop(unsafe { Page::from_pa(world.machine(), taken) });
    });
}

#[test]
fn a_fork_beside_a_store_gives_the_child_what_was_there() {
    fn before(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &ANON, (0, 0), 100);
    }
    fn fork(world: &World, cpu: &mut Cpu) {
        world.fork();
        let first = world.load(cpu, &ANON, (1, 0));
        assert!(matches!(first, 100 | 101), "{first}");
        assert_eq!(world.load(cpu, &ANON, (1, 0)), first, "it is the child's");
    }
    explore_with_writer(3, before, [one, fork], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (0, 0)), 101);
    });
}

#[test]
fn a_page_that_is_unmapped_and_touched_again_is_zeros_and_then_what_was_stored() {
    fn zap(world: &World, _: &mut Cpu) {
        world.own(0).zap(ANON.start, ANON.len).unwrap();
    }
    fn before(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &ANON, (0, 0), 100);
    }
    explore_with_writer(2, before, [one, zap], |world, cpu| {
        let word = world.load(cpu, &ANON, (0, 0));
        assert!(matches!(word, 0 | 1), "{word}");
    });
}

#[test]
fn rights_that_are_taken_are_gone_when_the_call_returns() {
    fn before(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &ANON, (0, 0), 100);
    }
    fn protect(world: &World, cpu: &mut Cpu) {
        let mut mmu = world.own(0);
        mmu.protect(ANON.start, ANON.len, crate::Rights::READ, crate::Sharing::Private).unwrap();
        drop(mmu);
        // The region is read-only from here on; whoever stores to it had begun before.
        let first = world.load(cpu, &ANON, (0, 0));
        assert_eq!(world.load(cpu, &ANON, (0, 0)), first);
    }
    // As a program does that does not fault: through what the CPU has.
    fn store_twice(world: &World, cpu: &mut Cpu) {
        for _ in 0..2 {
            let mmu = world.space(0);
            let ram = &world.machine().ram;
            cpu.access(&mmu, 0, Attr::WRITE, |pa| ram.add(pa, 1));
        }
    }
    explore_with_writer(2, before, [store_twice, protect], |_, _| {});
}

#[test]
fn of_two_who_want_the_last_frame_one_gets_it_and_nothing_is_lost() {
    fn other(world: &World, _: &mut Cpu) {
        let out = FaultError::OutOfFrames(OutOfFrames { order: 0 });
        let done = world.space(0).fault(&ANON, page(1), Access::Write);
        assert!(done.is_ok() || done == Err(out));
    }
    fn one(world: &World, _: &mut Cpu) {
        let out = FaultError::OutOfFrames(OutOfFrames { order: 0 });
        let done = world.space(0).fault(&ANON, page(0), Access::Write);
        assert!(done.is_ok() || done == Err(out));
    }
    explore(1, nothing, [one, other], |world, _| {
        assert_eq!(world.space(0).rss().pages(RssKind::Anon), 1);
    });
}

#[test]
fn without_a_frame_for_the_copy_both_spaces_have_the_page_as_it_was() {
    fn store(world: &World, cpu: &mut Cpu) {
        let done = world.try_store(cpu, &ANON, (0, 0), 1);
        assert_eq!(done, Err(FaultError::OutOfFrames(OutOfFrames { order: 0 })));
    }
    explore(1, forked, [store, store], |world, _| {
        for space in [0, 1] {
            assert_eq!(world.load(&mut Cpu::default(), &ANON, (space, 0)), 100);
        }
    });
}
