//! Doubly linked lists through one dense array: frames, then ghosts, then an end for each list.
//!
//! ```text
//!   index    0 .. frames       .. members      .. members + K
//!          +-----------------+---------------+----------------+
//!          | a node a frame  | a node a ghost| an end a list  |
//!          +-----------------+---------------+----------------+
//!
//!   list k:   end k <-> oldest <-> ... <-> newest <-> end k      (front)    (back)
//!
//!   word      31........16 15.........0
//!             flags        list + 1; 0: in none
//! ```
//!
//! A list is a ring through its end, so that linking and unlinking have no cases.
//!
//! # Invariants
//!
//! - A node's word names the list whose ring it is in, and `lens` counts that ring.
//! - Every index in a node is below the array's length. Accesses are checked all the same, and one that
//!   failed would have no effect.
//!
//! Source: Knuth, The Art of Computer Programming, vol. 1, 2.2.5.

use core::fmt;

/// 16 bytes of a policy's memory: place on a list, and what the policy notes beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Node {
    prev: u32,
    next: u32,
    word: u32,
    stamp: u32,
}

const LIST: u32 = 0xffff;

/// `K` lists over borrowed nodes.
pub(crate) struct Lists<'m, const K: usize> {
    nodes: &'m mut [Node],
    members: u32,
    lens: [u32; K],
}

impl<'m, const K: usize> Lists<'m, K> {
    /// The nodes for so many members.
    pub(crate) const fn cells(members: usize) -> usize {
        members + K
    }

    /// Empty lists over exactly as many nodes.
    pub(crate) fn new(nodes: &'m mut [Node]) -> Self {
        let members = nodes.len().saturating_sub(K) as u32;
        nodes.fill(Node::default());
        for (at, end) in (members..).zip(nodes.iter_mut().skip(members as usize)) {
            (end.prev, end.next) = (at, at);
        }
        Self { nodes, members, lens: [0; K] }
    }

    pub(crate) const fn members(&self) -> u32 {
        self.members
    }

    fn get(&self, at: u32) -> Node {
        self.nodes.get(at as usize).copied().unwrap_or_default()
    }

    fn set(&mut self, at: u32, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(at as usize) {
            change(node);
        }
    }

    const fn end(&self, list: u8) -> u32 {
        self.members + list as u32
    }

    pub(crate) fn len(&self, list: u8) -> u32 {
        self.lens.get(usize::from(list)).copied().unwrap_or(0)
    }

    fn count(&mut self, list: u8, by: i32) {
        if let Some(len) = self.lens.get_mut(usize::from(list)) {
            *len = len.wrapping_add_signed(by);
        }
    }

    /// The list that it is on. Of an end, and of what is no member: none.
    pub(crate) fn list(&self, at: u32) -> Option<u8> {
        (self.get(at).word & LIST).checked_sub(1).map(|list| list as u8)
    }

    pub(crate) fn is_on(&self, list: u8, at: u32) -> bool {
        self.get(at).word & LIST == u32::from(list) + 1
    }

    pub(crate) fn has(&self, at: u32, flags: u32) -> bool {
        self.get(at).word & flags != 0
    }

    pub(crate) fn flags(&self, at: u32) -> u32 {
        self.get(at).word & !LIST
    }

    /// Sets all flags of it, which are bits 16 and up.
    pub(crate) fn set_flags(&mut self, at: u32, flags: u32) {
        self.set(at, |node| node.word = (node.word & LIST) | (flags & !LIST));
    }

    /// Adds flags, if it is on a list.
    pub(crate) fn raise(&mut self, at: u32, flags: u32) {
        self.set(at, |node| {
            if node.word & LIST != 0 {
                node.word |= flags & !LIST;
            }
        });
    }

    pub(crate) fn lower(&mut self, at: u32, flags: u32) {
        self.set(at, |node| node.word &= !(flags & !LIST));
    }

    pub(crate) fn stamp(&self, at: u32) -> u32 {
        self.get(at).stamp
    }

    pub(crate) fn set_stamp(&mut self, at: u32, stamp: u32) {
        self.set(at, |node| node.stamp = stamp);
    }

    /// The oldest of a list.
    pub(crate) fn front(&self, list: u8) -> Option<u32> {
        self.member(self.get(self.end(list)).next)
    }

    /// The next newer one; `None` after the newest.
    pub(crate) fn newer(&self, at: u32) -> Option<u32> {
        self.member(self.get(at).next)
    }

    fn member(&self, at: u32) -> Option<u32> {
        (at < self.members).then_some(at)
    }

    /// Links it, which is on no list, as the newest.
    pub(crate) fn push_back(&mut self, list: u8, at: u32) {
        let end = self.end(list);
        let prev = self.get(end).prev;
        self.link(list, at, prev, end);
    }

    fn link(&mut self, list: u8, at: u32, prev: u32, next: u32) {
        self.set(prev, |node| node.next = at);
        self.set(next, |node| node.prev = at);
        self.set(at, |node| {
            (node.prev, node.next) = (prev, next);
            node.word = (node.word & !LIST) | (u32::from(list) + 1);
        });
        self.count(list, 1);
    }

    /// Takes it off its list, if it is on one; its flags go.
    pub(crate) fn unlink(&mut self, at: u32) {
        let Node { prev, next, .. } = self.get(at);
        let Some(list) = self.list(at) else {
            return;
        };
        self.set(prev, |node| node.next = next);
        self.set(next, |node| node.prev = prev);
        self.set(at, |node| node.word = 0);
        self.count(list, -1);
    }

    /// Makes it the newest of its own list, keeping its flags.
    pub(crate) fn move_to_back(&mut self, list: u8, at: u32) {
        let Node { prev, next, word, .. } = self.get(at);
        let end = self.end(list);
        if next == end || word & LIST == 0 {
            return;
        }
        self.set(prev, |node| node.next = next);
        self.set(next, |node| node.prev = prev);
        let last = self.get(end).prev;
        self.set(last, |node| node.next = at);
        self.set(end, |node| node.prev = at);
        self.set(at, |node| (node.prev, node.next) = (last, end));
    }

    /// Makes it the newest of any list, keeping its flags; no effect if it is on none.
    pub(crate) fn move_to_list(&mut self, list: u8, at: u32) {
        if self.is_on(list, at) {
            self.move_to_back(list, at);
        } else if self.list(at).is_some() {
            let flags = self.flags(at);
            self.unlink(at);
            self.push_back(list, at);
            self.set_flags(at, flags);
        }
    }

    /// Puts `new`, which is on no list, into the place of `old`, which is on none afterwards.
    pub(crate) fn replace(&mut self, old: u32, new: u32) {
        let (prev, Some(list)) = (self.get(old).prev, self.list(old)) else {
            return;
        };
        self.unlink(old);
        let next = self.get(prev).next;
        self.link(list, new, prev, next);
    }
}

impl<const K: usize> fmt::Debug for Lists<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lists").field("members", &self.members).field("lens", &self.lens).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn contents<const K: usize>(lists: &Lists<'_, K>, list: u8) -> Vec<u32> {
        core::iter::successors(lists.front(list), |&at| lists.newer(at)).collect()
    }

    #[test]
    fn members_leave_from_any_place_and_are_counted() {
        let mut nodes = [Node::default(); Lists::<2>::cells(5)];
        let mut lists = Lists::<2>::new(&mut nodes);
        for at in 0..5 {
            lists.push_back(u8::from(at == 3), at);
        }
        lists.unlink(1);
        lists.unlink(1);
        assert_eq!((contents(&lists, 0), contents(&lists, 1)), ([0, 2, 4].into(), [3].into()));
        lists.move_to_list(1, 0);
        lists.move_to_list(0, 2);
        lists.move_to_list(0, 1);
        assert_eq!((contents(&lists, 0), contents(&lists, 1)), ([4, 2].into(), [3, 0].into()));
        assert_eq!((lists.len(0), lists.len(1), lists.list(0)), (2, 2, Some(1)));
        assert_eq!((lists.newer(2), lists.list(1)), (None, None));
    }

    #[test]
    fn a_replacement_has_the_same_neighbours() {
        let mut nodes = [Node::default(); Lists::<1>::cells(4)];
        let mut lists = Lists::<1>::new(&mut nodes);
        (0..3).for_each(|at| lists.push_back(0, at));
        lists.replace(1, 3);
        assert_eq!((contents(&lists, 0), lists.len(0)), ([0, 3, 2].into(), 3));
        lists.replace(2, 1);
        assert_eq!((contents(&lists, 0), lists.newer(1)), ([0, 3, 1].into(), None));
    }

    #[test]
    fn flags_and_stamps_are_not_the_lists() {
        let mut nodes = [Node::default(); Lists::<1>::cells(2)];
        let mut lists = Lists::<1>::new(&mut nodes);
        lists.raise(0, 1 << 20);
        assert!(!lists.has(0, 1 << 20), "it is on no list");
        lists.push_back(0, 0);
        lists.raise(0, 1 << 20);
        lists.set_stamp(0, 7);
        assert!(lists.has(0, 1 << 20) && lists.is_on(0, 0));
        lists.push_back(0, 1);
        lists.move_to_back(0, 0);
        assert_eq!((lists.flags(0), lists.stamp(0)), (1 << 20, 7));
        lists.unlink(0);
        assert_eq!(lists.flags(0), 0);
        lists.raise(99, 1 << 20);
        lists.unlink(99);
        assert_eq!(contents(&lists, 0), [1]);
    }
}
