//! What must not be allowed, tried: each attempt traps as it should, and the kernel goes on.

use crate::metal::harness::{Outcome, check, check_eq, fail};
use crate::metal::image::{self, Rights};
use crate::metal::interrupts::vector;
use crate::metal::{Kernel, machine, probe};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{PhysAddr, VirtAddr};
use vellum_x86::ErrorCode;

/// Somewhere in `.data`, holding `ret`.
static DATA: AtomicU64 = AtomicU64::new(0xc3);

pub(super) fn identity_map_is_gone(kernel: &Kernel) -> Outcome {
    let (start, _) = image::physical_extent();
    for address in [0, 8, start.as_u64(), 0x20_0000] {
        let va = VirtAddr::new(address);
        let Err(trap) = probe::load(va) else {
            fail!("{va} can be read");
        };
        check_eq!((trap.vector, trap.error), (vector::PAGE_FAULT, 0));
        check_eq!(trap.address, va);
        check_eq!(kernel.space.translate(va)?.entry, vellum_core::Entry::Hole);
    }
    Ok(())
}

pub(super) fn writing_rodata_and_text_faults(_: &Kernel) -> Outcome {
    for part in image::parts().iter().filter(|part| part.rights != Rights::Write) {
        let direct = crate::metal::memory::direct(part.physical());
        for va in [part.start, direct] {
            let before = probe::load(va)?;
            // SAFETY: known to trap; that it does is the test.
            let Err(trap) = (unsafe { probe::store(va, !before) }) else {
                fail!("{} can be written at {va}", part.name);
            };
            check_eq!(trap.page_fault(), Some(ErrorCode::PRESENT | ErrorCode::WRITE));
            check_eq!(trap.address, va);
            check_eq!(probe::load(va)?, before);
        }
    }
    Ok(())
}

pub(super) fn executing_data_faults(_: &Kernel) -> Outcome {
    let data = VirtAddr::new(DATA.as_ptr().addr() as u64);
    check_eq!(DATA.load(Ordering::Relaxed), 0xc3);
    let image = data.as_u64() - image::BASE;
    for va in [data, crate::metal::memory::direct(PhysAddr::new(image))] {
        // SAFETY: what lies there is a `ret`, and the fetch is known to trap.
        let Err(trap) = (unsafe { probe::execute(va) }) else {
            fail!("data at {va} was executed");
        };
        check_eq!(trap.page_fault(), Some(ErrorCode::PRESENT | ErrorCode::FETCH));
        check_eq!(trap.rip, va.as_u64());
    }
    Ok(())
}

pub(super) fn guard_pages_fault(_: &Kernel) -> Outcome {
    for guard in image::guards() {
        for va in [guard, guard.wrapping_add(0xff8)] {
            let Err(trap) = probe::load(va) else {
                fail!("the guard page at {va} can be read");
            };
            check_eq!((trap.vector, trap.error, trap.address), (vector::PAGE_FAULT, 0, va));
        }
    }
    Ok(())
}

/// On an overflowing stack the page fault cannot be delivered; the double fault has another stack.
pub(super) fn stack_overflow_is_a_double_fault(_: &Kernel) -> Outcome {
    let [boot_stack_guard, ..] = image::guards();
    let bottom = boot_stack_guard.wrapping_add(0x800);
    // SAFETY: the whole page is a guard: the first push traps, and so does the trap's frame.
    let Err(trap) = (unsafe { probe::overflow(bottom) }) else {
        fail!("the guard page was written");
    };
    check_eq!((trap.vector, trap.error), (vector::DOUBLE_FAULT, 0));
    check!(trap.address.align_down(12) == boot_stack_guard, "cr2 is {}", trap.address);
    Ok(())
}

pub(super) fn non_canonical_access_is_refused(kernel: &Kernel) -> Outcome {
    let bits = if machine::levels() == 5 { 56 } else { 47 };
    for address in [1 << bits, u64::MAX << bits ^ (1 << 63), 0x7fff_ffff_ffff_f000] {
        let va = VirtAddr::new(address);
        let Err(trap) = probe::load(va) else {
            fail!("non-canonical {va} can be read");
        };
        check_eq!((trap.vector, trap.error), (vector::GENERAL_PROTECTION, 0));
        check!(kernel.space.translate(va).is_err(), "the table translates {va}");
    }
    Ok(())
}

pub(super) fn invalid_opcode_is_caught(_: &Kernel) -> Outcome {
    let Err(trap) = probe::undefined_instruction() else {
        fail!("an undefined instruction was executed");
    };
    check_eq!((trap.vector, trap.error), (vector::INVALID_OPCODE, 0));
    Ok(())
}
