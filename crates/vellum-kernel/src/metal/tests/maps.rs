//! The machine's real memory map, and what is hard in it: the hole below 1 MiB, many regions.
//!
//! ```text
//!   0       640K       1 MiB
//!   |r[======).........|.....[block)......      low memory, and a block of FRAMES beyond the hole
//!
//!   [==r=rr==r====r==r=========r==...==)        all that FRAMES has, split by reservations
//! ```
//!
//! Each test gives a second allocator memory that nobody else has: low memory, which `memory`
//! reserves, and frames that were taken from `FRAMES` before and go back after.

use crate::metal::Kernel;
use crate::metal::harness::{Outcome, check, check_eq, fail};
use crate::metal::memory::{FIRST_MIB, FRAMES, KernelMemory};
use arrayvec::ArrayVec;
use core::iter::once;
use core::ptr::NonNull;
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysMap, order_bytes};
use vellum_frame::{AllocAtError, FrameAllocator, FreeError};
use vellum_kernel::{Extent, RegionKind};

/// First byte and end.
type Bytes = (u64, u64);

/// The RAM of the map, as the boot loader states it.
fn ram(kernel: &Kernel) -> impl DoubleEndedIterator<Item = Bytes> + Clone {
    let regions = kernel.boot.regions().iter();
    regions.filter(|region| region.kind == RegionKind::Ram).map(|region| bytes(region.extent))
}

fn bytes(extent: Extent) -> Bytes {
    (extent.start(), extent.end())
}

/// Whether frame `pfn` lies in one of `usable` and has no byte of any of `reserved`: what an
/// allocator has to find, said without any cleverness.
fn is_ours(
    pfn: u64,
    usable: impl IntoIterator<Item = Bytes>,
    reserved: impl IntoIterator<Item = Bytes>,
) -> bool {
    let (start, end) = (pfn << PAGE_SHIFT, (pfn + 1) << PAGE_SHIFT);
    usable.into_iter().any(|(low, high)| low <= start && end <= high)
        && !reserved.into_iter().any(|(low, high)| low < high && low < end && start < high)
}

/// The direct map, for the allocators' metadata.
fn reach(pa: PhysAddr, _len: u64) -> Option<NonNull<u8>> {
    Some(KernelMemory.with(pa, |bytes| bytes))
}

/// How many frames the metadata takes.
fn metadata_frames(words: u64) -> u64 {
    (words * 8).div_ceil(PAGE_SIZE)
}

/// Writes a value into a frame that no other frame has.
fn tag(pa: PhysAddr) {
    // SAFETY: only for frames that were just allocated by the test.
    KernelMemory.with(pa, |bytes| unsafe { bytes.cast::<u64>().write_volatile(!pa.as_u64()) });
}

/// Whether that value is still there.
fn has_tag(pa: PhysAddr) -> bool {
    // SAFETY: only for frames that the test has, and has tagged.
    let found = KernelMemory.with(pa, |bytes| unsafe { bytes.cast::<u64>().read_volatile() });
    found == !pa.as_u64()
}

/// One bit for each frame of the machine, in a block of `FRAMES`.
struct Bits {
    block: PhysAddr,
    order: u8,
}

impl Bits {
    /// Zeros for the frames below `end`, or `None` where no block has room for them.
    fn new(end: u64) -> Option<Self> {
        let frames = end.div_ceil(8 * PAGE_SIZE).next_power_of_two();
        let order = frames.trailing_zeros() as u8;
        let block = FRAMES.alloc(order).ok()?;
        for i in 0..frames {
            // SAFETY: allocated above, and nobody else's.
            unsafe { KernelMemory.clear(block.wrapping_add(i * PAGE_SIZE)) };
        }
        Some(Self { block, order })
    }

    /// The bit of `pfn` before this call; set afterwards.
    fn set(&mut self, pfn: u64) -> bool {
        let word = self.block.wrapping_add(pfn / 64 * 8);
        KernelMemory.with(word, |bytes| {
            let word = bytes.cast::<u64>();
            // SAFETY: the word lies in the block, which is ours and was cleared.
            unsafe {
                let old = word.read();
                word.write(old | 1 << (pfn % 64));
                old >> (pfn % 64) & 1 != 0
            }
        })
    }

    fn give_back(self) -> Outcome {
        // SAFETY: the block is ours, and goes with `self`.
        unsafe { FRAMES.free(self.block, self.order)? };
        Ok(())
    }
}

pub(super) fn hole_below_one_mib_is_never_dealt_out(kernel: &Kernel) -> Outcome {
    const ORDER: u8 = 4;
    // What the boot loader of a PC says: RAM up to 640 KiB at most, and from 1 MiB on again.
    check!(ram(kernel).any(|(start, end)| start < 0x8_0000 && 0x8_0000 <= end), "no low memory");
    check!(ram(kernel).any(|(start, end)| start <= FIRST_MIB && FIRST_MIB < end), "none at 1 MiB");
    let hole = (0xa_0000, FIRST_MIB);
    check!(!ram(kernel).any(|(start, end)| start < hole.1 && hole.0 < end), "no hole at 640 KiB");
    let others = kernel.boot.regions().iter().filter(|region| region.kind != RegionKind::Ram);
    for (low, high) in others.map(|region| bytes(region.extent)) {
        let overlaps = ram(kernel).any(|(start, end)| start < high && low < end);
        check!(!overlaps, "{low:#x}..{high:#x} is RAM and something else");
    }
    let block = FRAMES.alloc(ORDER)?;
    let outcome = deal_out_low_memory(kernel, hole, (block, order_bytes(ORDER)));
    // SAFETY: allocated above; the allocator that had it is gone.
    unsafe { FRAMES.free(block, ORDER)? };
    outcome
}

fn deal_out_low_memory(kernel: &Kernel, hole: Bytes, (block, len): (PhysAddr, u64)) -> Outcome {
    let beyond = (block.as_u64(), block.as_u64() + len);
    let usable = ram(kernel).map(|(start, end)| (start, end.min(FIRST_MIB))).chain(once(beyond));
    // Only what RAM itself holds: what is no RAM needs no reservation.
    let reserved = kernel.boot.reserved().iter().map(|&extent| bytes(extent));
    let reserved = reserved.chain(once((0, 0x500))); // the firmware's vectors and data

    let frames = FrameAllocator::new();
    // SAFETY: firmware and boot loader have ended, application processors never started, and
    // `memory` gives no low memory away: but for what is reserved it is nobody's. The block is
    // ours. The direct map has both.
    unsafe { frames.init(usable.clone(), reserved.clone(), reach)? };
    let before = frames.stats();
    let ours = |pfn| is_ours(pfn, usable.clone(), reserved.clone());
    let low = (0..FIRST_MIB / PAGE_SIZE).filter(|&pfn| ours(pfn)).count() as u64;
    check!(low >= 0x70, "only {low} usable frames below 640 KiB");
    let words = FrameAllocator::words_needed(usable.clone(), reserved.clone());
    check_eq!(before.total, low + len / PAGE_SIZE - metadata_frames(words));
    check_eq!(before.free, before.total);

    let mut dealt = [false; (FIRST_MIB / PAGE_SIZE) as usize];
    let mut taken = ArrayVec::<PhysAddr, { 256 + 16 }>::new();
    while let Ok(pa) = frames.alloc(0) {
        let pfn = pa.number().as_u64();
        check!(ours(pfn), "{pa} is not usable");
        check!(pa.as_u64() < hole.0 || hole.1 <= pa.as_u64(), "{pa} lies in the hole");
        if let Some(dealt) = dealt.get_mut(pfn as usize) {
            check!(!*dealt, "{pa} was dealt out twice");
            *dealt = true;
        }
        check!(taken.try_push(pa).is_ok(), "more frames than there are");
        tag(pa);
    }
    check_eq!(taken.len() as u64, before.total);
    check!(!dealt[0], "frame 0 was dealt out");
    check!(taken.iter().all(|&pa| has_tag(pa)), "a frame lost its tag");

    for pa in (hole.0..hole.1).step_by(PAGE_SIZE as usize).map(PhysAddr::new) {
        let at = frames.alloc_at(pa, 0);
        check!(matches!(at, Err(AllocAtError::Reserved { .. })), "alloc_at({pa}): {at:?}");
        // SAFETY: never this allocator's to give, which it has to see.
        let freed = unsafe { frames.free(pa, 0) };
        check!(matches!(freed, Err(FreeError::Reserved { .. })), "free({pa}): {freed:?}");
    }
    for pa in taken {
        // SAFETY: taken above, once each.
        unsafe { frames.free(pa, 0)? };
    }
    check_eq!(frames.stats(), before);
    Ok(())
}

/// Stretches of memory that were free in `FRAMES`.
type Runs = ArrayVec<Extent, 64>;

/// The aligned blocks that a run consists of, the largest first that fit.
fn blocks(run: Extent) -> impl Iterator<Item = (PhysAddr, u8)> {
    let mut at = run.start() >> PAGE_SHIFT;
    let end = run.end() >> PAGE_SHIFT;
    core::iter::from_fn(move || {
        let left = (end - at).checked_ilog2()?;
        let order = left.min(at.trailing_zeros()).min(u32::from(vellum_frame::MAX_ORDER)) as u8;
        let block = PhysAddr::new(at << PAGE_SHIFT);
        at += 1 << order;
        Some((block, order))
    })
}

pub(super) fn many_regions_are_dealt_out_once_each(kernel: &Kernel) -> Outcome {
    let before = FRAMES.stats();
    let end = ram(kernel).map(|(_, end)| end >> PAGE_SHIFT).max().unwrap_or(0);
    let Some(mut bits) = Bits::new(end) else { fail!("no room for {end} bits") };
    let mut runs = Runs::new();
    for (first, count) in FRAMES.free_runs() {
        let run = Extent::new(first.as_u64(), count * PAGE_SIZE);
        check!(run.is_some_and(|run| runs.try_push(run).is_ok()), "too many free runs");
    }
    for (pa, order) in runs.iter().copied().flat_map(blocks) {
        FRAMES.alloc_at(pa, order)?;
    }
    check_eq!(FRAMES.stats().free, 0);
    let outcome = deal_out_split_map(kernel, &runs, end, &mut bits);
    for (pa, order) in runs.iter().copied().flat_map(blocks) {
        // SAFETY: allocated above; the allocator that had it is gone.
        unsafe { FRAMES.free(pa, order)? };
    }
    bits.give_back()?;
    outcome?;
    check_eq!(FRAMES.stats(), before);
    Ok(())
}

/// How often the largest run is split.
const SPLITS: u64 = 48;

/// Reservations over a run: at [`SPLITS`] places, in no order, two each.
fn splits(run: Extent) -> impl Iterator<Item = Bytes> + Clone {
    let step = run.len_bytes() / (SPLITS + 1);
    (0..SPLITS).flat_map(move |i| {
        let at = run.start() + (i * 29 % SPLITS + 1) * step;
        match i % 4 {
            0 => [(at + 0x7ff, at + 0x800), (at, at)], // one byte, and nothing
            1 => [(at, at + 0x1000), (at + 0x1000, at + 0x2800)], // touching
            2 => [(at + 0x800, at + 0x4800), (at, at + 0x1000)], // overlapping
            _ => [(at, at + 0x9000), (at + 0x2001, at + 0x2002)], // one inside the other
        }
    })
}

fn deal_out_split_map(kernel: &Kernel, runs: &Runs, end: u64, bits: &mut Bits) -> Outcome {
    // The map from its end to its start, and a half of each region once more.
    let usable = ram(kernel).rev().flat_map(|(start, end)| [(start, end), (start, end / 2)]);
    // What `FRAMES` did not have: before, between and behind the runs.
    let starts = runs.iter().map(|run| run.start()).chain(once(u64::MAX));
    let gaps = once(0).chain(runs.iter().map(|run| run.end())).zip(starts);
    let Some(largest) = runs.iter().copied().max_by_key(|run| run.len_bytes()) else {
        fail!("nothing is free");
    };
    check!(largest.len_bytes() > SPLITS << 16, "too little memory to split");
    let reserved = splits(largest).chain(gaps);

    let frames = FrameAllocator::new();
    // SAFETY: all that is not reserved was taken from `FRAMES`, and the direct map has it.
    unsafe { frames.init(usable.clone(), reserved.clone(), reach)? };
    let before = frames.stats();
    let ours = |pfn| is_ours(pfn, usable.clone(), reserved.clone());
    let (mut count, mut regions, mut inside) = (0, 0, false);
    for pfn in 0..=end {
        let was_inside = core::mem::replace(&mut inside, ours(pfn));
        count += u64::from(inside);
        regions += u64::from(inside && !was_inside);
    }
    check!(regions > 32, "only {regions} regions");
    let words = FrameAllocator::words_needed(usable.clone(), reserved.clone());
    check_eq!(before.total, count - metadata_frames(words));
    check_eq!(before.free, before.total);

    let (mut dealt, mut misses) = (0, 0);
    let orders = [0, 3, 9, 1, 6, 10, 0, 5, 2, 12, 4];
    for order in orders.into_iter().cycle() {
        let Ok(block) = frames.alloc(order) else {
            misses += 1;
            if misses == orders.len() {
                break;
            }
            continue;
        };
        misses = 0;
        check!(block.is_aligned(PAGE_SHIFT + order), "{block} for order {order}");
        for pa in (0..1 << order).map(|i| block.wrapping_add(i * PAGE_SIZE)) {
            let pfn = pa.number().as_u64();
            check!(ours(pfn), "{pa} is not usable");
            check!(!bits.set(pfn), "{pa} was dealt out twice");
            tag(pa);
            dealt += 1;
        }
    }
    check_eq!(dealt, before.total);
    check_eq!(frames.stats().free, 0);

    // All frames but those of the metadata are out, each with its own value, and go back singly.
    for pa in (0..end).filter(|&pfn| ours(pfn)).map(|pfn| PhysAddr::new(pfn << PAGE_SHIFT)) {
        if !bits.set(pa.number().as_u64()) {
            continue;
        }
        check!(has_tag(pa), "{pa} lost its tag");
        // SAFETY: allocated above, and freed once.
        unsafe { frames.free(pa, 0)? };
    }
    check_eq!(frames.stats(), before);
    let Some(largest) = before.largest else { fail!("nothing was free") };
    let block = frames.alloc(largest)?;
    // SAFETY: allocated right here.
    unsafe { frames.free(block, largest)? };
    Ok(())
}
