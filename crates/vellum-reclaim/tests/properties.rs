//! What holds of every policy, whatever is done to it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vellum_reclaim::host::{Mode, Stream, misses, opt};
use vellum_reclaim::policies::{Visit, visit_all};
use vellum_reclaim::{
    AccessedBits, Arrival, Fifo, FrameIx, Lru, MOST_FRAMES, Policy, Replacement, Seen, Shadow,
    SizeError, Victim,
};

/// One call.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A page comes, into a frame that is free, if there is one.
    Fault(u8),
    Touch(u8),
    Access(u8),
    Hold(u8, bool),
    Remove(u8),
    Insert(u8),
    Victim,
    Tick,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any::<u8>().prop_map(Op::Fault),
        3 => any::<u8>().prop_map(Op::Touch),
        3 => any::<u8>().prop_map(Op::Access),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(frame, held)| Op::Hold(frame, held)),
        1 => any::<u8>().prop_map(Op::Remove),
        1 => any::<u8>().prop_map(Op::Insert),
        3 => Just(Op::Victim),
        1 => Just(Op::Tick),
    ]
}

/// The machine's bits, and how often they were asked for.
#[derive(Default)]
struct Bits {
    accessed: BTreeSet<u32>,
    held: BTreeSet<u32>,
    asked: usize,
    /// Whatever is asked for was accessed, again and again.
    is_hostile: bool,
}

impl AccessedBits for Bits {
    fn take(&mut self, frame: FrameIx) -> Seen {
        self.asked += 1;
        Seen {
            is_accessed: self.accessed.remove(&frame.0) || self.is_hostile,
            is_dirty: matches!(frame.0 % 3, 0),
            is_held: self.held.contains(&frame.0),
        }
    }
}

/// Does the calls, and keeps beside the policy what it must have.
fn drive<P: Policy>(ops: &[Op], frames: u32, is_hostile: bool) {
    let name = P::NAME;
    let mut cells = vec![P::Cell::default(); P::cells(frames)];
    let mut policy = P::over(frames, &mut cells).unwrap();
    let mut bits = Bits { is_hostile, ..Bits::default() };
    let mut resident = BTreeSet::new();
    let mut pages: BTreeMap<u32, u8> = BTreeMap::new();
    let mut shadows: BTreeMap<u8, Shadow> = BTreeMap::new();
    for (at, &op) in ops.iter().enumerate() {
        let frame = |number: u8| FrameIx(u32::from(number) % (frames + 2));
        match op {
            Op::Fault(page) => {
                let shadow = shadows.remove(&page);
                let arrival = policy.arrive(shadow);
                let free = (0..frames).find(|frame| !resident.contains(frame));
                if let Some(free) = free {
                    policy.insert(FrameIx(free), arrival);
                    resident.insert(free);
                    pages.insert(free, page);
                }
            }
            Op::Touch(number) => policy.touch(frame(number)),
            Op::Access(number) => {
                bits.accessed.insert(frame(number).0);
            }
            Op::Hold(number, true) => {
                bits.held.insert(frame(number).0);
            }
            Op::Hold(number, false) => {
                bits.held.remove(&frame(number).0);
            }
            Op::Remove(number) => {
                policy.remove(frame(number));
                resident.remove(&frame(number).0);
            }
            Op::Insert(number) => {
                policy.insert(frame(number), Arrival::FRESH);
                if frame(number).0 < frames {
                    resident.insert(frame(number).0);
                }
            }
            Op::Victim => {
                bits.asked = 0;
                let victim = policy.victim(&mut bits);
                let most = 16 * frames as usize + 16;
                assert!(bits.asked <= most, "{name} at {at}: asked {} times", bits.asked);
                if let Some(Victim { frame, shadow }) = victim {
                    assert!(resident.remove(&frame.0), "{name} at {at}: {frame:?} was not there");
                    assert!(!bits.held.contains(&frame.0), "{name} at {at}: {frame:?} was held");
                    assert_eq!(Shadow::from_bits(shadow.to_bits()), shadow);
                    if let Some(page) = pages.remove(&frame.0) {
                        shadows.insert(page, shadow);
                    }
                } else {
                    let free = resident.difference(&bits.held).next();
                    assert_eq!(free, None, "{name} at {at}: it could have gone");
                }
            }
            Op::Tick => policy.tick(&mut bits),
        }
        assert_eq!(policy.len() as usize, resident.len(), "{name} at {at} after {op:?}");
        assert!(policy.ghosts() <= frames + 1, "{name} at {at}: {} ghosts", policy.ghosts());
        for frame in 0..frames + 2 {
            let has = policy.contains(FrameIx(frame));
            assert_eq!(has, resident.contains(&frame), "{name} at {at}: frame {frame}");
        }
    }
    bits.held.clear();
    while let Some(victim) = policy.victim(&mut bits) {
        assert!(resident.remove(&victim.frame.0));
    }
    assert_eq!((resident.len(), policy.is_empty()), (0, true), "{name} keeps frames back");
}

struct Drive<'a>(&'a [Op], u32, bool);

impl Visit for Drive<'_> {
    fn visit<P: Policy>(&mut self) {
        drive::<P>(self.0, self.1, self.2);
    }
}

struct Bounded<'a>(&'a Stream, u32, u64);

impl Visit for Bounded<'_> {
    fn visit<P: Policy>(&mut self) {
        for mode in Mode::ALL {
            let misses = misses::<P>(self.0, self.1, mode).unwrap();
            assert!(misses >= self.2, "{} in mode {}: {misses}", P::NAME, mode.name());
            assert!(misses <= self.0.pages().len() as u64);
            if self.0.distinct() <= self.1 {
                assert_eq!(misses, u64::from(self.0.distinct()), "{}", P::NAME);
            }
        }
    }
}

fn streams() -> impl Strategy<Value = Stream> {
    prop::collection::vec((0u32..40, 0u32..40), 1..500)
        .prop_map(|pairs| Stream::new(pairs.into_iter().map(|(a, b)| a * b / 30)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn victims_are_resident_and_not_held_and_every_frame_is_accounted_for(
        ops in prop::collection::vec(op(), 1..400),
        frames in 1u32..20,
        is_hostile in prop::bool::weighted(0.2),
    ) {
        visit_all(&mut Drive(&ops, frames, is_hostile));
    }

    #[test]
    fn nothing_has_fewer_misses_than_opt(stream in streams(), frames in 1u32..45) {
        visit_all(&mut Bounded(&stream, frames, opt::misses(&stream, frames)));
    }

    #[test]
    fn lru_and_opt_have_no_more_misses_with_more_frames(stream in streams(), frames in 1u32..45) {
        let lru = |frames| misses::<Lru>(&stream, frames, Mode::EveryReference).unwrap();
        prop_assert!(lru(frames + 1) <= lru(frames));
        prop_assert!(opt::misses(&stream, frames + 1) <= opt::misses(&stream, frames));
    }
}

#[test]
fn opt_bounds_all_on_a_long_stream() {
    let stream = Stream::synthetic(997, 40_000);
    for frames in [32, 128, 512] {
        visit_all(&mut Bounded(&stream, frames, opt::misses(&stream, frames)));
    }
}

#[test]
fn fifo_has_beladys_anomaly_on_the_textbooks_string() {
    // Belady, Nelson and Shedler, 1969: nine faults with three frames, ten with four.
    let stream = Stream::new([1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]);
    let fifo = |frames| misses::<Fifo>(&stream, frames, Mode::EveryReference).unwrap();
    assert_eq!((fifo(3), fifo(4)), (9, 10));
    let lru = |frames| misses::<Lru>(&stream, frames, Mode::EveryReference).unwrap();
    assert_eq!((lru(3), lru(4)), (10, 8));
}

struct Sizes;

impl Visit for Sizes {
    fn visit<P: Policy>(&mut self) {
        let needed = P::cells(10);
        for lent in [0, needed - 1, needed + 1] {
            let mut cells = vec![P::Cell::default(); lent];
            let refused = P::over(10, &mut cells).err();
            assert_eq!(refused, Some(SizeError::Cells { needed, lent }), "{}", P::NAME);
        }
        for frames in [0, MOST_FRAMES + 1] {
            let refused = P::over(frames, &mut []).err();
            assert_eq!(refused, Some(SizeError::Frames { frames }), "{}", P::NAME);
        }
        // What is lent may have been used before.
        let mut cells = vec![P::Cell::default(); needed];
        for _ in 0..2 {
            let mut policy = P::over(10, &mut cells).unwrap();
            assert!(policy.is_empty());
            (0..10).for_each(|frame| policy.insert(FrameIx(frame), Arrival::FRESH));
            assert_eq!(policy.len(), 10);
        }
    }
}

#[test]
fn sizes_are_exact() {
    visit_all(&mut Sizes);
    let shown = SizeError::Cells { needed: 3, lent: 2 }.to_string();
    assert_eq!(shown, "2 cells were lent; the policy needs exactly 3");
}

struct Names(Vec<&'static str>);

impl Visit for Names {
    fn visit<P: Policy>(&mut self) {
        assert!(!P::SUMMARY.is_empty());
        self.0.push(P::NAME);
    }
}

#[test]
fn names_are_unique() {
    let mut names = Names(Vec::new());
    visit_all(&mut names);
    assert_eq!(names.0.len(), 15);
    let unique: BTreeSet<_> = names.0.iter().collect();
    assert_eq!(unique.len(), names.0.len());
}
