//! Our own address space with something wrong in it: random sequences notice each, and what is left of
//! them when they are shrunk is about that.
//!
//! ```text
//!   sequence   mmap   mprotect        munmap                      what Linux runs
//!   ours runs  mmap   mprotect zap    (nothing)                   what a broken space would have done
//!   its trace  |      |   '- state    |  "ok"                     one step for each of Linux's
//! ```
//!
//! Some mistakes are made in the operations, so that everything behind them follows from a space that went
//! wrong; others in what is shown.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use vellum_difftest::abi::PAGE;
use vellum_difftest::compare::{Mode, difference};
use vellum_difftest::generate;
use vellum_difftest::linux::Linux;
use vellum_difftest::op::{Op, Place, Sequence};
use vellum_difftest::ours;
use vellum_difftest::shrink::shrink;
use vellum_difftest::subject::{Subject, SubjectError};
use vellum_difftest::trace::{Outcome, Step, Trace};

/// What a broken space does for an operation.
enum Done {
    /// These, and it says what the first of them gave.
    These(Vec<Op>),
    /// Nothing, and it says that all is well.
    Nothing,
}

/// A space of ours, and what is wrong with it.
struct Broken {
    ours: Box<dyn Subject>,
    does: fn(Op) -> Done,
    shows: fn(&Op, &mut Step),
}

/// As it should be.
fn does_right(op: Op) -> Done {
    Done::These(vec![op])
}

fn shows_right(_: &Op, _: &mut Step) {}

/// What changes nothing, in place of what is not done.
const NOTHING: Op = Op::FileRead { offset: 0, len: 1 };

impl Subject for Broken {
    fn name(&self) -> &str {
        "a broken space"
    }

    fn run(&mut self, sequence: &Sequence) -> Result<Trace, SubjectError> {
        let done: Vec<Done> = sequence.ops.iter().map(|op| (self.does)(*op)).collect();
        let ops = done.iter().flat_map(|done| match done {
            Done::These(ops) => ops.clone(),
            Done::Nothing => vec![NOTHING],
        });
        let mut trace = self.ours.run(&Sequence { ops: ops.collect(), ..sequence.clone() })?;
        let mut ran = core::mem::take(&mut trace.steps).into_iter();
        for (op, done) in sequence.ops.iter().zip(&done) {
            let count = if let Done::These(ops) = done { ops.len() } else { 1 };
            let steps: Vec<Step> = ran.by_ref().take(count).collect();
            let outcome = match done {
                Done::These(_) => steps.first().map(|step| step.outcome.clone()),
                Done::Nothing => Some(Outcome::Done(0)),
            };
            let state = steps.last().and_then(|step| step.state.clone());
            let mut step = Step { outcome: outcome.expect("an operation is done"), state };
            (self.shows)(op, &mut step);
            trace.steps.push(step);
        }
        Ok(trace)
    }
}

/// What is left of a sequence that notices it; its last operation is one that the mistake is in, or the
/// look at the end notices.
fn noticed(does: fn(Op) -> Done, shows: fn(&Op, &mut Step)) -> Sequence {
    let mut linux = Linux::new().expect("a Linux has /proc and shared memory");
    let ours = ours::by_name("radix4").expect("it is a design");
    let mut broken = Broken { ours, does, shows };
    let mut differs = |sequence: &Sequence| {
        let left = linux.run(sequence).expect("it runs");
        let right = broken.run(sequence).expect("it runs");
        difference(&left, &right, Mode::Strict).is_some()
    };
    let found = (0..400)
        .map(|number| generate::sequence(17, number, 40))
        .find(|sequence| differs(sequence))
        .expect("400 sequences notice it");
    shrink(&found, differs)
}

/// Asserts that so many operations are left at most, and that this word begins one of them.
fn is_about(small: &Sequence, most: usize, word: &str) {
    let text = small.to_string();
    assert!(small.ops.len() <= most, "{text}");
    assert!(text.lines().any(|line| line.split(' ').next() == Some(word)), "{text}");
}

#[test]
fn nothing_is_noticed_where_nothing_is_wrong() {
    let mut linux = Linux::new().expect("a Linux has /proc and shared memory");
    let ours = ours::by_name("radix4").expect("it is a design");
    let mut right = Broken { ours, does: does_right, shows: shows_right };
    for number in 0..50 {
        let sequence = generate::sequence(17, number, 40);
        let left = linux.run(&sequence).expect("it runs");
        let right = right.run(&sequence).expect("it runs");
        assert_eq!(difference(&left, &right, Mode::Strict), None, "{sequence}");
    }
}

#[test]
fn a_page_that_mprotect_loses() {
    let small = noticed(
        |op| match op {
            Op::Protect { at, len, .. } => Done::These(vec![op, Op::Advise { at, len, advice: 4 }]),
            _ => does_right(op),
        },
        shows_right,
    );
    is_about(&small, 3, "mprotect");
}

#[test]
fn an_munmap_that_does_nothing() {
    let small = noticed(
        |op| match op {
            Op::Unmap { len: PAGE.., .. } => Done::Nothing,
            _ => does_right(op),
        },
        shows_right,
    );
    is_about(&small, 2, "munmap");
}

#[test]
fn an_mprotect_that_stops_behind_the_first_page() {
    let small = noticed(
        |op| match op {
            Op::Protect { at, len, prot } => {
                Done::These(vec![Op::Protect { at, len: len.min(PAGE), prot }])
            }
            _ => does_right(op),
        },
        shows_right,
    );
    is_about(&small, 2, "mprotect");
}

#[test]
fn an_mremap_that_is_done_twice() {
    let small = noticed(
        |op| match op {
            Op::Remap { .. } => Done::These(vec![op, op]),
            _ => does_right(op),
        },
        shows_right,
    );
    is_about(&small, 3, "mremap");
}

#[test]
fn a_byte_of_contents() {
    let small = noticed(
        |op| match op {
            Op::Fill { at: Place::Arena(at), .. } => {
                let beside = Place::Arena(at / 8 * 8 + 1);
                Done::These(vec![op, Op::Write { at: beside, value: 1 }])
            }
            _ => does_right(op),
        },
        shows_right,
    );
    is_about(&small, 3, "fill");
}

#[test]
fn a_sigbus_that_does_not_come() {
    let small = noticed(
        |op| match op {
            Op::Truncate { .. } => Done::Nothing,
            _ => does_right(op),
        },
        shows_right,
    );
    is_about(&small, 3, "ftruncate");
}

#[test]
fn stores_of_a_child_that_reach_its_parent() {
    let small = noticed(
        |op| match op {
            Op::ForkProbe => {
                let store = |page: i64| Op::Write { at: Place::Arena(page * 4096), value: 0xa5 };
                Done::These(core::iter::once(op).chain((0..64).map(store)).collect())
            }
            _ => does_right(op),
        },
        shows_right,
    );
    is_about(&small, 2, "fork-probe");
}

/// Nothing, if it is one of those that are forgotten.
fn forgotten(is_one: bool, op: Op) -> Done {
    if is_one { Done::Nothing } else { does_right(op) }
}

#[test]
fn a_lock_a_seal_and_a_limit_that_do_not_hold() {
    let lock = noticed(|op| forgotten(matches!(op, Op::Lock { .. }), op), shows_right);
    is_about(&lock, 2, "mlock");
    let seal = noticed(|op| forgotten(matches!(op, Op::Seal { .. }), op), shows_right);
    is_about(&seal, 2, "mseal");
    let limit = noticed(|op| forgotten(matches!(op, Op::Limit { .. }), op), shows_right);
    is_about(&limit, 3, "rlimit");
}

#[test]
fn a_wrong_error() {
    let small = noticed(does_right, |op, step| {
        if matches!(op, Op::Unmap { .. }) && step.outcome == Outcome::Fails(22) {
            step.outcome = Outcome::Fails(12);
        }
    });
    is_about(&small, 1, "munmap");
}

#[test]
fn a_wrong_code_and_a_wrong_address_of_a_signal() {
    let code = noticed(does_right, |_, step| {
        if let Outcome::Signal(signal) = &mut step.outcome {
            signal.code = 1;
        }
    });
    assert!(code.ops.len() <= 2, "{code}");
    let address = noticed(does_right, |_, step| {
        if let Outcome::Signal(signal) = &mut step.outcome {
            signal.at &= !0xfff;
        }
    });
    assert!(address.ops.len() <= 2, "{address}");
}

#[test]
fn a_wrong_count_and_a_wrong_vector() {
    let count = noticed(does_right, |op, step| {
        let region = step.state.as_mut().and_then(|state| state.regions.first_mut());
        if let (Op::Sync { .. }, Some(region)) = (op, region) {
            region.sizes.rss += 4;
        }
    });
    is_about(&count, 2, "msync");
    let vector = noticed(does_right, |_, step| {
        if let Outcome::Vector(vector) = &mut step.outcome {
            vector.iter_mut().for_each(|byte| *byte = 0);
        }
    });
    is_about(&vector, 3, "mincore");
}

#[test]
fn a_wrong_line_of_smaps() {
    let small = noticed(does_right, |op, step| {
        let region = step.state.as_mut().and_then(|state| state.regions.last_mut());
        if let (Op::Write { .. }, Some(region)) = (op, region) {
            region.text =
                region.text.replace("MMUPageSize:           4 kB", "MMUPageSize:           8 kB");
        }
    });
    is_about(&small, 2, "write");
}
