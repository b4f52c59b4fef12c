//! Memory that runs out at every single allocation of every operation: the space is then as it was, or in
//! the partial state that the operation documents, and nothing is lost.

use crate::common::{self, BASE, Host, Spaces, anon, audit, get, page, put, region};
use vellum_cache::Pages;
use vellum_core::{Entry, PAGE_SIZE, PageTable, Walk};
use vellum_fault::host::designs::Design;
use vellum_fault::{Access, Backing, Engine, FaultError, Mmu, Region, Rights, Sharing, System};

/// Pages that are looked at, and that operations are done to.
const PAGES: u64 = 1100;

/// What is at a page: a byte, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    Byte(u8),
    Soft(u64),
}

fn look<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>, n: u64) -> There {
    match mmu.table().walk(page(n), &mut ()).unwrap().entry {
        Entry::Hole => There::Nothing,
        Entry::Leaf(..) => There::Byte(get(mmu, page(n))),
        Entry::Soft(soft) => There::Soft(soft.get()),
    }
}

fn look_at_all<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>) -> Vec<There> {
    (0..PAGES).map(|n| look(mmu, n)).collect()
}

/// What an operation came to without memory.
enum Stopped {
    /// Nothing has changed.
    Before,
    /// What was done is in the first so many pages of the range.
    After(u64),
}

/// An operation, and what it leaves.
trait Scenario {
    /// Every design takes memory for it; some have room enough for what else is done here.
    const TAKES: bool;

    fn prepare<T: PageTable>(engine: &Engine<Host<'_, T>>, spaces: &mut Spaces<'_, '_, T>);

    fn act<T: PageTable>(
        engine: &Engine<Host<'_, T>>,
        spaces: &mut Spaces<'_, '_, T>,
    ) -> Result<(), Stopped>;

    /// What pages of the first space are after `done` pages of the operation, that were `before`.
    fn partly(before: &[There], done: u64) -> Vec<Option<There>> {
        let _ = done;
        before.iter().copied().map(Some).collect()
    }

    fn check<T: PageTable>(spaces: &Spaces<'_, '_, T>, done: u64) {
        let _ = (spaces, done);
    }
}

/// Does the operation with 0, 1, 2 ... allocations that succeed, until they are enough.
fn at_every_allocation<D: Design, S: Scenario>() {
    let mut stops = 0;
    for budget in 0.. {
        assert!(budget < 300, "it never succeeds");
        let mut is_done = false;
        common::run::<D>(|engine, mut spaces| {
            S::prepare(engine, &mut spaces);
            let before = look_at_all(&spaces[0]);
            let ram = engine.system().memory();
            ram.limit(Some(budget));
            let stopped = S::act(engine, &mut spaces);
            ram.limit(None);
            audit(engine, &spaces.each_ref());
            let now = look_at_all(&spaces[0]);
            match stopped {
                Ok(()) => is_done = true,
                Err(Stopped::Before) => assert_eq!(now, before, "{budget}"),
                Err(Stopped::After(done)) => {
                    for (n, expected) in S::partly(&before, done).into_iter().enumerate() {
                        let expected = expected.unwrap_or(now[n]);
                        assert_eq!(now[n], expected, "page {n}, {budget} allocations, {done} done");
                    }
                    S::check(&spaces, done);
                }
            }
            if !is_done {
                stops += 1;
                assert!(S::act(engine, &mut spaces).is_ok(), "with memory it succeeds");
                audit(engine, &spaces.each_ref());
            }
        });
        if is_done {
            break;
        }
    }
    assert!(stops > 0 || !S::TAKES, "it took no memory, so nothing was tried");
}

fn faulted<C>(result: Result<C, FaultError>) -> Result<(), Stopped> {
    match result {
        Ok(_) => Ok(()),
        Err(FaultError::OutOfFrames(_)) => Err(Stopped::Before),
        Err(other) => panic!("{other}"),
    }
}

fn ranged(result: Result<(), vellum_core::RangeError>) -> Result<(), Stopped> {
    result.map_err(|error| {
        assert!(matches!(error.cause, vellum_core::Cause::OutOfFrames(_)), "{error}");
        Stopped::After(error.done / PAGE_SIZE)
    })
}

fn write<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>, region: &Region, n: u64, byte: u8) {
    mmu.fault(region, page(n), Access::Write).unwrap();
    put(mmu, page(n), byte);
}

/// 1,024 pages with a byte each, in large leaves where the design has some.
fn write_large<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>) {
    let region = Region { huge: true, ..anon(1024) };
    for n in (0..1024).step_by(if T::REPLACEABLE >> 21 & 1 == 0 { 64 } else { 1 }) {
        write(mmu, &region, n, n as u8 | 1);
    }
}

macro_rules! scenario {
    ($name:ident, $takes:literal, |$e:ident, $s:ident| $prepare:block, |$engine:ident, $spaces:ident| $act:block $(, $more:item)*) => {
        struct $name;
        impl Scenario for $name {
            const TAKES: bool = $takes;
            fn prepare<T: PageTable>($e: &Engine<Host<'_, T>>, $s: &mut Spaces<'_, '_, T>) {
                let _ = $e;
                $prepare
            }
            fn act<T: PageTable>(
                $engine: &Engine<Host<'_, T>>,
                $spaces: &mut Spaces<'_, '_, T>,
            ) -> Result<(), Stopped> {
                let _ = $engine;
                $act
            }
            $($more)*
        }
    };
}

scenario!(
    FirstRead,
    false,
    |e, s| {
        let _ = s;
    },
    |e, s| { faulted(s[0].fault(&anon(4), page(1), Access::Read)) }
);

scenario!(
    FirstWrite,
    true,
    |e, s| {
        let _ = s;
    },
    |e, s| { faulted(s[0].fault(&anon(4), page(1), Access::Write)) }
);

scenario!(
    WriteAfterRead,
    true,
    |e, s| {
        s[0].fault(&anon(4), page(1), Access::Read).unwrap();
    },
    |e, s| { faulted(s[0].fault(&anon(4), page(1), Access::Write)) }
);

scenario!(
    LargeWrite,
    true,
    |e, s| {
        let _ = s;
    },
    |e, s| { faulted(s[0].fault(&Region { huge: true, ..anon(512) }, page(7), Access::Write)) }
);

scenario!(
    Copy,
    true,
    |e, s| {
        let [parent, child, _] = s;
        write(parent, &anon(4), 1, 44);
        parent.copy_to(child, &anon(4)).unwrap();
    },
    |e, s| { faulted(s[0].fault(&anon(4), page(1), Access::Write)) }
);

scenario!(
    CopyOfLarge,
    true,
    |e, s| {
        let [parent, child, _] = s;
        write_large(parent);
        parent.copy_to(child, &anon(1024)).unwrap();
    },
    |e, s| {
        faulted(s[0].fault_exclusive(&Region { huge: true, ..anon(1024) }, page(64), Access::Write))
    }
);

scenario!(
    ReadOfFile,
    true,
    |e, s| {
        let _ = s;
        e.system().files().create(&[5; 9 * PAGE_SIZE as usize]);
    },
    |e, s| {
        let file = Backing::File(vellum_cache::FileId(1));
        let region = Region { around: 8, ..region(file, Sharing::Private, 9) };
        e.cache().read_ahead(e.system().files(), vellum_cache::FileId(1), 0, 5);
        faulted(s[0].fault(&region, page(8), Access::Read))?;
        faulted(s[0].fault(&region, page(1), Access::Read)).map_err(|_| Stopped::After(9))
    },
    fn partly(before: &[There], done: u64) -> Vec<Option<There>> {
        let file = |n| n < 9 && done > 0;
        before.iter().enumerate().map(|(n, &there)| (!file(n)).then_some(there)).collect()
    }
);

scenario!(
    PrivateWriteOfFile,
    true,
    |e, s| {
        let _ = s;
        e.system().files().create(&[5; PAGE_SIZE as usize]);
    },
    |e, s| {
        let region = region(Backing::File(vellum_cache::FileId(1)), Sharing::Private, 1);
        faulted(s[0].fault(&region, page(0), Access::Write))
    }
);

scenario!(
    ComingBack,
    true,
    |e, s| {
        write(&s[0], &anon(4), 2, 70);
        let swap = e.system().swap();
        assert_eq!(s[0].page_out(page(2), |bytes| Some(swap.store(bytes))), Ok(true));
    },
    |e, s| { faulted(s[0].fault(&anon(4), page(2), Access::Read)) }
);

scenario!(
    Fork,
    false,
    |e, s| {
        write_large(&s[0]);
        let small = Region { len: 2000 * PAGE_SIZE, ..anon(2000) };
        write(&s[0], &small, 1050, 9);
        s[0].guard(page(1060), 2 * PAGE_SIZE).unwrap();
    },
    |e, s| {
        let [parent, child, _] = s;
        child.zap(BASE, PAGES * PAGE_SIZE).unwrap();
        ranged(parent.copy_to(child, &anon(PAGES)))
    },
    fn check<T: PageTable>(spaces: &Spaces<'_, '_, T>, done: u64) {
        let [parent, child, _] = spaces.each_ref().map(look_at_all);
        assert_eq!(child[..done as usize], parent[..done as usize]);
        assert!(child[done as usize..].iter().all(|&there| there == There::Nothing));
    }
);

scenario!(
    Relocate,
    false,
    |e, s| {
        write_large(&s[0]);
        s[0].guard(page(100), 2 * PAGE_SIZE).unwrap();
    },
    |e, s| {
        let (from, to) = (page(3), page(5000 * 512 + 11));
        match s[0].relocate(from, to, 700 * PAGE_SIZE) {
            Ok(()) => Ok(()),
            Err(cause) => {
                assert!(matches!(cause, vellum_core::Cause::OutOfFrames(_)), "{cause}");
                assert_eq!(
                    s[0].visit(to, 700 * PAGE_SIZE, &mut |span| panic!("left: {span:?}")),
                    Ok(())
                );
                Err(Stopped::Before)
            }
        }
    }
);

scenario!(
    ZapOfPart,
    false,
    |e, s| {
        write_large(&s[0]);
    },
    |e, s| { ranged(s[0].zap(page(0), 1000 * PAGE_SIZE)) },
    fn partly(before: &[There], done: u64) -> Vec<Option<There>> {
        let gone = |n| if n < done as usize { There::Nothing } else { before[n] };
        (0..before.len()).map(|n| Some(gone(n))).collect()
    }
);

scenario!(
    ProtectOfPart,
    false,
    |e, s| {
        write_large(&s[0]);
    },
    |e, s| { ranged(s[0].protect(page(3), 700 * PAGE_SIZE, Rights::READ, Sharing::Private)) }
);

scenario!(
    Guard,
    false,
    |e, s| {
        write(&s[0], &anon(4), 1, 1);
    },
    |e, s| { ranged(s[0].guard(page(1), 90 * PAGE_SIZE)) },
    fn partly(before: &[There], done: u64) -> Vec<Option<There>> {
        let guarded = |n: u64| (1..=done).contains(&n);
        let is_range = |n: u64| (1..91).contains(&n);
        (0u64..)
            .zip(before)
            .map(|(n, &there)| match n {
                _ if guarded(n) => Some(There::Soft(2)),
                _ if is_range(n) => None,
                _ => Some(there),
            })
            .collect()
    }
);

/// Bytes in two nodes of x86-64's lowest tables, which a fork links.
fn forked<T: PageTable>(spaces: &mut Spaces<'_, '_, T>) {
    let [parent, child, _] = spaces;
    for n in (0..1024).step_by(32) {
        write(parent, &anon(1024), n, n as u8 | 1);
    }
    parent.copy_to(child, &anon(1024)).unwrap();
}

scenario!(
    ForkAgain,
    false,
    |e, s| { forked(s) },
    |e, s| {
        let [parent, _, second] = s;
        second.zap(BASE, PAGES * PAGE_SIZE).unwrap();
        // Ends that lie within parts that are linked already.
        let middle = Region { start: page(100), len: 900 * PAGE_SIZE, ..anon(0) };
        ranged(parent.copy_to(second, &middle))
    },
    fn check<T: PageTable>(spaces: &Spaces<'_, '_, T>, done: u64) {
        let [parent, _, second] = spaces.each_ref().map(look_at_all);
        let done = done as usize + 100;
        assert_eq!(second[100..done], parent[100..done]);
        assert!(second[done..].iter().all(|&there| there == There::Nothing));
    }
);

scenario!(StoreAfterFork, true, |e, s| { forked(s) }, |e, s| {
    faulted(common::fault(&mut s[0], &anon(1024), page(64), Access::Write))
});

scenario!(
    ZapAfterFork,
    false,
    |e, s| { forked(s) },
    |e, s| { ranged(s[0].zap(page(3), 1000 * PAGE_SIZE)) },
    fn partly(before: &[There], done: u64) -> Vec<Option<There>> {
        let gone = |n: usize| (3..3 + done as usize).contains(&n);
        let left = |n: usize| if gone(n) { There::Nothing } else { before[n] };
        (0..before.len()).map(|n| Some(left(n))).collect()
    }
);

scenario!(ProtectAfterFork, false, |e, s| { forked(s) }, |e, s| {
    ranged(s[0].protect(page(3), 700 * PAGE_SIZE, Rights::READ, Sharing::Private))
});

scenario!(MoveAfterFork, false, |e, s| { forked(s) }, |e, s| {
    let to = page(5000 * 512 + 11);
    match s[0].relocate(page(3), to, 1000 * PAGE_SIZE) {
        Ok(()) => Ok(()),
        Err(cause) => {
            assert!(matches!(cause, vellum_core::Cause::OutOfFrames(_)), "{cause}");
            let left = &mut |span| panic!("left: {span:?}");
            assert_eq!(s[0].visit(to, 1000 * PAGE_SIZE, left), Ok(()));
            Err(Stopped::Before)
        }
    }
});

scenario!(
    MoveOfParts,
    false,
    |e, s| {
        forked(s);
        // One of the nodes that move is linked, one is not; before them and behind them there are ends.
        s[0].make_own(page(600), PAGE_SIZE).unwrap();
        for n in [1030, 1090] {
            write(&s[0], &anon(PAGES), n, 7);
        }
    },
    |e, s| {
        let to = page((9000 << 9) + 5);
        match s[0].relocate(page(5), to, 1060 * PAGE_SIZE) {
            Ok(()) => Ok(()),
            Err(cause) => {
                assert!(matches!(cause, vellum_core::Cause::OutOfFrames(_)), "{cause}");
                let left = &mut |span| panic!("left: {span:?}");
                assert_eq!(s[0].visit(to, 1060 * PAGE_SIZE, left), Ok(()));
                Err(Stopped::Before)
            }
        }
    }
);

scenario!(GiveUpAfterFork, false, |e, s| { forked(s) }, |e, s| {
    let given_up = s[0].give_up(page(0), 700 * PAGE_SIZE);
    given_up.map_err(|cause| {
        assert!(matches!(cause, vellum_core::Cause::OutOfFrames(_)), "{cause}");
        Stopped::Before
    })
});

macro_rules! every {
    ($($test:ident: $scenario:ident),* $(,)?) => {
        macro_rules! design {
            ($name:ident, $design:ty) => {
                mod $name { $(
                    #[test]
                    fn $test() {
                        super::at_every_allocation::<$design, super::$scenario>();
                    }
                )* }
            };
        }
        vellum_fault::for_each_design!(design);
    };
}
every! {
    a_first_read: FirstRead,
    a_first_write: FirstWrite,
    a_write_after_a_read: WriteAfterRead,
    a_write_of_2_mib: LargeWrite,
    a_copy: Copy,
    a_copy_out_of_a_large_leaf: CopyOfLarge,
    a_read_of_a_file: ReadOfFile,
    a_private_write_of_a_file: PrivateWriteOfFile,
    a_page_that_comes_back: ComingBack,
    a_fork: Fork,
    a_move: Relocate,
    unmapping_a_part: ZapOfPart,
    protecting_a_part: ProtectOfPart,
    guarding: Guard,
    a_fork_after_a_fork: ForkAgain,
    a_store_after_a_fork: StoreAfterFork,
    unmapping_a_part_after_a_fork: ZapAfterFork,
    protecting_a_part_after_a_fork: ProtectAfterFork,
    a_move_after_a_fork: MoveAfterFork,
    a_move_of_whole_parts: MoveOfParts,
    giving_up_after_a_fork: GiveUpAfterFork,
}
