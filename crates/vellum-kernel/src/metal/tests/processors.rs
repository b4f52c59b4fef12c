//! Two CPUs on one table: what the second still holds when a flush is left out, and that it does not
//! when it is made.
//!
//! ```text
//!   first CPU                                   second CPU
//!   map va -> A (holds 1)                       reads va without end: 1 1 1 ...
//!   va -> B (holds 2), flushed here only        1 1 1          its TLB has A, and A may not be freed
//!   flush everywhere                            ... 2 2 2      and from then on never A
//! ```
//!
//! The first of these shows that the others could fail.

use super::paging::private;
use crate::metal::flush::{self, HereOnly};
use crate::metal::harness::{Failure, Outcome, check, check_eq, fail};
use crate::metal::interrupts::Trap;
use crate::metal::memory::{self, FRAMES, KernelMemory};
use crate::metal::{Kernel, descriptors, image, machine, paging, probe, processors};
use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Mutex;
use vellum_core::{
    Attr, Change, Flush, FrameSource, Gone, Invalidate, PAGE_SIZE, PhysAddr, PhysMap, Run, VirtAddr,
};
use vellum_x86::{Controls, ErrorCode, Pat};

/// What a frame holds that is not the page's any more.
const POISON: u64 = 0xdead_dead_dead_dead;

/// Rounds of waiting that the second CPU has for a few turns.
const PATIENCE: u64 = 10_000_000;

/// Where the second CPU reads or writes.
static AT: AtomicU64 = AtomicU64::new(0);
/// What it read last.
static LAST: AtomicU64 = AtomicU64::new(0);
/// How often it has read or written.
static TURNS: AtomicU64 = AtomicU64::new(0);
/// Whether it is to end.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether it has ever read [`POISON`].
static POISONED: AtomicBool = AtomicBool::new(false);
/// What ended its writing.
static MET: Mutex<Option<Trap>> = Mutex::new(None);

/// Reads until it is told to stop. The page is mapped all the time.
fn reading() {
    let page = ptr::with_exposed_provenance::<u64>(AT.load(Ordering::Relaxed) as usize);
    while !STOP.load(Ordering::Acquire) {
        // SAFETY: `Reader` has mapped a page there, and ends this before it unmaps it; that others
        // write there at the same time is what volatile is for.
        let value = unsafe { page.read_volatile() };
        if value == POISON {
            POISONED.store(true, Ordering::Relaxed);
        }
        LAST.store(value, Ordering::Relaxed);
        TURNS.fetch_add(1, Ordering::Release);
        // Where the CPUs take turns on one thread, this ends this one's.
        core::hint::spin_loop();
    }
}

/// Writes until it may not.
fn writing() {
    let page = VirtAddr::new(AT.load(Ordering::Relaxed));
    let ended = loop {
        let turn = TURNS.fetch_add(1, Ordering::Release);
        // SAFETY: the test has mapped a frame of its own there, read-only or not.
        match unsafe { probe::store(page, turn) } {
            Err(trap) => break Some(trap),
            Ok(()) if STOP.load(Ordering::Acquire) => break None,
            Ok(()) => core::hint::spin_loop(),
        }
    };
    *MET.lock() = ended;
}

/// The second CPU, busy; it is stopped and waited for when this is dropped.
struct Busy(());

impl Busy {
    fn start(at: VirtAddr, job: processors::Job) -> Result<Self, Failure> {
        AT.store(at.as_u64(), Ordering::Relaxed);
        TURNS.store(0, Ordering::Relaxed);
        POISONED.store(false, Ordering::Relaxed);
        STOP.store(false, Ordering::Relaxed);
        if !processors::begin(job) {
            return Err(Failure::new(format_args!("there is no second CPU")));
        }
        Ok(Self(()))
    }

    /// Lets it have so many turns that begin after now; what it read in the last of them.
    fn turns(&self, count: u64) -> Result<u64, Failure> {
        // The one that is under way may have begun before.
        let until = TURNS.load(Ordering::Acquire) + 1 + count;
        let enough = || (TURNS.load(Ordering::Acquire) >= until).then_some(());
        match flush::waiting(PATIENCE, enough) {
            Some(()) => Ok(LAST.load(Ordering::Relaxed)),
            None => Err(Failure::new(format_args!("the second CPU does not go on"))),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        STOP.store(true, Ordering::Release);
        processors::wait();
    }
}

/// Two frames that hold their index plus 1, and a page that leads to the first.
struct Two<'a> {
    kernel: &'a Kernel,
    page: VirtAddr,
    frames: [PhysAddr; 2],
}

impl<'a> Two<'a> {
    fn new(kernel: &'a Kernel, page: VirtAddr) -> Result<Self, Failure> {
        let two = Self { kernel, page, frames: [FRAMES.alloc(0)?, FRAMES.alloc(0)?] };
        for (frame, value) in two.frames.into_iter().zip(1..) {
            set(frame, value)?;
        }
        kernel.space.map(Run::new(page, two.frames[0], PAGE_SIZE, Attr::RW | Attr::GLOBAL))?;
        Ok(two)
    }

    /// Has the page lead from one to the other.
    fn swap(
        &self,
        way: [PhysAddr; 2],
        invalidate: impl Invalidate,
        sink: impl FnMut(Gone),
    ) -> Outcome {
        // SAFETY: both frames stay this test's until the drop, which flushes everywhere.
        unsafe {
            self.kernel.space.remap(self.page, way, Attr::RW | Attr::GLOBAL, invalidate, sink)?
        };
        Ok(())
    }
}

impl Drop for Two<'_> {
    fn drop(&mut self) {
        // `Busy` has ended by now: a test makes it later.
        if self.kernel.space.unmap(self.page, PAGE_SIZE, |_| ()).is_ok() {
            for frame in self.frames {
                // SAFETY: allocated in `new`; unmapped, and flushed on both CPUs.
                unsafe { KernelMemory.free(frame, 0) };
            }
        }
    }
}

/// Sets the first word of a frame.
fn set(frame: PhysAddr, value: u64) -> Outcome {
    // SAFETY: only for frames that the test has allocated.
    unsafe { probe::store(memory::direct(frame), value)? };
    Ok(())
}

/// A CPU's number, stack, control registers and memory types.
type Introduction = (usize, u64, Controls, Option<Pat>);

/// What a CPU says of itself.
static SAID: Mutex<Option<Introduction>> = Mutex::new(None);

fn introduce() {
    let stack: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    let cpu = machine::cpu();
    *SAID.lock() = Some((descriptors::number(), stack, cpu.controls(), cpu.pat()));
}

pub(super) fn second_cpu_has_its_own_stack_and_the_same_tables(_: &Kernel) -> Outcome {
    let words = |said: Option<Introduction>| match said {
        Some(said) => Ok(said),
        None => Err(Failure::new(format_args!("a CPU said nothing"))),
    };
    check!(processors::begin(introduce), "there is no second CPU");
    processors::wait();
    let (number, stack, controls, pat) = words(SAID.lock().take())?;
    introduce();
    let (first, first_stack, first_controls, first_pat) = words(SAID.lock().take())?;
    check_eq!((first, number), (0, 1));
    check!(image::second_stack().contains(&stack), "its stack is at {stack:#x}");
    check!(!image::second_stack().contains(&first_stack), "there is one stack");
    check_eq!(controls, first_controls);
    check_eq!((pat, first_pat), (Some(Pat::VELLUM), Some(Pat::VELLUM)));
    let on_bus = [0, 1].map(processors::bus_number);
    check!(on_bus[0].is_some() && on_bus[1].is_some() && on_bus[0] != on_bus[1], "{on_bus:?}");
    Ok(())
}

/// The issue's test: a removed flush is seen as a stale read, and with the flush it is not.
pub(super) fn without_the_shootdown_the_second_cpu_reads_the_old_frame(kernel: &Kernel) -> Outcome {
    let two = Two::new(kernel, private(0x10_0000))?;
    let [old, new] = two.frames;
    let second = Busy::start(two.page, reading)?;
    check_eq!(second.turns(1000)?, 1);

    // SAFETY: both frames are kept.
    two.swap([old, new], unsafe { HereOnly::new() }, |_| ())?;
    check_eq!(probe::load(two.page)?, 2);
    check_eq!(second.turns(1000)?, 1);
    // It is the old frame that it reads, not something it remembers.
    set(old, 3)?;
    check_eq!(second.turns(1000)?, 3);

    flush::everywhere().flush(&[Flush::new(two.page, PAGE_SIZE, 12, Attr::GLOBAL)]);
    set(old, POISON)?;
    check_eq!(second.turns(1000)?, 2);
    check!(!POISONED.load(Ordering::Relaxed), "the old frame was read after the flush");
    Ok(())
}

pub(super) fn with_the_shootdown_it_reads_the_new_one(kernel: &Kernel) -> Outcome {
    let two = Two::new(kernel, private(0x11_0000))?;
    let [old, new] = two.frames;
    let second = Busy::start(two.page, reading)?;
    check_eq!(second.turns(1000)?, 1);
    two.swap([old, new], flush::everywhere(), |_| ())?;
    set(old, POISON)?;
    check_eq!(second.turns(1000)?, 2);
    check!(!POISONED.load(Ordering::Relaxed), "the old frame was read after the flush");
    Ok(())
}

/// Several ranges at once, and one beyond any ceiling, for which each CPU drops everything.
pub(super) fn every_shape_of_flush_reaches_the_second_cpu(kernel: &Kernel) -> Outcome {
    let two = Two::new(kernel, private(0x16_0000))?;
    let elsewhere = private(0x17_0000);
    let one = |page| Flush::new(page, PAGE_SIZE, 12, Attr::GLOBAL);
    let shapes: [&[Flush]; 4] = [
        &[one(two.page)],
        &[one(elsewhere), one(two.page)],
        &[Flush::new(two.page.align_down(30), 1 << 30, 12, Attr::GLOBAL)],
        &[Flush::tables(two.page.align_down(21), 1 << 21, true)],
    ];
    let second = Busy::start(two.page, reading)?;
    let mut way = two.frames;
    for (flushes, value) in shapes.into_iter().zip(10..) {
        set(way[0], value)?;
        set(way[1], value + 10)?;
        check_eq!(second.turns(100)?, value);
        // SAFETY: both frames are kept.
        two.swap(way, unsafe { HereOnly::new() }, |_| ())?;
        check_eq!((flushes, second.turns(100)?), (flushes, value));
        flush::everywhere().flush(flushes);
        check_eq!((flushes, second.turns(100)?), (flushes, value + 10));
        way.reverse();
    }
    Ok(())
}

/// What the sink gets may be given away at once: here the next owner writes to it immediately.
pub(super) fn a_frame_comes_back_only_after_the_shootdown(kernel: &Kernel) -> Outcome {
    let two = Two::new(kernel, private(0x12_0000))?;
    let second = Busy::start(two.page, reading)?;
    let mut way = two.frames;
    for round in 1..=100 {
        set(way[1], round)?;
        let mut returned = None;
        let mut poisoned = Ok(());
        two.swap(way, flush::everywhere(), |gone| {
            if let Gone::Run(run) = gone {
                returned = Some(run.pa);
                poisoned = set(run.pa, POISON);
            }
        })?;
        poisoned?;
        check_eq!(returned, Some(way[0]));
        check_eq!(second.turns(3)?, round);
        way.reverse();
    }
    check!(!POISONED.load(Ordering::Relaxed), "a frame came back while it was in a TLB");

    // And it would have been seen: the same without the other CPU's flush.
    // SAFETY: both frames are kept.
    two.swap(way, unsafe { HereOnly::new() }, |_| ())?;
    set(way[0], POISON)?;
    check_eq!(second.turns(1000)?, POISON);
    Ok(())
}

/// When `protect` has returned, no store of the other CPU arrives any more.
pub(super) fn the_second_cpu_loses_the_right_to_write(kernel: &Kernel) -> Outcome {
    let two = Two::new(kernel, private(0x13_0000))?;
    let second = Busy::start(two.page, writing)?;
    second.turns(1000)?;
    kernel.space.protect(two.page, PAGE_SIZE, Change::clearing(Attr::WRITE))?;
    let written = probe::load(two.page)?;
    check!(written != 1, "the second CPU has not written");
    // It ends by itself.
    check!(processors::wait_for(PATIENCE), "the second CPU goes on writing");
    check_eq!(probe::load(two.page)?, written);
    let Some(trap) = MET.lock().take() else {
        fail!("the second CPU ended without a trap");
    };
    check_eq!(trap.page_fault(), Some(ErrorCode::PRESENT | ErrorCode::WRITE));
    check_eq!(trap.address, two.page);
    Ok(())
}

/// Reads until it may not.
fn reading_to_the_end() {
    let page = VirtAddr::new(AT.load(Ordering::Relaxed));
    let ended = loop {
        match probe::load(page) {
            Err(trap) => break Some(trap),
            Ok(_) if STOP.load(Ordering::Acquire) => break None,
            Ok(value) => LAST.store(value, Ordering::Relaxed),
        }
        TURNS.fetch_add(1, Ordering::Release);
        core::hint::spin_loop();
    };
    *MET.lock() = ended;
}

/// The tables under a range go with it, and what they were made of may hold anything at once.
pub(super) fn tables_come_back_only_after_the_shootdown(kernel: &Kernel) -> Outcome {
    const GIB: u64 = 1 << 30;
    // Nothing else is in this GiB: two levels of tables are its own.
    let page = private(3 * GIB + 0x5000);
    let (free, tables) = (FRAMES.stats().free, kernel.space.table_bytes());
    let frame = FRAMES.alloc(0)?;
    set(frame, 7)?;
    kernel.space.map(Run::new(page, frame, PAGE_SIZE, Attr::RW | Attr::GLOBAL))?;
    check!(kernel.space.table_bytes() >= tables + 2 * PAGE_SIZE, "it has no tables of its own");
    let second = Busy::start(page, reading_to_the_end)?;
    check_eq!(second.turns(1000)?, 7);

    kernel.space.unmap(page.align_down(30), GIB, |_| ())?;
    check_eq!(kernel.space.table_bytes(), tables);
    // Whoever gets the tables' frames now fills them with ones: as entries, all their bits reserved.
    let mut taken = [PhysAddr::new(0); 8];
    for slot in &mut taken {
        *slot = FRAMES.alloc(0)?;
        // SAFETY: just allocated.
        KernelMemory.with(*slot, |bytes| unsafe { bytes.write_bytes(0xff, PAGE_SIZE as usize) });
    }
    check!(processors::wait_for(PATIENCE), "the second CPU still reads the page");
    let Some(trap) = MET.lock().take() else {
        fail!("the second CPU ended without a trap");
    };
    check_eq!((trap.page_fault(), trap.address), (Some(ErrorCode::empty()), page));
    drop(second);
    for block in taken.into_iter().chain([frame]) {
        // SAFETY: allocated above; the page is unmapped, and flushed on both CPUs.
        unsafe { KernelMemory.free(block, 0) };
    }
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

/// Pages that both CPUs count in.
const SHARED: u64 = 200;

/// Adds 1 to the first word of each page of a stretch of the demand window.
fn counting() {
    let first = AT.load(Ordering::Relaxed) as usize;
    for page in (first..).step_by(PAGE_SIZE as usize).take(SHARED as usize) {
        let word = ptr::with_exposed_provenance_mut::<u64>(page);
        // SAFETY: demand faults map the pages of the window, aligned and for good; both CPUs
        // reach the word by atomic operations only.
        unsafe { AtomicU64::from_ptr(word) }.fetch_add(1, Ordering::Relaxed);
        // Where the CPUs take turns, a page each.
        core::hint::spin_loop();
    }
}

/// Two CPUs that fault on the same page get one frame between them.
pub(super) fn both_cpus_fault_on_the_same_pages(kernel: &Kernel) -> Outcome {
    let free = FRAMES.stats().free;
    let first = paging::window().wrapping_add(1 << 30);
    let second = Busy::start(first, counting)?;
    counting();
    drop(second);
    for page in 0..SHARED {
        let va = first.wrapping_add(page * PAGE_SIZE);
        check_eq!((page, probe::load(va)?), (page, 2));
    }
    kernel.space.discard(first, SHARED * PAGE_SIZE)?;
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

/// Rounds of mapping and unmapping.
const ROUNDS: u64 = 200;
/// Rounds of the second CPU that went well.
static DONE: AtomicU64 = AtomicU64::new(0);

/// Maps and unmaps a page of its own; true when each round saw its own frame.
fn churn(page: VirtAddr) -> bool {
    let (Some(space), Ok(frame)) = (paging::space(), FRAMES.alloc(0)) else { return false };
    let run = Run::new(page, frame, PAGE_SIZE, Attr::RW | Attr::GLOBAL);
    let round = |n: u64| {
        space.map(run).is_ok()
            // SAFETY: the frame is this function's.
            && unsafe { probe::store(page, n) }.is_ok()
            && probe::load(memory::direct(frame)) == Ok(n)
            && space.unmap(page, PAGE_SIZE, |_| ()).is_ok()
            && probe::load(page).is_err()
    };
    let well = (0..ROUNDS).all(round);
    if well {
        // SAFETY: allocated above; unmapped, and flushed on both CPUs.
        unsafe { KernelMemory.free(frame, 0) };
    }
    well
}

fn churning() {
    let well = churn(VirtAddr::new(AT.load(Ordering::Relaxed)));
    DONE.store(u64::from(well), Ordering::Release);
}

/// Each waits for the other's flush, the first with interrupts off: neither is stuck.
pub(super) fn both_cpus_flush_at_each_other(_: &Kernel) -> Outcome {
    let free = FRAMES.stats().free;
    DONE.store(0, Ordering::Relaxed);
    let second = Busy::start(private(0x14_0000), churning)?;
    let well = churn(private(0x15_0000));
    drop(second);
    check!(well, "the first CPU's pages were not its own");
    check!(DONE.load(Ordering::Acquire) == 1, "the second CPU's pages were not its own");
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}
