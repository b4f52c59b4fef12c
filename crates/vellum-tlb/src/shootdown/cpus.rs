//! Sets of CPUs: [`CpuSet`], a value, and [`CpuMask`], which CPUs change at the same time.
//!
//! ```text
//!   WORDS = 4      word 0        word 1         word 2         word 3
//!               CPU 0 .. 63   64 .. 127      128 .. 191     192 .. 255
//! ```
//!
//! A mask is read word by word, so it is no snapshot. It need not be one: each CPU's bit is looked at
//! by itself, and only that CPU changes it.

use crate::sync::{AtomicU64, array, const_fn};
use core::sync::atomic::Ordering;

/// Up to 64 × `WORDS` CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuSet<const WORDS: usize = 1> {
    words: [u64; WORDS],
}

impl<const WORDS: usize> CpuSet<WORDS> {
    /// No CPU.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// Adds a CPU. One beyond the set's size is left out.
    pub fn insert(&mut self, cpu: usize) {
        if let Some(word) = self.words.get_mut(cpu / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    /// Removes a CPU.
    pub fn remove(&mut self, cpu: usize) {
        if let Some(word) = self.words.get_mut(cpu / 64) {
            *word &= !(1 << (cpu % 64));
        }
    }

    /// Whether `cpu` is in it.
    #[must_use]
    pub fn contains(&self, cpu: usize) -> bool {
        self.words.get(cpu / 64).is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// Whether no CPU is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many CPUs are in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The CPUs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<WORDS> {
        self.words.into_iter().enumerate().flat_map(|(index, word)| {
            let rest = |&word: &u64| Some(word & (word - 1)).filter(|&rest| rest != 0);
            core::iter::successors(Some(word).filter(|&word| word != 0), rest)
                .map(move |word| index * 64 + word.trailing_zeros() as usize)
        })
    }

    /// The words, CPU 0 in bit 0 of the first: what interrupt controllers take.
    #[must_use]
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.words
    }
}

impl<const WORDS: usize> FromIterator<usize> for CpuSet<WORDS> {
    fn from_iter<T: IntoIterator<Item = usize>>(cpus: T) -> Self {
        let mut set = Self::EMPTY;
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

/// A set of CPUs in which each CPU enters and removes itself.
#[derive(Debug)]
pub(crate) struct CpuMask<const WORDS: usize> {
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> CpuMask<WORDS> {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { words: array![AtomicU64::new(0); WORDS] }
        }
    }

    pub(crate) fn insert(&self, cpu: usize, order: Ordering) {
        if let Some(word) = self.words.get(cpu / 64) {
            word.fetch_or(1 << (cpu % 64), order);
        }
    }

    pub(crate) fn remove(&self, cpu: usize, order: Ordering) {
        if let Some(word) = self.words.get(cpu / 64) {
            word.fetch_and(!(1 << (cpu % 64)), order);
        }
    }

    pub(crate) fn contains(&self, cpu: usize, order: Ordering) -> bool {
        self.words.get(cpu / 64).is_some_and(|word| word.load(order) >> (cpu % 64) & 1 == 1)
    }

    pub(crate) fn load(&self, order: Ordering) -> CpuSet<WORDS> {
        let mut set = CpuSet::EMPTY;
        for (to, from) in set.words.iter_mut().zip(&self.words) {
            *to = from.load(order);
        }
        set
    }
}
