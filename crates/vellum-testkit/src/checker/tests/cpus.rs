//! CPUs that each hold what they have cached themselves, and faults that are nobody's fault.

use super::{FRAME, Says, VA, page};
use crate::Arena;
use crate::checker::{Access, Cached, Checker, Missed, Root};
use core::convert::Infallible;
use vellum_core::{
    Attr, Entry, Flush, FrameSource as _, Gather as _, PAGE_SHIFT, PAGE_SIZE, PhysAddr, Run, Scope,
};

/// Two CPUs, of which flushes reach the first only.
fn deaf<'s>(table: &Says, arena: &'s Arena) -> Checker<'s> {
    let checker = Checker::new(table, arena, &[VA]);
    checker.with_cpus(2, |checker, flushes| checker.forget(0, flushes))
}

/// A page goes while CPU 1 has the root so; what is seen of that, and when it has the root again.
fn unmap_beside(root: Root, attr: Attr) -> [Result<(), Missed>; 2] {
    let (arena, table) = (Arena::new(4), Says::leaf(attr));
    let checker = deaf(&table, &arena);
    checker.set_root(0, Root::Active);
    checker.set_root(1, Root::Active);
    assert!(checker.check(&table).is_ok());
    checker.set_root(1, root);
    table.now(PAGE_SHIFT, Entry::Hole);
    let mut gather = checker.gather::<Infallible, 4>(|_| {});
    gather.leaf(Run::new(VA, FRAME, PAGE_SIZE, attr));
    gather.finish();
    let first = checker.check(&table);
    checker.set_root(1, Root::Active);
    [first, checker.check(&table)]
}

#[test]
fn a_cpu_that_no_flush_reached_is_seen_as_soon_as_it_could_use_what_it_holds() {
    let in_use = |m: &Result<_, _>| matches!(m, Err(Missed::FrameInUse { va: VA, .. }));
    assert!(in_use(&unmap_beside(Root::Active, Attr::RW)[0]));
    for root in [Root::Lazy, Root::Unloaded] {
        let [away, back] = unmap_beside(root, Attr::RW);
        assert!(away.is_ok() && matches!(back, Err(Missed::Unowed { .. })), "{root:?}");
        assert!(in_use(&unmap_beside(root, Attr::RW | Attr::GLOBAL)[0]), "{root:?}");
    }
}

#[test]
fn a_cpu_holds_what_it_saw_itself_and_forgets_what_it_is_told() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::RW | Attr::GLOBAL));
    let checker = deaf(&table, &arena);
    assert!(!checker.holds_own(1));
    checker.set_root(1, Root::Active);
    assert!(checker.holds_own(1) && !checker.holds_own(0));
    checker.set_root(1, Root::Unloaded);
    checker.forget_all(1, false);
    assert!(!checker.holds_own(1), "nothing comes back while the root is not loaded");
    table.now(PAGE_SHIFT, Entry::Hole);
    assert!(matches!(checker.check(&table), Err(Missed::Unowed { .. })), "what is global stays");
    let checker = deaf(&table, &arena);
    table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::RW | Attr::GLOBAL));
    checker.set_root(1, Root::Active);
    checker.set_root(1, Root::Unloaded);
    checker.forget_all(1, true);
    table.now(PAGE_SHIFT, Entry::Hole);
    assert_eq!(checker.check(&table), Ok(()));
}

#[test]
fn a_lazy_cpu_may_begin_a_walk_and_one_without_the_root_may_not() {
    let arena = Arena::new(4);
    for (root, missed) in [(Root::Active, true), (Root::Lazy, true), (Root::Unloaded, false)] {
        let table = Says::leaf(Attr::NONE);
        let node = arena.alloc(0).expect("room");
        table.node.set(node);
        let checker = deaf(&table, &arena);
        checker.set_root(1, Root::Active);
        checker.set_root(1, root);
        table.node.set(PhysAddr::new(0));
        let mut gather = checker.gather::<Infallible, 4>(|_| {});
        gather.stale(Flush::tables(VA, 1 << 21, false));
        gather.finish();
        // SAFETY: allocated above; nothing but the model knows it.
        unsafe { arena.free(node, 0) };
        let ended = checker.check(&table);
        assert_eq!(ended.is_err(), missed, "{root:?}");
        assert!(!missed || matches!(ended, Err(Missed::NodeInUse { .. })), "{ended:?}");
    }
}

#[test]
fn what_is_granted_anew_faults_once_on_each_cpu_and_never_again() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::READ));
    let checker = deaf(&table, &arena);
    for cpu in 0..2 {
        checker.set_root(cpu, Root::Active);
    }
    let access = |cpu, need| checker.access(cpu, (VA, need), &table);
    assert_eq!(access(0, Attr::READ), Ok(Access::Granted));
    assert_eq!(access(0, Attr::WRITE), Ok(Access::Denied));
    table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::RW));
    for cpu in 0..2 {
        assert_eq!(access(cpu, Attr::READ), Ok(Access::Granted));
        assert_eq!(access(cpu, Attr::WRITE), Ok(Access::Spurious), "CPU {cpu} knows it as it was");
        assert_eq!(access(cpu, Attr::RW), Ok(Access::Granted), "CPU {cpu} has walked again");
        assert_eq!(access(cpu, Attr::EXEC), Ok(Access::Denied));
    }
    table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::READ));
    assert!(matches!(access(0, Attr::READ), Err(Missed::Unowed { .. })), "taken back, unflushed");
}

#[test]
fn a_fault_does_not_end_an_absence_that_only_a_flush_of_tables_does() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::NONE));
    table.now(PAGE_SHIFT, Entry::Hole);
    for (scope, stays) in [(Scope::Fresh, false), (Scope::Tables, true)] {
        table.now(PAGE_SHIFT, Entry::Hole);
        let absence: fn(u8) -> Option<Scope> =
            if stays { |_| Some(Scope::Tables) } else { |_| Some(Scope::Fresh) };
        let checker = Checker::new(&table, &arena, &[VA]).with_absence(absence);
        assert_eq!(checker.check(&table), Ok(()));
        table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::READ));
        let mut gather = checker.gather::<Infallible, 4>(|_| {});
        gather.stale(page(Attr::READ).with_scope(scope));
        let ended = checker.access(0, (VA, Attr::READ), &table);
        let stuck = |m| matches!(m, Missed::Stuck { cached: Cached::Absence(_), .. });
        assert_eq!(ended.is_err_and(stuck), stays);
        assert!(stays || ended == Ok(Access::Spurious), "{ended:?}");
        gather.finish();
    }
}
