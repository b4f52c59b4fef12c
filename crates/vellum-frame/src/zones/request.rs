//! [`Request`]: how much, from where, and how badly.
//!
//! ```text
//!   class    Movable --> Normal --> Dma32 --> Dma       the zone asked for, and those that may stand in
//!   node     the nearest first;  `nodes`: those allowed at all
//!   urgency  Normal      down to min, and reclaims
//!            Atomic      down to min / 2, and never waits
//!            Emergency   down to nothing: it is asked in order to free more
//! ```

/// Which frames a zone has, by who can use them; a request for one class is also served from the
/// classes below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// What the oldest devices reach: below 16 MiB on a PC, 1 GiB on some boards.
    Dma,
    /// What devices with 32-bit addresses reach: below 4 GiB.
    Dma32,
    /// What the kernel can use for anything.
    Normal,
    /// Frames kept for what can be moved or dropped (programs' pages, the page cache), so that the
    /// zone can be emptied: for huge blocks, or to take memory out of the machine.
    Movable,
}

/// How many classes there are.
pub(super) const CLASSES: usize = 4;

/// How deep a request may reach into what zones keep back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Urgency {
    /// May call [`Reclaim::reclaim`](super::Reclaim::reclaim), and wait there. Stops at `min`.
    #[default]
    Normal,
    /// Cannot wait: an interrupt handler, or under a spin lock. Stops at half of `min`.
    Atomic,
    /// Frees memory, and needs a little to do so: what a reclaim callback asks with. Stops at
    /// nothing, and never reclaims.
    Emergency,
}

/// A set of NUMA nodes, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSet(u64);

impl NodeSet {
    /// Every node.
    pub const ALL: Self = Self(u64::MAX);

    /// This node alone; none if it is above 63.
    #[must_use]
    pub const fn only(node: u8) -> Self {
        Self(if node < 64 { 1 << node } else { 0 })
    }

    /// This node as well.
    #[must_use]
    pub const fn with(self, node: u8) -> Self {
        Self(self.0 | Self::only(node).0)
    }

    /// Whether it has this node.
    #[must_use]
    pub const fn contains(self, node: u8) -> bool {
        node < 64 && self.0 >> node & 1 != 0
    }
}

/// What is asked of [`Zones`](super::Zones).
///
/// ```
/// use vellum_frame::zones::{Class, NodeSet, Request, Urgency};
///
/// let ring = Request::new(2).class(Class::Dma32); // 16 KiB for a 32-bit device
/// let stack = Request::new(0).near(1); // on node 1, or as near to it as can be
/// let bound = stack.within(NodeSet::only(1)); // on node 1 or not at all
/// let packet = Request::new(0).urgency(Urgency::Atomic); // in an interrupt handler
/// # assert!(ring != stack && bound != packet);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub(super) order: u8,
    pub(super) class: Class,
    pub(super) node: u8,
    pub(super) nodes: NodeSet,
    pub(super) urgency: Urgency,
}

impl Request {
    /// A block of 2<sup>`order`</sup> frames for anything, near node 0, as usual.
    #[must_use]
    pub const fn new(order: u8) -> Self {
        Self { order, class: Class::Normal, node: 0, nodes: NodeSet::ALL, urgency: Urgency::Normal }
    }

    /// The same in another size.
    #[must_use]
    pub const fn order(mut self, order: u8) -> Self {
        self.order = order;
        self
    }

    /// From zones of this class, or of one below it.
    #[must_use]
    pub const fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// As near to `node` as can be; of zones that have no such node, as near to node 0.
    #[must_use]
    pub const fn near(mut self, node: u8) -> Self {
        self.node = node;
        self
    }

    /// From these nodes only.
    #[must_use]
    pub const fn within(mut self, nodes: NodeSet) -> Self {
        self.nodes = nodes;
        self
    }

    /// With this urgency.
    #[must_use]
    pub const fn urgency(mut self, urgency: Urgency) -> Self {
        self.urgency = urgency;
        self
    }

    /// How many frames, if that fits 64 bits.
    pub(super) const fn count(self) -> Option<u64> {
        1u64.checked_shl(self.order as u32)
    }
}
