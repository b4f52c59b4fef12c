//! The protocol with threads for CPUs, and the real queue between them.
//!
//! ```text
//!   thread = CPU: take interrupts | switch, lazy, leave | touch pages | map | unmap, flush, free
//! ```
//!
//! A frame says whose it is. Who touches a page through its TLB takes no interrupt meanwhile, so the
//! frame may not change hands: it is looked at twice.

use super::flush;
use crate::{CpuSet, Interrupts, Local, Reach, Shootdown, Slots, Space, Stale, Tags};
use core::cell::RefCell;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::vec::Vec;
use vellum_core::{Asid, Flush, Invalidate, VirtAddr};

const CPUS: usize = 4;
const SPACES: usize = 3;
const PAGES: usize = 8;
const STEPS: usize = if cfg!(miri) { 30 } else { 3000 };

#[derive(Default)]
struct Me {
    number: usize,
    root: Option<(usize, Asid)>,
    lazy: bool,
    tlb: BTreeMap<(Asid, usize), u64>,
}

std::thread_local! {
    static ME: RefCell<Me> = RefCell::default();
}

fn me<R>(f: impl FnOnce(&mut Me) -> R) -> R {
    ME.with(|me| f(&mut me.borrow_mut()))
}

#[derive(Default)]
struct Machine {
    interrupted: [AtomicBool; CPUS],
}

// SAFETY: each thread has one number; interrupts are taken between steps and while waiting only.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Interrupts for &Machine {
    fn masked<R>(&self, f: impl FnOnce(usize) -> R) -> R {
        let number = me(|me| me.number);
        f(number)
    }

    fn send(&self, cpus: &CpuSet) {
        cpus.iter().for_each(|cpu| self.interrupted[cpu].store(true, Release));
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

// SAFETY: forgets what it is asked to.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Local for &Machine {
    const CACHES_ABSENCE: bool = false;

    fn flush_ranges(&self, reach: Reach, flushes: &[Flush]) {
        let Reach::Space(tags) = reach else { return self.flush_all() };
        let covers = |page: usize| {
            flushes.iter().any(|flush| flush.covers(VirtAddr::new((page as u64) << 12)))
        };
        me(|me| me.tlb.retain(|&(tag, page), _| tag != tags.kernel || !covers(page)));
    }

    fn flush_space(&self, tags: Tags) {
        me(|me| me.tlb.retain(|&(tag, _), _| tag != tags.kernel));
    }

    fn flush_all(&self) {
        me(|me| me.tlb.clear());
    }

    fn leave(&self) {
        me(|me| me.root = None);
    }
}

struct World<'a> {
    machine: &'a Machine,
    protocol: Shootdown<&'a Machine, &'a Machine, CPUS>,
    spaces: Vec<Space>,
    /// Frame + 1, or 0.
    tables: [[AtomicU64; PAGES]; SPACES],
    /// Whose each frame is: space and page, + 1; 0 if it is free.
    owners: Vec<AtomicU64>,
    free: Mutex<Vec<u64>>,
    done: AtomicUsize,
    touched: AtomicUsize,
}

fn owner(space: usize, page: usize) -> u64 {
    (space * PAGES + page) as u64 + 1
}

impl World<'_> {
    fn switch(&self, slots: &mut Slots, to: usize) {
        let from = me(|me| me.root).map(|(space, _)| &self.spaces[space]);
        let load = |turn| {
            let load = slots.load(turn);
            if load.stale != Stale::Nothing {
                self.machine.flush_space_here(load.tags);
            }
            me(|me| {
                me.root = Some((to, load.tags.kernel));
                me.lazy = false;
            });
            load.tags
        };
        // SAFETY: `load` does what it must, `from` is what is loaded.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        unsafe {
            self.protocol.switch(from, &self.spaces[to], load);
        }
    }

    fn leave(&self) {
        if let Some((space, _)) = me(|me| me.root) {
            // SAFETY: the root is left; that is what was loaded.
            #[allow(unsafe_code, reason = "calls an unsafe function")]
            unsafe {
                self.protocol.leave(&self.spaces[space], || me(|me| me.root = None));
            }
        }
    }

    fn lazy(&self) {
        // SAFETY: `touch` looks whether it is lazy.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        unsafe {
            self.protocol.lazy();
        }
        me(|me| me.lazy = true);
    }

    fn take_interrupt(&self, number: usize) {
        if self.machine.interrupted[number].swap(false, Acquire) {
            self.protocol.serve();
        }
    }

    fn touch(&self, page: usize) {
        let Some((space, tag)) = me(|me| me.root.filter(|_| !me.lazy)) else { return };
        let cached = me(|me| me.tlb.get(&(tag, page)).copied());
        let frame = cached.or_else(|| self.tables[space][page].load(Relaxed).checked_sub(1));
        let Some(frame) = frame else { return };
        me(|me| me.tlb.insert((tag, page), frame));
        for _ in 0..2 {
            let found = self.owners[frame as usize].load(Relaxed);
            assert_eq!(found, owner(space, page), "page {page} of {space}, frame {frame}");
            thread::yield_now();
        }
        self.touched.fetch_add(1, Relaxed);
    }

    fn map(&self, space: usize, page: usize) {
        let Some(frame) = self.free.lock().unwrap().pop() else { return };
        self.owners[frame as usize].store(owner(space, page), Relaxed);
        let entry = &self.tables[space][page];
        if entry.compare_exchange(0, frame + 1, Release, Relaxed).is_err() {
            self.give_back(frame);
        }
    }

    fn give_back(&self, frame: u64) {
        self.owners[frame as usize].store(0, Relaxed);
        self.free.lock().unwrap().push(frame);
    }

    fn unmap(&self, space: usize, page: usize) {
        let Some(frame) = self.tables[space][page].swap(0, Acquire).checked_sub(1) else { return };
        let page = page as u64;
        self.protocol.of(&self.spaces[space]).flush(&[flush(page..page + 1, false, false)]);
        self.give_back(frame);
    }

    fn run(&self, number: usize) {
        me(|me| me.number = number);
        // SAFETY: it has no space.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        unsafe {
            self.protocol.online();
        }
        let mut slots = Slots::new(12, false);
        let mut random = number as u64 + 1;
        for _ in 0..STEPS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (space, page) = ((random >> 33) as usize % SPACES, (random >> 40) as usize % PAGES);
            match random >> 56 & 15 {
                0 | 1 => self.switch(&mut slots, space),
                2 => self.lazy(),
                3 => self.leave(),
                4..8 => self.map(space, page),
                8..12 => self.unmap(space, page),
                _ => (0..PAGES).for_each(|page| self.touch(page)),
            }
            self.take_interrupt(number);
        }
        self.leave();
        self.done.fetch_add(1, Release);
        while self.done.load(Acquire) < CPUS {
            self.take_interrupt(number);
            thread::yield_now();
        }
    }
}

impl Machine {
    fn flush_space_here(&self, tags: Tags) {
        (&self).flush_space(tags);
    }
}

#[test]
fn frames_change_hands_only_when_no_thread_has_them_cached() {
    let machine = Machine::default();
    // SAFETY: `run` keeps to it.
    #[allow(unsafe_code, reason = "calls an unsafe function")]
    let protocol = unsafe { Shootdown::new(&machine, &machine) };
    let spaces = (0..SPACES).map(|_| protocol.new_space()).collect();
    let frames = (SPACES * PAGES) as u64 / 2;
    let world = World {
        machine: &machine,
        protocol,
        spaces,
        tables: Default::default(),
        owners: (0..frames).map(|_| AtomicU64::new(0)).collect(),
        free: Mutex::new((0..frames).collect()),
        done: AtomicUsize::new(0),
        touched: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        for number in 0..CPUS {
            let world = &world;
            scope.spawn(move || world.run(number));
        }
    });
    assert!(world.touched.load(Relaxed) > 0);
}
