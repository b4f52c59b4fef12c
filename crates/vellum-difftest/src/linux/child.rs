//! The process that runs one sequence, and records what comes of it.
//!
//! It runs between `fork` and its end, perhaps of a program with threads: nothing here takes a
//! lock or memory from a heap.
//!
//! ```text
//!   op:  syscall or probe --> outcome --> record --> look (pagemap, mincore, smaps) --> record
//! ```

mod file;
mod look;

use super::host::Host;
use super::memory::Records;
use super::probe::{self, Raised};
use super::record;
use crate::abi::PAGE;
use crate::op::{Access, LOCKED_PAGES, MARGIN, Op, Place, Resource, Sequence, Source};
use look::Eyes;

/// Where the arena lies: in the middle of it begins another 2 MiB, and so another lowest table.
const BASE: u64 = 0x10_0000_0000 - 32 * PAGE;

/// Seconds that a sequence may take.
const LIMIT_SECONDS: u32 = 20;

/// What a child does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) sequence: &'a Sequence,
    pub(super) records: Records,
    pub(super) host: &'a Host,
    pub(super) every: bool,
}

/// Descriptors of the file: for both, reading, writing.
const FILES: [i32; 3] = [200, 201, 202];

/// The statuses of a child that did not come to its end.
const NO_EYES: i32 = 91;
const NO_FILE: i32 = 93;
const NO_HEAP: i32 = 92;

/// Ends the process.
pub(super) fn leave(status: i32) -> ! {
    // SAFETY: nothing follows.
    unsafe { libc::_exit(status) }
}

/// Runs the sequence, and ends the process.
pub(super) fn run(plan: &Plan<'_>) -> ! {
    settle();
    probe::install();
    file::make(plan.records.scratch());
    let base = if plan.sequence.heap { heap() } else { BASE };
    let mut child = Child { plan: *plan, base, eyes: Eyes::open(plan, base), start: Sizes::read() };
    for (index, op) in plan.sequence.ops.iter().enumerate() {
        record::begin(plan.records, index);
        if let Some(why) = plan.host.lacks(op) {
            record::skipped(plan.records, why);
        } else if *op == Op::Fork {
            child.fork();
        } else {
            child.step(op);
        }
        if plan.every || index + 1 == plan.sequence.ops.len() {
            child.eyes.look();
        } else {
            record::no_state(plan.records);
        }
    }
    child.last();
    leave(0)
}

/// Makes this process one whose behaviour does not depend on where and when it runs.
pub(super) fn settle() {
    // SAFETY: system calls that change settings of this process, with valid places where they take
    // any; those that fail leave things as they were, and the host's differences show.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        libc::alarm(LIMIT_SECONDS);
        // Version 3, this process; no capability in any set.
        let header = [0x2008_0522_u32, 0];
        let none = [0_u32; 6];
        libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr());
        // Giving up capabilities closes /proc/self to us otherwise.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let locked = LOCKED_PAGES * PAGE;
        let limit = libc::rlimit { rlim_cur: locked, rlim_max: locked };
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit);
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        let cpu = libc::sched_getcpu();
        if let Ok(cpu) = usize::try_from(cpu) {
            let mut set: libc::cpu_set_t = core::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
        // With no protection key left, execute-only memory is as without keys: readable.
        while libc::syscall(libc::SYS_pkey_alloc, 0, 0) >= 0 {}
    }
}

/// Where the heap grows, with a page in front that it cannot merge with.
fn heap() -> u64 {
    // SAFETY: as long as `brk` only grows, nothing is lost; this process uses no heap of its own.
    // The page that loses its access is the one that was just added.
    unsafe {
        let end = libc::syscall(libc::SYS_brk, 0).cast_unsigned();
        let fence = end.next_multiple_of(PAGE);
        let base = fence + PAGE;
        if libc::syscall(libc::SYS_brk, base).cast_unsigned() != base
            || libc::syscall(libc::SYS_mprotect, fence, PAGE, 0) != 0
        {
            leave(NO_HEAP);
        }
        base
    }
}

/// What a process has, in bytes: where limits are counted from.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    all: u64,
    data: u64,
}

impl Sizes {
    fn read() -> Self {
        let mut text = [0_u8; 4096];
        // SAFETY: the path ends in a zero, and the buffer is as long as said; the descriptor is
        // closed once.
        let read = unsafe {
            let fd = libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            let read = libc::read(fd, text.as_mut_ptr().cast(), text.len());
            libc::close(fd);
            read
        };
        let text = text.get(..usize::try_from(read).unwrap_or(0)).unwrap_or(&[]);
        Self { all: kib(text, b"VmSize:") * 1024, data: kib(text, b"VmData:") * 1024 }
    }
}

/// The number behind a name that begins a line.
fn kib(text: &[u8], name: &[u8]) -> u64 {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(name));
    let digits = line.unwrap_or(&[]).iter().filter(|b| b.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// The process, and what it works with.
struct Child<'a> {
    plan: Plan<'a>,
    base: u64,
    eyes: Eyes<'a>,
    start: Sizes,
}

/// What a system call gave.
pub(super) fn call(returned: i64) -> Result<u64, u64> {
    if returned == -1 {
        // SAFETY: this thread's error number is always there.
        return Err(u64::from(unsafe { *libc::__errno_location() }.cast_unsigned()));
    }
    Ok(returned.cast_unsigned())
}

impl Child<'_> {
    fn at(&self, place: Place) -> u64 {
        place.address(self.base)
    }

    /// One operation, but for `fork` itself, with its record.
    fn step(&mut self, op: &Op) {
        let out = self.plan.records;
        match *op {
            Op::Map { len, .. } | Op::Remap { new_len: len, .. } => match self.system_call(op) {
                Ok(address) => self.placed(address, len),
                Err(errno) => record::fails(out, errno),
            },
            Op::Read { at } => {
                // SAFETY: the sequence was checked: the arena's neighbourhood, or no memory at all.
                match unsafe { probe::load(self.at(at)) } {
                    Ok(byte) => record::read_byte(out, byte),
                    Err(raised) => record::signal(out, raised, self.base),
                }
            }
            Op::Write { at, value } => {
                // SAFETY: as above.
                match unsafe { probe::store(self.at(at), value) } {
                    Ok(()) => record::done(out, 0),
                    Err(raised) => record::signal(out, raised, self.base),
                }
            }
            Op::Scan { at, len } => self.scan(self.at(at), len),
            Op::Fill { at, len, value } => self.fill(self.at(at), len, value),
            Op::InCore { at, len } => self.in_core(self.at(at), len),
            Op::FileRead { offset, len } => self.file_read(offset, len),
            Op::ForkProbe => self.fork_probe(),
            // It returns where the end is, not whether it could be moved.
            Op::Break { to } => {
                // SAFETY: the heap is the arena, which is where the end is moved.
                let end = unsafe { libc::syscall(libc::SYS_brk, self.base + to) }.cast_unsigned();
                record::at(out, end.wrapping_sub(self.base).cast_signed());
            }
            _ => match self.system_call(op) {
                Ok(number) => record::done(out, number),
                Err(errno) => record::fails(out, errno),
            },
        }
    }

    /// The system call of an operation that is one.
    fn system_call(&self, op: &Op) -> Result<u64, u64> {
        let at = |place| self.at(place);
        let file = FILES[0];
        // SAFETY: the sequence was checked (`Op::check`): these calls change the arena and its
        // neighbourhood, where nothing of Rust's is, or are refused for their arguments, or change
        // settings of this process, which runs nothing else.
        let returned = unsafe {
            match *op {
                Op::Map { at: place, len, prot, flags, from } => {
                    let (fd, offset) = Self::backing(from);
                    libc::syscall(libc::SYS_mmap, at(place), len, prot, flags, fd, offset)
                }
                Op::Unmap { at: place, len } => libc::syscall(libc::SYS_munmap, at(place), len),
                Op::Protect { at: place, len, prot } => {
                    libc::syscall(libc::SYS_mprotect, at(place), len, prot)
                }
                Op::Remap { at: place, old_len, new_len, flags, to } => {
                    libc::syscall(libc::SYS_mremap, at(place), old_len, new_len, flags, at(to))
                }
                Op::Advise { at: place, len, advice } => {
                    libc::syscall(libc::SYS_madvise, at(place), len, advice)
                }
                Op::Lock { at: place, len } => libc::syscall(libc::SYS_mlock, at(place), len),
                Op::Lock2 { at: place, len, flags } => {
                    libc::syscall(libc::SYS_mlock2, at(place), len, flags)
                }
                Op::Unlock { at: place, len } => libc::syscall(libc::SYS_munlock, at(place), len),
                Op::LockAll { flags } => libc::syscall(libc::SYS_mlockall, flags),
                Op::UnlockAll => libc::syscall(libc::SYS_munlockall),
                Op::Sync { at: place, len, flags } => {
                    libc::syscall(libc::SYS_msync, at(place), len, flags)
                }
                Op::Seal { at: place, len, flags } => {
                    libc::syscall(libc::SYS_mseal, at(place), len, flags)
                }
                Op::Truncate { len } => libc::syscall(libc::SYS_ftruncate, file, len),
                Op::FileWrite { offset, len, value } => self.file_write(offset, len, value),
                Op::Limit { what, pages } => self.limit(what, pages),
                // All others have their own way in `step`.
                _ => 0,
            }
        };
        call(returned)
    }

    const fn backing(from: Source) -> (i32, u64) {
        match from {
            Source::Nothing => (-1, 0),
            Source::Bad => (1 << 20, 0),
            Source::File(Access::ReadWrite, offset) => (FILES[0], offset),
            Source::File(Access::Read, offset) => (FILES[1], offset),
            Source::File(Access::Write, offset) => (FILES[2], offset),
        }
    }

    /// Records an address; what is far from the arena goes at once.
    fn placed(&self, address: u64, len: u64) {
        let offset = address.wrapping_sub(self.base).cast_signed();
        if offset.unsigned_abs() <= 2 * MARGIN {
            return record::at(self.plan.records, offset);
        }
        // SAFETY: the kernel has just put the mapping there, by itself: nothing else is there.
        unsafe { libc::syscall(libc::SYS_munmap, address, len) };
        record::elsewhere(self.plan.records);
    }

    fn scan(&self, at: u64, len: u64) {
        let out = self.plan.records;
        let end = at.saturating_add(len);
        let count = record::open_pages(out);
        let mut next = at;
        let mut pages = 0;
        let mut raised = None;
        while next < end {
            // SAFETY: the sequence was checked: the arena's neighbourhood, or no memory at all.
            match unsafe { probe::load(next) } {
                Ok(byte) => out.byte(byte),
                Err(signal) => {
                    raised = Some(signal);
                    break;
                }
            }
            pages += 1;
            next = (next | (PAGE - 1)).saturating_add(1);
        }
        record::close_pages(out, count, pages, raised, self.base);
    }

    fn fill(&self, at: u64, len: u64, value: u8) {
        let out = self.plan.records;
        let end = at.saturating_add(len);
        let mut next = at;
        while next < end {
            // SAFETY: as in `scan`.
            if let Err(raised) = unsafe { probe::store(next, value) } {
                return record::signal(out, raised, self.base);
            }
            next = (next | (PAGE - 1)).saturating_add(1);
        }
        record::done(out, 0);
    }

    fn in_core(&self, at: u64, len: u64) {
        let out = self.plan.records;
        let scratch = out.scratch();
        // SAFETY: the vector needs a byte a page, and a checked length is far shorter than the
        // scratch memory; an address beyond user memory is refused.
        match call(unsafe { libc::syscall(libc::SYS_mincore, at, len, scratch) }) {
            Err(errno) => record::fails(out, errno),
            Ok(_) => {
                let pages = len.div_ceil(PAGE);
                record::vector(out, pages);
                for page in 0..pages {
                    // SAFETY: the call wrote that many bytes there.
                    out.byte(unsafe { scratch.add(page as usize).read() } & 1);
                }
            }
        }
    }

    /// `pwrite` of one value, at most a scratch memory at a time.
    fn file_write(&self, offset: u64, len: u64, value: u8) -> i64 {
        let scratch = self.plan.records.scratch();
        let most = super::memory::SCRATCH_BYTES as u64;
        let mut written = 0;
        // SAFETY: the scratch memory is that long, and bytes may have any value.
        unsafe { scratch.write_bytes(value, most as usize) };
        while written < len {
            let bytes = most.min(len - written);
            let file = FILES[0];
            let at = offset + written;
            // SAFETY: the buffer is that long; the file is of this sequence alone.
            let some = unsafe { libc::syscall(libc::SYS_pwrite64, file, scratch, bytes, at) };
            match u64::try_from(some) {
                Ok(0) | Err(_) if written == 0 => return some,
                Ok(0) | Err(_) => break,
                Ok(some) => written += some,
            }
        }
        written.cast_signed()
    }

    /// `pread`, at most a scratch memory: the first byte of each page that came, and how many bytes.
    fn file_read(&self, offset: u64, len: u64) {
        let out = self.plan.records;
        let scratch = out.scratch();
        let bytes = len.min(super::memory::SCRATCH_BYTES as u64);
        let file = FILES[0];
        // SAFETY: the buffer is that long.
        match call(unsafe { libc::syscall(libc::SYS_pread64, file, scratch, bytes, offset) }) {
            Err(errno) => record::fails(out, errno),
            Ok(came) => {
                let count = record::open_pages(out);
                let pages = came.div_ceil(PAGE);
                for page in 0..pages {
                    // SAFETY: below `came`, which is at most the buffer's length.
                    out.byte(unsafe { scratch.add((page * PAGE) as usize).read() });
                }
                record::close_pages(out, count, pages, None, self.base);
            }
        }
    }

    fn limit(&self, what: Resource, pages: u64) -> i64 {
        let (which, from) = match what {
            Resource::AddressSpace => (libc::RLIMIT_AS, self.start.all),
            Resource::Data => (libc::RLIMIT_DATA, self.start.data),
            Resource::Locked => (libc::RLIMIT_MEMLOCK, 0),
            Resource::Stack => (libc::RLIMIT_STACK, 0),
        };
        let current = from + pages * PAGE;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls get a place for limits.
        unsafe {
            libc::getrlimit(which, &raw mut limit);
            limit.rlim_cur = current.min(limit.rlim_max);
            i64::from(libc::setrlimit(which, &raw const limit))
        }
    }

    /// Goes on in a child; this process waits for it, looks at itself, and ends.
    fn fork(&mut self) {
        // SAFETY: this process has one thread, and the child is as good as it.
        match call(i64::from(unsafe { libc::fork() })) {
            Err(errno) => record::fails(self.plan.records, errno),
            Ok(0) => {
                // SAFETY: settings of this process.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                    libc::alarm(LIMIT_SECONDS);
                }
                self.eyes.close();
                self.eyes = Eyes::open(&self.plan, self.base);
                record::done(self.plan.records, 0);
            }
            Ok(_) => {
                let status = wait();
                if status == 0 {
                    self.last();
                }
                leave(status);
            }
        }
    }

    /// A child that reads and writes every page, and ends.
    fn fork_probe(&self) {
        // SAFETY: as in `fork`.
        match call(i64::from(unsafe { libc::fork() })) {
            Err(errno) => record::fails(self.plan.records, errno),
            Ok(0) => {
                record::probed(self.plan.records);
                self.probe_all(|| {});
                leave(0);
            }
            Ok(_) => {
                let status = wait();
                if status != 0 {
                    leave(status);
                }
            }
        }
    }

    /// Reads every page of the arena, and then writes each.
    fn probe_all(&self, between: impl FnOnce()) {
        let out = self.plan.records;
        let pages = u64::from(self.plan.sequence.pages);
        for page in 0..pages {
            let at = self.base + page * PAGE;
            // SAFETY: an address in the arena, where nothing of Rust's is.
            match unsafe { probe::load(at) } {
                Ok(_) => record::content(out, content(at)),
                Err(raised) => record::content_signal(out, raised, self.base),
            }
        }
        between();
        for page in 0..pages {
            // SAFETY: as above.
            let stored = unsafe { probe::store(self.base + page * PAGE, 0xa5) };
            record::stored(out, stored.err(), self.base);
        }
    }

    /// The look at the end.
    fn last(&self) {
        record::last(self.plan.records);
        self.eyes.look();
        self.probe_all(|| self.eyes.look());
        self.eyes.look();
    }
}

/// A number made of the content of a page that can be read.
fn content(at: u64) -> u64 {
    crate::trace::content_of((0..crate::trace::WORDS).map(|word| {
        let from = core::ptr::with_exposed_provenance::<u64>((at + word * 8) as usize);
        // SAFETY: the page's first byte was just read, and this process has one thread: the whole
        // page is readable. The arena is memory of no Rust object, and aligned to pages.
        unsafe { from.read_volatile() }
    }))
}

/// Waits for this process's child: 0, or with what this process is to leave.
fn wait() -> i32 {
    let mut status = 0;
    // SAFETY: a place for a status. There is one child.
    while unsafe { libc::waitpid(-1, &raw mut status, 0) } < 0 {
        if call(-1) != Err(libc::EINTR as u64) {
            return NO_EYES;
        }
    }
    match status {
        0 => 0,
        _ if libc::WIFSIGNALED(status) => 100 + libc::WTERMSIG(status),
        _ => libc::WEXITSTATUS(status),
    }
}

/// The signal of an access, as a record has it.
pub(super) fn relative(raised: Raised, base: u64) -> [u64; 3] {
    let number = u64::from(raised.number.cast_unsigned());
    let code = i64::from(raised.code).cast_unsigned();
    [number, code, raised.address.wrapping_sub(base)]
}
