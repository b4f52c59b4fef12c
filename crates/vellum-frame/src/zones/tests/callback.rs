//! Callbacks of every kind.

use super::{Frames, drain, frames};
use crate::zones::{Class, Marks, Reclaim, Request, Urgency, Zone, ZoneError, Zones};
use core::cell::{Cell, OnceCell, RefCell};
use std::vec::Vec;
use vellum_core::PhysAddr;

type Held<'a> = Zones<Frames, 2, 1, &'a Hook<'a>>;

/// What a callback does when it is called.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    /// Frees so many frames of those that are held for it.
    Free(usize),
    /// Says that it freed some, and did not.
    Lie,
    /// Asks the zones for a frame.
    Ask(Urgency),
}

struct Hook<'a> {
    zones: OnceCell<&'a Held<'a>>,
    held: RefCell<Vec<PhysAddr>>,
    act: Cell<Act>,
    depth: Cell<u32>,
    deepest: Cell<u32>,
    reclaims: RefCell<Vec<u32>>,
    wakes: RefCell<Vec<usize>>,
    got: Cell<u32>,
}

impl Hook<'_> {
    fn new(act: Act) -> Self {
        Self {
            zones: OnceCell::new(),
            held: RefCell::default(),
            act: Cell::new(act),
            depth: Cell::new(0),
            deepest: Cell::new(0),
            reclaims: RefCell::default(),
            wakes: RefCell::default(),
            got: Cell::new(0),
        }
    }

    fn act(&self) -> u64 {
        let zones = self.zones.get().expect("set before the first request");
        self.depth.set(self.depth.get() + 1);
        self.deepest.set(self.deepest.get().max(self.depth.get()));
        let freed = match self.act.get() {
            Act::Free(count) => {
                let mut held = self.held.borrow_mut();
                let keep = held.len().saturating_sub(count);
                let free: Vec<_> = held.drain(keep..).collect();
                for &pa in &free {
                    // SAFETY: held for this callback, and taken out of its list.
                    assert_eq!(unsafe { zones.free(pa, 0) }, Ok(()));
                }
                free.len() as u64
            }
            Act::Lie => 1,
            Act::Ask(urgency) => {
                let got = zones.alloc(Request::new(0).urgency(urgency)).is_ok();
                self.got.set(self.got.get() + u32::from(got));
                u64::from(got)
            }
        };
        self.depth.set(self.depth.get() - 1);
        freed
    }
}

impl Reclaim for Hook<'_> {
    const AT_ONCE: u32 = 3;

    fn wake(&self, zone: usize) {
        self.wakes.borrow_mut().push(zone);
        if matches!(self.act.get(), Act::Ask(_)) {
            self.act();
        }
    }

    fn reclaim(&self, _request: &Request, attempt: u32) -> u64 {
        self.reclaims.borrow_mut().push(attempt);
        self.act()
    }
}

/// Two zones of 32 frames that keep 4 and wake at 8; everything above 4 is held by the hook.
fn exhausted<'a>(hook: &'a Hook<'a>) -> Held<'a> {
    let zone = |first| Zone::new(frames(first, 32), Class::Normal);
    let zones = Zones::with_reclaim([zone(0), zone(64)], hook);
    zones.recount();
    // Nothing is low yet, so nobody is called.
    (0..2).for_each(|zone| zones.set_marks(zone, Marks::new(0, 0, 0)));
    for _ in 0..2 * (32 - 4) {
        let zone = usize::from(zones.level(0).unwrap().free == 4);
        (0..2).for_each(|z| zones.set_marks(z, Marks::new(if z == zone { 0 } else { 32 }, 0, 0)));
        hook.held.borrow_mut().push(zones.alloc(Request::new(0)).expect("above its mark"));
    }
    (0..2).for_each(|zone| zones.set_marks(zone, Marks::new(4, 8, 12)));
    assert!(hook.wakes.borrow().is_empty() && hook.reclaims.borrow().is_empty());
    zones
}

#[test]
fn a_callback_that_frees_one_frame_serves_one_request() {
    let hook = Hook::new(Act::Free(1));
    let zones = exhausted(&hook);
    assert!(hook.zones.set(&zones).is_ok());
    for _ in 0..5 {
        assert!(zones.alloc(Request::new(0)).is_ok());
    }
    assert_eq!(hook.reclaims.take(), [0; 5], "once for each");
    assert_eq!(hook.wakes.take(), [0, 1].repeat(5), "and both zones are woken each time");
    assert_eq!(hook.held.borrow().len(), 56 - 5);
}

#[test]
fn a_large_request_reclaims_until_a_block_has_come_together() {
    let hook = Hook::new(Act::Free(1));
    let zones = exhausted(&hook);
    assert!(hook.zones.set(&zones).is_ok());
    assert!(zones.alloc(Request::new(2)).is_ok());
    let attempts = hook.reclaims.take();
    assert!(attempts.len() >= 4 && attempts.iter().copied().eq(0..attempts.len() as u32));
}

#[test]
fn a_callback_that_frees_nothing_is_called_once() {
    let hook = Hook::new(Act::Free(0));
    let zones = exhausted(&hook);
    assert!(hook.zones.set(&zones).is_ok());
    let request = Request::new(0);
    assert_eq!(zones.alloc(request), Err(ZoneError::KeptBack { request }));
    assert_eq!(hook.reclaims.take(), [0]);
}

#[test]
fn a_callback_that_lies_is_called_sixteen_times() {
    let hook = Hook::new(Act::Lie);
    let zones = exhausted(&hook);
    assert!(hook.zones.set(&zones).is_ok());
    assert!(zones.alloc(Request::new(0)).is_err());
    assert!(hook.reclaims.take().into_iter().eq(0..16));
}

#[test]
fn who_cannot_wait_wakes_and_does_not_reclaim_and_an_emergency_does_neither() {
    let hook = Hook::new(Act::Free(9));
    let zones = exhausted(&hook);
    assert!(hook.zones.set(&zones).is_ok());
    let (taken, _) = drain(&zones, Request::new(0).urgency(Urgency::Atomic));
    assert_eq!(taken.len(), 2 * 2, "half of what is kept");
    assert_eq!(hook.wakes.take(), [0, 1].repeat(5));
    let (taken, _) = drain(&zones, Request::new(0).urgency(Urgency::Emergency));
    assert_eq!(taken.len(), 2 * 2, "and the rest");
    assert!(hook.wakes.take().is_empty() && hook.reclaims.take().is_empty());
}

#[test]
fn nobody_is_called_while_some_zone_is_above_low() {
    let hook = Hook::new(Act::Free(0));
    let zones = exhausted(&hook);
    assert!(hook.zones.set(&zones).is_ok());
    for pa in hook.held.borrow_mut().split_off(56 - 10) {
        // SAFETY: held by the hook, and taken out of its list.
        assert_eq!(unsafe { zones.free(pa, 0) }, Ok(()));
    }
    for _ in 0..6 {
        assert!(zones.alloc(Request::new(0)).is_ok(), "14 are free in one zone");
    }
    assert!(hook.wakes.take().is_empty());
    assert!(zones.alloc(Request::new(0)).is_ok());
    assert_eq!(hook.wakes.take(), [0]);
    assert_eq!((zones.shortage(0), zones.shortage(1)), (8, 5));
}

#[test]
fn callbacks_that_ask_are_bounded_and_emergencies_are_served() {
    for urgency in [Urgency::Normal, Urgency::Atomic, Urgency::Emergency] {
        let hook = Hook::new(Act::Ask(urgency));
        let zones = exhausted(&hook);
        assert!(hook.zones.set(&zones).is_ok());
        assert!(zones.alloc(Request::new(0)).is_err());
        let (most, got) = match urgency {
            // Three calls of each kind may be within each other.
            Urgency::Normal => (6, 0),
            Urgency::Atomic => (4, 4),
            Urgency::Emergency => (1, 8),
        };
        assert!(hook.deepest.get() <= most, "{urgency:?}: {} deep", hook.deepest.get());
        assert_eq!(hook.got.get(), got, "{urgency:?}");
        assert_eq!(zones.shared.reclaiming.load(core::sync::atomic::Ordering::Relaxed), 0);
    }
}
