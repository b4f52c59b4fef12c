//! A machine that is simulated: CPUs with TLBs that cache everything they may, and forget only what
//! they are told to.
//!
//! ```text
//!   Table of a space     page -> frame, in nodes of NODE pages
//!   TLB of a CPU         (tag | global, page) -> frame;  (tag, node) -> node's memory
//!   frames, nodes        who has it now; nobody between free and the next alloc
//! ```
//!
//! All runs on one thread, in one order that a test chooses: another CPU takes its interrupts when
//! [`Sim::interrupt`] says, or in the hook that runs whenever a CPU waits. Before each step all
//! CPUs cache all that their roots translate, those that only borrow one too.

use crate::asid::{Load, Stale, Tags, Turn};
use crate::{AsidTag, CpuSet, Flusher, Global, Interrupts, Local, Reach, Recent};
use crate::{Shootdown, Slots, Space};
use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;
use vellum_core::{Asid, Flush, VirtAddr};

pub(super) const CPUS: usize = 4;
/// Pages to a node.
pub(super) const NODE: u64 = 4;
/// Pages from here on are the kernel's, the same in all spaces.
pub(super) const KERNEL: u64 = 64;

pub(super) type Frame = usize;
/// Whom a frame belongs to: space (`None`: the kernel) and page.
pub(super) type Owner = (Option<usize>, u64);
pub(super) type Protocol<const ABSENCE: bool> = Shootdown<Wire<ABSENCE>, Wire<ABSENCE>, CPUS>;

/// What the hardware of one CPU holds.
#[derive(Debug, Default)]
pub(super) struct Cpu {
    /// The space whose root is loaded, and its tags.
    pub(super) root: Option<(usize, Tags)>,
    pub(super) lazy: bool,
    pub(super) online: bool,
    pub(super) leaves: BTreeMap<(Option<Asid>, u64), Frame>,
    /// Pages that it remembers not to be there, where it does such things.
    pub(super) absent: Vec<u64>,
    nodes: BTreeMap<(Asid, u64), usize>,
    /// An interrupt that it has not taken.
    pub(super) interrupted: bool,
}

/// Counts what a test may want to know.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) interrupts: Cell<usize>,
    pub(super) ranges: Cell<usize>,
    pub(super) spaces: Cell<usize>,
    pub(super) all: Cell<usize>,
}

fn add(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

/// The table of a space, or the kernel's half.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) pages: BTreeMap<u64, Frame>,
    nodes: BTreeMap<u64, usize>,
}

#[derive(Default)]
pub(super) struct Hardware {
    pub(super) current: Cell<usize>,
    pub(super) cpus: RefCell<Vec<Cpu>>,
    pub(super) counts: Counts,
    /// Runs whenever a CPU waits.
    pub(super) waiting: RefCell<Option<Rc<dyn Fn()>>>,
}

impl Hardware {
    pub(super) fn on<R>(&self, cpu: usize, f: impl FnOnce() -> R) -> R {
        let before = self.current.replace(cpu);
        let result = f();
        self.current.set(before);
        result
    }

    fn here<R>(&self, f: impl FnOnce(&mut Cpu) -> R) -> R {
        f(&mut self.cpus.borrow_mut()[self.current.get()])
    }
}

/// The hardware, as the protocol knows it.
#[derive(Clone)]
pub(super) struct Wire<const ABSENCE: bool>(pub(super) Rc<Hardware>);

// SAFETY: one CPU is the current one, and no handler runs but in `relax` and between steps.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const ABSENCE: bool, const WORDS: usize> Interrupts<WORDS> for Wire<ABSENCE> {
    fn masked<R>(&self, f: impl FnOnce(usize) -> R) -> R {
        f(self.0.current.get())
    }

    fn send(&self, cpus: &CpuSet<WORDS>) {
        assert!(!cpus.contains(self.0.current.get()), "a CPU interrupts itself");
        for cpu in cpus.iter() {
            add(&self.0.counts.interrupts);
            self.0.cpus.borrow_mut()[cpu].interrupted = true;
        }
    }

    fn relax(&self) {
        let hook = self.0.waiting.borrow().clone();
        hook.expect("nobody should have to wait here")();
    }
}

fn page_of(page: u64) -> VirtAddr {
    VirtAddr::new(page << 12)
}

// SAFETY: forgets what it is asked to forget, and nothing more.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const ABSENCE: bool> Local for Wire<ABSENCE> {
    const CACHES_ABSENCE: bool = ABSENCE;

    fn flush_ranges(&self, reach: Reach, flushes: &[Flush]) {
        add(&self.0.counts.ranges);
        let covers = |page: u64| flushes.iter().any(|flush| flush.covers(page_of(page)));
        let node = |node: u64| {
            let pages = node * NODE..(node + 1) * NODE;
            flushes.iter().any(|f| f.has_tables() && pages.clone().any(|p| f.covers(page_of(p))))
        };
        let ours = |tag: Option<Asid>| match reach {
            Reach::Every => true,
            Reach::Space(tags) => tag.is_some_and(|tag| is_one_of(tags, tag)),
        };
        self.0.here(|cpu| {
            cpu.leaves.retain(|&(tag, page), _| !(ours(tag) && covers(page)));
            cpu.nodes.retain(|&(tag, index), _| !(ours(Some(tag)) && node(index)));
            cpu.absent.retain(|&page| !covers(page));
        });
    }

    fn flush_space(&self, tags: Tags) {
        add(&self.0.counts.spaces);
        self.0.here(|cpu| {
            cpu.leaves.retain(|&(tag, _), _| !tag.is_some_and(|tag| is_one_of(tags, tag)));
            cpu.nodes.retain(|&(tag, _), _| !is_one_of(tags, tag));
            cpu.absent.retain(|&page| page >= KERNEL);
        });
    }

    fn flush_all(&self) {
        add(&self.0.counts.all);
        self.0.here(|cpu| {
            cpu.leaves.clear();
            cpu.nodes.clear();
            cpu.absent.clear();
        });
    }

    fn leave(&self) {
        self.0.here(|cpu| cpu.root = None);
    }
}

fn is_one_of(tags: Tags, tag: Asid) -> bool {
    tags.kernel == tag || tags.user == Some(tag)
}

/// How identifiers are given.
pub(super) enum Policy {
    Slots(Vec<RefCell<Slots<2>>>),
    /// Seven identifiers for four CPUs.
    Global(Global<CPUS, 1>, Vec<RefCell<Recent<2>>>),
}

impl Policy {
    pub(super) fn slots(bits: u8, paired: bool) -> Self {
        Self::Slots((0..CPUS).map(|_| RefCell::new(Slots::new(bits, paired))).collect())
    }

    pub(super) fn global(bits: u8) -> Self {
        let recent = (0..CPUS).map(|_| RefCell::default());
        Self::Global(Global::new(bits).unwrap(), recent.collect())
    }

    fn load(&self, cpu: usize, tag: &AsidTag, turn: Turn) -> Load {
        match self {
            Self::Slots(slots) => slots[cpu].borrow_mut().load(turn),
            Self::Global(global, recent) => {
                global.load(cpu, tag, &mut recent[cpu].borrow_mut(), turn)
            }
        }
    }
}

/// A space with its table.
pub(super) struct Held {
    pub(super) space: Rc<Space>,
    tag: AsidTag,
    pub(super) table: RefCell<Table>,
}

/// The whole machine.
pub(super) struct Sim<const ABSENCE: bool = false> {
    pub(super) hardware: Rc<Hardware>,
    pub(super) protocol: Rc<Protocol<ABSENCE>>,
    policy: Policy,
    pub(super) spaces: RefCell<Vec<Held>>,
    pub(super) kernel: RefCell<Table>,
    /// Whether the kernel's half is cached as global.
    pub(super) global: bool,
    pub(super) frames: RefCell<Vec<Option<Owner>>>,
    nodes: RefCell<Vec<bool>>,
}

impl<const ABSENCE: bool> Sim<ABSENCE> {
    pub(super) fn new(policy: Policy, global: bool) -> Rc<Self> {
        let hardware = Rc::new(Hardware::default());
        hardware.cpus.borrow_mut().resize_with(CPUS, Cpu::default);
        let wire = Wire(Rc::clone(&hardware));
        // SAFETY: the methods below keep to it.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        let protocol = Rc::new(unsafe { Shootdown::new(wire.clone(), wire) });
        let sim = Self {
            hardware,
            protocol,
            policy,
            spaces: RefCell::default(),
            kernel: RefCell::default(),
            global,
            frames: RefCell::default(),
            nodes: RefCell::default(),
        };
        (0..CPUS).for_each(|cpu| sim.online(cpu));
        Rc::new(sim)
    }

    pub(super) fn new_space(&self) -> usize {
        let space = Rc::new(self.protocol.new_space());
        let held = Held { space, tag: AsidTag::new(), table: RefCell::default() };
        self.spaces.borrow_mut().push(held);
        self.spaces.borrow().len() - 1
    }

    pub(super) fn online(&self, cpu: usize) {
        // SAFETY: it has no space.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        self.hardware.on(cpu, || unsafe { self.protocol.online() });
        self.hardware.cpus.borrow_mut()[cpu].online = true;
    }

    pub(super) fn offline(&self, cpu: usize) {
        // SAFETY: it has left its space; nothing is cached on its behalf any more.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        self.hardware.on(cpu, || unsafe { self.protocol.offline() });
        self.hardware.cpus.borrow_mut()[cpu].online = false;
    }

    pub(super) fn space(&self, space: usize) -> Rc<Space> {
        Rc::clone(&self.spaces.borrow()[space].space)
    }

    pub(super) fn root(&self, cpu: usize) -> Option<(usize, Tags)> {
        self.hardware.cpus.borrow()[cpu].root
    }

    pub(super) fn switch(&self, cpu: usize, to: usize) {
        let from = self.root(cpu).map(|(space, _)| self.space(space));
        let space = self.space(to);
        let local = self.protocol.local();
        self.hardware.on(cpu, || {
            let load = |turn: Turn| {
                let load = self.policy.load(cpu, &self.spaces.borrow()[to].tag, turn);
                match load.stale {
                    Stale::Nothing => {}
                    Stale::Tags => local.flush_space(load.tags),
                    Stale::All => local.flush_all(),
                }
                let mut cpus = self.hardware.cpus.borrow_mut();
                cpus[cpu].root = Some((to, load.tags));
                cpus[cpu].lazy = false;
                load.tags
            };
            // SAFETY: `load` loads the root, and forgets what it must; `from` is what is loaded.
            #[allow(unsafe_code, reason = "calls an unsafe function")]
            unsafe {
                self.protocol.switch(from.as_deref(), &space, load);
            }
        });
        self.speculate();
    }

    pub(super) fn lazy(&self, cpu: usize) {
        // SAFETY: `check` sees that it uses nothing.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        self.hardware.on(cpu, || unsafe { self.protocol.lazy() });
        self.hardware.cpus.borrow_mut()[cpu].lazy = true;
    }

    pub(super) fn leave(&self, cpu: usize) {
        let Some((space, _)) = self.root(cpu) else { return };
        let space = self.space(space);
        let load = || self.protocol.local().leave();
        // SAFETY: `load` leaves the root.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        self.hardware.on(cpu, || unsafe { self.protocol.leave(&space, load) });
    }

    /// The CPU takes its interrupt, if it has one.
    pub(super) fn interrupt(&self, cpu: usize) {
        let interrupted = core::mem::take(&mut self.hardware.cpus.borrow_mut()[cpu].interrupted);
        if interrupted {
            self.hardware.on(cpu, || self.protocol.serve());
        }
    }

    pub(super) fn interrupt_all(&self) {
        (0..CPUS).for_each(|cpu| self.interrupt(cpu));
    }

    /// From now on, `hook` runs whenever a CPU waits.
    pub(super) fn while_waiting(self: &Rc<Self>, hook: impl Fn(&Self) + 'static) {
        let sim = Rc::downgrade(self);
        let hook: Rc<dyn Fn()> = Rc::new(move || hook(&sim.upgrade().unwrap()));
        *self.hardware.waiting.borrow_mut() = Some(hook);
    }

    pub(super) fn flusher<'a>(
        &'a self,
        space: &'a Space,
    ) -> Flusher<'a, Wire<ABSENCE>, Wire<ABSENCE>, CPUS> {
        self.protocol.of(space)
    }
}

// Tables, frames and what is cached of them.
impl<const ABSENCE: bool> Sim<ABSENCE> {
    fn with_table<R>(&self, space: Option<usize>, f: impl FnOnce(&mut Table) -> R) -> R {
        match space {
            Some(space) => f(&mut self.spaces.borrow()[space].table.borrow_mut()),
            None => f(&mut self.kernel.borrow_mut()),
        }
    }

    /// Maps a page, if it is not, to the frame that was freed last.
    pub(super) fn map(&self, space: Option<usize>, page: u64) {
        if self.with_table(space, |table| table.pages.contains_key(&page)) {
            return;
        }
        let mut frames = self.frames.borrow_mut();
        let frame = frames.iter().rposition(Option::is_none).unwrap_or(frames.len());
        let len = frames.len().max(frame + 1);
        frames.resize(len, None);
        frames[frame] = Some((space, page));
        drop(frames);
        let mut nodes = self.nodes.borrow_mut();
        let node = nodes.iter().rposition(|used| !used).unwrap_or(nodes.len());
        self.with_table(space, |table| {
            table.pages.insert(page, frame);
            table.nodes.entry(page / NODE).or_insert_with(|| {
                let len = nodes.len().max(node + 1);
                nodes.resize(len, false);
                nodes[node] = true;
                node
            });
        });
    }

    /// Takes pages out of a table, and the nodes that are empty then, if `tables`.
    pub(super) fn unlink(
        &self,
        space: Option<usize>,
        pages: core::ops::Range<u64>,
        tables: bool,
    ) -> Gone {
        let mut gone = Gone::default();
        self.with_table(space, |table| {
            for page in pages.clone() {
                gone.frames.extend(table.pages.remove(&page));
            }
            for node in pages.start / NODE..=(pages.end - 1) / NODE {
                let mut rest = table.pages.range(node * NODE..(node + 1) * NODE);
                if tables && rest.next().is_none() {
                    gone.nodes.extend(table.nodes.remove(&node));
                }
            }
        });
        gone
    }

    pub(super) fn free(&self, gone: Gone) {
        for frame in gone.frames {
            assert!(self.frames.borrow_mut()[frame].take().is_some(), "freed twice");
        }
        for node in gone.nodes {
            assert!(core::mem::replace(&mut self.nodes.borrow_mut()[node], false));
        }
    }

    /// Every CPU caches all that it may: leaves, the nodes above them, and what is absent.
    pub(super) fn speculate(&self) {
        let mut cpus = self.hardware.cpus.borrow_mut();
        for cpu in cpus.iter_mut().filter(|cpu| cpu.online) {
            let kernel = self.kernel.borrow();
            let tags = cpu.root.map_or(Tags::default(), |(_, tags)| tags);
            for (&page, &frame) in &kernel.pages {
                let tag = Some(tags.kernel).filter(|_| !self.global);
                if !cpu.absent.contains(&page) {
                    cpu.leaves.entry((tag, page)).or_insert(frame);
                }
            }
            if ABSENCE {
                let absent = (KERNEL..KERNEL + 4).filter(|page| !kernel.pages.contains_key(page));
                cpu.absent.extend(absent);
            }
            let Some((space, tags)) = cpu.root else { continue };
            let spaces = self.spaces.borrow();
            let table = spaces[space].table.borrow();
            for tag in [Some(tags.kernel), tags.user].into_iter().flatten() {
                for (&page, &frame) in &table.pages {
                    cpu.leaves.entry((Some(tag), page)).or_insert(frame);
                }
                for (&index, &node) in &table.nodes {
                    cpu.nodes.entry((tag, index)).or_insert(node);
                }
            }
        }
    }

    /// Whether `cpu` has anything cached for `page` that it could use now; what frame.
    pub(super) fn cached(&self, cpu: usize, page: u64) -> Option<Frame> {
        let cpus = self.hardware.cpus.borrow();
        let tags = cpus[cpu].root.map_or(Tags::default(), |(_, tags)| tags);
        let found = cpus[cpu].leaves.get(&(Some(tags.kernel), page));
        found.or_else(|| cpus[cpu].leaves.get(&(None, page))).copied()
    }

    /// No CPU could use something that was freed. With `settled`, no flush is under way, and none
    /// could use anything but what its table says.
    pub(super) fn check(&self, settled: bool) {
        for (number, cpu) in self.hardware.cpus.borrow().iter().enumerate() {
            if !cpu.online {
                continue;
            }
            let loaded = cpu.root.map_or(Tags::default(), |(_, tags)| tags);
            let usable = |tag: Option<Asid>| tag.is_none_or(|tag| is_one_of(loaded, tag));
            for (&(_, page), &frame) in cpu.leaves.iter().filter(|((tag, _), _)| usable(*tag)) {
                // What user addresses a lazy CPU has cached it does not use.
                let space = cpu.root.map(|(space, _)| space).filter(|_| page < KERNEL);
                if page < KERNEL && (cpu.lazy || space.is_none()) {
                    continue;
                }
                let owner = self.frames.borrow()[frame];
                assert_eq!(owner, Some((space, page)), "CPU {number}: freed, frame {frame}");
                let mapped = self.with_table(space, |table| table.pages.get(&page) == Some(&frame));
                assert!(mapped || !settled, "CPU {number}: page {page} of {space:?} is stale");
            }
            // A walk may begin at any time, on a lazy CPU too.
            let Some((space, _)) = cpu.root else { continue };
            for (&(_, index), node) in cpu.nodes.iter().filter(|((tag, _), _)| usable(Some(*tag))) {
                let linked = self.with_table(Some(space), |t| t.nodes.get(&index) == Some(node));
                let alive = self.nodes.borrow()[*node];
                assert!(alive && (linked || !settled), "CPU {number}: node {index} of {space}");
            }
        }
    }
}

/// What was unlinked, and is to be freed after the flush.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) frames: Vec<Frame>,
    pub(super) nodes: Vec<usize>,
}
