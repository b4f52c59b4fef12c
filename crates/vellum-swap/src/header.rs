//! The first page of a swap area, as `mkswap` writes it and Linux reads it.
//!
//! ```text
//!      0 +-------------------------------------------+
//!        | boot block: nobody's here, left as it is  |
//!   1024 +---------+-----------+-------------+-------+------+--------------+
//!        | version | last page | bad pages n | UUID (16)    | label (16)   |
//!   1068 +---------+-----------+-------------+--------------+--------------+
//!        | 117 words of zeros                        |
//!   1536 +-------------------------------------------+
//!        | n numbers of bad pages, at most 637       |
//!        | ...                                       |
//!   4086 +-------------------------------------------+
//!        | "SWAPSPACE2"                              |
//!        +-------------------------------------------+
//! ```
//!
//! Words are in the order of the machine that made the area; the version, which is 1, tells it. Page 0 of an
//! area is the header, so slot 0 is never a page's.
//!
//! Source: Linux, include/linux/swap.h (`union swap_header`), mm/swapfile.c (`read_swap_header`); mkswap(8).

use core::fmt;
use core::mem::offset_of;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, little_endian::U32};

/// Bytes in a page of an area.
pub const PAGE: usize = 4096;

/// The most bad pages that a header has room for.
pub const MOST_BAD: usize = 637;

const SIGNATURE: [u8; 10] = *b"SWAPSPACE2";
/// What an area of Linux before 2.6 has there: bad pages are a bit map, and nobody writes it any more.
const OLD_SIGNATURE: [u8; 10] = *b"SWAP-SPACE";
/// What stands there while an image of a suspended machine is in the area.
const SUSPENDED: [u8; 9] = *b"S1SUSPEND";
const VERSION: u32 = 1;

/// The page as it lies there.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    boot: [u8; 1024],
    version: U32,
    last_page: U32,
    count_bad: U32,
    uuid: [u8; 16],
    label: [u8; 16],
    padding: [U32; 117],
    bad: [U32; MOST_BAD],
    /// Two bytes that no bad page fits into.
    rest: [u8; 2],
    signature: [u8; 10],
}

const _: () = assert!(size_of::<Raw>() == PAGE);
const _: () = assert!(offset_of!(Raw, version) == 1024);
const _: () = assert!(offset_of!(Raw, bad) == 1536);
const _: () = assert!(offset_of!(Raw, signature) == 4086);

/// What an area says of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    last_page: u32,
    uuid: [u8; 16],
    label: [u8; 16],
    bad: [u32; MOST_BAD],
    count_bad: usize,
}

/// Why a page is no header that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// There is no signature: this is no swap area (`mkswap` makes one).
    NoSignature,
    /// An area of the first format, which Linux has not used since 2.6.
    OldFormat,
    /// A suspended machine's memory is in it.
    Suspended,
    /// Neither byte order gives a version of 1.
    Version(u32),
    /// No page besides the header.
    Empty,
    /// It ends at `last_page`, but the device has only `pages` pages.
    BeyondDevice {
        /// The last page that the header names.
        last_page: u32,
        /// Pages of the device.
        pages: u64,
    },
    /// More bad pages than a header has room for.
    TooManyBad(u32),
    /// A bad page that is the header, or behind the last page.
    BadPage(u32),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSignature => f.write_str("no signature of a swap area; mkswap makes one"),
            Self::OldFormat => {
                f.write_str("a swap area of the first format; mkswap makes a new one")
            }
            Self::Suspended => {
                f.write_str("the memory of a suspended machine is in it: resume it, or run mkswap")
            }
            Self::Version(version) => write!(f, "version {version:#x} of the format, not 1"),
            Self::Empty => f.write_str("it has no page besides the header"),
            Self::BeyondDevice { last_page, pages } => {
                write!(f, "its last page is {last_page}, and the device has {pages} pages")
            }
            Self::TooManyBad(count) => {
                write!(f, "{count} bad pages, and a header has room for {MOST_BAD}")
            }
            Self::BadPage(page) => write!(f, "bad page {page} is not one of its pages"),
        }
    }
}

impl core::error::Error for HeaderError {}

impl Header {
    /// The header of an area of `pages` pages in all, itself among them. What lies between its end and the
    /// end of the device is not used.
    ///
    /// # Errors
    ///
    /// [`HeaderError::Empty`] below two pages, `TooManyBad` and `BadPage`.
    pub fn new(
        pages: u32,
        uuid: [u8; 16],
        label: [u8; 16],
        bad: &[u32],
    ) -> Result<Self, HeaderError> {
        let last_page = pages.checked_sub(1).filter(|&last| last > 0).ok_or(HeaderError::Empty)?;
        let mut header = Self { last_page, uuid, label, bad: [0; MOST_BAD], count_bad: bad.len() };
        let many = HeaderError::TooManyBad(u32::try_from(bad.len()).unwrap_or(u32::MAX));
        header.bad.get_mut(..bad.len()).ok_or(many)?.copy_from_slice(bad);
        header.check_bad()?;
        Ok(header)
    }

    /// Reads the first page of a device that has `pages` pages of 4 KiB.
    ///
    /// # Errors
    ///
    /// [`HeaderError`]. Whatever the bytes are, nothing else happens.
    pub fn read(page: &[u8; PAGE], pages: u64) -> Result<Self, HeaderError> {
        let raw = Raw::ref_from_bytes(page).map_err(|_| HeaderError::NoSignature)?;
        if raw.signature.starts_with(&SUSPENDED) {
            return Err(HeaderError::Suspended);
        }
        match raw.signature {
            SIGNATURE => {}
            OLD_SIGNATURE => return Err(HeaderError::OldFormat),
            _ => return Err(HeaderError::NoSignature),
        }
        let version = raw.version.get();
        let is_swapped = version == VERSION.swap_bytes();
        if version != VERSION && !is_swapped {
            return Err(HeaderError::Version(version));
        }
        let word = |word: U32| if is_swapped { word.get().swap_bytes() } else { word.get() };
        let last_page = word(raw.last_page);
        if last_page == 0 {
            return Err(HeaderError::Empty);
        }
        if u64::from(last_page) >= pages {
            return Err(HeaderError::BeyondDevice { last_page, pages });
        }
        let many = word(raw.count_bad);
        let count_bad = usize::try_from(many).ok().filter(|&count| count <= MOST_BAD);
        let count_bad = count_bad.ok_or(HeaderError::TooManyBad(many))?;
        let (uuid, label) = (raw.uuid, raw.label);
        let mut header = Self { last_page, uuid, label, bad: [0; MOST_BAD], count_bad };
        for (to, &from) in header.bad.iter_mut().zip(&raw.bad).take(count_bad) {
            *to = word(from);
        }
        header.check_bad()?;
        Ok(header)
    }

    /// Writes it into the first page, as a machine of little byte order has it; the boot block stays.
    pub fn write(&self, page: &mut [u8; PAGE]) {
        // Any 4 KiB are a `Raw`.
        let Ok(raw) = Raw::mut_from_bytes(page) else { return };
        let boot = raw.boot;
        raw.zero();
        raw.boot = boot;
        raw.version = VERSION.into();
        raw.last_page = self.last_page.into();
        raw.count_bad = u32::try_from(self.count_bad).unwrap_or(0).into();
        raw.uuid = self.uuid;
        raw.label = self.label;
        for (to, &from) in raw.bad.iter_mut().zip(self.bad()) {
            *to = from.into();
        }
        raw.signature = SIGNATURE;
    }

    fn check_bad(&self) -> Result<(), HeaderError> {
        let wrong = |&page: &u32| page == 0 || page > self.last_page;
        self.bad()
            .iter()
            .copied()
            .find(wrong)
            .map_or(Ok(()), |page| Err(HeaderError::BadPage(page)))
    }

    /// Number of the last page; page 0 is the header.
    #[must_use]
    pub const fn last_page(&self) -> u32 {
        self.last_page
    }

    /// Pages that cannot hold anything.
    #[must_use]
    pub fn bad(&self) -> &[u32] {
        self.bad.get(..self.count_bad).unwrap_or(&[])
    }

    /// The area's own number, of 128 bits.
    #[must_use]
    pub const fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Its name, up to the first zero.
    #[must_use]
    pub fn label(&self) -> &[u8] {
        let end = self.label.iter().position(|&byte| byte == 0).unwrap_or(self.label.len());
        self.label.get(..end).unwrap_or(&[])
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("last_page", &self.last_page)
            .field("bad", &self.bad())
            .field("label", &self.label().escape_ascii())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
