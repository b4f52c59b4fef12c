//! Processes: their table, and whose children they can be.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use vellum_cache::Pages;
use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::host::designs::mmu;
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{Backing, Engine, Region, Rights, Sharing};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{madv, map, prot};
use vellum_space::{AddressSpace, Errno, Layout, Limits, Process, Rules, write_processes};

type Table<'r> = Radix<X86_64<4>, &'r Ram>;
type Space<'e, 'r> = AddressSpace<'e, HostSystem<'r, Table<'r>>, spin::RwLock<()>>;

const BASE: u64 = 0x7000_0000_0000;
const PAGES: u64 = 32;

/// Spaces of one region each, of which each has as many pages as its number says.
fn run(count: u64, test: impl for<'e, 'r> FnOnce(&[Space<'e, 'r>])) {
    let ram = Ram::new(1 << 13);
    let rules = Rules::new(ram.count_frames());
    let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
    let make = |n: u64| {
        let table = mmu(&engine, Table::new(&ram).unwrap());
        let space = Space::new(table, &rules, Layout::default(), Limits::default());
        let (rights, fixed) =
            (prot::READ | prot::WRITE, map::PRIVATE | map::ANONYMOUS | map::FIXED);
        space.mmap(BASE, PAGES * PAGE_SIZE, rights, fixed, None).unwrap();
        touch(&space, n);
        space
    };
    test(&(0..count).map(make).collect::<Vec<_>>());
}

fn touch(space: &Space<'_, '_>, pages: u64) {
    for n in 0..pages {
        space.write(VirtAddr::new(BASE + n * PAGE_SIZE), &[1]).unwrap();
    }
}

fn table(spaces: &[Space<'_, '_>]) -> String {
    let named = |(space, pid)| Process::new(pid, "sh", space);
    let mut processes: Vec<_> = spaces.iter().zip(1..).map(named).collect();
    let mut text = String::new();
    write_processes(&mut processes, 100, &mut text).unwrap();
    text
}

#[test]
fn processes_are_listed_by_memory() {
    run(3, |spaces| {
        let expected = [
            "    PID        VSZ        RSS        PSS       SWAP  %MEM COMMAND",
            "      3        128          8          8          0   2.0 sh",
            "      2        128          4          4          0   1.0 sh",
            "      1        128          0          0          0   0.0 sh",
        ];
        assert_eq!(table(spaces).lines().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn the_table_is_in_order_whatever_processes_do_meanwhile() {
    run(24, |spaces| {
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !is_done.load(Relaxed) {
                    n += 7;
                    let space = &spaces[n % spaces.len()];
                    space.madvise(BASE, PAGES * PAGE_SIZE, madv::DONTNEED).unwrap();
                    touch(space, n as u64 % PAGES);
                }
            });
            let mut is_ordered = true;
            for _ in 0..300 {
                let text = table(spaces);
                let resident = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
                let sizes: Vec<_> = text.lines().filter_map(resident).collect();
                is_ordered &= sizes.len() == spaces.len() && sizes.is_sorted_by(|a, b| a >= b);
            }
            is_done.store(true, Relaxed);
            assert!(is_ordered);
        });
    });
}

#[test]
fn no_child_is_of_another_engine() {
    let (ram, other) = (Ram::new(1 << 10), Ram::new(1 << 10));
    let before = other.frames_in_use();
    let rules = Rules::new(ram.count_frames());
    {
        let engines = [&ram, &other].map(|ram| Engine::new(HostSystem::new(ram), 0).unwrap());
        let [own, foreign] = &engines;
        let table = mmu(own, Table::new(&ram).unwrap());
        let space = Space::new(table, &rules, Layout::default(), Limits::default());
        let rw = prot::READ | prot::WRITE;
        space.mmap(BASE, PAGE_SIZE, rw, map::PRIVATE | map::ANONYMOUS, None).unwrap();
        space.write(VirtAddr::new(BASE), &[1]).unwrap();
        let child = space.fork(mmu(foreign, Table::new(&other).unwrap()));
        assert_eq!(child.err(), Some(Errno::Einval));
        let mut parent = mmu(own, Table::new(&ram).unwrap());
        let mut child = mmu(foreign, Table::new(&other).unwrap());
        let region = Region {
            start: VirtAddr::new(BASE),
            len: PAGE_SIZE,
            rights: Rights::RW,
            backing: Backing::Anon,
            sharing: Sharing::Private,
            index: 0,
            family: 1,
            huge: false,
            around: 1,
        };
        assert!(parent.copy_to(&mut child, &region).is_err());
        assert_eq!(rules.committed(), 1);
    }
    assert_eq!((other.frames_in_use(), rules.committed()), (before, 0));
}

#[test]
fn a_child_keeps_the_guards_that_it_inherits() {
    run(1, |spaces| {
        let parent = &spaces[0];
        touch(parent, 4);
        parent.madvise(BASE + PAGE_SIZE, PAGE_SIZE, madv::GUARD_INSTALL).unwrap();
        let engine = parent.with_mmu(|mmu| mmu.engine());
        let ram = *engine.system().memory();
        let child = parent.fork(mmu(engine, Table::new(ram).unwrap())).unwrap();
        child.madvise(BASE, 4 * PAGE_SIZE, madv::DONTNEED).unwrap();
        let read = |page: u64| child.read(VirtAddr::new(BASE + page * PAGE_SIZE), &mut [0]);
        assert!(read(0).is_ok() && read(2).is_ok());
        assert!(read(1).is_err(), "the guard is gone");
    });
}
