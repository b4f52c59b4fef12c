//! Physical memory: the frames, and the handle that tables store.
//!
//! ```text
//!   start info --> BootInfo --> usable: RAM            --> FRAMES (vellum-frame)
//!                               reserved: the first MiB, the image, the start info
//!                               and all that it names
//!
//!   KernelMemory   zero-sized:  PhysMap      pa -> direct_map() + pa
//!                               FrameSource  FRAMES
//! ```
//!
//! # Invariants
//!
//! - A frame of `FRAMES` lies below [`boot::reach_bytes`], and the direct map has it: under the
//!   boot tables, and under the kernel's own, at the same address.
//! - Nobody but `FRAMES` and whom it gives them to touches its frames.

use super::{boot, image, machine};
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU32;
use spin::Once;
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap, VirtAddr};
use vellum_frame::{FrameAllocator, InitError, PhysRange};
use vellum_kernel::ram::{self, Stretches};
use vellum_kernel::{BootInfo, Extent, PhysicalBytes, StartInfoError};

/// Every frame that may be dealt out.
pub(crate) static FRAMES: FrameAllocator<'static> = FrameAllocator::new();

/// What the boot loader said.
static BOOT_INFO: Once<BootInfo> = Once::new();

/// Memory below belongs to firmware, and to application processors that start there.
pub(crate) const FIRST_MIB: u64 = 1 << 20;

/// Why there is no memory to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryError {
    /// The start info is wrong.
    StartInfo(StartInfoError),
    /// The frames could not be taken over.
    Frames(InitError),
}

impl core::fmt::Display for MemoryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::StartInfo(e) => e.fmt(f),
            Self::Frames(e) => e.fmt(f),
        }
    }
}

/// Reads the start info and takes the memory over.
pub(crate) fn init(start_info: u64) -> Result<&'static BootInfo, MemoryError> {
    let info = BootInfo::read(&LoaderMemory, start_info).map_err(MemoryError::StartInfo)?;
    let info = BOOT_INFO.call_once(|| info);
    let usable = ram();
    let usable = usable.iter().map(|extent| range(*extent));
    let reserved = reserved(info).map(range);
    let reach = |pa: PhysAddr, len: u64| {
        (pa.as_u64().checked_add(len)? <= boot::reach_bytes()).then(|| KernelMemory.pointer(pa))
    };
    // SAFETY: RAM without the image and without what the start info names is used by nobody; the
    // direct map reaches it at the same address for as long as the machine runs, for `paging`
    // maps all of `ram()` there.
    unsafe { FRAMES.init(usable, reserved, reach) }.map_err(MemoryError::Frames)?;
    Ok(info)
}

/// What the boot loader said, once [`init`] has read it.
pub(crate) fn boot_info() -> Option<&'static BootInfo> {
    BOOT_INFO.get()
}

/// All RAM that the direct map has.
pub(crate) fn ram() -> Stretches {
    boot_info().map(|info| ram::ram(info, boot::reach_bytes())).unwrap_or_default()
}

/// Bytes of RAM that lie beyond the direct map, and are left alone.
pub(crate) fn unreached_bytes(info: &BootInfo) -> u64 {
    let bytes = |limit| ram::ram(info, limit).iter().map(|part| part.len_bytes()).sum::<u64>();
    bytes(u64::MAX) - bytes(boot::reach_bytes())
}

/// What must not be dealt out, though it is RAM.
pub(crate) fn reserved(info: &BootInfo) -> impl Iterator<Item = Extent> + Clone {
    let (start, len_bytes) = image::physical_extent();
    let fixed = [Extent::new(0, FIRST_MIB), Extent::new(start.as_u64(), len_bytes)];
    fixed.into_iter().flatten().chain(info.reserved().iter().copied())
}

fn range(extent: Extent) -> PhysRange {
    PhysRange::new(extent.start(), extent.end())
}

/// Where the direct map begins: the lowest address of the upper half.
pub(crate) fn direct_map() -> VirtAddr {
    VirtAddr::new(if machine::levels() == 5 { 0xff00 << 48 } else { 0xffff_8000 << 32 })
}

/// The direct map's address of `pa`.
pub(crate) fn direct(pa: PhysAddr) -> VirtAddr {
    direct_map().wrapping_add(pa.as_u64())
}

/// The kernel's memory, as tables store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelMemory;

impl KernelMemory {
    fn pointer(self, pa: PhysAddr) -> NonNull<u8> {
        // The direct map is not a Rust allocation: its provenance is the machine's.
        let pointer = ptr::with_exposed_provenance_mut(direct(pa).as_u64() as usize);
        // Only an address that wraps is null, and none of those is a frame's.
        NonNull::new(pointer).unwrap_or(NonNull::dangling())
    }

    /// Fills a frame with zeros.
    ///
    /// # Safety
    ///
    /// The caller has the frame to itself.
    pub(crate) unsafe fn clear(self, pa: PhysAddr) {
        // SAFETY: `with` gives a pointer to the frame's first byte, good for the whole frame,
        // which is the caller's alone.
        self.with(pa, |bytes| unsafe { bytes.write_bytes(0, PAGE_SIZE as usize) });
    }
}

// SAFETY: every frame of `FRAMES` is in the direct map, which both the boot tables and the kernel's
// own have at the same address, writable and for as long as the machine runs; so the pointer is
// good for the whole frame and always reaches the same bytes. For any other address it is a number
// that nobody reads through.
unsafe impl PhysMap for KernelMemory {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        f(self.pointer(pa))
    }
}

/// How many tables link a node besides one, for the frames below 256 MiB.
static SHARERS: [AtomicU32; 1 << 16] = [const { AtomicU32::new(0) }; 1 << 16];

// SAFETY: every frame of `FRAMES` is in the direct map, and there is one of each, so that all
// values of this type are the same memory. Each frame's count is its own, and is 0 whenever nobody
// has the frame, since tables leave it so.
unsafe impl Memory for KernelMemory {
    unsafe fn sharers(&self, block: PhysAddr) -> Option<&AtomicU32> {
        SHARERS.get(usize::try_from(block.number().as_u64()).ok()?)
    }
}

// SAFETY: forwards to `FRAMES`, which keeps the contract.
unsafe impl FrameSource for KernelMemory {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        FRAMES.alloc(order)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller keeps the contract of this same function of `FRAMES`.
        unsafe { FrameSource::free(&FRAMES, pa, order) }
    }
}

/// What the boot loader has left, read before anything is known about memory.
struct LoaderMemory;

impl PhysicalBytes for LoaderMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let Some(end) = address.checked_add(into.len() as u64) else { return false };
        if end > boot::reach_bytes() {
            return false;
        }
        for (byte, pa) in into.iter_mut().zip(address..) {
            let from = KernelMemory.pointer(PhysAddr::new(pa));
            // SAFETY: the boot tables' direct map has every address below `reach_bytes`. What is
            // there is memory or nothing at all (which reads as ones), and volatile reads of bytes
            // that others might change are reads of what is there.
            *byte = unsafe { from.read_volatile() };
        }
        true
    }
}
