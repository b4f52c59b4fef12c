//! Whatever is called, and whenever memory runs out in it: every count is what regions and tables say, no
//! space sees what another does, and no CPU keeps a translation that is not true any more.
//!
//! ```text
//!   calls, some with few frames left  -->  three spaces  -->  counts against regions and leaves
//!                                                        -->  a CPU's cached leaves against the table
//! ```

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use vellum_cache::page::{PageInfo, Pages, State};
use vellum_core::{Attr, Entry, Flush, Invalidate, PAGE_SIZE, PhysAddr, PhysMap, VirtAddr, Walk};
use vellum_fault::host::{HostSystem, MemoryFiles, MemorySwap, Ram};
use vellum_fault::{Access, Engine, Mmu, RssKind, System};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{madv, map, mremap, prot};
use vellum_space::{AddressSpace, Errno, FileMap, Layout, Limits, Rules, VmFlags};

type Table<'r> = Radix<X86_64<4>, &'r Ram>;
type Space<'e, 'r> = AddressSpace<'e, Host<'r>, spin::RwLock<()>>;

const BASE: u64 = 0x7000_0000_0000;
/// Five nodes of the table.
const PAGES: u64 = 5 * 512;
/// What a leaf counts: something that each number of spaces that can link it divides.
const LEAF: u32 = 6;

/// A CPU that has cached every leaf that there was when it was last looked.
#[derive(Clone, Default)]
struct Cpu(Arc<Mutex<BTreeMap<u64, (PhysAddr, Attr)>>>);

// SAFETY: no CPU walks the table; that this one notices what is flushed is what the test is about.
unsafe impl Invalidate for Cpu {
    fn flush(&self, flushes: &[Flush]) {
        let goes = |va: u64| flushes.iter().any(|flush| flush.covers(VirtAddr::new(va)));
        self.0.lock().unwrap().retain(|&va, _| !goes(va));
    }
}

/// The host's system with such CPUs.
struct Host<'r>(HostSystem<'r, Table<'r>>);

// SAFETY: forwards to what keeps the contract.
unsafe impl<'r> Pages for Host<'r> {
    type Memory = &'r Ram;

    fn memory(&self) -> &Self::Memory {
        self.0.memory()
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        self.0.info(pa)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        self.0.each_info(f);
    }
}

impl<'r> System for Host<'r> {
    type Table = Table<'r>;
    type Cpus = Cpu;
    type Files = MemoryFiles;
    type Swap = MemorySwap;

    fn files(&self) -> &MemoryFiles {
        self.0.files()
    }

    fn swap(&self) -> &MemorySwap {
        self.0.swap()
    }
}

/// Numbers in no order (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A stretch of pages, that often begins or ends with a node of the table.
    fn stretch(&mut self) -> (u64, u64) {
        let node = |page: u64| page / 512 * 512;
        let (a, b) = (self.below(PAGES), self.below(PAGES));
        let (mut first, mut last) = (a.min(b), a.max(b));
        match self.below(4) {
            0 => first = node(first),
            1 => last = first + self.below(100),
            2 => (first, last) = (node(first), node(first) + 511),
            _ => {}
        }
        let last = last.min(PAGES - 1);
        (BASE + first * PAGE_SIZE, (last - first + 1) * PAGE_SIZE)
    }
}

/// What a space's own pages hold, by their addresses.
type Picture = BTreeMap<u64, u8>;

struct World<'e, 'r> {
    engine: &'e Engine<Host<'r>>,
    ram: &'r Ram,
    rules: &'e Rules,
    spaces: Vec<(Space<'e, 'r>, Cpu)>,
    file: FileMap,
    random: Random,
    byte: u8,
}

impl<'e, 'r> World<'e, 'r> {
    fn mmu(&self) -> Option<(Mmu<'e, Host<'r>>, Cpu)> {
        let cpu = Cpu::default();
        let table = Table::new(self.ram).ok()?;
        // SAFETY: the table is new, of this memory, and no CPU walks it.
        Some((unsafe { self.engine.mmu(table, cpu.clone()) }, cpu))
    }

    fn picture(&self, at: usize) -> Picture {
        let mut picture = Picture::new();
        self.leaves(at, |va, pa, _| {
            let is_own = self.engine.system().info(pa).unwrap().state().contains(State::ANON);
            if is_own {
                // SAFETY: a mapped frame of the host's RAM, and nobody else runs.
                let byte = self.ram.with(pa, |p| unsafe { p.read() });
                picture.insert(va, byte);
            }
        });
        picture
    }

    fn leaves(&self, at: usize, mut f: impl FnMut(u64, PhysAddr, Attr)) {
        self.spaces[at].0.with_mmu(|mmu| {
            mmu.visit(VirtAddr::new(0), 1 << 47, &mut |span| {
                if let Entry::Leaf(pa, attr) = span.entry {
                    for offset in (0..span.len).step_by(PAGE_SIZE as usize) {
                        f(span.va.as_u64() + offset, pa.wrapping_add(offset), attr);
                    }
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        });
    }

    /// The part of a stretch that lies in the region at its start.
    fn in_region(&self, at: usize, va: u64, len: u64) -> (u64, u64) {
        let mut part = (va, len);
        self.spaces[at].0.each_region(|range, _| {
            let (start, end) = (range.start().as_u64(), range.count_pages() * PAGE_SIZE);
            let end = start + end;
            if end > va {
                let start = start.max(va);
                part = (start, (end - start).min(len));
            }
            end <= va
        });
        part
    }

    /// One call of one space; what it was, and whether its own pages may have changed.
    fn call(&mut self, at: usize) -> (String, bool) {
        let (va, len) = self.random.stretch();
        let (to, _) = self.random.stretch();
        let (va, len) =
            if self.random.below(3) > 0 { self.in_region(at, va, len) } else { (va, len) };
        let space = &self.spaces[at].0;
        let random = &mut self.random;
        let end = BASE + PAGES * PAGE_SIZE;
        let rw = prot::READ | prot::WRITE;
        let what;
        let (done, changes): (Result<(), Errno>, bool) = match random.below(14) {
            0 | 1 => {
                let kind = match random.below(9) {
                    0 => map::SHARED,
                    1 => map::DROPPABLE,
                    _ => map::PRIVATE,
                };
                let extra = random.pick(&[0, 0, map::NORESERVE, map::LOCKED, map::POPULATE]);
                let file = (kind != map::DROPPABLE && random.below(5) == 0).then_some(self.file);
                let anonymous = if file.is_none() { map::ANONYMOUS } else { 0 };
                let flags = kind | extra | anonymous | map::FIXED;
                what = format!("mmap({va:#x}, {len:#x}, {flags:#x})");
                (space.mmap(va, len, rw, flags, file).map(drop), true)
            }
            2 => {
                let len = if random.below(3) == 0 { len } else { len.min(9 * PAGE_SIZE) };
                what = format!("munmap({va:#x}, {len:#x})");
                let done = space.munmap(va, len);
                (done, done.is_ok())
            }
            3 => {
                let rights = random.pick(&[prot::READ, 0, rw]);
                what = format!("mprotect({va:#x}, {len:#x}, {rights})");
                // What is locked is copied now where it may be written.
                (space.mprotect(va, len, rights), true)
            }
            4 | 5 => {
                let flags = random.pick(&[1, 3, 3, 5, 7]);
                let new = if flags & mremap::DONTUNMAP == 0 && random.below(2) == 0 {
                    len / PAGE_SIZE * (1 + random.below(2)) * PAGE_SIZE
                } else {
                    len
                };
                let to = to.min(end - PAGE_SIZE);
                what = format!("mremap({va:#x}, {len:#x}, {new:#x}, {flags}, {to:#x})");
                (space.mremap(va, len, new, flags, to).map(drop), true)
            }
            6..=8 => {
                let advice = random.pick(&[
                    madv::DONTNEED,
                    madv::FREE,
                    madv::PAGEOUT,
                    madv::COLD,
                    madv::DONTFORK,
                    madv::DOFORK,
                    madv::WIPEONFORK,
                    madv::KEEPONFORK,
                    madv::GUARD_INSTALL,
                    madv::GUARD_REMOVE,
                    madv::POPULATE_WRITE,
                    madv::HUGEPAGE,
                    madv::NOHUGEPAGE,
                ]);
                what = format!("madvise({va:#x}, {len:#x}, {advice})");
                (space.madvise(va, len, advice), true)
            }
            9 => {
                let locks = random.below(2) == 0;
                what = format!("mlock({va:#x}, {len:#x}) {locks}");
                (if locks { space.mlock(va, len) } else { space.munlock(va, len) }, true)
            }
            _ => {
                // A few, so that parts of the table stay linked, or many.
                let len = if random.below(3) > 0 { len.min(20 * PAGE_SIZE) } else { len };
                let step = random.pick(&[1, 3, 7, 200]);
                let access = random.pick(&[Access::Write, Access::Write, Access::Read]);
                self.byte = self.byte % 250 + 1;
                what = format!("{access:?} of ({va:#x}, {len:#x}) by {step}, {}", self.byte);
                for page in (va..va + len).step_by(step * PAGE_SIZE as usize) {
                    let va = VirtAddr::new(page);
                    let done = match access {
                        Access::Write => space.write(va, &[self.byte]),
                        _ => space.read(va, &mut [0]),
                    };
                    if done
                        .is_err_and(|e| matches!(e.error, vellum_fault::FaultError::OutOfFrames(_)))
                    {
                        break;
                    }
                }
                (Ok(()), true)
            }
        };
        (format!("space {at}: {what} = {done:?}"), changes)
    }

    fn fork(&mut self, at: usize) -> String {
        let to = (at + 1 + self.random.below(2) as usize) % 3;
        let Some((mmu, cpu)) = self.mmu() else { return "no table".to_owned() };
        match self.spaces[at].0.fork(mmu) {
            Ok(child) => {
                self.spaces[to] = (child, cpu);
                // A child has no page that its parent has not.
                let (parent, child) = (self.picture(at), self.picture(to));
                for (va, byte) in child {
                    assert_eq!(parent.get(&va), Some(&byte), "fork of {at}, {va:#x}");
                }
                format!("space {at}: fork to {to}")
            }
            Err(error) => format!("space {at}: fork = {error}"),
        }
    }

    fn step(&mut self) {
        let at = self.random.below(3) as usize;
        let is_short = self.random.below(2) == 0;
        let before: Vec<_> = (0..3).map(|n| self.picture(n)).collect();
        if is_short {
            self.ram.limit(Some(self.random.below(12) as u32));
        }
        let forks = self.random.below(6) == 0;
        let (what, changes) = if forks { (self.fork(at), false) } else { self.call(at) };
        self.ram.limit(None);
        let what = format!("{what}{}", if is_short { ", short of memory" } else { "" });
        for (n, before) in before.iter().enumerate() {
            let may_differ = if forks { n != at } else { n == at && changes };
            if !may_differ {
                assert!(self.picture(n) == *before, "{what}: pages of space {n}");
            }
        }
        self.check(&what);
    }

    fn check(&self, what: &str) {
        let mut maps = BTreeMap::<PhysAddr, u32>::new();
        let mut promised = 0;
        for at in 0..self.spaces.len() {
            promised += self.check_regions(at, what);
            self.check_pages(at, &mut maps, what);
            self.check_cpu(at, what);
        }
        assert_eq!(self.rules.committed(), promised, "{what}: promises");
        for (pa, count) in maps {
            let info = self.engine.system().info(pa).unwrap();
            let cached = u32::from(info.state().contains(State::CACHED));
            assert_eq!(count % LEAF, 0, "{what}: {pa} is linked elsewhere");
            let leaves = count / LEAF;
            assert_eq!((info.maps(), info.owners()), (leaves, leaves + cached), "{what}: {pa}");
        }
    }

    /// Sums over regions, in kilobytes; how many pages are promised.
    fn check_regions(&self, at: usize, what: &str) -> u64 {
        let space = &self.spaces[at].0;
        let (mut size, mut locked, mut data, mut stack, mut promised) = (0, 0, 0, 0, 0);
        space.each_region(|range, vma| {
            let count = range.count_pages();
            let has = |flags| vma.flags.contains(flags);
            size += count;
            locked += if has(VmFlags::LOCKED) { count } else { 0 };
            promised += if has(VmFlags::ACCOUNT) { count } else { 0 };
            if has(VmFlags::GROWSDOWN) {
                stack += count;
            } else if has(VmFlags::WRITE) && !has(VmFlags::SHARED) {
                data += count;
            }
            true
        });
        let mut text = String::new();
        space.write_status(&mut text).unwrap();
        for (name, pages) in
            [("VmSize", size), ("VmLck", locked), ("VmData", data), ("VmStk", stack)]
        {
            let line = format!("{name}:\t{:8} kB\n", pages * 4);
            assert!(text.contains(&line), "{what}: space {at} has {line}not as in\n{text}");
        }
        promised
    }

    fn check_pages(&self, at: usize, maps: &mut BTreeMap<PhysAddr, u32>, what: &str) {
        let (mut own, mut file, mut shmem) = (0, 0, 0);
        let mut leaves = Vec::new();
        self.leaves(at, |va, pa, _| leaves.push((va, pa)));
        self.spaces[at].0.with_mmu(|mmu| {
            for (va, pa) in leaves {
                if pa == self.engine.zeros() {
                    continue;
                }
                let spaces = mmu.co_owners(VirtAddr::new(va), PAGE_SIZE).0 + 1;
                assert_eq!(LEAF % spaces, 0, "{what}: {spaces} spaces");
                *maps.entry(pa).or_default() += LEAF / spaces;
                let state = self.engine.system().info(pa).unwrap().state();
                *(if state.contains(State::ANON) {
                    &mut own
                } else if state.contains(State::MEMORY) {
                    &mut shmem
                } else {
                    &mut file
                }) += 1;
            }
            for (kind, count) in
                [(RssKind::Anon, own), (RssKind::File, file), (RssKind::Shmem, shmem)]
            {
                assert_eq!(mmu.rss().pages(kind), count, "{what}: {kind:?} of space {at}");
            }
        });
    }

    /// What the CPU has cached, and was not told to forget, is true still.
    fn check_cpu(&self, at: usize, what: &str) {
        let (space, cpu) = &self.spaces[at];
        let cached = cpu.0.lock().unwrap().clone();
        space.with_mmu(|mmu| {
            for (va, (pa, attr)) in cached {
                let there = mmu.table().walk(VirtAddr::new(va), &mut ()).unwrap();
                let Entry::Leaf(_, now) = there.entry else {
                    panic!("{what}: a CPU has {va:#x} of space {at}, where nothing is")
                };
                assert_eq!(mmu.table().translate(VirtAddr::new(va)), Some(pa), "{what}: {va:#x}");
                let lost = (attr - Attr::ACCESSED) - now;
                assert_eq!(lost, Attr::NONE, "{what}: a CPU has {lost:?} at {va:#x} of space {at}");
            }
        });
        let mut now = BTreeMap::new();
        self.leaves(at, |va, pa, attr| {
            now.insert(va, (pa, attr));
        });
        *cpu.0.lock().unwrap() = now;
    }
}

fn run(seed: u64, steps: u64) {
    let ram = Ram::new(1 << 14);
    let before = ram.frames_in_use();
    let rules = Rules::new(ram.count_frames());
    {
        let engine = Engine::new(Host(HostSystem::new(&ram)), 0).unwrap();
        let file = engine.system().files().create(&[9; 700 * PAGE_SIZE as usize]);
        let file = FileMap { file, descriptor: 3, offset: 0, readable: true, writable: true };
        let spaces = Vec::new();
        let (ram, rules, random) = (&ram, &rules, Random(seed));
        let mut world = World { engine: &engine, ram, rules, spaces, file, random, byte: 1 };
        for _ in 0..3 {
            let (mmu, cpu) = world.mmu().unwrap();
            let limits = Limits { may_lock_all: true, ..Limits::default() };
            world.spaces.push((AddressSpace::new(mmu, rules, Layout::default(), limits), cpu));
        }
        let (all, fixed) = (PAGES * PAGE_SIZE, map::PRIVATE | map::ANONYMOUS | map::FIXED);
        world.spaces[0].0.mmap(BASE, all, prot::READ | prot::WRITE, fixed, None).unwrap();
        for page in (0..PAGES).step_by(3) {
            world.spaces[0].0.write(VirtAddr::new(BASE + page * PAGE_SIZE), &[200]).unwrap();
        }
        for _ in 0..steps {
            world.step();
        }
    }
    assert_eq!((ram.frames_in_use(), rules.committed()), (before, 0), "seed {seed}");
}

#[test]
fn counts_and_translations_are_true_after_every_call() {
    for seed in 0..12 {
        run(seed, 80);
    }
}
