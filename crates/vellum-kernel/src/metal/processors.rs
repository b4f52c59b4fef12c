//! The second CPU: how it comes up, and how it is given work.
//!
//! ```text
//!   first                                     second
//!   start(): trampoline to a low frame        waits for a SIPI, as firmware or INIT left it
//!      INIT, SIPI, SIPI  ----------------->   boot::second_start16 ... second_main()
//!                        <------------------   descriptor tables; AWAITED -> COMING, or it halts
//!      waits for READY  <------------------   online, the kernel's tables, protections, APIC
//!      after a time: AWAITED -> GIVEN_UP
//!
//!   run(job) --> JOB, WAKE interrupt  ----->  job(), interrupts on
//!      waits, serving flushes  <-----------   JOB = none, halts
//! ```
//!
//! # Invariants
//!
//! - Only the first CPU gives work, one piece at a time.
//! - The second CPU's stack is used by the one CPU that came first to `second_start64`.
//! - The second CPU walks the kernel's tables only if the first has not given it up, and only when it is
//!   online: a processor fills its TLB of its own accord, and from a CPU that comes late nobody would
//!   have waited for a flush.
//!
//! Source: Intel SDM vol. 3A, 10.4 "Multiple-Processor (MP) Initialization".

use super::descriptors::{self, CPUS};
use super::interrupts::vector;
use super::memory;
use super::paging::{self, Space};
use super::{apic, boot, flush, machine};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering, fence};
use core::{mem, ptr};
use vellum_core::{PAGE_SIZE, PhysAddr, PhysMap, RangeError};
use vellum_kernel::{BootInfo, Extent};
use vellum_x86::Features;
use x86_64::instructions::interrupts::{self, enable_and_hlt};

/// What the second CPU can be told to do.
pub(crate) type Job = fn();

/// How far the second CPU is: one of the four below.
static SECOND: AtomicU32 = AtomicU32::new(AWAITED);
/// It has not come yet, or there is none.
const AWAITED: u32 = 0;
/// It is there, and will take work soon: it can be waited for.
const COMING: u32 = 1;
/// It takes work.
const READY: u32 = 2;
/// It was waited for long enough: if it comes, it halts.
const GIVEN_UP: u32 = 3;
/// Each CPU's number on the bus, or more than 8 bits for none.
static BUS: [AtomicU32; CPUS] = [const { AtomicU32::new(u32::MAX) }; CPUS];
/// The job that is to be done or under way: a [`Job`], or null for none.
static JOB: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Microseconds that a CPU has to come up.
const STARTING: u32 = 500_000;

/// A CPU's number on the bus.
pub(crate) fn bus_number(cpu: usize) -> Option<u8> {
    u8::try_from(BUS.get(cpu)?.load(Ordering::Acquire)).ok()
}

/// Whether there is a second CPU.
pub(crate) fn are_two() -> bool {
    SECOND.load(Ordering::Acquire) == READY
}

/// Starts the second CPU, if there is one; true when it is there.
pub(crate) fn start(boot: &BootInfo, space: &Space) -> Result<bool, RangeError> {
    if !apic::map(space)? {
        return Ok(false);
    }
    BUS[0].store(apic::enable().into(), Ordering::Release);
    let Some(frame) = low_frame(boot) else { return Ok(false) };
    let code = boot::trampoline();
    let start = PhysAddr::new(u64::from(frame) * PAGE_SIZE);
    memory::KernelMemory.with(start, |bytes| {
        // SAFETY: the frame is RAM, reserved and nobody's (`low_frame`), and the code is shorter.
        unsafe { bytes.as_ptr().copy_from_nonoverlapping(code.as_ptr(), code.len()) };
    });
    // The waits are those of the manual; the second SIPI is for one that got lost.
    apic::reset_others();
    machine::microseconds(10_000);
    for _ in 0..2 {
        apic::start_others(frame);
        machine::microseconds(200);
    }
    for _ in 0..STARTING {
        if are_two() {
            break;
        }
        flush::serve();
        machine::microseconds(1);
    }
    if !second_becomes(AWAITED, GIVEN_UP) {
        while !are_two() {
            flush::serve();
            core::hint::spin_loop();
        }
    }
    Ok(are_two())
}

/// Notes how far the second CPU is, if it was at `from`.
fn second_becomes(from: u32, to: u32) -> bool {
    SECOND.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// A frame below 1 MiB that is RAM and named by nobody, by its number: a SIPI has 8 bits for it, which
/// is the whole of the first MiB.
fn low_frame(boot: &BootInfo) -> Option<u8> {
    let free = |frame: &u8| {
        let Some(page) = Extent::new(u64::from(*frame) * PAGE_SIZE, PAGE_SIZE) else {
            return false;
        };
        let whole = |part: &Extent| part.start() <= page.start() && page.end() <= part.end();
        memory::ram().iter().any(whole) && !boot.reserved().iter().any(|part| part.overlaps(page))
    };
    // Not frame 0, where firmware keeps its vectors.
    (1..=u8::MAX).find(free)
}

/// Where the second CPU goes when it has a stack.
pub(super) fn second_main() -> ! {
    // SAFETY: one CPU only comes here (`boot`), and the first has number 0.
    let known = unsafe { descriptors::init(1) };
    // `machine::features` is taken to be what all CPUs have.
    let usable = known && Features::read() == *machine::features() && paging::space().is_some();
    // From here on nothing fails: the first waits for it.
    if !usable || !second_becomes(AWAITED, COMING) {
        machine::halt();
    }
    // SAFETY: the number is this CPU's. Its APIC, which only the kernel's tables lead to, is not on yet:
    // nobody but the first could ask for a flush meanwhile, and it is served below.
    unsafe { flush::online() };
    paging::load();
    machine::protect();
    BUS[1].store(apic::enable().into(), Ordering::Release);
    // Either who asks sees the number and interrupts, or what it asked is seen here.
    fence(Ordering::SeqCst);
    flush::serve();
    SECOND.store(READY, Ordering::Release);
    loop {
        // Interrupts are off between the look and the halt: a WAKE that comes then ends the halt.
        interrupts::disable();
        let job = JOB.load(Ordering::Acquire);
        if job.is_null() {
            enable_and_hlt();
            continue;
        }
        // SAFETY: `begin` puts nothing else there than a `Job`, which is as wide.
        let job = unsafe { mem::transmute::<*mut (), Job>(job) };
        interrupts::enable();
        job();
        JOB.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Has the second CPU begin `job`; false if there is none.
pub(crate) fn begin(job: Job) -> bool {
    let (true, Some(second)) = (are_two(), bus_number(1)) else { return false };
    wait();
    JOB.store(job as *mut (), Ordering::Release);
    apic::send(second, vector::WAKE);
    true
}

/// Waits until the second CPU has done its job, serving it meanwhile.
pub(crate) fn wait() {
    while !wait_for(u64::MAX) {}
}

/// Waits for so many rounds; whether the second CPU has done its job.
pub(crate) fn wait_for(rounds: u64) -> bool {
    let idle = || JOB.load(Ordering::Acquire).is_null().then_some(());
    flush::waiting(rounds, idle).is_some()
}
