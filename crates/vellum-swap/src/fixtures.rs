//! What several tests of this crate begin with.

use crate::format;
use crate::header::{Header, PAGE};
use crate::host::{Buffer, MemoryDevice};
use crate::slots::{Cluster, Slot, Slots};
use std::vec::Vec;

/// Records for so many pages, which slots borrow.
pub(crate) struct Records {
    pub(crate) slots: Vec<Slot>,
    pub(crate) clusters: Vec<Cluster>,
}

impl Records {
    pub(crate) fn new(pages: usize) -> Self {
        let clusters = Slots::clusters_for(pages);
        Self {
            slots: core::iter::repeat_with(Slot::default).take(pages).collect(),
            clusters: core::iter::repeat_with(Cluster::default).take(clusters).collect(),
        }
    }

    pub(crate) fn slots(&self) -> Slots<'_> {
        Slots::new(&self.slots, &self.clusters).unwrap()
    }
}

/// A device in memory with a header.
pub(crate) fn formatted(pages: u32, bad: &[u32]) -> MemoryDevice {
    let device = MemoryDevice::new(pages as usize);
    let header = Header::new(pages, [0; 16], *b"tests\0\0\0\0\0\0\0\0\0\0\0", bad).unwrap();
    format(&device, &header).unwrap();
    device
}

/// A page that tells which it is, in its first and its last bytes.
pub(crate) fn filled(with: u64) -> Buffer {
    let buffer = Buffer::new();
    buffer.bytes().write(0, &with.to_le_bytes());
    buffer.bytes().write(PAGE - 8, &with.to_be_bytes());
    buffer
}
