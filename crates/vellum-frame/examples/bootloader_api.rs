//! Frames for a kernel that the `bootloader` crate starts (0.11; its types are `bootloader_api`'s).
//!
//! ```text
//!   BootInfo.memory_regions    Usable ---------------------------> usable
//!                              every other kind, known or not      not usable
//!   kernel, RAM disk, the first MiB, BootFrames::finish() -------> reserved
//! ```
//!
//! Copy [`FRAMES`] and [`init_from`]. If your kernel starts with an allocator in the style of
//! blog_os, which takes the usable frames in the order of the map, copy [`BootFrames::finish`] too:
//! it says which frames are gone, and takes the allocator away, so that none is dealt out twice.
//! `direct` is `|pa| core::ptr::with_exposed_provenance_mut((offset + pa) as usize)`, with the
//! `physical_memory_offset` of the boot information (`Mapping::Dynamic` in the boot configuration).
//!
//! `main` does it on the host: `cargo run -p vellum-frame --example bootloader_api`.

#[path = "host/ram.rs"]
mod ram;

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind, MemoryRegions, Optional};
use core::ptr::NonNull;
use spin::{Mutex, MutexGuard};
use vellum_core::{PAGE_SIZE, PhysAddr};
use vellum_frame::{FrameAllocator, InitError, PhysRange};

static FRAMES: FrameAllocator<'static> = FrameAllocator::new();

/// Firmware's, and where application processors start.
const FIRST_MIB: PhysRange = PhysRange::new(0, 0x10_0000);

/// Hands the memory of `info` to `frames`, without what `boot` has given away.
///
/// # Safety
///
/// `direct` gives pointers to physical memory that is mapped for good, and nobody but the holders
/// of frames of `boot` uses what the map calls usable.
unsafe fn init_from(
    frames: &FrameAllocator<'static>,
    info: &BootInfo,
    boot: BootFrames<'_>,
    direct: impl Fn(u64) -> *mut u8,
) -> Result<(), InitError> {
    // The boot loader marks what it knows as not usable; naming it here as well costs nothing.
    let kernel = PhysRange::with_len(info.kernel_addr, info.kernel_len);
    let disk = match info.ramdisk_addr {
        Optional::Some(start) => PhysRange::with_len(start, info.ramdisk_len),
        Optional::None => PhysRange::new(0, 0),
    };
    let reserved = [FIRST_MIB, kernel, disk].into_iter().chain(boot.finish());
    let reach = |pa: PhysAddr, _len| NonNull::new(direct(pa.as_u64()));
    // SAFETY: the caller's promise, and all that `boot` gave away is reserved.
    unsafe { frames.init(usable(&info.memory_regions), reserved, reach) }
}

/// The usable regions of a map. Kinds that this crate has never heard of are not usable.
fn usable(regions: &[MemoryRegion]) -> impl Iterator<Item = (u64, u64)> + Clone {
    let usable = regions.iter().filter(|region| region.kind == MemoryRegionKind::Usable);
    usable.map(|region| (region.start, region.end))
}

/// The allocator that a kernel in the style of blog_os boots with: the first `next` usable frames
/// are given away.
struct BootFrames<'a> {
    regions: &'a [MemoryRegion],
    next: usize,
}

impl<'a> BootFrames<'a> {
    fn allocate(&mut self) -> Option<u64> {
        let whole = usable(self.regions).flat_map(|(start, end)| {
            (start.next_multiple_of(PAGE_SIZE)..end / PAGE_SIZE * PAGE_SIZE).step_by(4096)
        });
        let frame = { whole }.nth(self.next)?;
        self.next += 1;
        Some(frame)
    }

    /// What was given away, region by region; nothing more ever is.
    fn finish(self) -> impl Iterator<Item = PhysRange> + Clone + use<'a> {
        let mut left = self.next as u64 * PAGE_SIZE;
        usable(self.regions).map(move |(start, end)| {
            let start = start.next_multiple_of(PAGE_SIZE);
            let taken = left.min((end / PAGE_SIZE * PAGE_SIZE).saturating_sub(start));
            left -= taken;
            PhysRange::with_len(start, taken)
        })
    }
}

const fn region(start: u64, end: u64, kind: MemoryRegionKind) -> MemoryRegion {
    MemoryRegion { start, end, kind }
}

fn main() {
    static MAP: Mutex<[MemoryRegion; 6]> = Mutex::new([
        region(0x70_0000, 0x7f_f800, MemoryRegionKind::Usable), // unsorted, and not whole frames
        region(0x9_fc00, 0x10_0000, MemoryRegionKind::UnknownBios(2)),
        region(0x1000, 0x9_fc00, MemoryRegionKind::Usable),
        region(0x10_0000, 0x18_0000, MemoryRegionKind::Bootloader),
        region(0x18_0000, 0x30_0000, MemoryRegionKind::Usable),
        region(0x30_0000, 0x70_0000, MemoryRegionKind::UnknownUefi(0x7000_0000)),
    ]);
    let map = MutexGuard::leak(MAP.lock()).as_mut_slice();
    let mut info = BootInfo::new(MemoryRegions::from(map));
    (info.kernel_addr, info.kernel_len) = (0x18_0000, 0x5_4321);
    (info.ramdisk_addr, info.ramdisk_len) = (Optional::Some(0x28_0ff0), 0x1234);

    // Before there is a heap or an allocator, something took more than the first region has.
    let mut boot = BootFrames { regions: &info.memory_regions, next: 0 };
    let early: Vec<u64> = (0..280).map_while(|_| boot.allocate()).collect();
    assert_eq!((early.len(), early[0], early[279]), (280, 0x70_0000, 0x1_9000));
    for &pa in &early {
        // SAFETY: the frame was handed out, and is mapped.
        unsafe { ram::direct(pa).cast::<u64>().write(!pa) };
    }
    // SAFETY: that memory is used by nobody else, and is mapped for good.
    unsafe { init_from(&FRAMES, &info, boot, ram::direct) }.expect("the map has frames");

    let all: Vec<u64> =
        core::iter::from_fn(|| FRAMES.alloc(0).ok()).map(PhysAddr::as_u64).collect();
    for &pa in &all {
        // All that is left is the region in the middle, without the kernel at its start.
        assert!((0x18_0000 + 85 * 4096..0x30_0000).contains(&pa), "{pa:#x} is not ours");
        // SAFETY: as above.
        unsafe { ram::direct(pa).write_bytes(0xff, 4096) };
    }
    // The kernel takes 85 frames, the RAM disk 3, the metadata one.
    assert_eq!(all.len(), 0x180 - 85 - 3 - 1);
    for &pa in &early {
        // SAFETY: written above, and nobody else has the frame.
        let found = unsafe { ram::direct(pa).cast::<u64>().read() };
        assert_eq!(found, !pa, "the frame at {pa:#x} was handed out twice");
    }
    ram::say(format_args!(
        "{} of {} frames dealt out, {} taken before init untouched, {} reserved in between",
        all.len(),
        FRAMES.stats().total,
        early.len(),
        FRAMES.stats().reserved
    ));
}

#[test]
fn frames_of_the_boot_allocator_are_never_handed_out_again() {
    main();
}
