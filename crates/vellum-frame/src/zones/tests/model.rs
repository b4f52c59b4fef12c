//! Random requests against a model that counts for itself.

use super::{Frames, frames};
use crate::zones::{Class, Marks, NodeSet, Request, Urgency, Zone, ZoneError, Zones};
use proptest::prelude::*;
use proptest::sample::Index;
use std::vec::Vec;
use vellum_core::PhysAddr;

/// Class, node, first frame, frames, ratio.
type Plan = (Class, u8, u64, u64, u32);

const PLAN: [Plan; 5] = [
    (Class::Dma, 0, 0x100, 16, 8),
    (Class::Dma32, 0, 0x1000, 64, 4),
    (Class::Normal, 0, 0x2000, 96, 2),
    (Class::Normal, 1, 0x2080, 48, 2),
    (Class::Movable, 1, 0x3000, 32, 0),
];

const CLASSES: [Class; 4] = [Class::Dma, Class::Dma32, Class::Normal, Class::Movable];

fn request() -> impl Strategy<Value = Request> {
    let urgency = prop::sample::select(&[Urgency::Normal, Urgency::Atomic, Urgency::Emergency][..]);
    let nodes = prop_oneof![
        3 => Just(NodeSet::ALL),
        1 => (0u8..3).prop_map(NodeSet::only),
    ];
    let order = prop_oneof![4 => Just(0u8), 2 => 1u8..4, 1 => 4u8..8];
    (order, prop::sample::select(&CLASSES[..]), 0u8..2, nodes, urgency).prop_map(
        |(order, class, node, nodes, urgency)| {
            Request::new(order).class(class).near(node).within(nodes).urgency(urgency)
        },
    )
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(Request),
    Free(Index),
    Marks(usize, u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => request().prop_map(Op::Alloc),
        5 => any::<Index>().prop_map(Op::Free),
        1 => (0..PLAN.len(), 0u64..24, 0u64..12).prop_map(|(z, min, more)| Op::Marks(z, min, more)),
    ]
}

struct Model {
    sources: [Frames; 5],
    marks: [(u64, u64); 5],
    held: Vec<(PhysAddr, u8)>,
}

impl Model {
    /// The zones that a request allows, nearest node first, highest class first.
    fn order(&self, request: &Request) -> Vec<usize> {
        let mut zones: Vec<usize> = (0..5)
            .filter(|&z| PLAN[z].0 <= request.class && request.nodes.contains(PLAN[z].1))
            .collect();
        zones.sort_by_key(|&z| (PLAN[z].1 != request.node, core::cmp::Reverse(PLAN[z].0)));
        zones
    }

    /// The frames of zones above `zone`, on its node and within the class, by its ratio.
    fn kept(&self, zone: usize, class: Class) -> u64 {
        let (own, node, _, _, ratio) = PLAN[zone];
        let higher = PLAN.iter().filter(|p| p.1 == node && p.0 > own && p.0 <= class);
        let sum: u64 = higher.map(|p| p.3).sum();
        if ratio == 0 { 0 } else { sum / u64::from(ratio) }
    }

    fn free(&self, zone: usize) -> u64 {
        self.sources[zone].stats().free
    }

    fn floor(&self, zone: usize, request: &Request, low: bool) -> u64 {
        let (min, low_mark) = self.marks[zone];
        let kept = self.kept(zone, request.class);
        match request.urgency {
            _ if low => low_mark + kept,
            Urgency::Normal => min + kept,
            Urgency::Atomic => min / 2 + kept,
            Urgency::Emergency => 0,
        }
    }

    /// Where the block must come from.
    fn expected(&self, request: &Request) -> Result<usize, ZoneError> {
        let request = *request;
        let (zones, n) = (self.order(&request), 1u64 << request.order);
        for low in [true, false] {
            for &zone in &zones {
                let enough = self.free(zone) >= n + self.floor(zone, &request, low);
                if enough && self.sources[zone].stats().available(request.order) > 0 {
                    return Ok(zone);
                }
            }
        }
        let short = |&zone: &usize| self.free(zone) < n + self.floor(zone, &request, false);
        Err(if zones.is_empty() {
            ZoneError::NoZone { request }
        } else if zones.iter().any(|zone| self.free(*zone) >= n && short(zone)) {
            ZoneError::KeptBack { request }
        } else {
            ZoneError::NoBlock { request }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_request_is_served_from_the_zone_that_the_rules_say(
        ops in prop::collection::vec(op(), 1..if cfg!(miri) { 40 } else { 200 }),
    ) {
        let sources = PLAN.map(|(_, _, first, count, _)| frames(first, count));
        let mut index = 0..5;
        let zones = Zones::with_nodes(
            PLAN.map(|(class, node, _, _, ratio)| {
                let source = sources[index.next().expect("five")];
                Zone::new(source, class).on_node(node).keep_ratio(ratio)
            }),
            &[[10, 20], [20, 10]],
            (),
        );
        zones.recount();
        let mut model = Model { sources, marks: [(0, 0); 5], held: Vec::new() };
        for op in ops {
            match op {
                Op::Alloc(request) => {
                    let expected = model.expected(&request);
                    let got = zones.alloc(request);
                    let from = got.map(|pa| zones.zone_of(pa).expect("a zone"));
                    prop_assert_eq!(from, expected, "{:?}", request);
                    model.held.extend(got.map(|pa| (pa, request.order)));
                }
                Op::Free(at) if !model.held.is_empty() => {
                    let (pa, order) = model.held.swap_remove(at.index(model.held.len()));
                    // SAFETY: taken out of the list of what is held.
                    prop_assert_eq!(unsafe { zones.free(pa, order) }, Ok(()));
                }
                Op::Free(_) => {}
                Op::Marks(zone, min, more) => {
                    model.marks[zone] = (min, min + more);
                    zones.set_marks(zone, Marks::new(min, min + more, 0));
                }
            }
            for zone in 0..5 {
                prop_assert_eq!(zones.level(zone).expect("a zone").free, model.free(zone));
            }
        }
    }
}
