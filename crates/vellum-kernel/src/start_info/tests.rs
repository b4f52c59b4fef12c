//! The parser against made-up memory, well-formed and not.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// A window of memory; nothing else can be reached.
struct Window {
    base: u64,
    bytes: Vec<u8>,
}

impl PhysicalBytes for Window {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let Some(offset) = address.checked_sub(self.base) else { return false };
        let Ok(start) = usize::try_from(offset) else { return false };
        let Some(source) = start.checked_add(into.len()).and_then(|end| self.bytes.get(start..end))
        else {
            return false;
        };
        into.copy_from_slice(source);
        true
    }
}

const BASE: u64 = 0x9000;
const MAP: u64 = BASE + 0x100;
const MODULES: u64 = BASE + 0x1100;
const LINE: u64 = BASE + 0x1400;

impl Window {
    fn put_u32(&mut self, address: u64, value: u32) {
        self.put(address, &value.to_le_bytes());
    }

    fn put_u64(&mut self, address: u64, value: u64) {
        self.put(address, &value.to_le_bytes());
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        let start = (address - BASE) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn put_region(&mut self, index: u64, start: u64, len: u64, kind: u32) {
        let at = MAP + index * REGION_BYTES;
        self.put_u64(at, start);
        self.put_u64(at + 8, len);
        self.put_u32(at + 16, kind);
    }
}

/// A start info with two regions and a command line, as QEMU would write it.
fn well_formed() -> Window {
    let mut window = Window { base: BASE, bytes: vec![0; 0x2000] };
    window.put_u32(BASE, MAGIC);
    window.put_u32(BASE + 4, 1);
    window.put_u64(BASE + 24, LINE);
    window.put_u64(BASE + 32, 0xf_5a00);
    window.put_u64(BASE + 40, MAP);
    window.put_u32(BASE + 48, 2);
    window.put_region(0, 0, 0x9_fc00, 1);
    window.put_region(1, 0xfffc_0000, 0x4_0000, 2);
    window.put(LINE, b"filter=tables  quiet filter=frames\0");
    window
}

/// A start info with these regions: start, length, type.
pub(crate) fn with_regions(regions: &[(u64, u64, u32)]) -> BootInfo {
    let mut window = well_formed();
    window.put_u32(BASE + 48, regions.len() as u32);
    for (index, &(start, len, kind)) in (0..).zip(regions) {
        window.put_region(index, start, len, kind);
    }
    BootInfo::read(&window, BASE).unwrap()
}

#[test]
fn regions_command_line_and_rsdp_are_read() {
    let info = BootInfo::read(&well_formed(), BASE).unwrap();
    assert_eq!(info.regions().len(), 2);
    assert_eq!(info.regions()[0].kind, RegionKind::Ram);
    assert_eq!(info.regions()[0].extent.end(), 0x9_fc00);
    assert_eq!(info.regions()[1].kind, RegionKind::Reserved);
    assert_eq!(info.words().collect::<Vec<_>>(), ["filter=tables", "quiet", "filter=frames"]);
    assert_eq!(info.option("filter"), Some("frames"), "the last one counts");
    assert_eq!(info.option("quiet"), None);
    assert_eq!(info.rsdp(), 0xf_5a00);
}

#[test]
fn everything_that_was_read_is_reserved() {
    let mut window = well_formed();
    window.put_u32(BASE + 12, 1);
    window.put_u64(BASE + 16, MODULES);
    window.put_u64(MODULES, 0x20_0000);
    window.put_u64(MODULES + 8, 0x1234);
    window.put_u64(MODULES + 16, LINE + 0x100);
    let info = BootInfo::read(&window, BASE).unwrap();
    assert_eq!(info.modules(), [Extent::new(0x20_0000, 0x1234).unwrap()]);
    for byte in [BASE, BASE + 55, MAP, MAP + 47, MODULES, MODULES + 31, LINE, LINE + 34] {
        let byte = Extent::new(byte, 1).unwrap();
        assert!(info.reserved().iter().any(|r| r.overlaps(byte)), "{byte:?} is free");
    }
    let module = Extent::new(0x20_1233, 1).unwrap();
    assert!(info.reserved().iter().any(|r| r.overlaps(module)));
    let own_line = Extent::new(LINE + 0x100, 1).unwrap();
    assert!(info.reserved().iter().any(|r| r.overlaps(own_line)));
}

#[test]
fn another_magic_or_version_is_refused() {
    let mut window = well_formed();
    window.put_u32(BASE + 4, 0);
    assert_eq!(BootInfo::read(&window, BASE), Err(StartInfoError::Version { found: 0 }));
    window.put_u32(BASE, 0x1bad_b002);
    assert_eq!(BootInfo::read(&window, BASE), Err(StartInfoError::Magic { found: 0x1bad_b002 }));
}

#[test]
fn a_later_version_is_read_as_version_1() {
    let mut window = well_formed();
    window.put_u32(BASE + 4, 2);
    assert!(BootInfo::read(&window, BASE).is_ok());
}

#[test]
fn counts_are_bounded_before_anything_is_read() {
    let mut window = well_formed();
    window.put_u32(BASE + 48, u32::MAX);
    let refused = BootInfo::read(&window, BASE).unwrap_err();
    assert!(matches!(refused, StartInfoError::TooMany { found: u32::MAX, limit: MAX_REGIONS, .. }));

    let mut window = well_formed();
    window.put_u32(BASE + 12, 9);
    let refused = BootInfo::read(&window, BASE).unwrap_err();
    assert!(matches!(refused, StartInfoError::TooMany { found: 9, limit: MAX_MODULES, .. }));
}

#[test]
fn as_many_modules_as_are_taken_fit_with_all_that_they_name() {
    let mut window = well_formed();
    window.put_u32(BASE + 12, MAX_MODULES as u32);
    window.put_u64(BASE + 16, MODULES);
    for module in 0..MAX_MODULES as u64 {
        let at = MODULES + module * MODULE_BYTES;
        window.put_u64(at, 0x10_0000 * (module + 2));
        window.put_u64(at + 8, 0x1000);
        window.put_u64(at + 16, LINE);
    }
    let info = BootInfo::read(&window, BASE).unwrap();
    assert_eq!(info.reserved().len(), MAX_RESERVED);
}

#[test]
fn pointers_that_lead_nowhere_are_named() {
    for (field, what) in [(40, "memory map"), (24, "command line")] {
        for address in [1, u64::MAX - 3, 0x8000_0000_0000] {
            let mut window = well_formed();
            window.put_u64(BASE + field, address);
            let refused = BootInfo::read(&window, BASE).unwrap_err();
            assert_eq!(refused, StartInfoError::Unreachable { what, address });
        }
    }
    let refused = BootInfo::read(&well_formed(), 0x10).unwrap_err();
    assert_eq!(refused, StartInfoError::Unreachable { what: "start info", address: 0x10 });
}

#[test]
fn a_region_that_wraps_is_named_by_its_number() {
    let mut window = well_formed();
    window.put_region(1, 0xffff_ffff_ffff_f000, 0x2000, 1);
    let refused = BootInfo::read(&window, BASE).unwrap_err();
    assert_eq!(refused, StartInfoError::Wraps { what: "memory region", index: 1 });
}

#[test]
fn empty_regions_are_dropped_and_a_map_without_ram_is_refused() {
    let mut window = well_formed();
    window.put_region(0, 0x1000, 0, 1);
    assert_eq!(BootInfo::read(&window, BASE), Err(StartInfoError::NoRam));
    window.put_region(1, 0x1000, 0x1000, 1);
    assert_eq!(BootInfo::read(&window, BASE).unwrap().regions().len(), 1);
}

#[test]
fn a_command_line_may_be_as_long_as_stated_and_no_longer() {
    let mut window = well_formed();
    window.bytes.resize(0x4000, 0);
    window.put(LINE, &[b'x'; MAX_COMMAND_LINE]);
    let info = BootInfo::read(&window, BASE).unwrap();
    assert_eq!(info.words().next().unwrap().len(), MAX_COMMAND_LINE);
    window.put(LINE + MAX_COMMAND_LINE as u64, b"x");
    let refused = BootInfo::read(&window, BASE).unwrap_err();
    assert_eq!(refused, StartInfoError::EndlessCommandLine { address: LINE });
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(
        header in prop::collection::vec(any::<u8>(), 56),
        map in prop::collection::vec(any::<u8>(), 240),
        keep in 0_usize..5,
    ) {
        let mut window = well_formed();
        window.put(BASE, &header);
        window.put(MAP, &map);
        // Let the later checks be reached, too.
        let intact = well_formed();
        for (from, to) in [(0, 8), (40, 52), (12, 24), (24, 32)].into_iter().take(keep) {
            window.bytes[from..to].copy_from_slice(&intact.bytes[from..to]);
        }
        if let Ok(info) = BootInfo::read(&window, BASE) {
            for region in info.regions() {
                prop_assert!(region.extent.len_bytes() > 0);
                prop_assert!(region.extent.end() > region.extent.start());
            }
        }
    }
}
