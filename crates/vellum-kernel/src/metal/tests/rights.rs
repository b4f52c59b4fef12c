//! Rights that the MMU enforces, each tried where it is denied and where it is granted: NX, R/W, U/S,
//! SMEP, SMAP and UMIP, from ring 0 and from ring 3.
//!
//! ```text
//!   USER      code     user RX    LOAD   mov rax,[rdi]; ud2      ring 3 comes back by the UD2, or
//!                                 STORE  mov [rdi],rdi; ud2      by the fault that the test is about
//!                                 JUMP   jmp rdi
//!                                 SGDT   sgdt [rdi]; ud2
//!                                 END    ud2
//!                                 RET    ret                     what ring 0 calls
//!             +1 page  the page under test, with rights that change
//! ```

use crate::metal::harness::{Failure, Outcome, check, check_eq, fail};
use crate::metal::interrupts::{Trap, vector};
use crate::metal::memory::{self, FRAMES, KernelMemory};
use crate::metal::paging::Space;
use crate::metal::{Kernel, image, machine, probe};
use vellum_core::{Attr, Change, FrameSource, PAGE_SIZE, PhysAddr, Run, VirtAddr};
use vellum_x86::ErrorCode;
use x86_64::registers::control::{Cr4, Cr4Flags};

/// In the lower half, where nothing else is mapped.
const USER: VirtAddr = VirtAddr::new(0x4000_0000_0000);

/// A routine: where it starts in the page, its bytes, and where its UD2 is.
struct Routine {
    start: u64,
    code: u64,
    end: u64,
}

const LOAD: Routine = Routine { start: 0, code: 0x0b0f_078b48, end: 3 };
const STORE: Routine = Routine { start: 8, code: 0x0b0f_3f8948, end: 11 };
const JUMP: Routine = Routine { start: 16, code: 0xe7ff, end: END };
const SGDT: Routine = Routine { start: 24, code: 0x0b0f_07010f, end: 27 };
/// Where a lone UD2 is.
const END: u64 = 32;
/// Where a lone RET is.
const RET: u64 = 40;

/// The words of a page of code.
const CODE: [u64; 6] = [LOAD.code, STORE.code, JUMP.code, SGDT.code, 0x0b0f, 0xc3];

/// A page of code for ring 3, and one to try rights on; both hold the code.
struct Pages<'a> {
    space: &'a Space,
    frames: [PhysAddr; 2],
}

impl<'a> Pages<'a> {
    /// The page under test has the rights `attr`.
    fn new(kernel: &'a Kernel, attr: Attr) -> Result<Self, Failure> {
        let pages = Self { space: kernel.space, frames: [FRAMES.alloc(0)?, FRAMES.alloc(0)?] };
        for frame in pages.frames {
            // SAFETY: just allocated, and nobody else knows of it.
            unsafe { KernelMemory.clear(frame) };
            for (word, at) in CODE.into_iter().zip((0..).step_by(8)) {
                // SAFETY: the frames were just allocated.
                unsafe { probe::store(memory::direct(frame).wrapping_add(at), word)? };
            }
        }
        let rights = [(pages.code(), Attr::RX | Attr::USER), (pages.tried(), attr)];
        for ((va, attr), frame) in rights.into_iter().zip(pages.frames) {
            pages.space.map(Run::new(va, frame, PAGE_SIZE, attr))?;
        }
        Ok(pages)
    }

    fn code(&self) -> VirtAddr {
        USER
    }

    /// The page under test.
    fn tried(&self) -> VirtAddr {
        USER.wrapping_add(PAGE_SIZE)
    }

    /// Its rights, from now on.
    fn set(&self, set: Attr, clear: Attr) -> Outcome {
        self.space.protect(self.tried(), PAGE_SIZE, Change { set, clear })?;
        Ok(())
    }

    /// Runs a routine in ring 3; what it left in rax, or the trap that was not its end.
    fn ring_3(&self, routine: &Routine, argument: VirtAddr) -> Result<u64, Trap> {
        let start = self.code().wrapping_add(routine.start);
        // SAFETY: the routines reach what ring 3 may, which is these two pages, and trap at their
        // end at the latest.
        let (trap, rax) = unsafe { probe::user(start, argument) };
        // A jump ends where it went to.
        let page = if routine.end == END { argument.align_down(12) } else { self.code() };
        let end = page.wrapping_add(routine.end).as_u64();
        let ended = trap.vector == vector::INVALID_OPCODE && trap.rip == end;
        if ended { Ok(rax) } else { Err(trap) }
    }

    /// Has ring 0 call the page under test.
    fn call(&self) -> Result<(), Trap> {
        // SAFETY: what lies there is a lone RET.
        unsafe { probe::execute(self.tried().wrapping_add(RET)) }
    }

    /// Has ring 0 store to the page under test.
    fn store(&self) -> Result<(), Trap> {
        // SAFETY: the word is behind the code, and the frame is ours.
        unsafe { probe::store(self.tried().wrapping_add(0x800), 0x5eed) }
    }
}

impl Drop for Pages<'_> {
    fn drop(&mut self) {
        if self.space.unmap(USER, 2 * PAGE_SIZE, |_| ()).is_ok() {
            for frame in self.frames {
                // SAFETY: allocated in `new`; unmapped and flushed.
                unsafe { KernelMemory.free(frame, 0) };
            }
        }
    }
}

/// Fails unless it was a page fault with this code, for this address.
fn denied<R: core::fmt::Debug>(tried: Result<R, Trap>, code: ErrorCode, at: VirtAddr) -> Outcome {
    match tried {
        Err(trap) if trap.page_fault() == Some(code) && trap.address == at => Ok(()),
        Err(trap) => fail!("not {code} at {at}, but {trap}"),
        Ok(value) => fail!("not {code}, but {value:?}"),
    }
}

const PRESENT: ErrorCode = ErrorCode::PRESENT;
const WRITE: ErrorCode = ErrorCode::WRITE;
const FETCH: ErrorCode = ErrorCode::FETCH;
const FROM_USER: ErrorCode = ErrorCode::USER;

/// U/S: ring 3 reads, writes and executes user pages, and nothing else.
pub(super) fn ring_3_reaches_user_pages_alone(kernel: &Kernel) -> Outcome {
    let free = FRAMES.stats().free;
    let pages = Pages::new(kernel, Attr::RW | Attr::EXEC)?;
    let tried = pages.tried();
    let end = tried.wrapping_add(END);
    denied(pages.ring_3(&LOAD, tried), FROM_USER | PRESENT, tried)?;
    denied(pages.ring_3(&STORE, tried), FROM_USER | PRESENT | WRITE, tried)?;
    denied(pages.ring_3(&JUMP, end), FROM_USER | PRESENT | FETCH, end)?;
    let text = image::parts()[0].start;
    denied(pages.ring_3(&LOAD, text), FROM_USER | PRESENT, text)?;
    let nowhere = tried.wrapping_add(PAGE_SIZE);
    denied(pages.ring_3(&LOAD, nowhere), FROM_USER, nowhere)?;
    denied(pages.ring_3(&STORE, nowhere), FROM_USER | WRITE, nowhere)?;
    // Ring 0 may, and does not trap.
    check_eq!(probe::load(tried)?, LOAD.code);
    pages.call()?;

    pages.set(Attr::USER, Attr::NONE)?;
    check_eq!(pages.ring_3(&LOAD, tried)?, LOAD.code);
    pages.ring_3(&JUMP, end)?;
    pages.ring_3(&STORE, tried)?;
    check_eq!(pages.ring_3(&LOAD, tried)?, tried.as_u64());
    drop(pages);
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

/// R/W: it holds for ring 3, and with CR0.WP for ring 0.
pub(super) fn read_only_pages_are_not_written(kernel: &Kernel) -> Outcome {
    let pages = Pages::new(kernel, Attr::READ)?;
    let tried = pages.tried();
    let stored = tried.wrapping_add(0x800);
    check_eq!(probe::load(tried)?, LOAD.code);
    denied(pages.store(), PRESENT | WRITE, stored)?;
    pages.set(Attr::USER, Attr::NONE)?;
    check_eq!(pages.ring_3(&LOAD, tried)?, LOAD.code);
    denied(pages.ring_3(&STORE, tried), FROM_USER | PRESENT | WRITE, tried)?;
    {
        // Not SMAP is in the way here.
        let _open = machine::cpu().user_access();
        check_eq!(probe::load(tried)?, LOAD.code);
        denied(pages.store(), PRESENT | WRITE, stored)?;
        pages.set(Attr::WRITE, Attr::NONE)?;
        pages.store()?;
    }
    pages.ring_3(&STORE, tried)?;
    check_eq!(pages.ring_3(&LOAD, tried)?, tried.as_u64());
    Ok(())
}

/// NX: neither ring fetches from a page without the right.
pub(super) fn pages_without_exec_are_not_executed(kernel: &Kernel) -> Outcome {
    let pages = Pages::new(kernel, Attr::RW)?;
    let called = pages.tried().wrapping_add(RET);
    denied(pages.call(), PRESENT | FETCH, called)?;
    pages.set(Attr::EXEC, Attr::WRITE)?;
    pages.call()?;
    pages.set(Attr::USER, Attr::EXEC)?;
    let end = pages.tried().wrapping_add(END);
    denied(pages.ring_3(&JUMP, end), FROM_USER | PRESENT | FETCH, end)?;
    pages.set(Attr::EXEC, Attr::NONE)?;
    pages.ring_3(&JUMP, end)?;
    Ok(())
}

/// Runs `f` without one of CR4's protections.
fn without(protection: Cr4Flags, f: impl FnOnce() -> Outcome) -> Outcome {
    let before = Cr4::read();
    check!(before.contains(protection), "{protection:?} is not on");
    // SAFETY: less is forbidden, for as long as `f` runs; no mapping changes.
    unsafe { Cr4::write(before - protection) };
    let done = f();
    // SAFETY: as it was.
    unsafe { Cr4::write(before) };
    done
}

/// SMEP: ring 0 does not execute what ring 3 may.
pub(super) fn smep_keeps_ring_0_from_user_code(kernel: &Kernel) -> Outcome {
    let pages = Pages::new(kernel, Attr::RX | Attr::USER)?;
    let called = pages.tried().wrapping_add(RET);
    pages.ring_3(&JUMP, pages.tried().wrapping_add(END))?;
    denied(pages.call(), PRESENT | FETCH, called)?;
    {
        // SMAP's door is not SMEP's.
        let _open = machine::cpu().user_access();
        denied(pages.call(), PRESENT | FETCH, called)?;
    }
    without(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, || Ok(pages.call()?))?;
    denied(pages.call(), PRESENT | FETCH, called)?;
    pages.set(Attr::NONE, Attr::USER)?;
    Ok(pages.call()?)
}

/// SMAP: ring 0 reads and writes what ring 3 may only where it says so.
pub(super) fn smap_keeps_ring_0_from_user_data(kernel: &Kernel) -> Outcome {
    let pages = Pages::new(kernel, Attr::RW | Attr::USER)?;
    let tried = pages.tried();
    let closed = || -> Outcome {
        denied(probe::load(tried), PRESENT, tried)?;
        denied(pages.store(), PRESENT | WRITE, tried.wrapping_add(0x800))
    };
    let open = || -> Outcome {
        check_eq!(probe::load(tried)?, LOAD.code);
        Ok(pages.store()?)
    };
    check_eq!(pages.ring_3(&LOAD, tried)?, LOAD.code);
    closed()?;
    let cpu = machine::cpu();
    let outer = cpu.user_access();
    open()?;
    drop(cpu.user_access());
    // An inner stretch ends without ending the outer one, and a trap does not end it either.
    open()?;
    check!(probe::undefined_instruction().is_err());
    open()?;
    drop(outer);
    closed()?;
    without(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, open)?;
    closed()
}

/// UMIP: ring 3 is not told where the descriptor tables are.
pub(super) fn umip_keeps_addresses_from_ring_3(kernel: &Kernel) -> Outcome {
    let pages = Pages::new(kernel, Attr::RW | Attr::USER)?;
    let into = pages.tried().wrapping_add(0x800);
    let Err(trap) = pages.ring_3(&SGDT, into) else {
        fail!("ring 3 executed SGDT");
    };
    check_eq!((trap.vector, trap.error), (vector::GENERAL_PROTECTION, 0));
    check_eq!(pages.ring_3(&LOAD, into)?, 0);
    without(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, || {
        pages.ring_3(&SGDT, into)?;
        check!(pages.ring_3(&LOAD, into)? != 0, "SGDT stored nothing");
        Ok(())
    })
}

/// A bit that must be zero is told apart from a missing right.
pub(super) fn a_reserved_bit_is_told_apart(kernel: &Kernel) -> Outcome {
    let width = machine::features().physical_bits;
    if width == 52 {
        return Ok(()); // no bit of an address is reserved
    }
    let pages = Pages::new(kernel, Attr::RW)?;
    let tried = pages.tried();
    let Some(entry) = kernel.space.last_entry(tried)? else {
        fail!("nothing was read to translate {tried}");
    };
    let entry = memory::direct(entry);
    let right = probe::load(entry)?;
    for bits in [1 << 51, 1 << width] {
        // SAFETY: the entry is that of the page under test, which nobody else uses; it is put right
        // before the table is asked again.
        unsafe { probe::store(entry, right | bits)? };
        machine::cpu().flush_page(tried);
        let (read, written) = (probe::load(tried), pages.store());
        // SAFETY: as it was.
        unsafe { probe::store(entry, right)? };
        machine::cpu().flush_page(tried);
        // The code without P: QEMU 7.2 leaves that out, which processors set with RSVD.
        let code = |trap: &Trap| trap.page_fault().map(|code| code - PRESENT);
        let (read, written) = (read.as_ref().map_err(code), written.as_ref().map_err(code));
        check_eq!(read, Err(Some(ErrorCode::RESERVED)));
        check_eq!(written, Err(Some(ErrorCode::RESERVED | WRITE)));
        check_eq!(probe::load(tried)?, LOAD.code);
    }
    Ok(())
}
