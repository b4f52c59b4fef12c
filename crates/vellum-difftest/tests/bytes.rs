//! Random bytes as sequences, on address spaces of ours: nothing panics, and every frame is back.

use vellum_difftest::decode::sequence;
use vellum_difftest::ours;
use vellum_difftest::random::Random;
use vellum_difftest::trace::Outcome;

/// Random bytes, by their number.
fn bytes(number: u64) -> Vec<u8> {
    let mut random = Random::new(41, number);
    let len = random.below(400);
    (0..len).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// A hierarchical table, a hashed one and an inverted one.
const DESIGNS: [&str; 3] = ["radix4", "hashed-chained", "inverted"];

#[test]
fn no_bytes_break_a_space_or_lose_a_frame() {
    let mut subjects = DESIGNS.map(|name| ours::by_name(name).expect("it is a design"));
    let (mut ops, mut succeeded) = (0, 0);
    for number in 0..300 {
        let sequence = sequence(&bytes(number));
        // The same of all of them, too: a design is not seen through an address space.
        let mut first = None;
        for subject in &mut subjects {
            let trace = subject.run(&sequence);
            let trace = trace.unwrap_or_else(|e| panic!("{}: {e}\n{sequence}", subject.name()));
            let done =
                |outcome: &Outcome| !matches!(outcome, Outcome::Fails(_) | Outcome::Signal(_));
            ops += trace.steps.len();
            succeeded += trace.steps.iter().filter(|step| done(&step.outcome)).count();
            assert!(first.is_none_or(|first| first == trace), "{}\n{sequence}", subject.name());
            first = Some(trace);
        }
    }
    assert!(ops > 10_000 && succeeded > ops / 4, "{succeeded} of {ops} succeeded");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn random_bytes_give_the_same_on_linux_and_on_ours() {
    use vellum_difftest::compare::{Mode, difference};
    use vellum_difftest::shrink::shrink;
    use vellum_difftest::subject::Subject;

    let mut linux =
        vellum_difftest::linux::Linux::new().expect("a Linux has /proc and shared memory");
    let mut ours = ours::by_name("radix4").expect("it is a design");
    let mut differs = |sequence: &vellum_difftest::op::Sequence| {
        let left = linux.run(sequence).expect("it runs");
        let right = ours.run(sequence).expect("it runs");
        difference(&left, &right, Mode::Strict)
    };
    for number in 0..100 {
        let sequence = sequence(&bytes(number));
        if differs(&sequence).is_some() {
            let small = shrink(&sequence, |smaller| differs(smaller).is_some());
            panic!("sequence {number}, shrunk:\n{small}{:?}", differs(&small));
        }
    }
}
