//! Which address-space identifiers of a table are taken: a bitmap of 4096 bits.
//!
//! A space and its identifier go together: whoever has claimed one is the only handle that changes
//! its entries. It comes back when the space is retired, after the flush, and not before: a TLB
//! that tags its entries would otherwise serve the next owner with the last one's pages.

use crate::Asid;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = Asid::COUNT as usize / 64;

/// Another space has this identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsidTaken(pub Asid);

impl fmt::Display for AsidTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address-space identifier {} is taken", self.0)
    }
}

impl core::error::Error for AsidTaken {}

/// The identifiers of one table.
pub struct Asids {
    words: [AtomicU64; WORDS],
}

impl Asids {
    /// All of them free.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// Takes `asid`.
    ///
    /// # Errors
    ///
    /// [`AsidTaken`].
    pub fn claim(&self, asid: Asid) -> Result<(), AsidTaken> {
        let (word, bit) = self.place(asid).ok_or(AsidTaken(asid))?;
        if word.fetch_or(bit, Ordering::Acquire) & bit == 0 { Ok(()) } else { Err(AsidTaken(asid)) }
    }

    /// Gives `asid` back, whose entries are gone.
    pub fn release(&self, asid: Asid) {
        if let Some((word, bit)) = self.place(asid) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    /// How many are taken.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    fn place(&self, asid: Asid) -> Option<(&AtomicU64, u64)> {
        let n = asid.as_u16();
        Some((self.words.get(usize::from(n / 64))?, 1 << (n % 64)))
    }
}

impl Default for Asids {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Asids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asids({} taken)", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_given_once() {
        let asids = Asids::new();
        for n in [0, 63, 64, 4095] {
            let asid = Asid::new(n).unwrap();
            assert_eq!(asids.claim(asid), Ok(()));
            assert_eq!(asids.claim(asid), Err(AsidTaken(asid)));
        }
        assert_eq!(asids.count(), 4);
        let asid = Asid::new(64).unwrap();
        asids.release(asid);
        assert_eq!(asids.claim(asid), Ok(()));
        assert_eq!(Asid::new(4096), None);
    }
}
