//! Pages that are out, and go out.

use super::{ANON, World, explore, explore_with_writer};
use crate::RssKind;
use crate::modelled::{Cpu, page};

fn page_out(world: &World, space: usize) -> bool {
    let machine = world.machine();
    let store = |bytes: vellum_core::FrameBytes<'_>| machine.places.store(&machine.ram, bytes);
    world.own(space).page_out(page(0), store).unwrap()
}

/// A page with 100 in it that is out.
fn out(world: &World, cpu: &mut Cpu) {
    world.store(cpu, &ANON, (0, 0), 100);
    assert!(page_out(world, 0));
}

fn one(world: &World, cpu: &mut Cpu) {
    world.store(cpu, &ANON, (0, 0), 1);
}

fn two(world: &World, cpu: &mut Cpu) {
    world.store(cpu, &ANON, (0, 0), 2);
}

#[test]
fn a_page_that_two_cpus_want_back_comes_back_once() {
    explore(2, out, [one, two], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (0, 0)), 103);
        let space = world.space(0);
        assert_eq!((space.rss().pages(RssKind::Anon), space.rss().pages(RssKind::Swap)), (1, 0));
        assert_eq!(world.machine().places.count_used(), 0);
    });
}

#[test]
fn parent_and_child_each_get_a_page_back() {
    fn before(world: &World, cpu: &mut Cpu) {
        out(world, cpu);
        world.fork();
    }
    fn child(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &ANON, (1, 0), 2);
    }
    explore(2, before, [one, child], |world, _| {
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (0, 0)), 101);
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (1, 0)), 102);
        assert_eq!(world.machine().places.count_used(), 0);
    });
}

/// The place that a page has left may be another page's by the time that a slow fault reads it.
#[test]
fn a_place_that_became_another_pages_is_not_read_for_what_it_was() {
    fn other(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &ANON, (0, 0), 2);
        world.store(cpu, &ANON, (1, 0), 5000);
        assert!(page_out(world, 1));
    }
    explore_with_writer(3, out, [one, other], |world, _| {
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (0, 0)), 103);
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (1, 0)), 5000);
    });
}

#[test]
fn a_store_beside_a_page_that_goes_out_is_not_lost() {
    fn before(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &ANON, (0, 0), 100);
    }
    fn go_out(world: &World, _: &mut Cpu) {
        page_out(world, 0);
    }
    explore_with_writer(2, before, [one, go_out], |world, cpu| {
        assert_eq!(world.load(cpu, &ANON, (0, 0)), 101);
    });
}

#[test]
fn a_page_that_others_have_stays_when_it_is_to_go_out() {
    fn before(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &ANON, (0, 0), 100);
        world.fork();
    }
    fn child_goes_out(world: &World, _: &mut Cpu) {
        page_out(world, 1);
    }
    explore_with_writer(3, before, [one, child_goes_out], |world, _| {
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (0, 0)), 101);
        assert_eq!(world.load(&mut Cpu::default(), &ANON, (1, 0)), 100);
    });
}
