//! Models without ghosts.

use super::Model;
use std::collections::VecDeque;

/// The oldest goes.
pub(crate) struct Fifo {
    queue: VecDeque<u32>,
    frames: usize,
}

impl Fifo {
    pub(crate) fn new(frames: usize) -> Self {
        Self { queue: VecDeque::new(), frames }
    }
}

impl Model for Fifo {
    fn has(&self, page: u32) -> bool {
        self.queue.contains(&page)
    }

    fn hit(&mut self, _: u32) {}

    fn miss(&mut self, page: u32) -> Option<u32> {
        let gone = (self.queue.len() == self.frames).then(|| self.queue.pop_front().unwrap());
        self.queue.push_back(page);
        gone
    }
}

/// The page with the earliest last reference goes.
pub(crate) struct Lru {
    last: Vec<(u32, u64)>,
    now: u64,
    frames: usize,
}

impl Lru {
    pub(crate) fn new(frames: usize) -> Self {
        Self { last: Vec::new(), now: 0, frames }
    }
}

impl Model for Lru {
    fn has(&self, page: u32) -> bool {
        self.last.iter().any(|&(it, _)| it == page)
    }

    fn hit(&mut self, page: u32) {
        self.now += 1;
        self.last.iter_mut().find(|(it, _)| *it == page).unwrap().1 = self.now;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        self.now += 1;
        let mut gone = None;
        if self.last.len() == self.frames {
            let at = (0..self.frames).min_by_key(|&at| self.last[at].1).unwrap();
            gone = Some(self.last.swap_remove(at).0);
        }
        self.last.push((page, self.now));
        gone
    }
}

/// Frames in a circle, with a page and a bit each.
pub(crate) struct Clock {
    circle: Vec<(u32, bool)>,
    hand: usize,
    frames: usize,
}

impl Clock {
    pub(crate) fn new(frames: usize) -> Self {
        Self { circle: Vec::new(), hand: 0, frames }
    }
}

impl Model for Clock {
    fn has(&self, page: u32) -> bool {
        self.circle.iter().any(|&(it, _)| it == page)
    }

    fn hit(&mut self, page: u32) {
        self.circle.iter_mut().find(|(it, _)| *it == page).unwrap().1 = true;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        if self.circle.len() < self.frames {
            self.circle.push((page, false));
            return None;
        }
        while self.circle[self.hand].1 {
            self.circle[self.hand].1 = false;
            self.hand = (self.hand + 1) % self.frames;
        }
        let (gone, _) = core::mem::replace(&mut self.circle[self.hand], (page, false));
        self.hand = (self.hand + 1) % self.frames;
        Some(gone)
    }
}

/// The paper's figure: from the newest, at index 0, to the oldest; the hand moves to lower indices.
pub(crate) struct Sieve {
    queue: Vec<(u32, bool)>,
    hand: Option<u32>,
    frames: usize,
}

impl Sieve {
    pub(crate) fn new(frames: usize) -> Self {
        Self { queue: Vec::new(), hand: None, frames }
    }
}

impl Model for Sieve {
    fn has(&self, page: u32) -> bool {
        self.queue.iter().any(|&(it, _)| it == page)
    }

    fn hit(&mut self, page: u32) {
        self.queue.iter_mut().find(|(it, _)| *it == page).unwrap().1 = true;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let mut gone = None;
        if self.queue.len() == self.frames {
            let tail = self.frames - 1;
            let start =
                self.hand.map(|page| self.queue.iter().position(|it| it.0 == page).unwrap());
            let mut at = start.unwrap_or(tail);
            while self.queue[at].1 {
                self.queue[at].1 = false;
                at = at.checked_sub(1).unwrap_or(tail);
            }
            self.hand = at.checked_sub(1).map(|before| self.queue[before].0);
            gone = Some(self.queue.remove(at).0);
        }
        self.queue.insert(0, (page, false));
        gone
    }
}

/// Frames with a bit each, which ticks clear; no page is ever modified.
pub(crate) struct Nru {
    memory: Vec<(u32, bool)>,
    hand: usize,
    frames: usize,
}

impl Nru {
    pub(crate) fn new(frames: usize) -> Self {
        Self { memory: Vec::new(), hand: 0, frames }
    }
}

impl Model for Nru {
    fn has(&self, page: u32) -> bool {
        self.memory.iter().any(|&(it, _)| it == page)
    }

    fn hit(&mut self, page: u32) {
        self.memory.iter_mut().find(|(it, _)| *it == page).unwrap().1 = true;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        if self.memory.len() < self.frames {
            self.memory.push((page, true));
            return None;
        }
        let circle: Vec<usize> = (0..self.frames).map(|n| (self.hand + n) % self.frames).collect();
        let idle = circle.iter().copied().find(|&at| !self.memory[at].1);
        let at = idle.unwrap_or(circle[0]);
        self.hand = (at + 1) % self.frames;
        Some(core::mem::replace(&mut self.memory[at], (page, true)).0)
    }

    fn tick(&mut self) {
        self.memory.iter_mut().for_each(|it| it.1 = false);
    }
}

/// A page, its counter, and whether it was referenced in this tick, in the order in which counters
/// were set.
pub(crate) struct Aging {
    pages: Vec<(u32, u8, bool)>,
    frames: usize,
}

impl Aging {
    pub(crate) fn new(frames: usize) -> Self {
        Self { pages: Vec::new(), frames }
    }
}

impl Model for Aging {
    fn has(&self, page: u32) -> bool {
        self.pages.iter().any(|it| it.0 == page)
    }

    fn hit(&mut self, page: u32) {
        self.pages.iter_mut().find(|it| it.0 == page).unwrap().2 = true;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let mut gone = None;
        while self.pages.len() == self.frames {
            let at = (0..self.frames).min_by_key(|&at| self.pages[at].1).unwrap();
            let (page, counter, referenced) = self.pages.remove(at);
            if referenced {
                self.pages.push((page, counter / 2 + 128, false));
            } else {
                gone = Some(page);
            }
        }
        self.pages.push((page, 128, false));
        gone
    }

    fn tick(&mut self) {
        self.pages.sort_by_key(|it| it.1);
        for (_, counter, referenced) in &mut self.pages {
            *counter = *counter / 2 + if *referenced { 128 } else { 0 };
            *referenced = false;
        }
    }
}

/// Frames in a circle with times of last use, all pages clean.
pub(crate) struct WsClock {
    circle: Vec<(u32, u64, bool)>,
    hand: usize,
    now: u64,
    limit: u64,
    frames: usize,
}

impl WsClock {
    pub(crate) fn new(frames: usize) -> Self {
        Self { circle: Vec::new(), hand: 0, now: 0, limit: 2, frames }
    }

    /// One round: the first that is old enough, or the oldest.
    fn round(&mut self) -> Option<usize> {
        let mut oldest: Option<usize> = None;
        for _ in 0..self.frames {
            let at = self.hand;
            self.hand = (at + 1) % self.frames;
            if self.circle[at].2 {
                self.circle[at] = (self.circle[at].0, self.now, false);
                continue;
            }
            if self.now - self.circle[at].1 >= self.limit {
                return Some(at);
            }
            if oldest.is_none_or(|best| self.circle[at].1 < self.circle[best].1) {
                oldest = Some(at);
            }
        }
        self.limit = self.limit.min(self.now - self.circle[oldest?].1);
        oldest
    }
}

impl Model for WsClock {
    fn has(&self, page: u32) -> bool {
        self.circle.iter().any(|it| it.0 == page)
    }

    fn hit(&mut self, page: u32) {
        self.circle.iter_mut().find(|it| it.0 == page).unwrap().2 = true;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        if self.circle.len() < self.frames {
            self.circle.push((page, self.now, false));
            return None;
        }
        // If all were referenced in the first round, nobody is in the second.
        let at = self.round().or_else(|| self.round()).unwrap();
        Some(core::mem::replace(&mut self.circle[at], (page, self.now, false)).0)
    }

    fn tick(&mut self) {
        self.now += 1;
        self.limit = 2;
    }
}

/// Lists of pages by generation, the oldest first, and each page's label and bit.
pub(crate) struct Generational {
    lists: VecDeque<VecDeque<Page>>,
    oldest: u64,
    frames: usize,
}

#[derive(Clone)]
struct Page {
    page: u32,
    label: u64,
    referenced: bool,
}

impl Generational {
    pub(crate) fn new(frames: usize) -> Self {
        Self { lists: [VecDeque::new(), VecDeque::new()].into(), oldest: 0, frames }
    }

    fn pages(&mut self) -> impl Iterator<Item = &mut Page> {
        self.lists.iter_mut().flatten()
    }

    fn youngest(&self) -> u64 {
        self.oldest + self.lists.len() as u64 - 1
    }

    fn put(&mut self, page: u32, label: u64) {
        let at = (label - self.oldest) as usize;
        self.lists[at].push_back(Page { page, label, referenced: false });
    }
}

impl Model for Generational {
    fn has(&self, page: u32) -> bool {
        self.lists.iter().flatten().any(|it| it.page == page)
    }

    fn hit(&mut self, page: u32) {
        self.pages().find(|it| it.page == page).unwrap().referenced = true;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let mut gone = None;
        while self.lists.iter().map(VecDeque::len).sum::<usize>() == self.frames {
            if self.lists.len() == 2 {
                self.lists.push_back(VecDeque::new());
                let youngest = self.youngest();
                for it in self.pages().filter(|it| it.referenced) {
                    (it.label, it.referenced) = (youngest, false);
                }
            }
            let Some(it) = self.lists[0].pop_front() else {
                self.lists.pop_front();
                self.oldest += 1;
                continue;
            };
            if it.label != self.oldest {
                let at = (it.label - self.oldest) as usize;
                self.lists[at].push_back(it);
            } else if it.referenced {
                self.put(it.page, self.youngest());
            } else {
                gone = Some(it.page);
            }
        }
        self.put(page, self.youngest());
        gone
    }
}
