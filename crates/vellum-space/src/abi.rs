//! The numbers of Linux's system calls on x86-64, as programs pass them.
//!
//! Source: Linux, include/uapi/asm-generic/mman-common.h, mman.h, and include/uapi/linux/mman.h.

/// `PROT_*`.
pub mod prot {
    /// Loads.
    pub const READ: u64 = 1;
    /// Stores.
    pub const WRITE: u64 = 2;
    /// Fetches.
    pub const EXEC: u64 = 4;
    /// For atomics; means nothing here.
    pub const SEM: u64 = 8;
    /// From the start of a region that grows down.
    pub const GROWSDOWN: u64 = 0x0100_0000;
    /// To the end of a region that grows up; there is none.
    pub const GROWSUP: u64 = 0x0200_0000;
}

/// `MAP_*`.
pub mod map {
    /// Stores are seen by others.
    pub const SHARED: u64 = 1;
    /// Stores stay here.
    pub const PRIVATE: u64 = 2;
    /// As `SHARED`, and unknown flags are refused.
    pub const SHARED_VALIDATE: u64 = 3;
    /// May be dropped when memory is short.
    pub const DROPPABLE: u64 = 8;
    /// The four bits of the above.
    pub const TYPE: u64 = 15;
    /// At this address, whatever is there.
    pub const FIXED: u64 = 0x10;
    /// No file.
    pub const ANONYMOUS: u64 = 0x20;
    /// Below 2 GiB.
    pub const BIT32: u64 = 0x40;
    /// Above 4 GiB.
    pub const ABOVE4G: u64 = 0x80;
    /// A stack.
    pub const GROWSDOWN: u64 = 0x100;
    /// Ignored.
    pub const DENYWRITE: u64 = 0x800;
    /// Ignored.
    pub const EXECUTABLE: u64 = 0x1000;
    /// As if `mlock` followed.
    pub const LOCKED: u64 = 0x2000;
    /// Not counted as memory that must be there.
    pub const NORESERVE: u64 = 0x4000;
    /// Faulted in at once.
    pub const POPULATE: u64 = 0x8000;
    /// Undoes `POPULATE`.
    pub const NONBLOCK: u64 = 0x1_0000;
    /// Says that it is a stack; not more.
    pub const STACK: u64 = 0x2_0000;
    /// Of large pages.
    pub const HUGETLB: u64 = 0x4_0000;
    /// Where in the flags the logarithm of the size of `HUGETLB` stands; 0 is the usual size.
    pub const HUGE_SHIFT: u32 = 26;
    /// Its bits.
    pub const HUGE_MASK: u64 = 0x3f;
    /// For persistent memory.
    pub const SYNC: u64 = 0x8_0000;
    /// At this address, unless something is there.
    pub const FIXED_NOREPLACE: u64 = 0x10_0000;
    /// Zeros need not be made; ignored with an MMU.
    pub const UNINITIALIZED: u64 = 0x400_0000;
    /// The flags that `SHARED_VALIDATE` knows for any file.
    pub const LEGACY: u64 = SHARED
        | PRIVATE
        | FIXED
        | ANONYMOUS
        | DENYWRITE
        | EXECUTABLE
        | UNINITIALIZED
        | GROWSDOWN
        | LOCKED
        | NORESERVE
        | POPULATE
        | NONBLOCK
        | STACK
        | HUGETLB
        | BIT32
        | ABOVE4G
        | HUGE_MASK << HUGE_SHIFT;
}

/// `MREMAP_*`.
pub mod mremap {
    /// It may be at another address.
    pub const MAYMOVE: u64 = 1;
    /// At this one.
    pub const FIXED: u64 = 2;
    /// The old region stays, empty.
    pub const DONTUNMAP: u64 = 4;
}

/// `MS_*`.
pub mod msync {
    /// Later.
    pub const ASYNC: u64 = 1;
    /// Other mappings are to see it.
    pub const INVALIDATE: u64 = 2;
    /// Now.
    pub const SYNC: u64 = 4;
}

/// `MCL_*` and `MLOCK_*`.
pub mod mlock {
    /// All that there is.
    pub const CURRENT: u64 = 1;
    /// All that is to come.
    pub const FUTURE: u64 = 2;
    /// When it is touched.
    pub const MCL_ONFAULT: u64 = 4;
    /// The same, of `mlock2`.
    pub const ONFAULT: u64 = 1;
}

/// `MADV_*`.
pub mod madv {
    /// Nothing special.
    pub const NORMAL: u64 = 0;
    /// In no order.
    pub const RANDOM: u64 = 1;
    /// In order.
    pub const SEQUENTIAL: u64 = 2;
    /// Soon.
    pub const WILLNEED: u64 = 3;
    /// Not any more: the pages go.
    pub const DONTNEED: u64 = 4;
    /// The pages may go when memory is short.
    pub const FREE: u64 = 8;
    /// The file's pages go as well.
    pub const REMOVE: u64 = 9;
    /// A child does not get it.
    pub const DONTFORK: u64 = 10;
    /// A child gets it.
    pub const DOFORK: u64 = 11;
    /// Of interest to KSM.
    pub const MERGEABLE: u64 = 12;
    /// Not so.
    pub const UNMERGEABLE: u64 = 13;
    /// Large pages are welcome.
    pub const HUGEPAGE: u64 = 14;
    /// They are not.
    pub const NOHUGEPAGE: u64 = 15;
    /// Not in a core dump.
    pub const DONTDUMP: u64 = 16;
    /// In it again.
    pub const DODUMP: u64 = 17;
    /// A child gets zeros.
    pub const WIPEONFORK: u64 = 18;
    /// A child gets the contents.
    pub const KEEPONFORK: u64 = 19;
    /// Not used for a while.
    pub const COLD: u64 = 20;
    /// Out with it.
    pub const PAGEOUT: u64 = 21;
    /// Faulted in for reading.
    pub const POPULATE_READ: u64 = 22;
    /// Faulted in for writing.
    pub const POPULATE_WRITE: u64 = 23;
    /// As `DONTNEED`, locked pages too.
    pub const DONTNEED_LOCKED: u64 = 24;
    /// A frame is to be lost.
    pub const HWPOISON: u64 = 100;
    /// A page is to move to another frame.
    pub const SOFT_OFFLINE: u64 = 101;
    /// Made of large pages now.
    pub const COLLAPSE: u64 = 25;
    /// Guard pages.
    pub const GUARD_INSTALL: u64 = 102;
    /// No guard pages any more.
    pub const GUARD_REMOVE: u64 = 103;
}
