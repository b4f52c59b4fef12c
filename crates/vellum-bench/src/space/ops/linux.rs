//! What Linux takes for each act, what we want to take, and how much of either a kernel has around it.
//!
//! ```text
//!   Linux's figure   = its way into the kernel and back  + clearing + the operation
//!   our target       = ours                              + clearing + the operation
//!   shown            = the operation alone, on all sides
//! ```
//!
//! Linux 6.12 of Debian, under QEMU's TCG with one CPU and `-icount shift=0`, in which time is
//! instructions: medians of a static program. A way into the kernel and back is what `getppid` takes
//! there; we allow ourselves 150. A cleared page is 512 instructions there, without `erms`.

/// Instructions of `getppid`, Linux's and the target.
const ENTRY: [f64; 2] = [328.0, 150.0];
/// Instructions of clearing a page there.
const CLEAR: f64 = 512.0;

/// What one act is measured against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Instructions of Linux, and the target.
    pub(super) whole: [f64; 2],
    /// Ways into the kernel and back that are in them.
    pub(super) entries: f64,
    /// Pages that are cleared in them.
    pub(super) clears: f64,
}

impl Cost {
    pub(super) const fn new(whole: [f64; 2], entries: f64, clears: f64) -> Self {
        Self { whole, entries, clears }
    }

    /// Both, for the operation alone.
    pub(super) fn alone(self) -> [f64; 2] {
        let of = |n: usize| self.whole[n] - self.entries * ENTRY[n] - self.clears * CLEAR;
        [of(0), of(1)]
    }
}
