//! The protocol under the checker of flushes: real tables, real gathers, and CPUs each of which holds
//! all that it could have cached itself.
//!
//! ```text
//!   table --> gather --flush--> Flusher --interrupts, generations--> Local of CPU 0, 1, 2
//!     ^                                                                | forget
//!     |  look: what the table says, a CPU with the root may cache      v
//!     +----------------------------- Checker: what CPU 0, 1, 2 hold of this space
//! ```
//!
//! The tests of the protocol itself have a table of their own that is a map of pages. Here it is a
//! radix table, whose gathers say what has to go, so that what is between the two is looked at as well:
//! ranges that were joined, strides, what is global, nodes that are freed.

#[path = "shootdowns/board.rs"]
mod board;

use board::{Board, CPUS, Fault, Machine, SPACES};
use core::panic::AssertUnwindSafe;
use proptest::prelude::*;
use std::panic::catch_unwind;
use vellum_core::{Attr, Change, VirtAddr};
use vellum_testkit::Arena;
use vellum_tlb::Ceiling;

/// Bounds of ranges, in pages from the start: two nodes, cut where a large leaf may be and in it.
const CUTS: [u64; 7] = [0, 1, 2, 510, 512, 514, 1024];
const FIRST: VirtAddr = VirtAddr::new(1 << 30);

#[derive(Clone, Copy, Debug)]
enum Op {
    Switch(usize),
    Lazy,
    Leave,
    /// From cut to cut, with one of a few attributes.
    Map(usize, usize, usize),
    Unmap(usize, usize),
    Protect(usize, usize, usize),
    /// To a point, for one of a few rights.
    Access(usize, usize),
    /// Interrupts that are under way arrive.
    Interrupt,
}

/// What CPU `cpu` does; to which space, where that is not the one that it has loaded.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: usize,
    space: usize,
    op: Op,
}

fn attr(n: usize) -> Attr {
    let rw = Attr::RW | Attr::USER;
    [rw, Attr::READ | Attr::USER, rw | Attr::GLOBAL, Attr::RX | Attr::STATUS][n % 4]
}

fn change(n: usize) -> Change {
    let (write, status) = (Change::setting(Attr::WRITE), Change::clearing(Attr::STATUS));
    [Change::clearing(Attr::WRITE), write, status, Change::clearing(Attr::GLOBAL)][n % 4]
}

fn range(from: usize, to: usize) -> (VirtAddr, u64) {
    let (a, b) = (CUTS[from % CUTS.len()], CUTS[to % CUTS.len()]);
    let (a, b) = if a == b { (0, 1024) } else { (a.min(b), a.max(b)) };
    (FIRST.wrapping_add(a << 12), (b - a) << 12)
}

fn points() -> Vec<VirtAddr> {
    let ends = CUTS.windows(2).flat_map(|cuts| [cuts[0], cuts[1] - 1]);
    let mut points: Vec<_> = ends.map(|page| FIRST.wrapping_add(page << 12)).collect();
    points.dedup();
    points
}

impl Machine<'_> {
    fn take(&self, Step { cpu, space, op }: Step) {
        match op {
            Op::Switch(to) => self.switch(cpu, to),
            Op::Lazy => self.lazy(cpu),
            Op::Leave => self.leave(cpu),
            Op::Map(from, to, n) => self.map(cpu, space, range(from, to), attr(n)),
            Op::Unmap(from, to) => self.unmap(cpu, space, range(from, to)),
            Op::Protect(from, to, n) => self.protect(cpu, space, range(from, to), change(n)),
            Op::Access(at, n) => {
                let points = points();
                let need = [Attr::READ, Attr::WRITE, Attr::EXEC][n % 3];
                self.access(cpu, (points[at % points.len()], need));
            }
            Op::Interrupt => self.board.interrupt_all(),
        }
    }
}

/// Takes the steps on a machine with this fault, and ends all spaces.
///
/// # Panics
///
/// When something is missed.
fn run(steps: &[Step], fault: Fault, ceiling: Ceiling, seed: u64) {
    let arena = Arena::new(1 << 12);
    let board = Board::new(fault, seed);
    let machine = Machine::new(&arena, board, &points());
    machine.set_ceiling(ceiling);
    for step in steps {
        machine.take(*step);
        machine.check();
    }
    machine.end();
    assert_eq!(arena.frames_in_use(), 0);
}

fn steps() -> impl Strategy<Value = Step> {
    let cut = 0..CUTS.len();
    let op = prop_oneof![
        5 => (0..SPACES).prop_map(Op::Switch),
        2 => Just(Op::Lazy),
        1 => Just(Op::Leave),
        6 => (cut.clone(), cut.clone(), 0..4_usize).prop_map(|(a, b, n)| Op::Map(a, b, n)),
        4 => (cut.clone(), cut.clone()).prop_map(|(a, b)| Op::Unmap(a, b)),
        3 => (cut.clone(), cut, 0..4_usize).prop_map(|(a, b, n)| Op::Protect(a, b, n)),
        3 => (0..16_usize, 0..3_usize).prop_map(|(at, n)| Op::Access(at, n)),
        1 => Just(Op::Interrupt),
    ];
    (0..CPUS, 0..SPACES, op).prop_map(|(cpu, space, op)| Step { cpu, space, op })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_cpu_uses_what_a_table_does_not_say(
        steps in prop::collection::vec(steps(), 1..60),
        // Everything at once, what systems do, and everything one by one.
        ceiling in prop::sample::select(vec![0, 33, 1 << 20]),
        seed in any::<u64>(),
    ) {
        run(&steps, Fault::None, Ceiling::new(ceiling), seed);
    }
}

/// Whatever one fault would do harm to: each kind of change, beside CPUs that run the space, borrow
/// it, and have left it.
fn each_kind() -> Vec<Step> {
    let on = |cpu, space, op| Step { cpu, space, op };
    let mut steps = Vec::new();
    for n in 0..3 {
        steps.extend((0..CPUS).map(|cpu| on(cpu, 0, Op::Switch(0))));
        steps.push(on(0, 0, Op::Map(0, 0, n)));
        steps.extend([on(1, 0, Op::Access(0, 0)), on(2, 0, Op::Lazy)]);
        steps.extend([on(0, 0, Op::Protect(1, 3, 0)), on(0, 0, Op::Unmap(1, 2))]);
        steps.push(on(2, 0, Op::Switch(0)));
        // Away, and back after a change; by way of so many spaces that tags are used again.
        steps.extend((1..SPACES).map(|space| on(1, 0, Op::Switch(space))));
        steps.extend([on(2, 0, Op::Leave), on(0, 0, Op::Unmap(2, 4))]);
        steps.extend([on(1, 0, Op::Switch(0)), on(2, 0, Op::Switch(0)), on(2, 0, Op::Lazy)]);
        steps.extend([on(0, 0, Op::Unmap(0, 0)), on(0, 0, Op::Map(0, 4, n))]);
        steps.extend((1..SPACES).map(|space| on(1, space, Op::Map(0, 4, n))));
        steps.extend((1..SPACES).map(|space| on(1, 0, Op::Switch(space))));
        steps.push(on(0, 0, Op::Unmap(0, 0)));
        steps.extend((1..SPACES).map(|space| on(1, space, Op::Unmap(0, 0))));
    }
    steps
}

#[test]
fn a_shootdown_that_misses_something_is_noticed() {
    let missed = |fault| {
        // All one by one, as a flush of a whole space would make up for what is missed.
        let run = || run(&each_kind(), fault, Ceiling::new(1 << 20), 1);
        catch_unwind(AssertUnwindSafe(run)).is_err()
    };
    assert!(!missed(Fault::None));
    for fault in Fault::ALL {
        assert!(missed(fault), "{fault:?}");
    }
}
