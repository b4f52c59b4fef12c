//! [`Level`]: how full one zone is, and how far down whom is let.
//!
//! ```text
//!   total  +----------------+
//!          |                |
//!   high   +- - - - - - - - +  a reclaimer that was woken stops here
//!   low    +- - - - - - - - +  requests go elsewhere if they can; reclaimers are woken
//!   min    +- - - - - - - - +  usual requests stop here, and reclaim themselves
//!   min/2  +- - - - - - - - +  those that cannot wait stop here
//!          |                |  for those who free memory
//!     0    +----------------+
//! ```
//!
//! For a request of a class above the zone's own, all marks but the last lie higher by what the
//! zone keeps for those who can use nothing else.
//!
//! # Invariants
//!
//! - `free` is never less than the free frames of the source, as long as all of its traffic passes
//!   here: a block is taken from the source first and charged then; it is credited first and given
//!   back then. So who got a block from the source is never refused for want of `free` alone.
//! - A charge goes through or not as one step: `free` does not fall below the floor of anybody
//!   whose charge went through, whatever other CPUs do.
//!
//! `free` orders nothing, so relaxed operations do: frames are ordered by their source.
//!
//! Source: Linux, Documentation/admin-guide/sysctl/vm.rst (`min_free_kbytes`,
//! `watermark_scale_factor`, `lowmem_reserve_ratio`); M. Gorman, *Understanding the Linux Virtual
//! Memory Manager*, 2.2.1 "Zone Watermarks".

use super::request::{CLASSES, Class, Urgency};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The watermarks of one zone, in frames: `min <= low <= high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    min: u64,
    low: u64,
    high: u64,
}

impl Marks {
    /// Nothing is kept back, and nobody is woken.
    pub const NONE: Self = Self { min: 0, low: 0, high: 0 };

    /// These marks; each at least as high as the one before.
    #[must_use]
    pub const fn new(min: u64, low: u64, high: u64) -> Self {
        let low = if low > min { low } else { min };
        Self { min, low, high: if high > low { high } else { low } }
    }

    /// What Linux would choose for a zone of `frames` in a machine of `all`: between them the zones
    /// keep 4 KiB times the square root of the KiB in `all`, at least 128 KiB and at most 256 MiB,
    /// each its share; here never more than an eighth of a zone. `low` and `high` lie above `min` by a
    /// quarter and a half of it, or by 0.1% and 0.2% of the zone if that is more.
    ///
    /// ```
    /// use vellum_frame::zones::Marks;
    ///
    /// let marks = Marks::usual(1 << 20, 1 << 20); // 4 GiB in one zone
    /// assert_eq!((marks.min(), marks.low(), marks.high()), (2048, 3096, 4144));
    /// ```
    #[must_use]
    pub const fn usual(frames: u64, all: u64) -> Self {
        // min_free_kbytes = sqrt(16 * kilobytes); frames are less than 2^52, so this fits.
        let kilobytes = all.saturating_mul(4).saturating_mul(16).isqrt();
        let kept = if kilobytes < 128 { 128 } else { kilobytes };
        let kept = if kept > 256 << 10 { 256 << 10 } else { kept } / 4;
        let share = if all == 0 { 0 } else { kept as u128 * frames as u128 / all as u128 };
        // At most 2^16 frames if `frames` is part of `all`, and else the eighth is less.
        let eighth = frames / 8;
        let min = if share < eighth as u128 { share as u64 } else { eighth };
        let step = if min / 4 > frames / 1000 { min / 4 } else { frames / 1000 };
        Self::new(min, min + step, min + 2 * step)
    }

    /// Where usual requests stop.
    #[must_use]
    pub const fn min(self) -> u64 {
        self.min
    }

    /// Where reclaimers are woken.
    #[must_use]
    pub const fn low(self) -> u64 {
        self.low
    }

    /// Where reclaimers stop.
    #[must_use]
    pub const fn high(self) -> u64 {
        self.high
    }
}

/// Which mark a request is held to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// At first everybody is.
    Low,
    /// And then by its urgency.
    Of(Urgency),
}

#[derive(Debug)]
pub(super) struct Level {
    free: AtomicU64,
    total: AtomicU64,
    min: AtomicU64,
    low: AtomicU64,
    high: AtomicU64,
    /// Frames kept from requests of each class.
    keep: [AtomicU64; CLASSES],
}

impl Level {
    pub(super) const fn new() -> Self {
        Self {
            free: AtomicU64::new(0),
            total: AtomicU64::new(0),
            min: AtomicU64::new(0),
            low: AtomicU64::new(0),
            high: AtomicU64::new(0),
            keep: [const { AtomicU64::new(0) }; CLASSES],
        }
    }

    pub(super) fn set_counts(&self, total: u64, free: u64) {
        self.total.store(total, Relaxed);
        self.free.store(free, Relaxed);
    }

    pub(super) fn set_marks(&self, marks: Marks) {
        self.min.store(marks.min, Relaxed);
        self.low.store(marks.low, Relaxed);
        self.high.store(marks.high, Relaxed);
    }

    pub(super) fn set_keep(&self, class: Class, frames: u64) {
        self.keep[class as usize].store(frames, Relaxed);
    }

    pub(super) fn free(&self) -> u64 {
        self.free.load(Relaxed)
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub(super) fn marks(&self) -> Marks {
        Marks::new(self.min.load(Relaxed), self.low.load(Relaxed), self.high.load(Relaxed))
    }

    pub(super) fn keep(&self, class: Class) -> u64 {
        self.keep[class as usize].load(Relaxed)
    }

    /// How many frames a request must leave behind.
    pub(super) fn floor(&self, class: Class, mark: Mark) -> u64 {
        let mark = match mark {
            Mark::Low => self.low.load(Relaxed),
            Mark::Of(Urgency::Normal) => self.min.load(Relaxed),
            Mark::Of(Urgency::Atomic) => self.min.load(Relaxed) / 2,
            Mark::Of(Urgency::Emergency) => return 0,
        };
        mark.saturating_add(self.keep(class))
    }

    /// Whether `count` frames could be taken so that `floor` are left.
    pub(super) fn allows(&self, count: u64, floor: u64) -> bool {
        allowed(self.free(), count, floor).is_some()
    }

    /// Counts `count` frames as taken if `floor` are left.
    pub(super) fn charge(&self, count: u64, floor: u64) -> bool {
        update(&self.free, |free| allowed(free, count, floor))
    }

    /// Counts `count` frames as free.
    pub(super) fn credit(&self, count: u64) {
        // Frames of all memory are less than 2^52, and each is credited once for each charge: a
        // sum that passes 64 bits takes thousands of years of wrong frees.
        self.free.fetch_add(count, Relaxed);
    }

    /// Takes back a credit, for frames that were not free after all.
    pub(super) fn debit(&self, count: u64) {
        update(&self.free, |free| Some(free.saturating_sub(count)));
    }
}

/// Changes a number as `to` says, unless that says `None`; whether it was changed.
pub(super) fn update(number: &AtomicU64, to: impl Fn(u64) -> Option<u64>) -> bool {
    let mut was = number.load(Relaxed);
    while let Some(next) = to(was) {
        match number.compare_exchange_weak(was, next, Relaxed, Relaxed) {
            Ok(_) => return true,
            Err(now) => was = now,
        }
    }
    false
}

/// What is left of `free`, unless that is less than `floor`.
const fn allowed(free: u64, count: u64, floor: u64) -> Option<u64> {
    match free.checked_sub(count) {
        Some(left) if left >= floor => Some(left),
        _ => None,
    }
}
