//! One swap area: a device, what is known of its slots, and tags.
//!
//! ```text
//!   store     take a slot -> tag the page -> write     fails: the slot is bad, the next one is tried
//!   load      read -> tag again -> equal?              not: nobody believes the bytes
//!   share     one more names the slot
//!   release   the last one frees it; a cluster that is free as a whole is discarded
//! ```
//!
//! What is known of slots lies in memory alone, and is born free with the area: after a crash between the
//! taking of a slot and the end of its write there is nothing that somebody could believe. A write that the
//! device has acknowledged and lost is found by its tag when the page comes back.
//!
//! # Invariants
//!
//! - Who has a share in a slot has its page: the tag was set, and the device has acknowledged the write,
//!   before anybody else could name it.
//! - The header's page, and the pages that it calls bad, are never given away.
//!
//! # Secrecy
//!
//! A device has what it was given until it is written again or discarded.

use crate::device::{BlockDevice, DeviceError};
use crate::header::{Header, HeaderError, PAGE};
use crate::slots::{CLUSTER, Left, SizeError, Slots};
use crate::tag::tag;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use vellum_core::FrameBytes;

/// How many slots a [`store`](Area::store) spoils before it gives up: a device that has failed so often in a
/// row has not a few bad pages, it is gone.
const MOST_TRIES: usize = 8;

/// A swap area that is in use: a device, its slots, and a tag for each page that is there.
pub struct Area<'m, D> {
    device: D,
    slots: Slots<'m>,
    header: Header,
    key: u64,
    discards: bool,
    bad: AtomicU32,
}

/// Why an area cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The device cannot read its first page.
    Device(DeviceError),
    /// That is no header that can be used.
    Header(HeaderError),
    /// There must be a slot for each page up to the header's last one: `needed`, and `lent` were lent.
    Slots {
        /// How many there must be.
        needed: usize,
        /// How many there are.
        lent: usize,
    },
    /// The records do not fit.
    Records(SizeError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "the header cannot be read: {error}"),
            Self::Header(error) => error.fmt(f),
            Self::Slots { needed, lent } => {
                write!(f, "{needed} slots are needed, {lent} were lent")
            }
            Self::Records(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {}

/// Why a page could not be stored; it is where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// No slot is free.
    Full,
    /// The device has refused slot after slot.
    Device(DeviceError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the swap area is full"),
            Self::Device(error) => write!(f, "no slot could be written: {error}"),
        }
    }
}

impl core::error::Error for StoreError {}

/// Why a page did not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing is stored in the slot.
    Free,
    /// The device failed.
    Device(DeviceError),
    /// What it gave is not what was stored.
    Tag,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("nothing is stored there"),
            Self::Device(error) => error.fmt(f),
            Self::Tag => f.write_str("the device gave back other bytes than were stored"),
        }
    }
}

impl core::error::Error for LoadError {}

/// How an area is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What tags are keyed with: any number that whoever writes to the device does not know.
    pub key: u64,
    /// Whether the device is told of clusters that are free.
    pub discards: bool,
}

/// Counts of an area, as `/proc/swaps` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaUsage {
    /// Slots that can hold a page.
    pub slots: usize,
    /// Those that do.
    pub used: usize,
    /// Those that failed, or that the header calls bad.
    pub bad: usize,
}

impl<'m, D: BlockDevice> Area<'m, D> {
    /// Begins to use an area: what it held is forgotten. `slots` has one for each page up to the header's
    /// last ([`Header::last_page`] + 1).
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing was written.
    pub fn open(device: D, slots: Slots<'m>, options: Options) -> Result<Self, OpenError> {
        let header = read_header(&device)?;
        let needed = u64::from(header.last_page()) + 1;
        let needed = usize::try_from(needed).unwrap_or(usize::MAX);
        if slots.len() != needed {
            return Err(OpenError::Slots { needed, lent: slots.len() });
        }
        let Options { key, discards } = options;
        let area = Self { device, slots, header, key, discards, bad: AtomicU32::new(0) };
        // Page 0 is the header: not bad, but nobody's either.
        if !area.slots.spoil_free(0) {
            return Err(OpenError::Records(SizeError::InUse));
        }
        // A page may be named twice.
        let bad = area.header.bad().iter().filter(|&&page| area.slots.spoil_free(page)).count();
        area.bad.store(u32::try_from(bad).unwrap_or(u32::MAX), Relaxed);
        Ok(area)
    }

    /// Stores a page in a slot of its own, with one share. `cpu` is any number that differs between CPUs:
    /// what one CPU stores lies together.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; slots that could not be written are bad from then on.
    pub fn store(&self, from: FrameBytes<'_>, cpu: usize) -> Result<u32, StoreError> {
        let mut failed = None;
        let tag = tag(self.key, from);
        for _ in 0..MOST_TRIES {
            let slot =
                self.slots.take(cpu).ok_or(failed.map_or(StoreError::Full, StoreError::Device))?;
            self.slots.set_tag(slot, tag);
            match self.device.write(slot.into(), from) {
                Ok(()) => return Ok(slot),
                Err(error) => failed = Some(error),
            }
            if self.slots.spoil(slot) {
                self.bad.fetch_add(1, Relaxed);
            }
        }
        Err(failed.map_or(StoreError::Full, StoreError::Device))
    }

    /// Fills `to` with the page of a slot in which the caller has a share.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; then `to` has no contents that anybody should see.
    pub fn load(&self, slot: u32, to: FrameBytes<'_>) -> Result<(), LoadError> {
        if self.slots.count(slot) == 0 {
            return Err(LoadError::Free);
        }
        self.device.read(slot.into(), to).map_err(LoadError::Device)?;
        if tag(self.key, to) == self.slots.tag(slot) { Ok(()) } else { Err(LoadError::Tag) }
    }

    /// One share more in a slot; false, and nothing changed, if it has none any more.
    #[must_use]
    pub fn share(&self, slot: u32) -> bool {
        self.slots.share(slot)
    }

    /// One share fewer; false if there was none. With the last one the slot is free.
    pub fn release(&self, slot: u32) -> bool {
        let left = self.slots.put(slot);
        if self.discards && left == (Left::Free { whole: true }) {
            self.slots.discard(slot / CLUSTER, |first, len| {
                self.device.discard(first.into(), len.into());
            });
        }
        left != Left::Unowned
    }

    /// Calls `f` with each slot that is in use and its shares, ascending: for swapoff, and for checks.
    pub fn each_used(&self, mut f: impl FnMut(u32, u32)) {
        for slot in 0..=self.header.last_page() {
            match self.slots.count(slot) {
                0 => {}
                shares => f(slot, shares),
            }
        }
    }

    /// How full it is: exact while nobody stores or releases.
    #[must_use]
    pub fn usage(&self) -> AreaUsage {
        let bad = usize::try_from(self.bad.load(Relaxed)).unwrap_or(usize::MAX);
        let slots = (self.slots.len() - 1).saturating_sub(bad);
        AreaUsage { slots, used: slots.saturating_sub(self.slots.count_free()), bad }
    }

    /// What the area says of itself.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &D {
        &self.device
    }
}

/// The header of the area on a device, to learn how many slots it needs.
///
/// # Errors
///
/// [`OpenError::Device`] and [`OpenError::Header`].
pub fn read_header(device: &impl BlockDevice) -> Result<Header, OpenError> {
    let words = [const { AtomicU64::new(0) }; PAGE / 8];
    let bytes = FrameBytes::of(&words);
    device.read(0, bytes).map_err(OpenError::Device)?;
    let mut page = [0; PAGE];
    bytes.read(0, &mut page);
    Header::read(&page, device.pages()).map_err(OpenError::Header)
}

/// Makes a device an area: writes its header.
///
/// # Errors
///
/// The device's.
pub fn format(device: &impl BlockDevice, header: &Header) -> Result<(), DeviceError> {
    let words = [const { AtomicU64::new(0) }; PAGE / 8];
    let bytes = FrameBytes::of(&words);
    device.read(0, bytes)?;
    let mut page = [0; PAGE];
    bytes.read(0, &mut page);
    header.write(&mut page);
    bytes.write(0, &page);
    device.write(0, bytes)
}

impl<D> fmt::Debug for Area<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area")
            .field("header", &self.header)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
