//! The table of processes.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::Engine;
use vellum_fault::host::designs::mmu;
use vellum_fault::host::{HostSystem, Ram};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{madv, map, prot};
use vellum_space::{AddressSpace, Layout, Limits, Process, Rules, write_processes};

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
