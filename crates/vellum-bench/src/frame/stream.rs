//! Requests of random orders, the same for every allocator.
//!
//! ```text
//!   32 bits   | slot, 24 | order, 4 | free? 1 |
//!
//!   used  90% ./\......../\......../.      up:   of 100 requests 60 (or all) allocate
//!         50% /..\....../..\....../..      down: as many free a random block
//!           0/ fill \__/|<---- measured ---->|
//! ```
//!
//! Two ways to be random: *uniform*, in which every order is as likely, so that a hundred frames make
//! a block and some thousand blocks fill 4 GiB; and *halving*, in which each order is half as likely
//! as the one below, so that all have an equal share of the memory, and a hundred times as many
//! blocks are live: more like a kernel, and more than fits into a cache.
//!
//! Which block a request frees is a slot's number, settled before any allocator is asked: a slot
//! whose allocation failed stays empty, and its free does nothing. The bookkeeping of who uses how
//! much assumes that no request fails.

use super::allocator::Frames;
use crate::random::Random;

/// One request; see the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(u32);

const ORDER_SHIFT: u32 = 1;
const SLOT_SHIFT: u32 = 5;

impl Request {
    /// Take a block of this order, for this slot.
    #[must_use]
    pub const fn alloc(slot: usize, order: u8) -> Self {
        Self((slot as u32) << SLOT_SHIFT | (order as u32) << ORDER_SHIFT)
    }

    /// Give back what this slot holds.
    #[must_use]
    pub const fn free(slot: usize, order: u8) -> Self {
        Self(Self::alloc(slot, order).0 | 1)
    }

    /// Whether it frees.
    #[must_use]
    pub const fn frees(self) -> bool {
        self.0 & 1 != 0
    }

    /// Of how many frames, as a power of two.
    #[must_use]
    pub const fn order(self) -> u8 {
        (self.0 >> ORDER_SHIFT & 0xf) as u8
    }

    /// Whose.
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 >> SLOT_SHIFT) as usize
    }
}

/// How likely each of the orders 0 to 9 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orders {
    /// All as likely.
    Uniform,
    /// Each half as likely as the one below it; 9 as likely as 8.
    Halving,
}

impl Orders {
    fn draw(self, random: &mut Random) -> u8 {
        match self {
            Self::Uniform => random.below(10) as u8,
            Self::Halving => random.bits().trailing_zeros().min(9) as u8,
        }
    }
}

/// What the random streams differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// How likely each order is.
    pub orders: Orders,
    /// Of 100 requests on the way up so many allocate, and on the way down so many free.
    pub bias: usize,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// A stream of requests, in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Takes memory to the occupancy at which measuring begins.
    pub fill: Vec<Request>,
    /// What is measured.
    pub churn: Vec<Request>,
    /// What is left to give back after both.
    pub rest: Vec<Request>,
    /// How many slots there are.
    pub slots: usize,
}

/// What is allocated while a stream is written, as it would be if nothing failed.
#[derive(Default)]
struct Live {
    /// Slot and order of each block.
    blocks: Vec<(usize, u8)>,
    empty: Vec<usize>,
    slots: usize,
    frames: u64,
}

impl Live {
    fn alloc(&mut self, order: u8) -> Request {
        let slot = self.empty.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.blocks.push((slot, order));
        self.frames += 1 << order;
        Request::alloc(slot, order)
    }

    fn free(&mut self, index: usize) -> Request {
        let (slot, order) = self.blocks.swap_remove(index);
        self.empty.push(slot);
        self.frames -= 1 << order;
        Request::free(slot, order)
    }

    fn stream(self, fill: Vec<Request>, churn: Vec<Request>) -> Stream {
        let rest = self.blocks.iter().map(|&(slot, order)| Request::free(slot, order)).collect();
        Stream { fill, churn, rest, slots: self.slots }
    }
}

/// Orders 0 to 9, between 50% and 90% of so many frames.
#[must_use]
pub fn between_half_and_nine_tenths(frames: u64, requests: usize, mix: Mix) -> Stream {
    let Mix { orders, bias, seed } = mix;
    let mut random = Random::new(seed);
    let mut live = Live::default();
    let (low, high) = (frames / 2, frames / 10 * 9);
    let mut fill = Vec::new();
    while live.frames < high {
        fill.push(live.alloc(orders.draw(&mut random)));
    }
    // Holes everywhere: an allocator just filled would have all that is free in one piece.
    while live.frames > low {
        fill.push(live.free(random.below(live.blocks.len())));
    }
    let mut up = true;
    let mut churn = Vec::with_capacity(requests);
    while churn.len() < requests {
        up = if up { live.frames < high } else { live.frames < low };
        churn.push(if random.percent(if up { bias } else { 100 - bias }) && live.frames < high {
            live.alloc(orders.draw(&mut random))
        } else {
            live.free(random.below(live.blocks.len()))
        });
    }
    live.stream(fill, churn)
}

/// Random orders to 90% of so many frames, random blocks freed down to 70%; then requests come in
/// pairs: a block of a small working set goes, and one of a random order comes in its place. So
/// the lists of the bench itself are equally small for any size of memory.
///
/// The churn ends with every slot at the order with which it began, so that it can be repeated.
#[must_use]
pub fn at_seven_tenths(frames: u64, requests: usize, seed: u64) -> Stream {
    const WORKING_SET: usize = 1024;
    let mut random = Random::new(seed);
    let mut live = Live::default();
    let mut fill = Vec::new();
    while live.frames < frames / 10 * 9 {
        fill.push(live.alloc(Orders::Uniform.draw(&mut random)));
    }
    while live.frames > frames / 10 * 7 {
        fill.push(live.free(random.below(live.blocks.len())));
    }
    random.shuffle(&mut live.blocks);
    let first = &live.blocks[..WORKING_SET.min(live.blocks.len())];
    let mut set = first.to_vec();
    let mut churn = Vec::with_capacity(requests + 2 * set.len());
    let mut replace = |block: &mut (usize, u8), order| {
        churn.push(Request::free(block.0, block.1));
        churn.push(Request::alloc(block.0, order));
        block.1 = order;
    };
    for _ in 0..requests / 2 {
        let at = random.below(set.len());
        replace(&mut set[at], Orders::Uniform.draw(&mut random));
    }
    for (block, first) in set.iter_mut().zip(first) {
        replace(block, first.1);
    }
    live.stream(fill, churn)
}

/// What an allocator has given for each slot.
#[derive(Clone, Debug)]
pub struct Slots<B>(Vec<Option<B>>);

impl<B: Copy + Send + 'static> Slots<B> {
    /// All empty.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(vec![None; count])
    }

    /// Does what the requests say; how many failed.
    ///
    /// # Safety
    ///
    /// Whatever the slots hold comes from this allocator, and a request that frees has the order
    /// with which its slot was filled last.
    pub unsafe fn replay(
        &mut self,
        requests: &[Request],
        frames: &mut impl Frames<Block = B>,
    ) -> usize {
        let mut failed = 0;
        for &request in requests {
            let (slot, order) = (request.slot(), request.order());
            if request.frees() {
                if let Some(block) = self.0[slot].take() {
                    // SAFETY: allocated with this order, by the caller's promise, and taken out.
                    unsafe { frames.free(block, order) };
                }
            } else {
                let block = frames.alloc(order);
                failed += usize::from(block.is_none());
                self.0[slot] = block;
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An allocator that has everything, and writes down what it is asked for.
    #[derive(Default)]
    struct Scribe {
        asked: Vec<(u8, Option<u64>)>,
        next: u64,
        used: u64,
        most: u64,
    }

    impl Frames for Scribe {
        type Block = u64;

        fn alloc(&mut self, order: u8) -> Option<u64> {
            self.asked.push((order, None));
            self.used += 1 << order;
            self.most = self.most.max(self.used);
            self.next += 1;
            Some(self.next)
        }

        unsafe fn free(&mut self, block: u64, order: u8) {
            self.asked.push((order, Some(block)));
            self.used -= 1 << order;
        }
    }

    const FRAMES: u64 = 1 << 16;

    fn mix(orders: Orders, seed: u64) -> Mix {
        Mix { orders, bias: 60, seed }
    }

    fn replay<F: Frames>(
        slots: &mut Slots<F::Block>,
        requests: &[Request],
        frames: &mut F,
    ) -> usize {
        // SAFETY: all requests of a test are of one stream, in its order.
        unsafe { slots.replay(requests, frames) }
    }

    #[test]
    fn a_request_keeps_its_parts() {
        for (slot, order) in [(0, 0), (1, 9), ((1 << 24) - 1, 10)] {
            let [alloc, free] = [Request::alloc(slot, order), Request::free(slot, order)];
            assert_eq!((alloc.slot(), alloc.order(), alloc.frees()), (slot, order, false));
            assert_eq!((free.slot(), free.order(), free.frees()), (slot, order, true));
        }
    }

    #[test]
    fn a_stream_depends_on_its_seed_alone() {
        let streams = [1, 1, 2]
            .map(|seed| between_half_and_nine_tenths(FRAMES, 5000, mix(Orders::Halving, seed)));
        assert_eq!(streams[0], streams[1]);
        assert_ne!(streams[0], streams[2]);
        let streams = [1, 1, 2].map(|seed| at_seven_tenths(FRAMES, 5000, seed));
        assert_eq!(streams[0], streams[1]);
        assert_ne!(streams[0], streams[2]);
    }

    #[test]
    fn every_allocator_is_asked_for_the_same() {
        let stream = between_half_and_nine_tenths(FRAMES, 5000, mix(Orders::Uniform, 7));
        let asked = [(); 2].map(|()| {
            let mut scribe = Scribe::default();
            let mut slots = Slots::new(stream.slots);
            replay(&mut slots, &stream.fill, &mut scribe);
            replay(&mut slots, &stream.churn, &mut scribe);
            scribe.asked
        });
        assert_eq!(asked[0], asked[1]);
        assert!(asked[0].len() >= 5000, "nothing is left out");
    }

    #[test]
    fn occupancy_stays_where_it_should_and_ends_at_nothing() {
        for orders in [Orders::Uniform, Orders::Halving] {
            let stream = between_half_and_nine_tenths(FRAMES, 60_000, mix(orders, 3));
            let (mut scribe, mut slots) = (Scribe::default(), Slots::new(stream.slots));
            replay(&mut slots, &stream.fill, &mut scribe);
            let (mut least, mut most) = (FRAMES, 0);
            for request in &stream.churn {
                replay(&mut slots, &[*request], &mut scribe);
                (least, most) = (least.min(scribe.used), most.max(scribe.used));
            }
            // It turns round a block or two beyond.
            let percent = [least, most].map(|frames| frames * 100 / FRAMES);
            assert!((45..=52).contains(&percent[0]), "{orders:?} {percent:?}");
            assert!((85..=92).contains(&percent[1]), "{orders:?} {percent:?}");
            replay(&mut slots, &stream.rest, &mut scribe);
            assert_eq!(scribe.used, 0);
        }
    }

    #[test]
    fn orders_are_as_likely_as_they_should_be() {
        let count = |orders: Orders| {
            let mut random = Random::new(9);
            let mut counts = [0; 10];
            (0..100_000).for_each(|_| counts[usize::from(orders.draw(&mut random))] += 1);
            counts
        };
        assert!(count(Orders::Uniform).iter().all(|n| (9500..10500).contains(n)));
        let halving = count(Orders::Halving);
        assert!((49_000..51_000).contains(&halving[0]));
        assert!((24_000..26_000).contains(&halving[1]));
        assert!((140..260).contains(&halving[9]), "{halving:?}");
    }

    #[test]
    fn the_working_set_keeps_memory_near_seven_tenths_and_can_be_repeated() {
        let stream = at_seven_tenths(1 << 20, 20_000, 3);
        let (mut scribe, mut slots) = (Scribe::default(), Slots::new(stream.slots));
        replay(&mut slots, &stream.fill, &mut scribe);
        let at = scribe.used;
        assert!((69..=70).contains(&((at * 100) >> 20)), "{at}");
        for _ in 0..3 {
            // Each free is of the order that its slot has: otherwise this would drift.
            replay(&mut slots, &stream.churn, &mut scribe);
            assert_eq!(scribe.used, at);
        }
        replay(&mut slots, &stream.rest, &mut scribe);
        assert_eq!(scribe.used, 0);
    }

    #[test]
    fn each_free_has_the_order_of_its_slot() {
        for stream in [
            between_half_and_nine_tenths(FRAMES, 20_000, mix(Orders::Halving, 1)),
            at_seven_tenths(FRAMES, 20_000, 1),
        ] {
            let mut orders = vec![None; stream.slots];
            let requests = stream.fill.iter().chain(&stream.churn).chain(&stream.rest);
            for request in requests {
                let now = &mut orders[request.slot()];
                let order = Some(request.order());
                assert_eq!(*now, order.filter(|_| request.frees()));
                *now = order.filter(|_| !request.frees());
            }
            assert!(orders.iter().all(Option::is_none));
        }
    }

    /// Has nothing to give.
    struct Empty;

    impl Frames for Empty {
        type Block = u64;

        fn alloc(&mut self, _: u8) -> Option<u64> {
            None
        }

        unsafe fn free(&mut self, _: u64, _: u8) {
            unreachable!("nothing was given");
        }
    }

    #[test]
    fn what_was_not_given_is_not_given_back() {
        let stream = between_half_and_nine_tenths(FRAMES, 5000, mix(Orders::Uniform, 7));
        let mut slots = Slots::new(stream.slots);
        let asked = stream.churn.iter().filter(|request| !request.frees()).count();
        assert_eq!(replay(&mut slots, &stream.churn, &mut Empty), asked);
        replay(&mut slots, &stream.rest, &mut Empty);
    }
}
