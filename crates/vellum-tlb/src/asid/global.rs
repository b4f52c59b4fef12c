//! [`Global`]: tags that mean the same on all CPUs, handed out until none is left, and then anew.
//!
//! ```text
//!   a tag, 64 bits:   generation ........ | 16: ASID          0: none yet
//!
//!             active   reserved   owes a flush        rollover, under the lock:
//!   CPU 0      5.1        -            -                generation 5 -> 6; forget who has which
//!   CPU 1      5.2        -            -                each active -> 0, reserved = what it was
//!                                                       what is reserved is taken, all else free
//!   CPU 0       0        5.1          yes               every CPU owes a flush of everything
//!   CPU 1       0        5.2          yes
//! ```
//!
//! CPUs go on with what they run: its tag is reserved, and the space keeps its ASID when it meets
//! the new generation. Before a CPU loads *anything* else it finds its `active` zero, takes the lock,
//! and flushes. So the others' translations of the last generation are never used again.
//!
//! Tags are not given back when a space ends: its translations are still in the TLBs. The next
//! rollover takes care of both.
//!
//! # Invariants
//!
//! - Only the CPU itself stores a tag to its `active`; a rollover only takes it out.
//! - An ASID that a CPU runs on, or ran on at the last rollover, is given to no other space.
//! - Between two spaces' use of an ASID on one CPU lies a flush of everything on it.
//!
//! # Lock order
//!
//! One lock, taken with interrupts off, held for a search of the bitmap and, after a rollover, a look at
//! each CPU.
//!
//! # Ordering
//!
//! The fast path takes no lock: a space's tag of this generation, then a compare-and-swap of
//! `active` from a tag, not from zero. A rollover swaps each `active` for zero, *then* hands out tags of
//! the new generation. Who reads such a tag (acquire; it was stored with release) therefore finds
//! `active` zero, and goes the slow way, where the flush is. Who reads an old tag either swaps
//! first, and the rollover reserves what it swapped in; or finds zero as well.

use super::{Load, Recent, Turn};
use crate::sync::{AtomicU64, array, const_fn};
use core::fmt;
use core::hint::spin_loop;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use vellum_core::Asid;

const ASID_BITS: u32 = 16;

/// A space's tag: kept with the space, changed by [`Global::load`] alone.
#[derive(Debug)]
pub struct AsidTag(AtomicU64);

impl AsidTag {
    const_fn! {
        /// Of a space that was never loaded.
        #[must_use]
        pub fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// The identifier that the space has at the moment, if it ever had one.
    #[must_use]
    pub fn asid(&self) -> Option<Asid> {
        Some(self.0.load(Acquire)).filter(|&tag| tag != 0).and_then(asid_of)
    }
}

impl Default for AsidTag {
    fn default() -> Self {
        Self::new()
    }
}

/// The identifiers are too few to have one for each CPU and one more. [`Slots`](super::Slots) need
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// How many identifiers there would be, 0 left out.
    pub asids: usize,
    /// How many CPUs there may be.
    pub cpus: usize,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} address-space identifiers do not do for {} CPUs", self.asids, self.cpus)
    }
}

impl core::error::Error for TooFew {}

#[derive(Debug)]
struct Cpu {
    active: AtomicU64,
    reserved: AtomicU64,
    /// 1: it has to flush everything before it loads a space.
    owes: AtomicU64,
}

/// The identifiers of a machine with up to `CPUS` CPUs, in a bitmap of `WORDS` words: 1024 for 16
/// bits, 4 for 8.
#[derive(Debug)]
pub struct Global<const CPUS: usize, const WORDS: usize> {
    lock: AtomicU64,
    generation: AtomicU64,
    /// Where the next search begins.
    next: AtomicU64,
    /// The lowest number that is no identifier.
    end: u64,
    taken: [AtomicU64; WORDS],
    cpus: [Cpu; CPUS],
}

impl<const CPUS: usize, const WORDS: usize> Global<CPUS, WORDS> {
    const_fn! {
        /// Identifiers of `bits` bits (or as many as the bitmap has room for). 0 is nobody's.
        ///
        /// # Errors
        ///
        /// [`TooFew`] if there is not one for each CPU and one more.
        pub fn new(bits: u8) -> Result<Self, TooFew> {
            let bits = if bits > 16 { 16 } else { bits };
            let mut end = 1_usize << bits;
            if end > WORDS.saturating_mul(64) {
                end = WORDS.saturating_mul(64);
            }
            // 65535 is no identifier.
            if end > u16::MAX as usize {
                end = u16::MAX as usize;
            }
            let asids = end.saturating_sub(1);
            if asids <= CPUS {
                return Err(TooFew { asids, cpus: CPUS });
            }
            Ok(Self {
                lock: AtomicU64::new(0),
                generation: AtomicU64::new(1),
                next: AtomicU64::new(1),
                end: end as u64,
                taken: array![AtomicU64::new(0); WORDS],
                cpus: array![
                    Cpu {
                        active: AtomicU64::new(0),
                        reserved: AtomicU64::new(0),
                        owes: AtomicU64::new(1),
                    };
                    CPUS
                ],
            })
        }
    }

    /// The identifier of the space with `tag`, for CPU `cpu`, on which this is called with interrupts
    /// off; `recent` is that CPU's. Constant time; O(`WORDS`) for a space that has none of this
    /// generation, and O(`WORDS` + `CPUS`²) at a rollover.
    ///
    /// A `cpu` beyond `CPUS` gets the identifier 0, and has to flush everything.
    pub fn load<const K: usize>(
        &self,
        cpu: usize,
        tag: &AsidTag,
        recent: &mut Recent<K>,
        turn: Turn,
    ) -> Load {
        let Some(own) = self.cpus.get(cpu) else {
            return recent.load(Asid::ZERO, turn, true);
        };
        let (tag, owes) = match self.load_quickly(own, tag) {
            Some(tag) => (tag, false),
            None => self.load_slowly(own, tag),
        };
        match asid_of(tag) {
            Some(asid) => recent.load(asid, turn, owes),
            None => recent.load(Asid::ZERO, turn, true),
        }
    }

    /// How many identifiers there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end as usize - 1
    }

    /// Never: there is one for each CPU and one more.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    fn load_quickly(&self, own: &Cpu, tag: &AsidTag) -> Option<u64> {
        let tag = tag.0.load(Acquire);
        let active = own.active.load(Relaxed);
        let current = tag >> ASID_BITS == self.generation.load(Relaxed);
        (active != 0
            && current
            && own.active.compare_exchange(active, tag, AcqRel, Relaxed).is_ok())
        .then_some(tag)
    }

    /// The tag, and whether this CPU has to flush everything.
    #[cold]
    fn load_slowly(&self, own: &Cpu, tag: &AsidTag) -> (u64, bool) {
        self.locked(|| {
            let mut value = tag.0.load(Relaxed);
            if value >> ASID_BITS != self.generation.load(Relaxed) {
                value = self.renew(value);
                tag.0.store(value, Release);
            }
            let owes = own.owes.load(Relaxed) != 0;
            own.owes.store(0, Relaxed);
            own.active.store(value, Relaxed);
            (value, owes)
        })
    }

    /// A tag of this generation, or the next one, for a space that has `old`. Under the lock.
    fn renew(&self, old: u64) -> u64 {
        if old != 0 {
            let same = self.tag(old & 0xffff);
            // A CPU runs it: it keeps its identifier, which is taken already.
            if self.is_reserved(old, same) {
                return same;
            }
            if self.take(old & 0xffff) {
                return same;
            }
        }
        loop {
            if let Some(asid) = self.find() {
                return self.tag(asid);
            }
            // There are more identifiers than CPUs, hence one is free afterwards.
            self.roll_over();
        }
    }

    fn tag(&self, asid: u64) -> u64 {
        self.generation.load(Relaxed) << ASID_BITS | asid
    }

    /// Whether a CPU has `old` reserved; each that does has it as `new` from now on. All of them: a
    /// second rollover has to know it on every one.
    fn is_reserved(&self, old: u64, new: u64) -> bool {
        let mut found = false;
        for cpu in self.cpus.iter().filter(|cpu| cpu.reserved.load(Relaxed) == old) {
            cpu.reserved.store(new, Relaxed);
            found = true;
        }
        found
    }

    /// Takes an identifier, unless it is taken.
    fn take(&self, asid: u64) -> bool {
        let Some(word) = self.taken.get((asid / 64) as usize) else { return false };
        let (bits, bit) = (word.load(Relaxed), 1 << (asid % 64));
        word.store(bits | bit, Relaxed);
        bits & bit == 0
    }

    /// Takes the next one that is free.
    fn find(&self) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let asid = self.first_free(next, self.end).or_else(|| self.first_free(1, next))?;
        self.take(asid);
        self.next.store(asid + 1, Relaxed);
        Some(asid)
    }

    /// The first identifier in `first..end` that is free, a word at a time.
    fn first_free(&self, first: u64, end: u64) -> Option<u64> {
        let words = self.taken.iter().zip((0..end).step_by(64)).skip((first / 64) as usize);
        let mut free = words.filter_map(|(word, base)| {
            let below = (1 << first.saturating_sub(base).min(63)) - 1;
            let free = !word.load(Relaxed) & !below;
            (free != 0).then(|| base + u64::from(free.trailing_zeros()))
        });
        free.next().filter(|&asid| asid < end)
    }

    fn roll_over(&self) {
        self.generation.store(self.generation.load(Relaxed) + 1, Relaxed);
        self.taken.iter().for_each(|word| word.store(0, Relaxed));
        for cpu in &self.cpus {
            let active = cpu.active.swap(0, AcqRel);
            // Zero: it has loaded nothing since the last rollover, and runs on what it had then.
            let kept = if active == 0 { cpu.reserved.load(Relaxed) } else { active };
            cpu.reserved.store(kept, Relaxed);
            self.take(kept & 0xffff);
            cpu.owes.store(1, Relaxed);
        }
        self.next.store(1, Relaxed);
    }

    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        while self.lock.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            pause();
        }
        let result = f();
        self.lock.store(0, Release);
        result
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the ASID is the low 16 bits")]
fn asid_of(tag: u64) -> Option<Asid> {
    Asid::new(tag as u16)
}

fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    spin_loop();
}
