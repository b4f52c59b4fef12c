//! Tests inside the image: ordinary functions, one line each in a list.
//!
//! ```text
//!   TESTS: [("name", function), ...]
//!      --> run(): test NAME ... ok
//!                 test NAME ... FAILED
//!                     src/metal/tests/paging.rs:31: left 4, right 5
//!      --> N passed, N failed
//! ```
//!
//! A test says what is wrong by returning a [`Failure`]; a panic or an unexpected trap inside a
//! test ends the run, and [`close`] still prints the last line: what did not run counts as failed.

use super::console::{print, println};
use arrayvec::ArrayString;
use core::fmt::{self, Write};
use core::panic::Location;
use core::sync::atomic::{AtomicUsize, Ordering};

/// What a test returns.
pub(crate) type Outcome = Result<(), Failure>;

/// One test: its name, and the function.
pub(crate) type Test = (&'static str, fn() -> Outcome);

/// Where a test failed, and what it found.
pub(crate) struct Failure {
    place: &'static Location<'static>,
    text: ArrayString<240>,
}

impl Failure {
    /// A failure here, in these words; what does not fit is cut.
    #[track_caller]
    pub(crate) fn new(words: fmt::Arguments<'_>) -> Self {
        let mut text = Cut(ArrayString::new());
        // `Cut` never fails, and a failing `Display` has nobody to tell.
        let _ = text.write_fmt(words);
        Self { place: Location::caller(), text: text.0 }
    }
}

/// Any typed error is a failure at the place of its `?`.
impl<E: core::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(format_args!("{error}"))
    }
}

struct Cut(ArrayString<240>);

impl Write for Cut {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            if self.0.try_push(c).is_err() {
                break;
            }
        }
        Ok(())
    }
}

static SELECTED: AtomicUsize = AtomicUsize::new(0);
static PASSED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Runs the tests whose name contains `filter`; true when all of them passed, and there was one.
pub(crate) fn run(tests: &[Test], filter: &str) -> bool {
    let chosen = || tests.iter().filter(|(name, _)| name.contains(filter));
    SELECTED.store(chosen().count(), Ordering::Relaxed);
    for (name, function) in chosen() {
        print!("test {name} ... ");
        match function() {
            Ok(()) => {
                PASSED.fetch_add(1, Ordering::Relaxed);
                println!("ok");
            }
            Err(Failure { place, text }) => {
                FAILED.fetch_add(1, Ordering::Relaxed);
                println!("FAILED\n    {}:{}: {text}", place.file(), place.line());
            }
        }
    }
    let failed = close();
    if SELECTED.load(Ordering::Relaxed) == 0 {
        println!("no test has {filter:?} in its name");
        return false;
    }
    failed == 0
}

/// Prints the last line and returns the failures; every test that was chosen and has no result
/// by now is one.
pub(crate) fn close() -> usize {
    let selected = SELECTED.load(Ordering::Relaxed);
    let passed = PASSED.load(Ordering::Relaxed);
    let failed = selected - passed;
    println!("{passed} passed, {failed} failed");
    failed
}

/// Whether a run has begun and not every test has its result.
pub(crate) fn is_running() -> bool {
    let done = PASSED.load(Ordering::Relaxed) + FAILED.load(Ordering::Relaxed);
    done < SELECTED.load(Ordering::Relaxed)
}

/// Fails the test unless the condition holds.
macro_rules! check {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::metal::harness::Failure::new(format_args!($($words)+)));
        }
    };
    ($condition:expr) => {
        $crate::metal::harness::check!($condition, "{}", stringify!($condition))
    };
}

/// Fails the test unless the two are equal.
macro_rules! check_eq {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) => $crate::metal::harness::check!(
                left == right,
                "{} is {left:x?}, not {right:x?}",
                stringify!($left)
            ),
        }
    };
}

pub(crate) use {check, check_eq};
