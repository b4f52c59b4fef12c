//! The kernel's own tables, asked and used: what they say, and what the MMU makes of it.

use super::frames::Hoard;
use crate::metal::harness::{Failure, Outcome, check, check_eq, fail};
use crate::metal::image::{self, Rights};
use crate::metal::interrupts::vector;
use crate::metal::memory::{self, FIRST_MIB, FRAMES, KernelMemory};
use crate::metal::{Kernel, machine, paging, probe};
use vellum_core::{
    Attr, Cause, Change, Entry, FrameSource, Gone, PAGE_SIZE, PhysAddr, Run, VirtAddr,
};
use vellum_x86::ErrorCode;
use x86_64::registers::control::Cr3;

/// The leaf that translates `va`, and log2 of its bytes.
fn leaf(kernel: &Kernel, va: VirtAddr) -> Result<(PhysAddr, Attr, u64), Failure> {
    let span = kernel.space.translate(va)?;
    let Entry::Leaf(pa, attr) = span.entry else {
        return Err(Failure::new(format_args!("{va} is {:?}", span.entry)));
    };
    let inside = va.as_u64() - span.va.as_u64();
    Ok((pa.wrapping_add(inside), attr, span.len))
}

pub(super) fn levels_are_those_of_the_cpu(kernel: &Kernel) -> Outcome {
    let (root, _) = Cr3::read();
    check_eq!(root.start_address().as_u64(), kernel.space.root().as_u64());
    let (start, _) = image::physical_extent();
    let page = image::parts()[0].start;
    check_eq!(kernel.space.walk_depth(page)?, machine::levels());
    check_eq!(leaf(kernel, page)?.0.as_u64(), page.as_u64() - image::BASE);
    check!(start < image::parts()[0].physical(), "the boot stub is not part of the text");
    Ok(())
}

pub(super) fn image_is_mapped_with_its_rights(kernel: &Kernel) -> Outcome {
    for part in image::parts() {
        for offset in (0..part.len_bytes).step_by(PAGE_SIZE as usize) {
            let va = part.start.wrapping_add(offset);
            let (pa, attr, _) = leaf(kernel, va)?;
            check_eq!(pa, part.physical().wrapping_add(offset));
            check_eq!(attr - Attr::STATUS, paging::attributes(part.rights));
        }
    }
    for guard in image::guards() {
        check_eq!(kernel.space.translate(guard)?.entry, Entry::Hole);
    }
    Ok(())
}

/// Every page of RAM, by the tables; and the first and last word of each stretch, by the MMU.
pub(super) fn direct_map_reaches_all_ram(kernel: &Kernel) -> Outcome {
    for stretch in memory::ram() {
        let mut at = stretch.start();
        while at < stretch.end() {
            let va = memory::direct(PhysAddr::new(at));
            let (pa, attr, len) = leaf(kernel, va)?;
            check_eq!(pa.as_u64(), at);
            check!(attr.contains(Attr::READ | Attr::GLOBAL), "{va} is {attr:?}");
            let span = kernel.space.translate(va)?;
            at += len - (va.as_u64() - span.va.as_u64());
        }
        check_eq!(at, stretch.end());
        for end in [stretch.start(), stretch.end() - 8] {
            probe::load(memory::direct(PhysAddr::new(end)))?;
        }
    }
    Ok(())
}

pub(super) fn direct_map_uses_huge_leaves(kernel: &Kernel) -> Outcome {
    // The middle of the largest stretch is far from its ragged ends.
    let ram = memory::ram();
    let Some(largest) = ram.iter().max_by_key(|stretch| stretch.len_bytes()) else {
        fail!("there is no RAM");
    };
    let middle = PhysAddr::new(largest.start() + largest.len_bytes() / 2);
    let (_, _, len) = leaf(kernel, memory::direct(middle))?;
    check!(len >= 2 << 20, "a leaf of {len} bytes at {middle}");
    // One PTE for 512 would be 1/512 of RAM, and 8 bytes for each page of the window.
    let bytes: u64 = ram.iter().map(|stretch| stretch.len_bytes()).sum();
    let tables = kernel.space.table_bytes();
    check!(tables < bytes / 1024 + (128 << 10), "{tables} bytes of tables for {bytes} of RAM");
    Ok(())
}

pub(super) fn nothing_is_writable_and_executable(kernel: &Kernel) -> Outcome {
    let both = Attr::WRITE | Attr::EXEC;
    let mut leaves = 0_u64;
    let mut offender = None;
    kernel.space.visit_all(&mut |span| {
        if let Entry::Leaf(_, attr) = span.entry {
            leaves += 1;
            if attr.contains(both) || attr.contains(Attr::USER) {
                offender = Some(span);
            }
        }
    })?;
    check!(leaves > 5, "only {leaves} stretches are mapped");
    check!(offender.is_none(), "{offender:x?}");
    // And nothing that may be executed can be written through the direct map.
    for part in image::parts().iter().filter(|part| part.rights == Rights::Execute) {
        let (_, attr, _) = leaf(kernel, memory::direct(part.physical()))?;
        check!(!attr.intersects(both), "text is {attr:?} in the direct map");
    }
    Ok(())
}

pub(super) fn demand_fault_gives_a_cleared_page(kernel: &Kernel) -> Outcome {
    let free = FRAMES.stats().free;
    let page = paging::window().wrapping_add(16 * PAGE_SIZE);
    check_eq!(kernel.space.translate(page)?.entry, Entry::Hole);

    // A frame full of ones goes first, so that a page that is not cleared would show.
    let dirty = FRAMES.alloc(0)?;
    for offset in (0..PAGE_SIZE).step_by(8) {
        // SAFETY: the frame is ours.
        unsafe { probe::store(memory::direct(dirty).wrapping_add(offset), u64::MAX)? };
    }
    // SAFETY: allocated above and not used any more.
    unsafe { FRAMES.free(dirty, 0)? };

    check_eq!(probe::load(page.wrapping_add(0x120))?, 0);
    let (pa, attr, _) = leaf(kernel, page)?;
    check_eq!(attr - Attr::STATUS, Attr::RW | Attr::GLOBAL);
    for offset in (0..PAGE_SIZE).step_by(8) {
        check_eq!(probe::load(page.wrapping_add(offset))?, 0);
    }
    // SAFETY: the page is this test's.
    unsafe { probe::store(page.wrapping_add(0x120), 0x0123_4567_89ab_cdef)? };
    check_eq!(probe::load(memory::direct(pa).wrapping_add(0x120))?, 0x0123_4567_89ab_cdef);

    kernel.space.discard(page, PAGE_SIZE)?;
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

/// Pages far apart, so that each fault needs tables as well as a frame; all of it comes back.
pub(super) fn demand_faults_over_many_tables(kernel: &Kernel) -> Outcome {
    let (free, tables) = (FRAMES.stats().free, kernel.space.table_bytes());
    let pages = || {
        let strides = [PAGE_SIZE, 2 << 20, 1 << 30];
        strides.into_iter().flat_map(|stride| (1..40).map(move |n| n * (stride + PAGE_SIZE)))
    };
    for offset in pages() {
        let va = paging::window().wrapping_add(offset);
        // SAFETY: the window is this test's.
        unsafe { probe::store(va, offset)? };
    }
    check!(kernel.space.table_bytes() > tables, "no table was added");
    for offset in pages() {
        let va = paging::window().wrapping_add(offset);
        check_eq!(probe::load(va)?, offset);
    }
    kernel.space.discard(paging::window(), paging::WINDOW_BYTES)?;
    check_eq!(kernel.space.table_bytes(), tables);
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

/// With too few frames for the page and its tables the fault stays a fault, and nothing is lost.
pub(super) fn demand_fault_without_frames_is_not_resolved(kernel: &Kernel) -> Outcome {
    // The last page of the window: no table of its own is there yet.
    let page = paging::window().wrapping_add(paging::WINDOW_BYTES - PAGE_SIZE);
    let (free, tables) = (FRAMES.stats().free, kernel.space.table_bytes());
    let mut hoard = Hoard::take();
    let mut spare = 0;
    let resolved = loop {
        match probe::load(page) {
            Ok(value) => break value,
            Err(trap) => check_eq!((trap.vector, trap.error), (vector::PAGE_FAULT, 0)),
        }
        check_eq!(FRAMES.stats().free, spare);
        check_eq!(kernel.space.table_bytes(), tables);
        check!(spare < u64::from(machine::levels()), "{spare} frames are not enough");
        hoard.give_back_one()?;
        spare += 1;
    };
    check_eq!(resolved, 0);
    check!(spare > 1, "one frame was enough, but tables were missing");
    kernel.space.discard(page, PAGE_SIZE)?;
    hoard.give_back()?;
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

/// An address that nothing else uses, below the demand window.
pub(super) fn private(offset: u64) -> VirtAddr {
    VirtAddr::new(paging::window().as_u64() - (1 << 39) + offset)
}

pub(super) fn unmapped_page_faults_after_flush(kernel: &Kernel) -> Outcome {
    let (va, free) = (private(0x3000), FRAMES.stats().free);
    let frame = FRAMES.alloc(0)?;
    kernel.space.map(Run::new(va, frame, PAGE_SIZE, Attr::RW | Attr::GLOBAL))?;
    // SAFETY: the frame is ours.
    unsafe { probe::store(va, 77)? };
    check_eq!(probe::load(va)?, 77);

    let mut gone = None;
    kernel.space.unmap(va, PAGE_SIZE, |what| gone = Some(what))?;
    let Some(Gone::Run(run)) = gone else {
        fail!("unmapping gave {gone:?}");
    };
    check_eq!((run.va, run.pa, run.len), (va, frame, PAGE_SIZE));
    check!(run.attr.contains(Attr::STATUS), "what was written to is {:?}", run.attr);
    let Err(trap) = probe::load(va) else {
        fail!("{va} can be read after it was unmapped");
    };
    check_eq!((trap.vector, trap.error, trap.address), (vector::PAGE_FAULT, 0, va));
    // SAFETY: allocated above; unmapped and flushed.
    unsafe { KernelMemory.free(frame, 0) };
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

pub(super) fn narrowed_page_faults_after_flush(kernel: &Kernel) -> Outcome {
    let va = private(0x5000);
    let frame = FRAMES.alloc(0)?;
    kernel.space.map(Run::new(va, frame, PAGE_SIZE, Attr::RW | Attr::GLOBAL))?;
    // SAFETY: the frame is ours.
    unsafe { probe::store(va, 5)? };
    kernel.space.protect(va, PAGE_SIZE, Change::clearing(Attr::WRITE))?;
    check_eq!(probe::load(va)?, 5);
    // SAFETY: known to trap; the frame is ours if it does not.
    let denied = unsafe { probe::store(va, 6) };
    let expected = Some(ErrorCode::PRESENT | ErrorCode::WRITE);
    check!(denied.is_err_and(|trap| trap.page_fault() == expected), "{denied:?}");
    kernel.space.protect(va, PAGE_SIZE, Change::setting(Attr::WRITE))?;
    // SAFETY: the frame is ours.
    unsafe { probe::store(va, 7)? };
    check_eq!(probe::load(memory::direct(frame))?, 7);

    kernel.space.unmap(va, PAGE_SIZE, |_| ())?;
    // SAFETY: allocated above; unmapped and flushed.
    unsafe { KernelMemory.free(frame, 0) };
    Ok(())
}

/// A leaf of 2 MiB: one page unmapped from its middle, the rest stays where it is.
pub(super) fn huge_leaf_is_split(kernel: &Kernel) -> Outcome {
    const HUGE: u64 = 2 << 20;
    let (va, free) = (private(HUGE), FRAMES.stats().free);
    let block = FRAMES.alloc(9)?;
    let attr = Attr::RW | Attr::GLOBAL;
    kernel.space.map(Run::new(va, block, HUGE, attr).with_leaves_up_to(21))?;
    check_eq!(leaf(kernel, va)?.2, HUGE);
    for offset in (0..HUGE).step_by(PAGE_SIZE as usize) {
        // SAFETY: the block is ours.
        unsafe { probe::store(va.wrapping_add(offset), offset)? };
    }
    let hole = va.wrapping_add(77 * PAGE_SIZE);
    kernel.space.unmap(hole, PAGE_SIZE, |_| ())?;
    for offset in (0..HUGE).step_by(PAGE_SIZE as usize) {
        let at = va.wrapping_add(offset);
        let found = probe::load(at);
        if at == hole {
            check!(found.is_err(), "{at} can still be read");
        } else {
            check_eq!(found, Ok(offset));
        }
    }
    kernel.space.unmap(va, HUGE, |_| ())?;
    // SAFETY: allocated above; unmapped and flushed.
    unsafe { KernelMemory.free(block, 9) };
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

pub(super) fn a_mapping_in_the_way_is_named(kernel: &Kernel) -> Outcome {
    let text = image::parts()[0];
    let before = kernel.space.table_bytes();
    let start = VirtAddr::new(text.start.as_u64() - PAGE_SIZE);
    let run = Run::new(start, PhysAddr::new(FIRST_MIB), 3 * PAGE_SIZE, Attr::READ);
    let refused = kernel.space.map(run);
    let Err(error) = refused else {
        fail!("the image was mapped over");
    };
    check!(matches!(error.cause, Cause::Mapped(span) if span.va == text.start), "{error:?}");
    kernel.space.unmap(start, error.done, |_| ())?;
    check_eq!(kernel.space.table_bytes(), before);
    Ok(())
}

pub(super) fn hardware_sets_accessed_and_dirty(kernel: &Kernel) -> Outcome {
    let va = private(0x9000);
    let frame = FRAMES.alloc(0)?;
    kernel.space.map(Run::new(va, frame, PAGE_SIZE, Attr::RW))?;
    let status = |kernel: &Kernel| leaf(kernel, va).map(|(_, attr, _)| attr & Attr::STATUS);
    check_eq!(status(kernel)?, Attr::NONE);
    probe::load(va)?;
    check_eq!(status(kernel)?, Attr::ACCESSED);
    // SAFETY: the frame is ours.
    unsafe { probe::store(va, 1)? };
    check_eq!(status(kernel)?, Attr::STATUS);
    kernel.space.unmap(va, PAGE_SIZE, |_| ())?;
    // SAFETY: allocated above; unmapped and flushed.
    unsafe { KernelMemory.free(frame, 0) };
    Ok(())
}
