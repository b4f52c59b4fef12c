//! Frames for a kernel that Limine starts (crate `limine` 0.5: 0.6 needs a nightly compiler).
//!
//! ```text
//!   MemoryMapRequest   USABLE ----------------------------------> usable
//!                      EXECUTABLE_AND_MODULES, ACPI, bad, ...     not usable
//!                      BOOTLOADER_RECLAIMABLE                     not usable yet
//!   the first MiB, Bump::finish() ------------------------------> reserved
//! ```
//!
//! Copy [`FRAMES`], the two requests (with your linker script's section for requests), [`init`] and
//! [`init_from`]. Limine has taken kernel and modules out of what is usable. What it calls
//! reclaimable holds its page tables, the responses and your stack: when you use none of them any
//! more, give it to a second allocator, for `init` works once.
//!
//! Limine's direct map need not reach memory that is not usable, and with base revision 3 it does
//! not; the metadata goes into usable memory, and nothing else is touched.
//!
//! `main` does it on the host: `cargo run -p vellum-frame --example limine`.

#[path = "host/ram.rs"]
mod ram;

use core::fmt;
use core::ptr::NonNull;
use limine::memory_map::{Entry, EntryType};
use limine::request::{HhdmRequest, MemoryMapRequest};
use vellum_core::{PAGE_SIZE, PhysAddr};
use vellum_frame::{FrameAllocator, InitError, PhysRange};

static FRAMES: FrameAllocator<'static> = FrameAllocator::new();

// In a kernel, each with `#[used]` and `#[unsafe(link_section = ".requests")]`.
static MEMORY_MAP: MemoryMapRequest = MemoryMapRequest::new();
static HHDM: HhdmRequest = HhdmRequest::new();

/// Why there are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BootError {
    /// The boot loader has not answered a request.
    NoResponse,
    /// The map cannot be used.
    Frames(InitError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoResponse => f.write_str("the boot loader gave no memory map or no direct map"),
            Self::Frames(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for BootError {}

/// Hands over all memory that Limine reports, without what `boot` has given away.
///
/// # Safety
///
/// Once, early, while Limine's direct map is there; later tables map memory at the same place.
unsafe fn init(boot: Bump) -> Result<(), BootError> {
    let map = MEMORY_MAP.get_response().ok_or(BootError::NoResponse)?;
    let offset = HHDM.get_response().ok_or(BootError::NoResponse)?.offset();
    let direct = |pa| core::ptr::with_exposed_provenance_mut((offset + pa) as usize);
    // SAFETY: Limine promises that usable memory is nobody's, and that the direct map has it.
    unsafe { init_from(&FRAMES, map.entries(), boot, direct) }.map_err(BootError::Frames)
}

/// As [`init`], from the entries themselves.
///
/// # Safety
///
/// `direct` gives pointers to usable memory, for good, and nobody but the holders of frames of
/// `boot` uses it.
unsafe fn init_from(
    frames: &FrameAllocator<'static>,
    entries: &[&Entry],
    boot: Bump,
    direct: impl Fn(u64) -> *mut u8,
) -> Result<(), InitError> {
    let usable = entries.iter().filter(|entry| entry.entry_type == EntryType::USABLE);
    let usable = usable.map(|entry| PhysRange::with_len(entry.base, entry.length));
    // Application processors start below 1 MiB; their code needs a frame there later.
    let reserved = [PhysRange::new(0, 0x10_0000), boot.finish()];
    // SAFETY: the caller's promise, and all that `boot` gave away is reserved.
    unsafe { frames.init(usable, reserved, |pa, _len| NonNull::new(direct(pa.as_u64()))) }
}

/// A bump allocator for what is needed before: the start of the largest usable entry.
struct Bump {
    start: u64,
    next: u64,
    end: u64,
}

impl Bump {
    fn new(entries: &[&Entry]) -> Self {
        let usable = entries.iter().filter(|entry| entry.entry_type == EntryType::USABLE);
        let largest = usable.max_by_key(|entry| entry.length);
        let (start, len) = largest.map_or((0, 0), |entry| (entry.base, entry.length));
        Self { start, next: start, end: start + len }
    }

    fn allocate(&mut self) -> Option<u64> {
        let frame = self.next;
        self.next = frame.checked_add(PAGE_SIZE).filter(|&next| next <= self.end)?;
        Some(frame)
    }

    /// What was given away; nothing more ever is.
    fn finish(self) -> PhysRange {
        PhysRange::new(self.start, self.next)
    }
}

fn main() {
    // Here is no boot loader, so the requests stay without an answer.
    // SAFETY: nothing is handed over.
    let none = unsafe { init(Bump::new(&[])) };
    assert_eq!(none, Err(BootError::NoResponse));

    let entry = |base, length, entry_type| Entry { base, length, entry_type };
    let entries = [
        entry(0x1000, 0x9_e000, EntryType::USABLE),
        entry(0x9_f000, 0x1000, EntryType::RESERVED),
        entry(0x10_0000, 0x10_0000, EntryType::USABLE),
        entry(0x20_0000, 0x8_0000, EntryType::BOOTLOADER_RECLAIMABLE),
        entry(0x28_0000, 0x8_0000, EntryType::EXECUTABLE_AND_MODULES),
        entry(0x30_0000, 0x40_0000, EntryType::USABLE),
        entry(0x70_0000, 0x1_0000, EntryType::ACPI_RECLAIMABLE),
        entry(0x71_0000, 0x1_0000, EntryType::BAD_MEMORY),
        entry(0xfd00_0000, 0x100_0000, EntryType::FRAMEBUFFER),
    ];
    let entries: Vec<&Entry> = entries.iter().collect();
    let mut boot = Bump::new(&entries);
    let early: Vec<u64> = (0..40).map_while(|_| boot.allocate()).collect();
    assert_eq!((early.len(), early[0]), (40, 0x30_0000));
    for &pa in &early {
        // SAFETY: the frame was handed out, and is mapped.
        unsafe { ram::direct(pa).cast::<u64>().write(!pa) };
    }
    // SAFETY: that memory is used by nobody else, and is mapped for good.
    unsafe { init_from(&FRAMES, &entries, boot, ram::direct) }.expect("the map has frames");

    let all: Vec<u64> =
        core::iter::from_fn(|| FRAMES.alloc(0).ok()).map(PhysAddr::as_u64).collect();
    for &pa in &all {
        let usable = (0x10_0000..0x20_0000).contains(&pa) || (0x30_0000..0x70_0000).contains(&pa);
        assert!(usable, "{pa:#x} is not usable");
        // SAFETY: as above.
        unsafe { ram::direct(pa).write_bytes(0xff, 4096) };
    }
    // Two stretches, without the bump allocator's frames and one for the metadata.
    assert_eq!(all.len(), 0x100 + 0x400 - 40 - 1);
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
fn only_usable_frames_are_dealt_out_and_none_twice() {
    main();
}
