//! A page, and a device, of the host's memory.

use crate::device::{BlockDevice, DeviceError};
use crate::header::PAGE;
use core::fmt;
use core::sync::atomic::AtomicU64;
use std::boxed::Box;
use std::vec::Vec;
use vellum_core::FrameBytes;

/// A page of the host's memory, zeros at first.
pub struct Buffer(Box<[AtomicU64; PAGE / 8]>);

impl Buffer {
    /// Zeros.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::new([const { AtomicU64::new(0) }; PAGE / 8]))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> FrameBytes<'_> {
        FrameBytes::of(&self.0)
    }

    /// A copy of its bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = std::vec![0; PAGE];
        self.bytes().read(0, &mut bytes);
        bytes
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffer")
    }
}

/// A device that never fails and keeps its pages in the host's memory.
#[derive(Debug)]
pub struct MemoryDevice(Vec<Buffer>);

impl MemoryDevice {
    /// A device of so many pages, zeros.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        Self(core::iter::repeat_with(Buffer::new).take(pages).collect())
    }

    fn page(&self, page: u64) -> Result<&Buffer, DeviceError> {
        let found = usize::try_from(page).ok().and_then(|index| self.0.get(index));
        found.ok_or(DeviceError::OutOfRange(page))
    }
}

impl BlockDevice for MemoryDevice {
    fn pages(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, page: u64, to: FrameBytes<'_>) -> Result<(), DeviceError> {
        to.copy_from(self.page(page)?.bytes());
        Ok(())
    }

    fn write(&self, page: u64, from: FrameBytes<'_>) -> Result<(), DeviceError> {
        self.page(page)?.bytes().copy_from(from);
        Ok(())
    }

    fn discard(&self, first: u64, pages: u64) {
        for page in first..first.saturating_add(pages) {
            let Ok(page) = self.page(page) else { return };
            page.bytes().copy_from(Buffer::new().bytes());
        }
    }
}
