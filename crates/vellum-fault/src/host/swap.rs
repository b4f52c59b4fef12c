//! Swap that is a map of pages in the host's memory.
//!
//! ```text
//!   place 1 -> 4096 bytes, 2 shares        a fork's parent and child
//!   place 2 -> 4096 bytes, 1 share
//! ```
//!
//! # Invariants
//!
//! - A place is never used again, so that whoever names one that is free is found out.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec;
use std::vec::Vec;
use vellum_core::{FrameBytes, PAGE_SIZE, Swap, SwapEntry, SwapError};

/// Pages that are out, in the host's memory.
#[derive(Default)]
pub struct MemorySwap {
    places: Mutex<Places>,
    /// Every read fails.
    broken: AtomicBool,
    /// Every read finds somebody else at the page.
    busy: AtomicBool,
}

#[derive(Default)]
struct Places {
    used: BTreeMap<u64, Place>,
    /// Those that were ever used.
    count: u64,
}

struct Place {
    bytes: Vec<u8>,
    shares: u32,
}

impl MemorySwap {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a page in a place of its own, with one share.
    pub fn store(&self, from: FrameBytes<'_>) -> SwapEntry {
        let mut bytes = vec![0; PAGE_SIZE as usize];
        from.read(0, &mut bytes);
        let mut places = self.lock();
        places.count += 1;
        let number = places.count;
        places.used.insert(number, Place { bytes, shares: 1 });
        SwapEntry(number)
    }

    /// Places that are in use.
    pub fn count_used(&self) -> usize {
        self.lock().used.len()
    }

    /// Lets every read fail, or not any more.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Relaxed);
    }

    /// Lets every read find the page busy, or not any more.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Relaxed);
    }
}

impl Swap for MemorySwap {
    fn read(&self, entry: SwapEntry, to: FrameBytes<'_>) -> Result<(), SwapError> {
        if self.busy.load(Relaxed) {
            return Err(SwapError::Busy);
        }
        if self.broken.load(Relaxed) {
            return Err(SwapError::Io);
        }
        let places = self.lock();
        let place = places.used.get(&entry.0).ok_or(SwapError::Io)?;
        to.write(0, &place.bytes);
        Ok(())
    }

    fn share(&self, entry: SwapEntry) -> bool {
        let mut places = self.lock();
        let place = places.used.get_mut(&entry.0);
        place.is_some_and(|place| {
            place.shares += 1;
            true
        })
    }

    fn release(&self, entry: SwapEntry) {
        let mut places = self.lock();
        let left = places.used.get_mut(&entry.0).map(|place| {
            place.shares -= 1;
            place.shares
        });
        assert_ne!(left, None, "a share of a free place was given back");
        if left == Some(0) {
            places.used.remove(&entry.0);
        }
    }
}

impl fmt::Debug for MemorySwap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySwap").field("used", &self.count_used()).finish_non_exhaustive()
    }
}
