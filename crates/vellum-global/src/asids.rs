//! Which address-space identifiers of a table are taken: a bitmap of 4096 bits.
//!
//! A space and its identifier go together: whoever has claimed one is the only handle that changes
//! its entries. It comes back when the space is retired, after the flush, and not before: a TLB
//! that tags its entries would otherwise serve the next owner with the last one's pages.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::Asid;

const WORDS: usize = Asids::COUNT as usize / 64;

/// Why a table has no space of an identifier to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsidError {
    /// Another space has it.
    Taken(Asid),
    /// It is not below [`Asids::COUNT`].
    TooLarge(Asid),
}

impl fmt::Display for AsidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(asid) => write!(f, "address-space identifier {asid} is taken"),
            Self::TooLarge(asid) => {
                write!(f, "address-space identifier {asid} is not below {}", Asids::COUNT)
            }
        }
    }
}

impl core::error::Error for AsidError {}

/// The identifiers of one table.
pub struct Asids {
    words: [AtomicU64; WORDS],
}

impl Asids {
    /// How many a table has: 12 bits' worth, as in x86-64's PCID.
    pub const COUNT: u16 = 1 << 12;

    /// All of them free.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// Takes `asid`.
    ///
    /// # Errors
    ///
    /// [`AsidError`].
    pub fn claim(&self, asid: Asid) -> Result<(), AsidError> {
        let (word, bit) = self.place(asid).ok_or(AsidError::TooLarge(asid))?;
        let free = word.fetch_or(bit, Ordering::Acquire) & bit == 0;
        if free { Ok(()) } else { Err(AsidError::Taken(asid)) }
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
            assert_eq!(asids.claim(asid), Err(AsidError::Taken(asid)));
        }
        assert_eq!(asids.count(), 4);
        let asid = Asid::new(64).unwrap();
        asids.release(asid);
        assert_eq!(asids.claim(asid), Ok(()));
        let beyond = Asid::new(Asids::COUNT).unwrap();
        assert_eq!(asids.claim(beyond), Err(AsidError::TooLarge(beyond)));
    }
}
