//! The frames of the machine's real memory map.

use crate::metal::harness::{Outcome, check, check_eq, fail};
use crate::metal::memory::{self, FIRST_MIB, FRAMES, KernelMemory};
use crate::metal::{Kernel, image};
use core::ptr::NonNull;
use vellum_core::{PAGE_SIZE, PhysAddr, PhysMap, order_bytes};
use vellum_frame::{FreeError, MAX_ORDER};
use vellum_kernel::{Extent, RegionKind};

pub(super) fn memory_map_is_sane(kernel: &Kernel) -> Outcome {
    let (start, len_bytes) = image::physical_extent();
    let ram = memory::ram();
    let image_in_ram =
        ram.iter().any(|s| s.start() <= start.as_u64() && start.as_u64() + len_bytes <= s.end());
    check!(image_in_ram, "the image at {start} is not in RAM");

    let pages: u64 = ram.iter().map(|stretch| stretch.len_bytes() / PAGE_SIZE).sum();
    let stated = kernel.boot.regions().iter().filter(|region| region.kind == RegionKind::Ram);
    let stated: u64 = stated.map(|region| region.extent.len_bytes() / PAGE_SIZE).sum();
    check!(pages <= stated, "{pages} pages of RAM, but the map states {stated}");
    // The frames are RAM but for the first MiB, the image, and what the loader left and the
    // metadata take: never more than 4 MiB and a sixteenth.
    let total = FRAMES.stats().total;
    check!(total < pages, "{total} frames of {pages} pages");
    check!(total + 1024 + pages / 16 > pages, "only {total} frames of {pages} pages");
    Ok(())
}

pub(super) fn nothing_reserved_is_free(kernel: &Kernel) -> Outcome {
    for (first, count) in FRAMES.free_runs() {
        let Some(run) = Extent::new(first.as_u64(), count * PAGE_SIZE) else {
            fail!("an empty free run at {first}");
        };
        check!(run.start() >= FIRST_MIB, "{first} is below 1 MiB");
        for reserved in memory::reserved(kernel.boot) {
            check!(!run.overlaps(reserved), "free {run:x?} overlaps reserved {reserved:x?}");
        }
        let whole = memory::ram().iter().any(|s| s.start() <= run.start() && run.end() <= s.end());
        check!(whole, "free {run:x?} is not RAM");
        let root = kernel.space.root().as_u64();
        check!(root < run.start() || root >= run.end(), "the root table is free");
    }
    Ok(())
}

pub(super) fn every_order_is_dealt_out_aligned(_: &Kernel) -> Outcome {
    let before = FRAMES.stats();
    let Some(largest) = before.largest else {
        fail!("nothing is free");
    };
    for order in 0..=largest {
        let pa = FRAMES.alloc(order)?;
        check!(pa.is_aligned(12 + order), "{pa} for order {order}");
        check_eq!(FRAMES.stats().free, before.free - (1 << order));
        // SAFETY: allocated above, and nobody knows of it.
        unsafe { FRAMES.free(pa, order)? };
    }
    check!(FRAMES.alloc(MAX_ORDER + 1).is_err(), "there is no such order");
    check_eq!(FRAMES.stats(), before);
    Ok(())
}

/// Every frame there is: blocks in a list through their own first words, next block and order.
pub(super) struct Hoard {
    /// How many frames.
    pub(super) count: u64,
    /// The last block taken, or 0.
    head: PhysAddr,
}

impl Hoard {
    /// Frames that are taken one by one, before the rest goes by the largest blocks.
    const SINGLE: u64 = 4096;

    /// Takes all of them.
    pub(super) fn take() -> Self {
        let mut hoard = Self { count: 0, head: PhysAddr::new(0) };
        while hoard.count < Self::SINGLE && hoard.take_block(0) {}
        for order in (0..=MAX_ORDER).rev() {
            while hoard.take_block(order) {}
        }
        hoard
    }

    fn take_block(&mut self, order: u8) -> bool {
        let Ok(block) = FRAMES.alloc(order) else { return false };
        self.push(block, order);
        self.count += 1 << order;
        true
    }

    fn push(&mut self, block: PhysAddr, order: u8) {
        let words = [self.head.as_u64(), u64::from(order)];
        // SAFETY: the block is ours, and a frame has room for two words.
        KernelMemory.with(block, |bytes| unsafe { bytes.cast::<[u64; 2]>().write(words) });
        self.head = block;
    }

    fn pop(&mut self) -> Option<(PhysAddr, u8)> {
        let block = self.head;
        if block == PhysAddr::new(0) {
            return None;
        }
        // SAFETY: written by `push`, and the block is still ours.
        let [next, order] =
            KernelMemory.with(block, |bytes| unsafe { bytes.cast::<[u64; 2]>().read() });
        self.head = PhysAddr::new(next);
        Some((block, order as u8))
    }

    /// Gives one frame back.
    pub(super) fn give_back_one(&mut self) -> Outcome {
        let Some((block, mut order)) = self.pop() else { return Ok(()) };
        while order > 0 {
            order -= 1;
            self.push(block.wrapping_add(order_bytes(order)), order);
        }
        self.count -= 1;
        // SAFETY: a part of a block that is ours, and no longer in the list.
        unsafe { FRAMES.free(block, 0)? };
        Ok(())
    }

    /// Gives everything back.
    pub(super) fn give_back(mut self) -> Outcome {
        while let Some((block, order)) = self.pop() {
            // SAFETY: a block that is ours, and no longer in the list.
            unsafe { FRAMES.free(block, order)? };
        }
        Ok(())
    }
}

pub(super) fn conserves_frames(_: &Kernel) -> Outcome {
    let before = FRAMES.stats();
    let hoard = Hoard::take();
    check_eq!(hoard.count, before.free);
    check_eq!(FRAMES.stats().free, 0);
    hoard.give_back()?;
    check_eq!(FRAMES.stats(), before);
    Ok(())
}

/// Two blocks written in turn: neither write shows in the other.
pub(super) fn blocks_hold_their_own_bytes(_: &Kernel) -> Outcome {
    const ORDER: u8 = 4;
    let blocks = [FRAMES.alloc(ORDER)?, FRAMES.alloc(ORDER)?];
    let pages = || (0..order_bytes(ORDER)).step_by(PAGE_SIZE as usize);
    let word = |block: PhysAddr, offset| {
        move |f: &dyn Fn(NonNull<u64>) -> u64| {
            KernelMemory.with(block.wrapping_add(offset), |bytes| f(bytes.cast()))
        }
    };
    for block in blocks {
        for offset in pages() {
            let value = block.as_u64() ^ offset;
            // SAFETY: the block is ours.
            word(block, offset)(&|p| unsafe {
                p.write_volatile(value);
                value
            });
        }
    }
    for block in blocks {
        for offset in pages() {
            // SAFETY: the block is ours, and was written above.
            let found = word(block, offset)(&|p| unsafe { p.read_volatile() });
            check_eq!(found, block.as_u64() ^ offset);
        }
    }
    for block in blocks {
        // SAFETY: allocated above and not used any more.
        unsafe { FRAMES.free(block, ORDER)? };
    }
    Ok(())
}

pub(super) fn a_double_free_is_refused(_: &Kernel) -> Outcome {
    let pa = FRAMES.alloc(0)?;
    // SAFETY: allocated above and not used any more.
    unsafe { FRAMES.free(pa, 0)? };
    // SAFETY: the frame is nobody's; the allocator has to see that and change nothing.
    let again = unsafe { FRAMES.free(pa, 0) };
    check_eq!(again, Err(FreeError::DoubleFree { pa }));
    let (image, _) = image::physical_extent();
    // SAFETY: never the allocator's to give, which it has to see.
    let foreign = unsafe { FRAMES.free(image, 0) };
    check!(foreign.is_err(), "the image's first frame was freed");
    Ok(())
}
