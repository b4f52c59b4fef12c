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

use super::Kernel;
use super::console::{print, println};
use arrayvec::ArrayString;
use core::fmt::{self, Write};
use core::panic::Location;
use core::sync::atomic::{AtomicUsize, Ordering};
use spin::Mutex;

/// What a test returns.
pub(crate) type Outcome = Result<(), Failure>;

/// One test: its name, and the function.
pub(crate) type Test = (&'static str, fn(&Kernel) -> Outcome);

/// Where a test failed; what it found is in [`WORDS`].
#[derive(Debug)]
pub(crate) struct Failure(&'static Location<'static>);

/// The words of the last failure: outside of it, for it is returned by value everywhere.
static WORDS: Mutex<Words> = Mutex::new(Words(ArrayString::new_const()));

struct Words(ArrayString<480>);

impl Write for Words {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            // What does not fit is cut.
            if self.0.try_push(c).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Failure {
    /// A failure here, in these words.
    #[track_caller]
    pub(crate) fn new(words: fmt::Arguments<'_>) -> Self {
        let mut last = WORDS.lock();
        last.0.clear();
        // `Words` never fails, and a failing `Display` has nobody to tell.
        let _ = last.write_fmt(words);
        Self(Location::caller())
    }
}

/// Any typed error is a failure at the place of its `?`.
impl<E: core::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(format_args!("{error}"))
    }
}

static SELECTED: AtomicUsize = AtomicUsize::new(0);
static PASSED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Runs the tests whose name contains `filter`; true when all of them passed, and there was one.
pub(crate) fn run(kernel: &Kernel, tests: &[Test], filter: &str) -> bool {
    let chosen = || tests.iter().filter(|(name, _)| name.contains(filter));
    SELECTED.store(chosen().count(), Ordering::Relaxed);
    for (name, function) in chosen() {
        print!("test {name} ... ");
        match function(kernel) {
            Ok(()) => {
                PASSED.fetch_add(1, Ordering::Relaxed);
                println!("ok");
            }
            Err(Failure(place)) => {
                FAILED.fetch_add(1, Ordering::Relaxed);
                println!("FAILED\n    {}:{}: {}", place.file(), place.line(), WORDS.lock().0);
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

/// Fails the test.
macro_rules! fail {
    ($($words:tt)+) => {
        return Err($crate::metal::harness::Failure::new(format_args!($($words)+)))
    };
}

/// Fails the test unless the condition holds.
macro_rules! check {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            $crate::metal::harness::fail!($($words)+);
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

pub(crate) use {check, check_eq, fail};
