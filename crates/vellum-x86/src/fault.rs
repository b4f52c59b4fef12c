//! The error code that a page fault (#PF, vector 14) brings, and what it says.
//!
//! ```text
//!   63      32 31  30     16 15  14      8 7    6  5  4   3    2   1   0
//!  +----------+---+---------+---+---------+----+--+--+---+----+---+---+---+
//!  | 0        |RMP| 0       |SGX| 0       |HLAT|SS|PK|I/D|RSVD|U/S|W/R| P |
//!  +----------+---+---------+---+---------+----+--+--+---+----+---+---+---+
//!
//!   P = 0    no translation: nothing is mapped there          -> Cause::NotMapped
//!   P = 1    there is one, and the access was not granted     -> RSVD, PK, SS, SGX, RMP or rights
//! ```
//!
//! U/S is the mode of the access, not of the page: an access that the kernel makes in the user's
//! name has it clear, and so has one that the processor makes to a descriptor table.
//!
//! Sources: Intel SDM vol. 3A, 5.7 "Page-Fault Exceptions", figure 5-12; AMD APM vol. 2, 8.4.2 (RMP).

use core::fmt;

bitflags::bitflags! {
    /// A page fault's error code.
    ///
    /// ```
    /// use vellum_x86::{Access, Cause, ErrorCode};
    ///
    /// let code = ErrorCode::decode(0b111);
    /// assert_eq!((code.access(), code.cause()), (Access::Write, Cause::Rights));
    /// assert_eq!(code.to_string(), "user write without the right to (error code 0x7)");
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ErrorCode: u64 {
        /// P: a translation is there.
        const PRESENT = 1 << 0;
        /// W/R: it was a store.
        const WRITE = 1 << 1;
        /// U/S: it was an access of user mode.
        const USER = 1 << 2;
        /// RSVD: an entry has a bit that must be zero.
        const RESERVED = 1 << 3;
        /// I/D: it was an instruction fetch. Only where NX or SMEP is on.
        const FETCH = 1 << 4;
        /// PK: a protection key forbids it.
        const KEY = 1 << 5;
        /// SS: it was an access to a shadow stack.
        const SHADOW_STACK = 1 << 6;
        /// HLAT: the entry was met in a walk of the hypervisor's linear-address translation.
        const HLAT = 1 << 7;
        /// SGX: it violates what an enclave's pages demand.
        const SGX = 1 << 15;
        /// RMP: the reverse map of an encrypted guest's memory forbids it (AMD).
        const RMP = 1 << 31;
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// Why it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing is mapped there.
    NotMapped,
    /// An entry has a reserved bit: the table is broken.
    Reserved,
    /// A protection key forbids it.
    Key,
    /// A shadow stack is accessed otherwise than as one, or something else as one.
    ShadowStack,
    /// An enclave's rules forbid it.
    Enclave,
    /// The reverse map forbids it.
    ReverseMap,
    /// R/W, U/S, XD, SMEP or SMAP forbids it.
    Rights,
}

impl ErrorCode {
    /// The code as the processor pushed it, bits without a name included.
    #[must_use]
    pub const fn decode(pushed: u64) -> Self {
        Self::from_bits_retain(pushed)
    }

    /// What was tried.
    #[must_use]
    pub const fn access(self) -> Access {
        if self.contains(Self::FETCH) {
            Access::Fetch
        } else if self.contains(Self::WRITE) {
            Access::Write
        } else {
            Access::Read
        }
    }

    /// Why it was refused; of several bits, the one that says most.
    #[must_use]
    pub const fn cause(self) -> Cause {
        if self.contains(Self::RMP) {
            Cause::ReverseMap
        } else if self.contains(Self::RESERVED) {
            // Processors set P with it; QEMU 7.2 does not.
            Cause::Reserved
        } else if !self.contains(Self::PRESENT) {
            Cause::NotMapped
        } else if self.contains(Self::SGX) {
            Cause::Enclave
        } else if self.contains(Self::KEY) {
            Cause::Key
        } else if self.contains(Self::SHADOW_STACK) {
            Cause::ShadowStack
        } else {
            Cause::Rights
        }
    }

    /// Whether user mode made the access.
    #[must_use]
    pub const fn is_user(self) -> bool {
        self.contains(Self::USER)
    }

    /// Bits that have no name here.
    #[must_use]
    pub const fn unknown(self) -> u64 {
        self.bits() & !Self::all().bits()
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Fetch => "instruction fetch",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMapped => "where nothing is mapped",
            Self::Reserved => "through an entry with a reserved bit",
            Self::Key => "against a protection key",
            Self::ShadowStack => "against the rules of shadow stacks",
            Self::Enclave => "against the rules of an enclave",
            Self::ReverseMap => "against the reverse map",
            Self::Rights => "without the right to",
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.is_user() { "user" } else { "kernel" };
        let (access, cause) = (self.access(), self.cause());
        write!(f, "{mode} {access} {cause} (error code {:#x})", self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn codes_say_what_the_manual_says() {
        // Figure 5-12: what was tried, by whom, and why not.
        let table = [
            (0x0, false, Access::Read, Cause::NotMapped),
            (0x2, false, Access::Write, Cause::NotMapped),
            (0x4, true, Access::Read, Cause::NotMapped),
            (0x10, false, Access::Fetch, Cause::NotMapped),
            (0x1, false, Access::Read, Cause::Rights), // SMAP
            (0x3, false, Access::Write, Cause::Rights), // WP, or SMAP
            (0x7, true, Access::Write, Cause::Rights),
            (0x11, false, Access::Fetch, Cause::Rights), // NX, or SMEP
            (0x15, true, Access::Fetch, Cause::Rights),
            (0x9, false, Access::Read, Cause::Reserved),
            (0xa, false, Access::Write, Cause::Reserved), // as QEMU has it
            (0x25, true, Access::Read, Cause::Key),
            (0x47, true, Access::Write, Cause::ShadowStack),
            (0x8007, true, Access::Write, Cause::Enclave),
            (0x8000_0007, true, Access::Write, Cause::ReverseMap),
        ];
        for (pushed, user, access, cause) in table {
            let code = ErrorCode::decode(pushed);
            let found = (code.is_user(), code.access(), code.cause());
            assert_eq!(found, (user, access, cause), "{pushed:#x}");
            assert_eq!(code.unknown(), 0);
        }
    }

    #[test]
    fn a_shadow_stack_that_is_not_mapped_is_not_mapped() {
        assert_eq!(ErrorCode::decode(0x46).cause(), Cause::NotMapped);
    }

    #[test]
    fn unknown_bits_are_kept_and_shown() {
        let code = ErrorCode::decode(1 << 40 | 0x100 | 0x4);
        assert_eq!(code.unknown(), 1 << 40 | 0x100);
        let shown = "user read where nothing is mapped (error code 0x10000000104)";
        assert_eq!(code.to_string(), shown);
    }

    #[test]
    fn every_cause_and_access_reads_as_a_sentence() {
        let shown = |pushed| ErrorCode::decode(pushed).to_string();
        assert_eq!(shown(0x11), "kernel instruction fetch without the right to (error code 0x11)");
        assert_eq!(shown(0x9), "kernel read through an entry with a reserved bit (error code 0x9)");
        assert_eq!(shown(0x25), "user read against a protection key (error code 0x25)");
        let shadow = "user write against the rules of shadow stacks (error code 0x47)";
        assert_eq!(shown(0x47), shadow);
    }
}
