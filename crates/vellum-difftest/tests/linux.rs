//! The harness, on the kernel of this host: it repeats itself, and it finds what is wrong.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use vellum_difftest::abi;
use vellum_difftest::compare::{Mode, difference, first};
use vellum_difftest::generate;
use vellum_difftest::linux::Linux;
use vellum_difftest::op::{Op, Sequence};
use vellum_difftest::shrink::shrink;
use vellum_difftest::subject::{Subject, SubjectError};
use vellum_difftest::trace::{Outcome, Trace};

fn linux() -> Linux {
    Linux::new().expect("a Linux has /proc and shared memory")
}

#[test]
fn linux_repeats_itself() {
    let (mut one, mut other) = (linux(), linux());
    for number in 0..100 {
        let sequence = generate::sequence(11, number, 40);
        let left = one.run(&sequence).expect("it runs");
        let right = other.run(&sequence).expect("it runs");
        assert_eq!(first(&left, &right, Mode::Strict), None, "sequence {number}\n{sequence}");
    }
}

#[test]
fn looking_changes_nothing() {
    let (mut every, mut rarely) = (linux(), linux().at_the_end());
    for number in 0..100 {
        let sequence = generate::sequence(12, number, 40);
        let left = every.run(&sequence).expect("it runs");
        let right = rarely.run(&sequence).expect("it runs");
        assert_eq!(first(&left, &right, Mode::Strict), None, "sequence {number}\n{sequence}");
    }
}

/// Linux, with something wrong in what it shows.
struct Mutant {
    linux: Linux,
    wrong: fn(&Sequence, &mut Trace),
}

impl Subject for Mutant {
    fn name(&self) -> &str {
        "a mutant"
    }

    fn run(&mut self, sequence: &Sequence) -> Result<Trace, SubjectError> {
        let mut trace = self.linux.run(sequence)?;
        (self.wrong)(sequence, &mut trace);
        Ok(trace)
    }
}

/// The first difference that random sequences find, shrunk.
fn found(wrong: fn(&Sequence, &mut Trace)) -> Sequence {
    let mut linux = linux();
    let mut mutant = Mutant { linux: self::linux(), wrong };
    let mut differs = |sequence: &Sequence| {
        let left = linux.run(sequence).expect("it runs");
        let right = mutant.run(sequence).expect("it runs");
        difference(&left, &right, Mode::Normalised).is_some()
    };
    let sequence = (0..400)
        .map(|number| generate::sequence(13, number, 40))
        .find(|sequence| differs(sequence))
        .expect("400 sequences find it");
    shrink(&sequence, differs)
}

#[test]
fn a_wrong_error_is_found_and_shrunk_to_the_calls_that_show_it() {
    let small = found(|sequence, trace| {
        for (op, step) in sequence.ops.iter().zip(&mut trace.steps) {
            let Op::Protect { len, prot: 0, .. } = *op else { continue };
            if len >= 2 * abi::PAGE && step.outcome == Outcome::Done(0) {
                step.outcome = Outcome::Fails(13);
            }
        }
    });
    assert_eq!(small.ops.len(), 2, "{small}");
    let lines = small.to_string();
    assert!(lines.starts_with("mmap ") && lines.contains("\nmprotect 0 2 0\n"), "{lines}");
}

#[test]
fn a_page_too_many_is_found_and_shrunk() {
    let small = found(|sequence, trace| {
        // Advice to forget pages forgets one too few.
        let forgets = |op: &Op| matches!(op, Op::Advise { advice: 4, .. });
        let Some(at) = sequence.ops.iter().position(forgets) else { return };
        if trace.steps[at].outcome != Outcome::Done(0) {
            return;
        }
        let state = trace.steps[at].state.as_mut().expect("every step has one");
        if let Some(region) = state.regions.first_mut() {
            region.sizes.rss += 4;
        }
    });
    assert!(small.ops.len() <= 3, "{small}");
}

#[test]
fn numbers_are_those_of_the_c_library() {
    for (names, name, value) in [
        (abi::MAP, "populate", libc::MAP_POPULATE),
        (abi::MAP, "fixed_noreplace", libc::MAP_FIXED_NOREPLACE),
        (abi::MAP, "growsdown", libc::MAP_GROWSDOWN),
        (abi::MAP, "locked", libc::MAP_LOCKED),
        (abi::MAP, "noreserve", libc::MAP_NORESERVE),
        (abi::MAP, "stack", libc::MAP_STACK),
        (abi::PROT, "growsdown", libc::PROT_GROWSDOWN),
        (abi::MREMAP, "dontunmap", libc::MREMAP_DONTUNMAP),
        (abi::MSYNC, "sync", libc::MS_SYNC),
        (abi::MLOCKALL, "onfault", 4),
        (abi::ADVICE, "wipeonfork", libc::MADV_WIPEONFORK),
        (abi::ADVICE, "populate_write", libc::MADV_POPULATE_WRITE),
        (abi::ADVICE, "pageout", libc::MADV_PAGEOUT),
        (abi::ERRNO, "EOPNOTSUPP", libc::EOPNOTSUPP),
        (abi::ERRNO, "EAGAIN", libc::EAGAIN),
        (abi::SIGNAL, "SIGBUS", libc::SIGBUS),
    ] {
        assert_eq!(abi::value(names, name), u64::try_from(value).ok(), "{name}");
    }
}
