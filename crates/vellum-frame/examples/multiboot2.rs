//! Frames for a kernel that GRUB or another Multiboot2 loader starts (crate `multiboot2` 0.28).
//!
//! ```text
//!   memory map tag    Available ---------------------------------> usable
//!                     every other type, known or not               not usable
//!   the first MiB, the kernel's image, the boot information,
//!   its modules, what a boot-time allocator gave away -----------> reserved
//! ```
//!
//! Copy [`FRAMES`], [`STORAGE`] and [`init_from`]. Multiboot2 calls memory *available* although the
//! kernel, the boot information and the modules lie in it, so all of them must be reserved; the
//! image is from your linker script's first symbol to its last, as physical addresses.
//!
//! A kernel has no direct map yet when it comes from such a loader, so the metadata lies in the
//! image: [`STORAGE`] takes 140 KiB at most for [`LIMIT`] bytes of memory; what lies above is left
//! out.
//! (A loader whose EFI boot services are still on gives an EFI map instead: `efi_memory_map_tag`,
//! of which `CONVENTIONAL` is usable.)
//!
//! `main` does it on the host: `cargo run -p vellum-frame --example multiboot2`.

#[path = "host/ram.rs"]
mod ram;

use core::fmt;
use core::sync::atomic::AtomicU64;
use multiboot2::{BootInformation, BootInformationHeader, Builder, MaybeDynSized};
use multiboot2::{MemoryArea, MemoryAreaType, MemoryMapTag, ModuleTag};
use vellum_core::{PAGE_SIZE, PhysAddr};
use vellum_frame::{FrameAllocator, InitError, PhysRange, storage_words};

static FRAMES: FrameAllocator<'static> = FrameAllocator::new();

/// How far memory is used: 4 GiB, as far as a 32-bit loader's structures can lie.
const LIMIT: u64 = 4 << 30;

/// The metadata, for memory up to [`LIMIT`] and up to 64 ranges. Nothing else may name it.
static STORAGE: [AtomicU64; storage_words(LIMIT / PAGE_SIZE, 64)] =
    [const { AtomicU64::new(0) }; storage_words(LIMIT / PAGE_SIZE, 64)];

/// Why there are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BootError {
    /// The boot information has no memory map.
    NoMemoryMap,
    /// The map cannot be used.
    Frames(InitError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemoryMap => f.write_str("the boot information has no memory map"),
            Self::Frames(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BootError {}

/// Hands the memory of `info`, which lies at physical address `info_at`, to `frames`.
///
/// # Safety
///
/// `kernel` is the whole image with its stack, `boot` all that was handed out before, and nobody
/// uses other available memory; nobody else writes to `storage`.
unsafe fn init_from(
    frames: &FrameAllocator<'static>,
    storage: &'static [AtomicU64],
    (info, info_at): (&BootInformation<'_>, u64),
    kernel: PhysRange,
    boot: PhysRange,
) -> Result<(), BootError> {
    let map = info.memory_map_tag().ok_or(BootError::NoMemoryMap)?;
    let available = map.memory_areas().iter().filter(|a| a.typ() == MemoryAreaType::Available);
    // An area may claim to end past 2^64; one that lies above the limit becomes empty.
    let end = |area: &MemoryArea| area.start_address().saturating_add(area.size());
    let usable = available.map(|area| (area.start_address(), end(area).min(LIMIT)));
    let info_itself = PhysRange::with_len(info_at, info.total_size() as u64);
    let modules = info.module_tags();
    let modules = modules.map(|m| PhysRange::new(m.start_address().into(), m.end_address().into()));
    let fixed = [PhysRange::new(0, 0x10_0000), kernel, info_itself, boot];
    let reserved = fixed.into_iter().chain(modules);
    // SAFETY: the caller's promise.
    unsafe { frames.init_in(storage, usable, reserved) }.map_err(BootError::Frames)
}

/// What a loader leaves in memory: an information structure at `at`, which it names.
fn load_information(at: u64, areas: &[MemoryArea], module: (u32, u32)) -> BootInformation<'static> {
    let module = ModuleTag::new(module.0, module.1, "disk");
    let built = Builder::new().mmap(MemoryMapTag::new(areas)).add_module(module).build();
    let (bytes, target) = (built.as_bytes(), ram::direct(at));
    // SAFETY: the structure fits there, lies there for good, and nobody writes to it.
    unsafe {
        target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        BootInformation::load(target.cast::<BootInformationHeader>())
    }
    .expect("the builder makes what the loader takes")
}

fn main() {
    assert!(size_of_val(&STORAGE) <= 140 << 10);
    let areas = [
        MemoryArea::new(0, 0x9_fc00, MemoryAreaType::Available),
        MemoryArea::new(0x9_fc00, 0x400, MemoryAreaType::Reserved),
        MemoryArea::new(0x10_0000, 0x60_0000, MemoryAreaType::Available),
        MemoryArea::new(0x70_0000, 0x8_0000, MemoryAreaType::Custom(12)),
        MemoryArea::new(0x78_0000, 0x8_0000, MemoryAreaType::AcpiAvailable),
        MemoryArea::new(1 << 32, 1 << 40, MemoryAreaType::Available),
    ];
    let (kernel, module) = (PhysRange::new(0x10_0000, 0x15_0800), (0x20_0000, 0x20_1001));
    let info_at = 0x30_0ff8; // over the border of two frames
    let info = load_information(info_at, &areas, module);
    let boot = PhysRange::new(0x40_0000, 0x40_3000); // a bump allocator's, from its start to its end
    for pa in [0x40_0000, 0x40_1000, 0x40_2000] {
        // SAFETY: the frame was handed out before, and is mapped.
        unsafe { ram::direct(pa).cast::<u64>().write(!pa) };
    }
    // SAFETY: that memory is used by nobody else, and STORAGE by nobody at all.
    unsafe { init_from(&FRAMES, &STORAGE, (&info, info_at), kernel, boot) }
        .expect("the map has frames");

    let all: Vec<u64> =
        core::iter::from_fn(|| FRAMES.alloc(0).ok()).map(PhysAddr::as_u64).collect();
    for &pa in &all {
        assert!((0x15_1000..0x70_0000).contains(&pa), "{pa:#x} is not ours");
        // SAFETY: as above.
        unsafe { ram::direct(pa).write_bytes(0xff, 4096) };
    }
    // 6 MiB without kernel (81 frames), module and information (2 each) and the 3 handed out.
    assert_eq!(all.len(), 0x600 - 81 - 2 - 2 - 3);
    for pa in [0x40_0000, 0x40_1000, 0x40_2000] {
        // SAFETY: written above, and nobody else has the frame.
        let found = unsafe { ram::direct(pa).cast::<u64>().read() };
        assert_eq!(found, !pa, "the frame at {pa:#x} was handed out twice");
    }
    // The boot information still says what it said.
    assert_eq!(info.memory_map_tag().map(|map| map.memory_areas()), Some(&areas[..]));
    ram::say(format_args!(
        "{} of {} frames dealt out, {} reserved in between; {} bytes of storage for metadata",
        all.len(),
        FRAMES.stats().total,
        FRAMES.stats().reserved,
        size_of_val(&STORAGE)
    ));
}

#[test]
fn what_the_loader_left_in_available_memory_is_not_dealt_out() {
    main();
}
