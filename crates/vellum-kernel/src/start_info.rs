//! What the boot loader says about the machine: the PVH start info.
//!
//! ```text
//!   ebx --> hvm_start_info                     memory map: 24 bytes an entry
//!           +0   u32 magic 0x336ec578          +0  u64 address
//!           +4   u32 version (1)               +8  u64 length in bytes
//!           +8   u32 flags                     +16 u32 type
//!           +12  u32 modules                   +20 u32 reserved
//!           +16  u64 --> module list
//!           +24  u64 --> command line          module list: 32 bytes an entry
//!           +32  u64 --> RSDP                  +0  u64 address
//!           +40  u64 --> memory map            +8  u64 length in bytes
//!           +48  u32 entries of the map        +16 u64 --> command line
//!           +52  u32 reserved                  +24 u64 reserved
//! ```
//!
//! Nothing in it is believed: counts are bounded, ranges must not wrap, every read goes through
//! [`PhysicalBytes`], which refuses what it cannot reach. Regions may come unsorted and may overlap;
//! sorting that out is the frame allocator's work.
//!
//! # Invariants
//!
//! - Each [`Extent`] in a [`BootInfo`] ends at or below 2<sup>64</sup> - 1, and is not empty.
//!
//! Source: the Xen project's `xen/include/public/arch-x86/hvm/start_info.h`.

use arrayvec::ArrayVec;
use core::fmt;

/// The first four bytes of a start info.
pub const MAGIC: u32 = 0x336e_c578;

/// The most entries of a memory map that are taken; E820 maps have at most 128.
pub const MAX_REGIONS: usize = 128;

/// The most modules that are taken.
pub const MAX_MODULES: usize = 8;

/// The most bytes of a command line that are taken; Linux takes as many.
pub const MAX_COMMAND_LINE: usize = 2048;

const START_INFO_BYTES: u64 = 56;
const REGION_BYTES: u64 = 24;
const MODULE_BYTES: u64 = 32;

/// Start info, memory map, module list, command line, and each module with its own command line.
const MAX_RESERVED: usize = 4 + 2 * MAX_MODULES;

/// Physical memory as the parser reads it.
pub trait PhysicalBytes {
    /// Copies the bytes at `address` into `into`; false, and nothing read, where any of them
    /// cannot be reached.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;
}

/// A stretch of physical memory that is not empty and does not wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    start: u64,
    len_bytes: u64,
}

impl Extent {
    /// `len_bytes` bytes from `start`; `None` for no bytes, or when the end does not fit 64 bits.
    #[must_use]
    pub const fn new(start: u64, len_bytes: u64) -> Option<Self> {
        match start.checked_add(len_bytes) {
            Some(_) if len_bytes > 0 => Some(Self { start, len_bytes }),
            _ => None,
        }
    }

    /// Its first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len_bytes(self) -> u64 {
        self.len_bytes
    }

    /// The byte behind its last.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.len_bytes
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// What a region of the memory map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionKind {
    /// Memory to use.
    Ram,
    /// Not to be touched.
    Reserved,
    /// ACPI tables; memory once they have been read.
    AcpiReclaimable,
    /// Memory that the firmware keeps.
    AcpiNvs,
    /// Memory with errors.
    Unusable,
    /// Memory that is not enabled.
    Disabled,
    /// Persistent memory.
    Persistent,
    /// A type that this crate does not know: not to be touched.
    Other(u32),
}

impl RegionKind {
    const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Ram,
            2 => Self::Reserved,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            6 => Self::Disabled,
            7 => Self::Persistent,
            other => Self::Other(other),
        }
    }
}

/// One region of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it is.
    pub extent: Extent,
    /// What it is.
    pub kind: RegionKind,
}

/// What is wrong with a start info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartInfoError {
    /// It does not start with [`MAGIC`].
    Magic {
        /// What it starts with.
        found: u32,
    },
    /// Version 0 carries no memory map.
    Version {
        /// The version it states.
        found: u32,
    },
    /// Something that it names cannot be reached.
    Unreachable {
        /// What.
        what: &'static str,
        /// Its physical address.
        address: u64,
    },
    /// More of something than is taken.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it states.
        found: u32,
        /// How many are taken.
        limit: usize,
    },
    /// A range's end does not fit 64 bits.
    Wraps {
        /// Which range.
        what: &'static str,
        /// Its number in its list.
        index: u32,
    },
    /// The map names no memory to use.
    NoRam,
    /// The command line has no end within [`MAX_COMMAND_LINE`] bytes.
    EndlessCommandLine {
        /// Its physical address.
        address: u64,
    },
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { found } => {
                write!(f, "start info begins with {found:#x}, not {MAGIC:#x}")
            }
            Self::Version { found } => {
                write!(f, "start info has version {found}; the memory map came with version 1")
            }
            Self::Unreachable { what, address } => {
                write!(f, "the {what} at {address:#x} cannot be reached")
            }
            Self::TooMany { what, found, limit } => {
                write!(f, "the start info states {found} {what}, more than {limit}")
            }
            Self::Wraps { what, index } => write!(f, "{what} {index} ends past 2^64"),
            Self::NoRam => f.write_str("the memory map names no RAM"),
            Self::EndlessCommandLine { address } => {
                write!(f, "the command line at {address:#x} passes {MAX_COMMAND_LINE} bytes")
            }
        }
    }
}

impl core::error::Error for StartInfoError {}

/// A start info, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootInfo {
    regions: ArrayVec<Region, MAX_REGIONS>,
    reserved: ArrayVec<Extent, MAX_RESERVED>,
    modules: ArrayVec<Extent, MAX_MODULES>,
    command_line: ArrayVec<u8, MAX_COMMAND_LINE>,
    rsdp: u64,
}

impl BootInfo {
    /// Reads the start info at physical address `address`, and what it points at.
    ///
    /// # Errors
    ///
    /// See [`StartInfoError`].
    pub fn read(memory: &impl PhysicalBytes, address: u64) -> Result<Self, StartInfoError> {
        let raw: [u8; START_INFO_BYTES as usize] = bytes(memory, "start info", address)?;
        let (magic, version) = (u32_at(&raw, 0), u32_at(&raw, 4));
        if magic != MAGIC {
            return Err(StartInfoError::Magic { found: magic });
        }
        if version == 0 {
            return Err(StartInfoError::Version { found: version });
        }
        let mut info = Self {
            regions: ArrayVec::new(),
            reserved: ArrayVec::new(),
            modules: ArrayVec::new(),
            command_line: ArrayVec::new(),
            rsdp: u64_at(&raw, 32),
        };
        info.reserve(address, START_INFO_BYTES);
        info.read_regions(memory, u64_at(&raw, 40), u32_at(&raw, 48))?;
        info.read_modules(memory, u64_at(&raw, 16), u32_at(&raw, 12))?;
        info.read_command_line(memory, u64_at(&raw, 24))?;
        Ok(info)
    }

    /// The memory map, as found: unsorted, possibly overlapping.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Where the start info itself and all that it points at lie, but for the RSDP.
    #[must_use]
    pub fn reserved(&self) -> &[Extent] {
        &self.reserved
    }

    /// The modules (an initial RAM disk, say) that are not empty.
    #[must_use]
    pub fn modules(&self) -> &[Extent] {
        &self.modules
    }

    /// The RSDP's physical address; 0 when there is none.
    #[must_use]
    pub fn rsdp(&self) -> u64 {
        self.rsdp
    }

    /// The command line's words; those that are not UTF-8 are left out.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.command_line
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
            .filter_map(|word| core::str::from_utf8(word).ok())
    }

    /// The value of the last word `key=value`, if there is one.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        self.words().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).last()
    }

    fn read_regions(
        &mut self,
        memory: &impl PhysicalBytes,
        address: u64,
        count: u32,
    ) -> Result<(), StartInfoError> {
        if count as usize > MAX_REGIONS {
            let (what, limit) = ("regions of memory", MAX_REGIONS);
            return Err(StartInfoError::TooMany { what, found: count, limit });
        }
        for index in 0..count {
            let at = entry_address("memory map", address, index, REGION_BYTES)?;
            let raw: [u8; REGION_BYTES as usize] = bytes(memory, "memory map", at)?;
            let (start, len_bytes) = (u64_at(&raw, 0), u64_at(&raw, 8));
            if len_bytes == 0 {
                continue;
            }
            let extent = Extent::new(start, len_bytes)
                .ok_or(StartInfoError::Wraps { what: "memory region", index })?;
            self.regions.push(Region { extent, kind: RegionKind::from_raw(u32_at(&raw, 16)) });
        }
        if !self.regions.iter().any(|region| region.kind == RegionKind::Ram) {
            return Err(StartInfoError::NoRam);
        }
        self.reserve(address, u64::from(count) * REGION_BYTES);
        Ok(())
    }

    fn read_modules(
        &mut self,
        memory: &impl PhysicalBytes,
        address: u64,
        count: u32,
    ) -> Result<(), StartInfoError> {
        if count as usize > MAX_MODULES {
            let (what, limit) = ("modules", MAX_MODULES);
            return Err(StartInfoError::TooMany { what, found: count, limit });
        }
        for index in 0..count {
            let at = entry_address("module list", address, index, MODULE_BYTES)?;
            let raw: [u8; MODULE_BYTES as usize] = bytes(memory, "module list", at)?;
            let (start, len_bytes) = (u64_at(&raw, 0), u64_at(&raw, 8));
            if len_bytes > 0 {
                let module = Extent::new(start, len_bytes)
                    .ok_or(StartInfoError::Wraps { what: "module", index })?;
                self.modules.push(module);
                self.reserved.push(module);
            }
            let line = u64_at(&raw, 16);
            if line != 0 {
                let len_bytes = for_each_byte(memory, "module command line", line, |_| ())?;
                self.reserve(line, len_bytes);
            }
        }
        self.reserve(address, u64::from(count) * MODULE_BYTES);
        Ok(())
    }

    fn read_command_line(
        &mut self,
        memory: &impl PhysicalBytes,
        address: u64,
    ) -> Result<(), StartInfoError> {
        if address == 0 {
            return Ok(());
        }
        let line = &mut self.command_line;
        let len_bytes = for_each_byte(memory, "command line", address, |byte| line.push(byte))?;
        self.reserve(address, len_bytes);
        Ok(())
    }

    /// Notes a range that was read whole, and so does not wrap; an empty one is dropped.
    fn reserve(&mut self, start: u64, len_bytes: u64) {
        // The capacity is the number of ranges that a start info can name within the limits.
        if let Some(extent) = Extent::new(start, len_bytes) {
            self.reserved.push(extent);
        }
    }
}

/// Calls `f` with each byte of a zero-terminated string, which may have [`MAX_COMMAND_LINE`] of
/// them; returns its length with the zero.
fn for_each_byte(
    memory: &impl PhysicalBytes,
    what: &'static str,
    address: u64,
    mut f: impl FnMut(u8),
) -> Result<u64, StartInfoError> {
    for offset in 0..=MAX_COMMAND_LINE as u64 {
        let at = address
            .checked_add(offset)
            .ok_or(StartInfoError::Unreachable { what, address: u64::MAX })?;
        let [byte] = bytes(memory, what, at)?;
        if byte == 0 {
            return Ok(offset + 1);
        }
        if offset < MAX_COMMAND_LINE as u64 {
            f(byte);
        }
    }
    Err(StartInfoError::EndlessCommandLine { address })
}

/// The address of entry `index` of a list.
fn entry_address(
    what: &'static str,
    list: u64,
    index: u32,
    entry_bytes: u64,
) -> Result<u64, StartInfoError> {
    list.checked_add(u64::from(index) * entry_bytes)
        .ok_or(StartInfoError::Unreachable { what, address: list })
}

fn bytes<const N: usize>(
    memory: &impl PhysicalBytes,
    what: &'static str,
    address: u64,
) -> Result<[u8; N], StartInfoError> {
    let mut raw = [0; N];
    // A range that wraps is not offered to the memory at all.
    let whole = address.checked_add(N as u64).is_some() && memory.read(address, &mut raw);
    if whole { Ok(raw) } else { Err(StartInfoError::Unreachable { what, address }) }
}

/// The little-endian number at `at`; 0 past the end, which no caller asks for.
fn u32_at(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// As [`u32_at`].
fn u64_at(raw: &[u8], at: usize) -> u64 {
    raw.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests;
