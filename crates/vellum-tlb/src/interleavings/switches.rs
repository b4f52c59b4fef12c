//! CPUs that come to a space, come back to it or go, beside somebody who flushes it.

use super::{Machine, World, become_cpu, explore, me};
use crate::{Local, Slots, Space, Stale};
use vellum_core::{Attr, Flush, Invalidate, Scope};

#[test]
fn a_switch_beside_a_flush_sees_it_or_is_seen() {
    explore(|| {
        let world = World::new();
        let other = world.beside(1, |world| {
            let mut slots = world.was_here();
            world.enter(&mut slots, None);
            world.touch();
            world.shootdown.serve();
            world.touch();
            world.leave();
        });
        world.unmap(0, Scope::Leaves);
        other.join().unwrap();
    });
}

#[test]
fn a_cpu_that_leaves_and_returns_between_two_flushes_misses_neither() {
    explore(|| {
        let world = World::new();
        let other = world.beside(1, |world| {
            let mut slots = Slots::new(4, false);
            world.enter(&mut slots, None);
            world.touch();
            world.leave();
            world.enter(&mut slots, None);
            world.touch();
            world.leave();
        });
        world.unmap(0, Scope::Leaves);
        world.unmap(1, Scope::Leaves);
        other.join().unwrap();
    });
}

#[test]
fn a_lazy_cpu_that_comes_back_has_seen_what_it_was_not_told() {
    explore(|| {
        let world = World::new();
        let other = world.beside(1, |world| {
            let mut slots = world.was_here();
            world.enter(&mut slots, None);
            world.touch();
            world.lazy();
            world.enter(&mut slots, Some(&world.space));
            world.touch();
            world.shootdown.serve();
            world.touch();
            world.leave();
        });
        world.unmap(0, Scope::Leaves);
        other.join().unwrap();
    });
}

#[test]
fn a_node_is_not_freed_before_a_lazy_cpu_has_forgotten_the_way_to_it() {
    explore(|| {
        let world = World::new();
        let other = world.beside(1, |world| {
            let mut slots = world.was_here();
            world.enter(&mut slots, None);
            world.lazy();
            // A walk that nobody asked for: what is cached here stands for an interior entry, and
            // the frame for the node.
            world.touch();
            world.shootdown.serve();
            world.touch();
            world.leave();
        });
        world.unmap(0, Scope::Tables);
        other.join().unwrap();
    });
}

/// A space that has had more changes than the other one will have; it has no pages.
fn space_with_changes(world: &World) -> Space {
    let space = world.shootdown.new_space();
    for _ in 0..2 {
        let flush = Flush::new(super::page_of(0), 4096, 12, Attr::RW);
        world.shootdown.of(&space).flush(&[flush]);
    }
    space
}

/// Switches to a space without pages; in the midst of it, what is loaded is still used.
fn switch_to(world: &World, from: Option<&Space>, to: &Space, slots: &mut Slots) {
    let load = |turn| {
        world.touch();
        Machine.leave();
        slots.load(turn).tags
    };
    // SAFETY: nothing is cached of a space without pages; the models pass what is loaded.
    #[allow(unsafe_code, reason = "calls an unsafe function")]
    unsafe {
        world.shootdown.switch(from, to, load);
    }
}

#[test]
fn what_was_seen_of_the_next_space_is_no_answer_for_the_one_that_is_left() {
    explore(|| {
        let world = World::new();
        let next = space_with_changes(&world);
        become_cpu(1);
        let mut slots = world.was_here();
        world.enter(&mut slots, None);
        let other = world.beside(0, |world| world.unmap(0, Scope::Leaves));
        switch_to(&world, Some(&world.space), &next, &mut slots);
        other.join().unwrap();
    });
}

#[test]
fn what_was_seen_of_the_space_that_is_left_is_no_answer_for_the_next() {
    explore(|| {
        let world = World::new();
        let last = space_with_changes(&world);
        become_cpu(1);
        let mut slots = world.was_here();
        switch_to(&world, None, &last, &mut slots);
        let other = world.beside(0, |world| world.unmap(0, Scope::Leaves));
        world.enter(&mut slots, Some(&last));
        world.touch();
        world.shootdown.serve();
        world.touch();
        world.leave();
        other.join().unwrap();
    });
}

#[test]
fn a_space_is_retired_when_nobody_walks_it_any_more() {
    explore(|| {
        let world = World::new();
        become_cpu(1);
        let mut slots = world.was_here();
        world.enter(&mut slots, None);
        world.lazy();
        let other = world.beside(0, |world| {
            assert_eq!(world.shootdown.retire(&world.space), Ok(()));
            world.free(0);
        });
        world.touch();
        world.shootdown.serve();
        world.touch();
        if me(|me| me.loaded).is_some() {
            world.leave();
        }
        other.join().unwrap();
    });
}

#[test]
fn a_cpu_that_comes_online_beside_a_flush_sees_it_or_is_seen() {
    explore(|| {
        let world = World::new();
        let other = world.beside(1, |world| {
            // The kernel's half is walked from any root.
            me(|me| me.loaded = Some(vellum_core::Asid::ZERO));
            world.look();
            // SAFETY: no space is loaded.
            #[allow(unsafe_code, reason = "calls an unsafe function")]
            unsafe {
                world.shootdown.online();
            }
            world.touch();
            world.shootdown.serve();
            world.touch();
            Machine.leave();
            // SAFETY: as above, and nothing is used any more.
            #[allow(unsafe_code, reason = "calls an unsafe function")]
            unsafe {
                world.shootdown.offline();
            }
        });
        world.unlink(0);
        let flush = Flush::new(super::page_of(0), 4096, 12, Attr::GLOBAL);
        world.shootdown.of(&world.space).flush(&[flush]);
        world.free(0);
        other.join().unwrap();
    });
}

#[test]
fn a_request_that_is_served_in_the_midst_of_a_switch_is_answered_after_it() {
    explore(|| {
        let world = World::new();
        become_cpu(2);
        let mut slots = Slots::new(4, false);
        world.enter(&mut slots, None);
        world.look();
        let other = world.beside(1, |world| {
            drop(world.shootdown.of(&world.space).start(&[world.unlink(0)]));
        });
        let serve_if_interrupted = || {
            if world.shootdown.interrupts().take(2) {
                world.shootdown.serve();
            }
        };
        let load = |turn| {
            serve_if_interrupted();
            let load = slots.load(turn);
            if load.stale != Stale::Nothing {
                Machine.flush_space(load.tags);
            }
            load.tags
        };
        // SAFETY: the root is loaded, and stays so.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        unsafe {
            world.shootdown.switch(Some(&world.space), &world.space, load);
        }
        other.join().unwrap();
        serve_if_interrupted();
        assert!(me(|me| me.tlb.keys().all(|&(_, page)| page != 0)), "a request is lost");
    });
}
