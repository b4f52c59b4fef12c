//! A machine of three CPUs and four spaces, and what may be wrong with it.
//!
//! ```text
//!   CPU      interrupts that are under way; the space that is loaded; which tag holds which space
//!   space    table, checker, and the protocol's word for it
//! ```
//!
//! All runs on one thread. While one CPU waits, the others take their interrupts, sooner or later, and
//! go lazy, leave and come back in between, by the numbers that a seed gives.

use core::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use vellum_core::{
    Asid, Attr, Change, Flush, Invalidate as _, PageTable, PhysAddr, RangeError, Ref, Run, VirtAddr,
};
use vellum_radix::{Radix, Walker, X86_64};
use vellum_testkit::Arena;
use vellum_testkit::checker::{Access, Checker, Root};
use vellum_tlb::{
    Ceiling, CpuSet, InUse, Interrupts, Local, Reach, Shootdown, Slots, Space, Stale, Tags, Turn,
};

pub(crate) const CPUS: usize = 3;
/// More than a CPU has tags for.
pub(crate) const SPACES: usize = 4;
const TAGS: usize = 2;

type Table<'s> = Radix<X86_64<4>, &'s Arena>;
type Protocol<'s> = Shootdown<Wire<'s>, Wire<'s>, CPUS>;

/// What the machine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Flushes stay on the CPU that makes them.
    OnlyHere,
    /// Who makes a flush does not do it itself.
    OnlyThere,
    /// One CPU acknowledges, and forgets nothing.
    Deaf,
    /// Global translations are looked for only where the space is loaded.
    GlobalAsOwn,
    /// Interior entries stay.
    NoTables,
    /// A tag that comes to another space, or back to its own after a change, is not flushed.
    StaleTags,
    /// The last page of a range stays.
    ShortRange,
    /// An invalidation meets every other page.
    WideSteps,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::OnlyHere,
        Self::OnlyThere,
        Self::Deaf,
        Self::GlobalAsOwn,
        Self::NoTables,
        Self::StaleTags,
        Self::ShortRange,
        Self::WideSteps,
    ];
}

struct Cpu {
    interrupted: bool,
    /// The space whose root is loaded.
    root: Option<usize>,
    slots: Slots<TAGS>,
    /// By space: the tag that its translations have here, if there may be any.
    tags: [Option<Asid>; SPACES],
}

impl Cpu {
    const fn new() -> Self {
        Self { interrupted: false, root: None, slots: Slots::new(12, false), tags: [None; SPACES] }
    }
}

/// The hardware.
pub(crate) struct Board<'s> {
    fault: Fault,
    current: Cell<usize>,
    random: Cell<u64>,
    cpus: RefCell<[Cpu; CPUS]>,
    checkers: RefCell<Vec<Weak<Checker<'s>>>>,
    protocol: RefCell<Weak<Protocol<'s>>>,
}

impl<'s> Board<'s> {
    pub(crate) fn new(fault: Fault, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            fault,
            current: Cell::new(0),
            random: Cell::new(seed | 1),
            cpus: RefCell::new(core::array::from_fn(|_| Cpu::new())),
            checkers: RefCell::default(),
            protocol: RefCell::default(),
        })
    }

    fn on<R>(&self, cpu: usize, f: impl FnOnce() -> R) -> R {
        let before = self.current.replace(cpu);
        let result = f();
        self.current.set(before);
        result
    }

    fn next(&self, below: u64) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 20) % below
    }

    fn protocol(&self) -> Rc<Protocol<'s>> {
        self.protocol.borrow().upgrade().expect("the machine has it")
    }

    fn checker(&self, space: usize) -> Rc<Checker<'s>> {
        self.checkers.borrow()[space].upgrade().expect("the machine has it")
    }

    fn set_root(&self, cpu: usize, root: Option<usize>) {
        let before = core::mem::replace(&mut self.cpus.borrow_mut()[cpu].root, root);
        if let Some(space) = before.filter(|&space| Some(space) != root) {
            self.checker(space).set_root(cpu, Root::Unloaded);
        }
        if let Some(space) = root {
            self.checker(space).set_root(cpu, Root::Active);
        }
    }

    fn lazy(&self, cpu: usize) {
        // SAFETY: the checker knows that it uses nothing.
        self.on(cpu, || unsafe { self.protocol().lazy() });
        if let Some(space) = self.cpus.borrow()[cpu].root {
            self.checker(space).set_root(cpu, Root::Lazy);
        }
    }

    fn interrupt(&self, cpu: usize) {
        let interrupted = core::mem::take(&mut self.cpus.borrow_mut()[cpu].interrupted);
        if interrupted {
            self.on(cpu, || self.protocol().serve());
        }
    }

    pub(crate) fn interrupt_all(&self) {
        (0..CPUS).for_each(|cpu| self.interrupt(cpu));
    }

    /// Has this CPU forget, of the spaces that `is_meant` says.
    fn forget(&self, is_meant: impl Fn(Option<Asid>) -> bool, f: impl Fn(&Checker<'s>, usize)) {
        let cpu = self.current.get();
        if self.fault == Fault::Deaf && cpu == 1 {
            return;
        }
        let tags = self.cpus.borrow()[cpu].tags;
        for space in (0..SPACES).filter(|&space| is_meant(tags[space])) {
            f(&self.checker(space), cpu);
        }
    }
}

/// The hardware, as the protocol knows it.
#[derive(Clone)]
pub(crate) struct Wire<'s>(Rc<Board<'s>>);

// SAFETY: one CPU is the current one, and no handler runs but while it waits and between steps.
unsafe impl Interrupts for Wire<'_> {
    fn masked<R>(&self, f: impl FnOnce(usize) -> R) -> R {
        f(self.0.current.get())
    }

    fn send(&self, cpus: &CpuSet) {
        for cpu in cpus.iter() {
            self.0.cpus.borrow_mut()[cpu].interrupted = true;
        }
    }

    fn relax(&self) {
        let here = self.0.current.get();
        for cpu in (0..CPUS).filter(|&cpu| cpu != here) {
            match self.0.next(6) {
                0 => {}
                1 => self.0.lazy(cpu),
                _ => self.0.interrupt(cpu),
            }
        }
    }
}

// SAFETY: the model forgets what it is told to, but where a test wants to see that it did not.
unsafe impl Local for Wire<'_> {
    const CACHES_ABSENCE: bool = false;

    fn flush_ranges(&self, reach: Reach, flushes: &[Flush]) {
        let spoilt = |flush: &Flush| match self.0.fault {
            Fault::ShortRange => {
                Flush { last: flush.last.wrapping_add(0u64.wrapping_sub(4096)), ..*flush }
            }
            Fault::WideSteps => Flush { page: flush.page + 1, ..*flush },
            Fault::NoTables => flush.with_scope(vellum_core::Scope::Leaves),
            _ => *flush,
        };
        let spoilt: Vec<_> = flushes.iter().map(spoilt).collect();
        match reach {
            Reach::Space(tags) => {
                let own: Vec<_> = spoilt.iter().map(|f| Flush { global: false, ..*f }).collect();
                self.0.forget(
                    |tag| tag == Some(tags.kernel),
                    |checker, cpu| checker.forget(cpu, &own),
                );
            }
            Reach::Every => {
                let all: Vec<_> = spoilt.iter().map(|f| Flush { global: true, ..*f }).collect();
                self.0.forget(|_| true, |checker, cpu| checker.forget(cpu, &all));
            }
        }
    }

    fn flush_space(&self, tags: Tags) {
        let is_meant = |tag| tag == Some(tags.kernel);
        self.0.forget(is_meant, |checker, cpu| checker.forget_all(cpu, false));
    }

    fn flush_all(&self) {
        self.0.forget(|_| true, |checker, cpu| checker.forget_all(cpu, true));
    }

    fn leave(&self) {
        self.0.set_root(self.0.current.get(), None);
    }
}

/// Spaces on a board.
pub(crate) struct Machine<'s> {
    pub(crate) board: Rc<Board<'s>>,
    protocol: Rc<Protocol<'s>>,
    spaces: Vec<(Rc<Space>, Rc<Checker<'s>>, RefCell<Table<'s>>)>,
    frames: Cell<PhysAddr>,
}

impl<'s> Machine<'s> {
    pub(crate) fn new(arena: &'s Arena, board: Rc<Board<'s>>, points: &[VirtAddr]) -> Self {
        let (wire, board_of) = (Wire(Rc::clone(&board)), Rc::downgrade(&board));
        // SAFETY: all CPUs come online below, and load roots by `switch` alone.
        let protocol: Rc<Protocol<'s>> = Rc::new(unsafe { Shootdown::new(wire.clone(), wire) });
        *board.protocol.borrow_mut() = Rc::downgrade(&protocol);
        let spaces: Vec<_> = (0..SPACES)
            .map(|_| {
                let table = Radix::new(arena).expect("room");
                let space = Rc::new(protocol.new_space());
                let checker =
                    checker(arena, &table, points, (board_of.clone(), Rc::downgrade(&space)));
                (space, Rc::new(checker), RefCell::new(table))
            })
            .collect();
        board.checkers.borrow_mut().extend(spaces.iter().map(|(_, c, _)| Rc::downgrade(c)));
        for cpu in 0..CPUS {
            // SAFETY: it has no space.
            board.on(cpu, || unsafe { protocol.online() });
        }
        Self { board, protocol, spaces, frames: Cell::new(arena.first().addr()) }
    }

    pub(crate) fn set_ceiling(&self, ceiling: Ceiling) {
        self.protocol.set_ceiling(ceiling);
    }

    /// Every CPU that could use something finds it as the table says.
    ///
    /// # Panics
    ///
    /// If not.
    pub(crate) fn check(&self) {
        for (space, (_, checker, table)) in self.spaces.iter().enumerate() {
            let checked = checker.check(&*table.borrow());
            checked.unwrap_or_else(|missed| panic!("space {space}: {missed}"));
        }
    }

    pub(crate) fn switch(&self, cpu: usize, to: usize) {
        let from = self.board.cpus.borrow()[cpu].root.map(|space| Rc::clone(&self.spaces[space].0));
        let load = |turn: Turn| {
            let load = self.board.cpus.borrow_mut()[cpu].slots.load(turn);
            match load.stale {
                Stale::Nothing => {}
                _ if self.board.fault == Fault::StaleTags => {}
                Stale::Tags => self.protocol.local().flush_space(load.tags),
                Stale::All => self.protocol.local().flush_all(),
            }
            self.tag(cpu, to, load.tags.kernel);
            self.board.set_root(cpu, Some(to));
            load.tags
        };
        let to = &self.spaces[to].0;
        // SAFETY: `load` loads the root and forgets what it must; `from` is what is loaded.
        self.board.on(cpu, || unsafe { self.protocol.switch(from.as_deref(), to, load) });
    }

    /// From now on `tag` is of this space on this CPU, which holds nothing of another under it.
    fn tag(&self, cpu: usize, to: usize, tag: Asid) {
        let tags = &mut self.board.cpus.borrow_mut()[cpu].tags;
        for (space, (_, checker, _)) in self.spaces.iter().enumerate() {
            let had = tags[space].take();
            let is_left = (space == to) != (had == Some(tag));
            if !is_left {
                tags[space] = had;
            }
            let holds = had.is_some() && is_left && checker.holds_own(cpu);
            assert!(!holds, "CPU {cpu}: tag {tag} is of two spaces, or {space} has two");
        }
        tags[to] = Some(tag);
    }

    pub(crate) fn lazy(&self, cpu: usize) {
        self.board.lazy(cpu);
    }

    pub(crate) fn leave(&self, cpu: usize) {
        let root = self.board.cpus.borrow()[cpu].root;
        let Some(space) = root else { return };
        let load = || self.protocol.local().leave();
        // SAFETY: `load` leaves the root, which is what is loaded.
        self.board.on(cpu, || unsafe { self.protocol.leave(&self.spaces[space].0, load) });
    }

    pub(crate) fn map(&self, cpu: usize, space: usize, (va, len): (VirtAddr, u64), attr: Attr) {
        let skew = va.as_u64() & ((1 << 21) - 1);
        let first = self.frames.get().align_up(21).expect("far below the end").wrapping_add(skew);
        self.frames.set(first.wrapping_add(len));
        let run = Run::new(va, first, len, attr).with_leaves_up_to(21);
        self.changing(cpu, space, |table, gather| table.map(run, gather));
    }

    pub(crate) fn unmap(&self, cpu: usize, space: usize, (va, len): (VirtAddr, u64)) {
        self.changing(cpu, space, |table, gather| table.unmap(va, len, gather));
    }

    pub(crate) fn protect(
        &self,
        cpu: usize,
        space: usize,
        (va, len): (VirtAddr, u64),
        change: Change,
    ) {
        self.changing(cpu, space, |table, gather| table.protect(va, len, change, gather));
    }

    /// An operation on CPU `cpu`, with a gather of its own that is finished there.
    fn changing(
        &self,
        cpu: usize,
        space: usize,
        op: impl FnOnce(&mut Table<'s>, &mut Watch<'_, 's>) -> Result<(), RangeError>,
    ) {
        let (_, checker, table) = &self.spaces[space];
        self.board.on(cpu, || {
            let mut gather = checker.gather(|_| {});
            // Whether the table did it is its own affair; what it owes is not.
            let _ = op(&mut table.borrow_mut(), &mut gather);
            gather.finish();
        });
    }

    /// An access of the CPU to the space that it runs: done, or refused as the table says, with one
    /// fault more at most.
    ///
    /// # Panics
    ///
    /// If not.
    pub(crate) fn access(&self, cpu: usize, (va, need): (VirtAddr, Attr)) {
        let root = self.board.cpus.borrow()[cpu].root;
        let Some(space) = root else { return };
        let (_, checker, table) = &self.spaces[space];
        let table = table.borrow();
        match checker.access(cpu, (va, need), &*table) {
            Ok(Access::Granted | Access::Denied) => {}
            Ok(Access::Spurious) => {
                assert_eq!(checker.access(cpu, (va, need), &*table), Ok(Access::Granted));
            }
            Err(missed) => panic!("{missed}"),
        }
    }

    /// Ends every space.
    ///
    /// # Panics
    ///
    /// When something is left that a CPU could use.
    pub(crate) fn end(self) {
        self.board.interrupt_all();
        for (number, (space, ..)) in self.spaces.iter().enumerate() {
            while let Err(InUse { cpu }) = self.board.on(0, || self.protocol.retire(space)) {
                self.leave(cpu);
            }
            assert!(self.board.cpus.borrow().iter().all(|cpu| cpu.root != Some(number)));
        }
        self.check();
        let spaces =
            self.spaces.into_iter().map(|(space, checker, table)| ((space, checker), table));
        // What all share is flushed of all of them, to the last.
        let (kept, tables): (Vec<_>, Vec<_>) = spaces.unzip();
        for ((_, checker), table) in kept.iter().zip(tables) {
            let mut gather: Watch<'_, 's> = checker.gather(|_| {});
            table.into_inner().retire(&mut gather);
            gather.finish();
            checker.check_unloaded().unwrap_or_else(|missed| panic!("{missed}"));
        }
    }
}

type Watch<'c, 's> = vellum_testkit::checker::Watch<'c, 's, <Table<'s> as PageTable>::Detached, 3>;

/// The checker of one table, whose flushes go through the protocol.
fn checker<'s>(
    arena: &'s Arena,
    table: &Table<'s>,
    points: &[VirtAddr],
    (board, space): (Weak<Board<'s>>, Weak<Space>),
) -> Checker<'s> {
    let limit = arena.first().addr().wrapping_add(arena.count_frames() << 12);
    let is_memory = move |pa: PhysAddr| pa >= arena.first().addr() && pa < limit;
    // SAFETY: the arena's frames are initialised; the table writes them by atomic operations, on this
    // thread.
    let walker: Walker<X86_64<4>, _, _> = unsafe { Walker::new(table.root(), arena, is_memory) };
    let walk = move |va, sink: &mut dyn FnMut(Ref)| {
        walker.walk(va, &mut |r| sink(r)).unwrap_or_else(|e| panic!("{e}")).span
    };
    let flush = move |checker: &Checker<'s>, flushes: &[Flush]| {
        let (board, space) = (board.upgrade().expect("alive"), space.upgrade().expect("alive"));
        let here = board.current.get();
        match board.fault {
            Fault::OnlyHere => checker.forget(here, flushes),
            Fault::OnlyThere => {
                let others = (0..CPUS).filter(|&cpu| cpu != here);
                others.for_each(|cpu| checker.forget(cpu, flushes));
            }
            Fault::GlobalAsOwn => {
                let own: Vec<_> = flushes.iter().map(|f| Flush { global: false, ..*f }).collect();
                board.protocol().of(&space).flush(&own);
            }
            _ => board.protocol().of(&space).flush(flushes),
        }
    };
    Checker::new(table, arena, points).with_hardware(Some(Box::new(walk))).with_cpus(CPUS, flush)
}
