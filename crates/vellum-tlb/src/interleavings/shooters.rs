//! CPUs that flush at the same time.

use super::{World, become_cpu, explore, me};
use crate::Slots;
use vellum_core::{Invalidate, Scope};

#[test]
fn two_cpus_that_flush_at_each_other_both_return() {
    explore(|| {
        let world = World::new();
        let other = world.beside(1, |world| {
            let mut slots = Slots::new(4, false);
            world.enter(&mut slots, None);
            world.touch();
            world.unmap(1, Scope::Leaves);
            world.touch();
            world.leave();
        });
        let mut slots = Slots::new(4, false);
        world.enter(&mut slots, None);
        world.touch();
        world.unmap(0, Scope::Leaves);
        world.touch();
        world.leave();
        other.join().unwrap();
    });
}

#[test]
fn a_request_without_room_is_not_lost() {
    explore(|| {
        let world = World::new();
        // A queue of one, two senders, and a target that serves once between them, or late.
        let target = world.beside(2, |world| {
            let mut slots = Slots::new(4, false);
            world.enter(&mut slots, None);
            world.touch();
            world.shootdown.serve();
            world.touch();
            world.leave();
        });
        let second = world.beside(1, |world| world.unmap(1, Scope::Leaves));
        let first = world.shootdown.of(&world.space).start(&[world.unlink(0)]);
        // Not to wait yet: of two threads that only wait, loom has one go first for ever.
        target.join().unwrap();
        first.wait();
        world.free(0);
        second.join().unwrap();
    });
}

#[test]
fn two_flushes_under_way_are_waited_for_one_by_one() {
    explore(|| {
        let world = World::new();
        let other = world.beside(1, |world| {
            let mut slots = Slots::new(4, false);
            world.enter(&mut slots, None);
            world.touch();
            world.shootdown.serve();
            world.touch();
            world.shootdown.serve();
            world.touch();
            world.leave();
        });
        let flusher = world.shootdown.of(&world.space);
        let first = flusher.start(&[world.unlink(0)]);
        // One that has no room, most of the time: the queue holds one.
        let second = flusher.start(&[world.unlink(1)]);
        second.wait();
        world.free(1);
        first.wait();
        world.free(0);
        flusher.flush(&[]);
        other.join().unwrap();
    });
}

#[test]
fn who_waits_has_an_interrupt_under_way_or_an_answer() {
    explore(|| {
        let world = World::new();
        become_cpu(2);
        world.enter(&mut Slots::new(4, false), None);
        world.look();
        let send = |world: &World, page| {
            let flush = world.unlink(page);
            drop(world.shootdown.of(&world.space).start(&[flush]));
        };
        let serve_if_interrupted = || {
            if world.shootdown.interrupts().take(2) {
                world.shootdown.serve();
            }
        };
        // The queue has room for one: the second may be a flood.
        become_cpu(0);
        send(&world, 0);
        become_cpu(2);
        let other = world.beside(1, move |world| send(world, 1));
        serve_if_interrupted();
        other.join().unwrap();
        serve_if_interrupted();
        assert!(me(|me| me.tlb.is_empty()), "a request is lost");
    });
}
