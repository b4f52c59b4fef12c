//! A device that fails now and then, in each way that devices do.
//!
//! ```text
//!   read     fails | gives back one bit changed | is true
//!   write    fails | is lost | ends after some bytes | is done        all but the first say that it is done
//! ```
//!
//! Which call fails is drawn from a seed, so that a run can be repeated.

use crate::device::{BlockDevice, DeviceError};
use crate::header::PAGE;
use crate::host::memory::Buffer;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vellum_core::FrameBytes;

/// Of 65,536 calls, how many have which fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Reads that fail.
    pub read_error: u16,
    /// Reads with a bit changed.
    pub bit_flip: u16,
    /// Writes that fail, and leave nothing or a part behind.
    pub write_error: u16,
    /// Writes that are acknowledged, and not done.
    pub lost_write: u16,
    /// Writes that are acknowledged, and done up to some byte.
    pub torn_write: u16,
}

/// A device with faults.
#[derive(Debug)]
pub struct Faulty<D> {
    device: D,
    faults: Faults,
    state: AtomicU64,
    /// Faults that have come to pass.
    happened: AtomicU64,
}

impl<D: BlockDevice> Faulty<D> {
    /// The device, with faults from `seed`.
    pub const fn new(device: D, faults: Faults, seed: u64) -> Self {
        let (state, happened) = (AtomicU64::new(seed), AtomicU64::new(0));
        Self { device, faults, state, happened }
    }

    /// How many faults there were.
    pub fn count_faults(&self) -> u64 {
        self.happened.load(Relaxed)
    }

    /// A number by chance (SplitMix64).
    fn draw(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(step, Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&self, of_65536: u16) -> bool {
        let happens = self.draw() & 0xffff < u64::from(of_65536);
        if happens {
            self.happened.fetch_add(1, Relaxed);
        }
        happens
    }

    /// A byte of a page by chance.
    fn place(&self) -> usize {
        usize::try_from(self.draw() % PAGE as u64).unwrap_or(0)
    }

    fn write_part(&self, page: u64, from: FrameBytes<'_>) -> Result<(), DeviceError> {
        let torn = Buffer::new();
        self.device.read(page, torn.bytes())?;
        let mut bytes = std::vec![0; self.place()];
        from.read(0, &mut bytes);
        torn.bytes().write(0, &bytes);
        self.device.write(page, torn.bytes())
    }
}

impl<D: BlockDevice> BlockDevice for Faulty<D> {
    fn pages(&self) -> u64 {
        self.device.pages()
    }

    fn read(&self, page: u64, to: FrameBytes<'_>) -> Result<(), DeviceError> {
        if self.happens(self.faults.read_error) {
            return Err(DeviceError::Io);
        }
        self.device.read(page, to)?;
        if self.happens(self.faults.bit_flip) {
            let at = self.place();
            let mut byte = [0];
            to.read(at, &mut byte);
            to.write(at, &[byte[0] ^ 1 << (self.draw() % 8)]);
        }
        Ok(())
    }

    fn write(&self, page: u64, from: FrameBytes<'_>) -> Result<(), DeviceError> {
        if self.happens(self.faults.write_error) {
            if self.draw().is_multiple_of(2) {
                self.write_part(page, from)?;
            }
            return Err(DeviceError::Io);
        }
        if self.happens(self.faults.lost_write) {
            return Ok(());
        }
        if self.happens(self.faults.torn_write) {
            return self.write_part(page, from);
        }
        self.device.write(page, from)
    }

    fn discard(&self, first: u64, pages: u64) {
        self.device.discard(first, pages);
    }
}
