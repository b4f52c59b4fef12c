//! Models with ghosts, each by its paper's pseudocode. Queues run from the oldest, at the front, to the
//! newest.

use super::Model;
use std::collections::{HashMap, HashSet, VecDeque};

type Queue = VecDeque<u32>;

/// Takes it out, if it is there.
fn pull(queue: &mut Queue, page: u32) -> bool {
    let at = queue.iter().position(|&it| it == page);
    at.map(|at| queue.remove(at)).is_some()
}

/// Johnson and Shasha, full version.
pub(crate) struct TwoQ {
    a1in: Queue,
    a1out: Queue,
    am: Queue,
    frames: usize,
}

impl TwoQ {
    pub(crate) fn new(frames: usize) -> Self {
        Self { a1in: Queue::new(), a1out: Queue::new(), am: Queue::new(), frames }
    }

    fn reclaim(&mut self) -> Option<u32> {
        let (kin, kout) = ((self.frames / 4).max(1), (self.frames / 2).max(1));
        if self.a1in.len() + self.am.len() < self.frames {
            return None;
        }
        if self.a1in.len() > kin || self.am.is_empty() {
            let gone = self.a1in.pop_front().unwrap();
            self.a1out.push_back(gone);
            if self.a1out.len() > kout {
                self.a1out.pop_front();
            }
            return Some(gone);
        }
        self.am.pop_front()
    }
}

impl Model for TwoQ {
    fn has(&self, page: u32) -> bool {
        self.a1in.contains(&page) || self.am.contains(&page)
    }

    fn hit(&mut self, page: u32) {
        if pull(&mut self.am, page) {
            self.am.push_back(page);
        }
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let was_out = pull(&mut self.a1out, page);
        let gone = self.reclaim();
        if was_out { &mut self.am } else { &mut self.a1in }.push_back(page);
        gone
    }
}

/// Yang and others, algorithm 1.
pub(crate) struct S3Fifo {
    small: VecDeque<(u32, u8)>,
    main: VecDeque<(u32, u8)>,
    ghosts: Queue,
    frames: usize,
}

impl S3Fifo {
    pub(crate) fn new(frames: usize) -> Self {
        Self { small: VecDeque::new(), main: VecDeque::new(), ghosts: Queue::new(), frames }
    }

    fn evict_main(&mut self) -> u32 {
        loop {
            let (page, uses) = self.main.pop_front().unwrap();
            if uses == 0 {
                return page;
            }
            self.main.push_back((page, uses - 1));
        }
    }

    fn evict_small(&mut self) -> Option<u32> {
        while let Some((page, uses)) = self.small.pop_front() {
            if uses < 2 {
                self.ghosts.push_back(page);
                if self.ghosts.len() > self.frames * 9 / 10 {
                    self.ghosts.pop_front();
                }
                return Some(page);
            }
            self.main.push_back((page, 0));
        }
        None
    }
}

impl Model for S3Fifo {
    fn has(&self, page: u32) -> bool {
        self.small.iter().chain(&self.main).any(|it| it.0 == page)
    }

    fn hit(&mut self, page: u32) {
        let mut all = self.small.iter_mut().chain(&mut self.main);
        let it = all.find(|it| it.0 == page).unwrap();
        it.1 = (it.1 + 1).min(3);
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let was_ghost = pull(&mut self.ghosts, page);
        let mut gone = None;
        if self.small.len() + self.main.len() == self.frames {
            let of_main = self.main.len() > self.frames - self.frames / 10;
            gone = if of_main { None } else { self.evict_small() };
            gone = gone.or_else(|| Some(self.evict_main()));
        }
        if was_ghost { &mut self.main } else { &mut self.small }.push_back((page, 0));
        gone
    }
}

/// Megiddo and Modha, figure 4, case by case.
pub(crate) struct Arc {
    t1: Queue,
    t2: Queue,
    b1: Queue,
    b2: Queue,
    p: usize,
    c: usize,
}

impl Arc {
    pub(crate) fn new(c: usize) -> Self {
        let [t1, t2, b1, b2] = [const { Queue::new() }; 4];
        Self { t1, t2, b1, b2, p: 0, c }
    }

    fn replace(&mut self, is_in_b2: bool) -> Option<u32> {
        let t1 = self.t1.len();
        if t1 >= 1 && ((is_in_b2 && t1 == self.p) || t1 > self.p) || self.t2.is_empty() {
            let gone = self.t1.pop_front()?;
            self.b1.push_back(gone);
            Some(gone)
        } else {
            let gone = self.t2.pop_front()?;
            self.b2.push_back(gone);
            Some(gone)
        }
    }

    fn case_4(&mut self) -> Option<u32> {
        let l1 = self.t1.len() + self.b1.len();
        let all = l1 + self.t2.len() + self.b2.len();
        if l1 == self.c {
            if self.t1.len() < self.c {
                self.b1.pop_front();
                return self.replace(false);
            }
            return self.t1.pop_front();
        }
        if all >= self.c {
            if all == 2 * self.c {
                self.b2.pop_front();
            }
            return self.replace(false);
        }
        None
    }
}

impl Model for Arc {
    fn has(&self, page: u32) -> bool {
        self.t1.contains(&page) || self.t2.contains(&page)
    }

    fn hit(&mut self, page: u32) {
        let _ = pull(&mut self.t1, page) || pull(&mut self.t2, page);
        self.t2.push_back(page);
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let (b1, b2) = (self.b1.len(), self.b2.len());
        if self.b1.contains(&page) {
            self.p = (self.p + if b1 >= b2 { 1 } else { b2 / b1 }).min(self.c);
            let gone = self.replace(false);
            pull(&mut self.b1, page);
            self.t2.push_back(page);
            gone
        } else if self.b2.contains(&page) {
            self.p = self.p.saturating_sub(if b2 >= b1 { 1 } else { b1 / b2 });
            let gone = self.replace(true);
            pull(&mut self.b2, page);
            self.t2.push_back(page);
            gone
        } else {
            let gone = self.case_4();
            self.t1.push_back(page);
            gone
        }
    }
}

/// Bansal and Modha, figure 2.
pub(crate) struct Car {
    t1: VecDeque<(u32, bool)>,
    t2: VecDeque<(u32, bool)>,
    b1: Queue,
    b2: Queue,
    p: usize,
    c: usize,
}

impl Car {
    pub(crate) fn new(c: usize) -> Self {
        let (t1, t2) = (VecDeque::new(), VecDeque::new());
        Self { t1, t2, b1: Queue::new(), b2: Queue::new(), p: 0, c }
    }

    fn replace(&mut self) -> u32 {
        loop {
            if self.t1.len() >= self.p.max(1) || self.t2.is_empty() {
                let (page, referenced) = self.t1.pop_front().unwrap();
                if !referenced {
                    self.b1.push_back(page);
                    return page;
                }
                self.t2.push_back((page, false));
            } else {
                let (page, referenced) = self.t2.pop_front().unwrap();
                if !referenced {
                    self.b2.push_back(page);
                    return page;
                }
                self.t2.push_back((page, false));
            }
        }
    }
}

impl Model for Car {
    fn has(&self, page: u32) -> bool {
        self.t1.iter().chain(&self.t2).any(|it| it.0 == page)
    }

    fn hit(&mut self, page: u32) {
        self.t1.iter_mut().chain(&mut self.t2).find(|it| it.0 == page).unwrap().1 = true;
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let (is_in_b1, is_in_b2) = (self.b1.contains(&page), self.b2.contains(&page));
        let mut gone = None;
        if self.t1.len() + self.t2.len() == self.c {
            gone = Some(self.replace());
            let (l1, l2) = (self.t1.len() + self.b1.len(), self.t2.len() + self.b2.len());
            if !is_in_b1 && !is_in_b2 && l1 == self.c {
                self.b1.pop_front();
            } else if !is_in_b1 && !is_in_b2 && l1 + l2 == 2 * self.c {
                self.b2.pop_front();
            }
        }
        let (b1, b2) = (self.b1.len(), self.b2.len());
        if is_in_b1 {
            self.p = (self.p + (b2 / b1).max(1)).min(self.c);
        } else if is_in_b2 {
            self.p = self.p.saturating_sub((b1 / b2).max(1));
        }
        if pull(&mut self.b1, page) || pull(&mut self.b2, page) {
            self.t2.push_back((page, false));
        } else {
            self.t1.push_back((page, false));
        }
        gone
    }
}

/// Jiang and Zhang, section 3.3; the stack's bottom is its first element. No more ghosts than frames.
pub(crate) struct Lirs {
    stack: Vec<u32>,
    lir: HashSet<u32>,
    queue: Queue,
    ghosts: Queue,
    frames: usize,
}

impl Lirs {
    pub(crate) fn new(frames: usize) -> Self {
        let (stack, lir) = (Vec::new(), HashSet::new());
        Self { stack, lir, queue: Queue::new(), ghosts: Queue::new(), frames }
    }

    fn raise_to_top(&mut self, page: u32) {
        self.stack.retain(|&it| it != page);
        self.stack.push(page);
    }

    fn prune(&mut self) {
        while self.stack.first().is_some_and(|page| !self.lir.contains(page)) {
            let page = self.stack.remove(0);
            pull(&mut self.ghosts, page);
        }
    }

    fn bottom_to_queue(&mut self) {
        let bottom = self.stack.remove(0);
        self.lir.remove(&bottom);
        self.queue.push_back(bottom);
        self.prune();
    }

    fn become_lir(&mut self, page: u32) {
        self.raise_to_top(page);
        self.lir.insert(page);
        if self.lir.len() > self.frames - (self.frames / 100).max(1) {
            self.bottom_to_queue();
        }
    }

    fn evict(&mut self) -> u32 {
        if self.queue.is_empty() {
            self.bottom_to_queue();
        }
        let gone = self.queue.pop_front().unwrap();
        if self.stack.contains(&gone) {
            if self.ghosts.len() == self.frames {
                let oldest = self.ghosts.pop_front().unwrap();
                self.stack.retain(|&it| it != oldest);
            }
            self.ghosts.push_back(gone);
        }
        gone
    }
}

impl Model for Lirs {
    fn has(&self, page: u32) -> bool {
        self.lir.contains(&page) || self.queue.contains(&page)
    }

    fn hit(&mut self, page: u32) {
        if self.lir.contains(&page) {
            self.raise_to_top(page);
        } else if self.stack.contains(&page) {
            pull(&mut self.queue, page);
            self.become_lir(page);
        } else {
            self.raise_to_top(page);
            pull(&mut self.queue, page);
            self.queue.push_back(page);
        }
        self.prune();
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let was_in_stack = pull(&mut self.ghosts, page);
        self.stack.retain(|&it| it != page);
        let full = self.lir.len() + self.queue.len() == self.frames;
        let gone = full.then(|| self.evict());
        if was_in_stack || self.lir.len() < self.frames - (self.frames / 100).max(1) {
            self.become_lir(page);
        } else {
            self.raise_to_top(page);
            self.queue.push_back(page);
        }
        self.prune();
        gone
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Hot,
    Cold,
    ColdInTest,
    Ghost,
}

/// Jiang, Chen and Zhang, section 4. The clock's order as a vector; hands are the pages that they are
/// on, and new pages come just before the hot one's.
pub(crate) struct ClockPro {
    clock: Vec<u32>,
    state: HashMap<u32, State>,
    referenced: HashSet<u32>,
    hand_hot: Option<u32>,
    hand_cold: Option<u32>,
    hand_test: Option<u32>,
    share: usize,
    frames: usize,
    has_evicted: bool,
}

impl ClockPro {
    pub(crate) fn new(frames: usize) -> Self {
        Self {
            clock: Vec::new(),
            state: HashMap::new(),
            referenced: HashSet::new(),
            hand_hot: None,
            hand_cold: None,
            hand_test: None,
            share: (frames / 100).max(1),
            frames,
            has_evicted: false,
        }
    }

    fn count(&self, wanted: &[State]) -> usize {
        self.state.values().filter(|state| wanted.contains(state)).count()
    }

    fn at(&self, page: u32) -> usize {
        self.clock.iter().position(|&it| it == page).unwrap()
    }

    /// The next page of one of these states, after one or, without it, from the hot hand on.
    fn next(&self, page: Option<u32>, wanted: &[State]) -> Option<u32> {
        let n = self.clock.len();
        let from = match page {
            Some(page) => self.at(page) + 1,
            None => self.hand_hot.map_or(0, |hot| self.at(hot)),
        };
        let around = (0..n).map(|step| self.clock[(from + step) % n]);
        around.into_iter().find(|page| wanted.contains(&self.state[page]))
    }

    /// Takes it off the clock; hands on it go on.
    fn take_off(&mut self, page: u32) {
        let all = [State::Hot, State::Cold, State::ColdInTest, State::Ghost];
        let resident_cold = [State::Cold, State::ColdInTest];
        let other = |next: Option<u32>| next.filter(|&next| next != page);
        if self.hand_hot == Some(page) {
            self.hand_hot = other(self.next(Some(page), &all));
        }
        if self.hand_test == Some(page) {
            self.hand_test = other(self.next(Some(page), &all));
        }
        if self.hand_cold == Some(page) {
            self.hand_cold = other(self.next(Some(page), &resident_cold));
        }
        self.clock.retain(|&it| it != page);
    }

    /// Puts it at the list head: just before the hot hand.
    fn put_at_head(&mut self, page: u32) {
        let at = self.hand_hot.map_or(self.clock.len(), |hot| self.at(hot));
        self.clock.insert(at, page);
        self.hand_hot.get_or_insert(page);
    }

    fn end_test(&mut self, page: u32) {
        match self.state[&page] {
            State::ColdInTest => {
                self.state.insert(page, State::Cold);
            }
            State::Ghost => {
                self.take_off(page);
                self.state.remove(&page);
            }
            _ => return,
        }
        self.share = (self.share - 1).max(1);
    }

    fn run_hot(&mut self) {
        while self.count(&[State::Hot]) > self.frames - self.share {
            let page = self.hand_hot.unwrap();
            let all = [State::Hot, State::Cold, State::ColdInTest, State::Ghost];
            self.hand_hot = self.next(Some(page), &all);
            if self.state[&page] != State::Hot {
                self.end_test(page);
            } else if !self.referenced.remove(&page) {
                self.state.insert(page, State::Cold);
            }
        }
    }

    fn run_test(&mut self) {
        while self.count(&[State::Ghost]) >= self.frames {
            let all = [State::Hot, State::Cold, State::ColdInTest, State::Ghost];
            let page = self.hand_test.or(self.hand_hot).unwrap();
            self.hand_test = self.next(Some(page), &all);
            if self.state[&page] != State::Hot {
                self.end_test(page);
            }
        }
    }

    fn run_cold(&mut self) -> u32 {
        let resident_cold = [State::Cold, State::ColdInTest];
        loop {
            let page = self.hand_cold.or_else(|| self.next(None, &resident_cold)).unwrap();
            self.hand_cold = self.next(Some(page), &resident_cold);
            if !self.referenced.remove(&page) {
                return page;
            }
            self.take_off(page);
            self.put_at_head(page);
            if self.state[&page] == State::ColdInTest {
                self.state.insert(page, State::Hot);
                if self.hand_cold == Some(page) {
                    self.hand_cold = None;
                }
                self.share = (self.share + 1).min(self.frames);
                self.run_hot();
            } else {
                self.state.insert(page, State::ColdInTest);
            }
        }
    }

    fn evict(&mut self) -> u32 {
        let gone = self.run_cold();
        self.has_evicted = true;
        if self.state[&gone] == State::ColdInTest {
            self.run_test();
        }
        if self.hand_cold == Some(gone) {
            self.hand_cold = None;
        }
        if self.state[&gone] == State::ColdInTest {
            self.state.insert(gone, State::Ghost);
        } else {
            self.take_off(gone);
            self.state.remove(&gone);
        }
        gone
    }
}

impl Model for ClockPro {
    fn has(&self, page: u32) -> bool {
        self.state.get(&page).is_some_and(|&state| state != State::Ghost)
    }

    fn hit(&mut self, page: u32) {
        self.referenced.insert(page);
    }

    fn miss(&mut self, page: u32) -> Option<u32> {
        let was_ghost = self.state.contains_key(&page);
        if was_ghost {
            self.take_off(page);
            self.state.remove(&page);
            self.share = (self.share + 1).min(self.frames);
        }
        let resident = [State::Hot, State::Cold, State::ColdInTest];
        let gone = (self.count(&resident) == self.frames).then(|| self.evict());
        let has_room = self.count(&[State::Hot]) < self.frames - self.share && !self.has_evicted;
        self.put_at_head(page);
        self.state.insert(page, if was_ghost || has_room { State::Hot } else { State::ColdInTest });
        if was_ghost {
            self.run_hot();
        }
        gone
    }
}
