//! Time that a thread has spent working, as against time that has passed.
//!
//! ```text
//!   passed   |--work--|  (another thread)  |--work--|
//!   worked    ========                      ========
//! ```
//!
//! Rates are for one core; they must not depend on how many threads share the cores.
//!
//! Source: POSIX `clock_gettime`, CLOCK_THREAD_CPUTIME_ID. Elsewhere: time that has passed.

use core::time::Duration;

/// Measures what the thread that started it works from then on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(now())
    }

    /// What this thread, which must be the one that started, has worked since.
    pub(crate) fn elapsed(self) -> Duration {
        since(self.0)
    }
}

#[cfg(unix)]
type Instant = Duration;

#[cfg(unix)]
fn now() -> Instant {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos)
}

#[cfg(unix)]
fn since(start: Instant) -> Duration {
    now().saturating_sub(start)
}

#[cfg(not(unix))]
type Instant = std::time::Instant;

#[cfg(not(unix))]
fn now() -> Instant {
    Instant::now()
}

#[cfg(not(unix))]
fn since(start: Instant) -> Duration {
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_sleep_is_not() {
        let watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(50));
        if cfg!(unix) {
            assert!(watch.elapsed() < Duration::from_millis(40), "{:?}", watch.elapsed());
        }
        let work: u64 = (0..20_000_000u64).fold(0, |a, n| core::hint::black_box(a ^ n));
        assert!(watch.elapsed() > Duration::from_micros(100), "{work}");
    }
}
