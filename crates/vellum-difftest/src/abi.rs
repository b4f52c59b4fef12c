//! The numbers of Linux's interface on x86-64, and their names.
//!
//! ```text
//!   table of (name, bits)  --- text of an operation: "private|anon|fixed"
//!                          \-- the operation's argument: 0x32, plus bits that have no name
//! ```
//!
//! They are here and not taken from libc, since operations are written, read, generated and compared
//! on every host; only [`linux`](crate::linux) needs a Linux. A test there holds both to be equal.
//!
//! Source: the kernel's headers include/uapi/asm-generic/{mman-common,mman,errno,errno-base}.h,
//! include/uapi/linux/mman.h and arch/x86/include/uapi/asm/mman.h.

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The first address that no user mapping can have, with four levels of tables.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Names of bits, or of values.
pub type Names = &'static [(&'static str, u64)];

/// Protections: of `mmap` and `mprotect`.
pub const PROT: Names = &[
    ("r", 1),
    ("w", 2),
    ("x", 4),
    ("sem", 8),
    ("growsdown", 0x0100_0000),
    ("growsup", 0x0200_0000),
];

/// Flags of `mmap`. The lowest four bits are a type, not flags: `shared_validate` has both bits of
/// `shared` and of `private`.
pub const MAP: Names = &[
    ("droppable", 8),
    ("shared_validate", 3),
    ("shared", 1),
    ("private", 2),
    ("anon", 0x20),
    ("fixed", 0x10),
    ("32bit", 0x40),
    ("above4g", 0x80),
    ("growsdown", 0x100),
    ("denywrite", 0x800),
    ("executable", 0x1000),
    ("locked", 0x2000),
    ("noreserve", 0x4000),
    ("populate", 0x8000),
    ("nonblock", 0x1_0000),
    ("stack", 0x2_0000),
    ("hugetlb", 0x4_0000),
    ("sync", 0x8_0000),
    ("fixed_noreplace", 0x10_0000),
];

/// Flags of `mremap`.
pub const MREMAP: Names = &[("maymove", 1), ("fixed", 2), ("dontunmap", 4)];

/// Flags of `msync`.
pub const MSYNC: Names = &[("async", 1), ("invalidate", 2), ("sync", 4)];

/// Flags of `mlock2`.
pub const MLOCK: Names = &[("onfault", 1)];

/// Flags of `mlockall`.
pub const MLOCKALL: Names = &[("current", 1), ("future", 2), ("onfault", 4)];

/// Advice of `madvise`: values, of which one is given.
pub const ADVICE: Names = &[
    ("normal", 0),
    ("random", 1),
    ("sequential", 2),
    ("willneed", 3),
    ("dontneed", 4),
    ("free", 8),
    ("remove", 9),
    ("dontfork", 10),
    ("dofork", 11),
    ("mergeable", 12),
    ("unmergeable", 13),
    ("hugepage", 14),
    ("nohugepage", 15),
    ("dontdump", 16),
    ("dodump", 17),
    ("wipeonfork", 18),
    ("keeponfork", 19),
    ("cold", 20),
    ("pageout", 21),
    ("populate_read", 22),
    ("populate_write", 23),
    ("dontneed_locked", 24),
    ("collapse", 25),
    ("guard_install", 102),
    ("guard_remove", 103),
];

/// Error numbers that the mmap family returns.
pub const ERRNO: Names = &[
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EINTR", 4),
    ("EIO", 5),
    ("EBADF", 9),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EFAULT", 14),
    ("EBUSY", 16),
    ("EEXIST", 17),
    ("ENODEV", 19),
    ("EINVAL", 22),
    ("ETXTBSY", 26),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("ENOSYS", 38),
    ("EOVERFLOW", 75),
    ("EOPNOTSUPP", 95),
    ("EHWPOISON", 133),
];

/// Signals that an access can raise.
pub const SIGNAL: Names = &[("SIGBUS", 7), ("SIGSEGV", 11)];

/// The bit of `MAP` by which an address is meant, and what lies there gives way.
pub const MAP_FIXED: u64 = 0x10;
/// The bit of `MAP` by which an address is meant, if nothing lies there.
pub const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
/// The bit of `MAP` by which pages are meant that are set aside.
pub const MAP_HUGETLB: u64 = 0x4_0000;
/// The bit of `MAP` by which no memory is promised.
pub const MAP_NORESERVE: u64 = 0x4000;
/// The bit of `MAP` by which no file is meant.
pub const MAP_ANONYMOUS: u64 = 0x20;
/// The bit of `MREMAP` by which the new address is meant.
pub const MREMAP_FIXED: u64 = 2;

/// The value with this name.
#[must_use]
pub fn value(names: Names, name: &str) -> Option<u64> {
    names.iter().find(|(known, _)| *known == name).map(|&(_, value)| value)
}

/// The name of this value, whole.
#[must_use]
pub fn name(names: Names, value: u64) -> Option<&'static str> {
    names.iter().find(|&&(_, known)| known == value).map(|&(name, _)| name)
}
