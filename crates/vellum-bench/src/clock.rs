//! Two clocks: what a thread has worked, and what has passed.
//!
//! ```text
//!   passed   |--work--|  (somebody else's thread)  |--work--|
//!   worked    ========                              ========
//! ```
//!
//! One thread alone is measured by its own CPU time, so that what else runs on the machine counts
//! only for the caches it spoils. Two threads are measured by time that has passed: CPU time would
//! call those rounds the best in which the two never ran at once, and found no contention.
//!
//! Source: POSIX `clock_gettime`, CLOCK_THREAD_CPUTIME_ID.

use core::time::Duration;
use rustix::time::{ClockId, clock_gettime};

/// Measures what the thread that started it works from then on.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    /// Starts at once.
    #[must_use]
    pub fn start() -> Self {
        Self(worked())
    }

    /// Nanoseconds that this thread, which must be the one that started, has worked since.
    #[must_use]
    pub fn nanos(self) -> f64 {
        worked().saturating_sub(self.0).as_nanos() as f64
    }

    /// Nanoseconds for each of `count` operations.
    #[must_use]
    pub fn nanos_each(self, count: usize) -> f64 {
        self.nanos() / count as f64
    }
}

fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_not_work() {
        let watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(50));
        let slept = watch.nanos();
        let sum: u64 = (0..20_000_000u64).fold(0, |a, n| core::hint::black_box(a ^ n));
        // Not how long anything takes, only which of the two was counted.
        assert!(slept < 50e6, "{slept} ns");
        assert!(watch.nanos() > slept, "{sum}");
    }
}
