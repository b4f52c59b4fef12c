//! What is measured: one act after the other, in two spaces.
//!
//! ```text
//!   0x10_0000_0000   anonymous     written, forked, copied, protected, moved, unmapped
//!   0x20_0000_0000   anonymous     read, then written
//!   0x30_0000_0000   shared file, all of it in the page cache
//!   0x40_0000_0000   private file, the same one
//!   0x50_0000_0000   the same, read only, 16 pages a fault
//! ```

use super::designs::{Design, NAMES, SystemOf, Visit, mmu, with_design};
use super::ram::{Machine, Turn, turn_of};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;
use vellum_cache::FileId;
use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::{Access, Backing, Engine, FaultError, Mmu, Region, Rights, Sharing, System};

/// Pages of each act.
pub(super) const PAGES: u64 = 4096;

/// The acts, in order, with what `PAGES` of each are.
pub(super) const ACTS: [&str; 14] = [
    "anonymous write",
    "write again, already there",
    "anonymous read",
    "page of zeros, then write",
    "fork, a page",
    "COW copy",
    "COW reuse",
    "shared file write",
    "private file write",
    "file read, 16 a fault, a page",
    "protect, a page",
    "relocate, a page",
    "unmap anonymous, a page",
    "unmap file, a page",
];

fn region(n: u64, backing: Backing, sharing: Sharing) -> Region {
    Region {
        start: VirtAddr::new(n << 36),
        len: PAGES * PAGE_SIZE,
        rights: Rights::RW,
        backing,
        sharing,
        index: 0,
        family: n,
        huge: false,
        around: 1,
    }
}

fn touch<D: Design>(mmu: &Mmu<'_, SystemOf<'_, D>>, region: &Region, step: u64, access: Access) {
    for n in (0..PAGES).step_by(step as usize) {
        let va = region.start.wrapping_add(n * PAGE_SIZE);
        mmu.fault(region, va, access).expect("RAM is large enough");
    }
}

/// Writes each page, in a space that has been forked.
fn store<D: Design>(mmu: &mut Mmu<'_, SystemOf<'_, D>>, region: &Region) {
    for n in 0..PAGES {
        let va = region.start.wrapping_add(n * PAGE_SIZE);
        let stored = mmu.fault(region, va, Access::Write);
        if stored == Err(FaultError::Exclusive) {
            mmu.fault_exclusive(region, va, Access::Write).expect("RAM is large enough");
        } else {
            stored.expect("RAM is large enough");
        }
    }
}

/// A file of zeros that is in the page cache whole.
fn cached_file<D: Design>(engine: &Engine<SystemOf<'_, D>>) -> FileId {
    let files = engine.system().files();
    let file = files.create_memory(PAGES * PAGE_SIZE);
    engine.cache().read_ahead(files, file, 0, PAGES);
    file
}

/// Does every act once; `act` calls what it is given, and may measure that.
pub(super) fn turn<D: Design>(act: &mut impl FnMut(&mut dyn FnMut())) {
    let _turn = turn_of();
    let shared = D::shared().expect("RAM is large enough");
    let engine = Engine::new(Machine::new(), 3).expect("RAM is large enough");
    let space = |n| mmu::<D>(&engine, &shared, n);
    let (mut parent, mut child) = (space(1), space(2));
    let file = cached_file::<D>(&engine);
    let [first, second] = [1, 2].map(|n| region(n, Backing::Anon, Sharing::Private));
    let shared_file = region(3, Backing::File(file), Sharing::Shared);
    let private_file = region(4, Backing::File(file), Sharing::Private);
    let read_file = Region { around: 16, ..region(5, Backing::File(file), Sharing::Private) };
    act(&mut || touch::<D>(&parent, &first, 1, Access::Write));
    act(&mut || touch::<D>(&parent, &first, 1, Access::Write));
    act(&mut || touch::<D>(&parent, &second, 1, Access::Read));
    act(&mut || touch::<D>(&parent, &second, 1, Access::Write));
    act(&mut || {
        let forked = parent.copy_to(&mut child, &first);
        forked.expect("RAM is large enough");
    });
    act(&mut || store::<D>(&mut parent, &first));
    act(&mut || store::<D>(&mut child, &first));
    act(&mut || touch::<D>(&parent, &shared_file, 1, Access::Write));
    act(&mut || touch::<D>(&parent, &private_file, 1, Access::Write));
    act(&mut || touch::<D>(&parent, &read_file, 16, Access::Read));
    act(&mut || {
        let done = parent.protect(first.start, first.len, Rights::READ, Sharing::Private);
        done.expect("no leaf is split");
    });
    act(&mut || {
        let to = VirtAddr::new((9 << 36) + (3 << 12));
        parent.relocate(first.start, to, first.len).expect("RAM is large enough");
    });
    act(&mut || parent.zap(second.start, second.len).expect("no leaf is split"));
    act(&mut || parent.zap(read_file.start, read_file.len).expect("no leaf is split"));
}

/// Nanoseconds that pass while `cpus` threads fault in [`PAGES`] pages of one space, each its share.
pub(super) fn threads<D: Design>(cpus: u64) -> f64 {
    let _turn = turn_of();
    let shared = D::shared().expect("RAM is large enough");
    let engine = Engine::new(Machine::new(), 3).expect("RAM is large enough");
    let space = mmu::<D>(&engine, &shared, 1);
    let (region, start) = (region(1, Backing::Anon, Sharing::Private), Barrier::new(cpus as usize));
    let each = PAGES / cpus;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (space, region, start) = (&space, &region, &start);
                scope.spawn(move || {
                    // SAFETY: one of `cpus` threads with a number each, for which the one that has the
                    // turn waits.
                    unsafe { Turn::worker(cpu as usize) };
                    start.wait();
                    let watch = Instant::now();
                    for n in cpu * each..(cpu + 1) * each {
                        let va = region.start.wrapping_add(n * PAGE_SIZE);
                        space.fault(region, va, Access::Write).expect("RAM is large enough");
                    }
                    watch.elapsed().as_nanos() as f64
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).fold(0.0, f64::max)
    })
}

/// Runs the first `acts` acts of a turn; then the process ends, so that nothing else is counted.
///
/// # Errors
///
/// The line to say when there is no such design, or no such number.
pub(super) fn child(design: &str, acts: &str) -> Result<(), String> {
    struct Turn(usize);
    impl Visit for Turn {
        fn visit<D: Design>(&mut self) {
            turn::<D>(&mut |act| {
                if self.0 > 0 {
                    act();
                }
                // Not what comes behind the last one either.
                if self.0 <= 1 {
                    std::process::exit(0);
                }
                self.0 -= 1;
            });
            std::process::exit(0);
        }
    }
    if !NAMES.contains(&design) {
        return Err(format!("no design is called `{design}`"));
    }
    let acts: usize = acts.parse().map_err(|_| format!("`{acts}` is no number"))?;
    with_design(design, &mut Turn(acts));
    Ok(())
}
