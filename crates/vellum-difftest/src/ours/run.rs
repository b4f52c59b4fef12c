//! Operations on an address space.

use super::{look, no_frames};
use crate::abi::PAGE;
use crate::op::{
    Access, FILE_BYTES, LOCKED_PAGES, MARGIN, Op, Place, Resource, Sequence, Source, WRITTEN_PAGES,
    file_byte,
};
use crate::subject::SubjectError;
use crate::trace::{Last, Outcome, Probe, Signal, State, Step, Trace, WORDS, content_of};
use vellum_cache::{FileId, page::State as PageFlags};
use vellum_core::{PageTable, VirtAddr};
use vellum_fault::host::designs::{Design, mmu};
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{Deny, Engine, FaultError, Mmu, Signal as Kind, System};
use vellum_space::abi::{map, mremap, prot};
use vellum_space::{AccessError, AddressSpace, Errno, FileMap, Layout, Limits, Rules, VmFlags};

/// Where the arena lies: as on Linux, over the border of a lowest table.
const BASE: u64 = 0x10_0000_0000 - 32 * PAGE;
/// Where the region lies that stands for the program: limits are counted from what it has.
const PROGRAM: u64 = 0x5555_0000_0000;
/// Its size. The limit of data is larger than any heap: the heap alone never meets it.
const PROGRAM_BYTES: u64 = 1 << 30;
/// How much one `pread` reads at most on Linux, there.
const MOST_READ: u64 = (64 << 10) - 8;

type Lock = spin::RwLock<()>;
pub(super) type Space<'e, 's, T> = AddressSpace<'e, HostSystem<'s, T>, Lock>;
type Result<T> = core::result::Result<T, SubjectError>;

/// Runs a sequence over a design.
pub(super) fn all<D: Design>(ram: &Ram, sequence: &Sequence) -> Result<Trace> {
    let shared = D::shared(ram).map_err(no_frames)?;
    let rules = Rules::new(1 << 30);
    let engine = Engine::new(HostSystem::new(ram), 0).map_err(no_frames)?;
    let mut numbers = 1..=u16::MAX;
    let mut new = || {
        let number = numbers.next().ok_or_else(|| SubjectError::Host("too many forks".into()))?;
        Ok(mmu(&engine, D::table(&shared, number).map_err(no_frames)?))
    };
    // The heap is the arena, or far from it.
    let heap = if sequence.heap { BASE } else { PROGRAM + 2 * PROGRAM_BYTES };
    let layout = Layout { heap, data: (heap, heap), ..Layout::default() };
    let limits = Limits { locked: LOCKED_PAGES * PAGE, ..Limits::default() };
    let space = AddressSpace::new(new()?, &rules, layout, limits);
    let flags = map::PRIVATE | map::ANONYMOUS | map::FIXED | map::NORESERVE;
    let program = space.mmap(PROGRAM, PROGRAM_BYTES, prot::READ | prot::WRITE, flags, None);
    if program != Ok(PROGRAM) {
        return Err(SubjectError::Host("the program's region".into()));
    }
    let file = make_file(&engine)?;
    let start = space.size_bytes();
    let locks = Locks { limit: LOCKED_PAGES * PAGE, lost: 0 };
    let mut run = Run { sequence, engine: &engine, file, spaces: vec![space], start, locks, new };
    run.all()
}

/// The file, with its first pages written.
fn make_file<T: PageTable>(engine: &Engine<HostSystem<'_, T>>) -> Result<FileId> {
    let file = engine.system().files().create_memory(FILE_BYTES);
    engine.system().files().set_name(file, "/memfd:vellum (deleted)");
    for index in 0..WRITTEN_PAGES {
        fill_file(engine, file, index, 0, &[file_byte(index * PAGE); PAGE as usize])?;
    }
    Ok(file)
}

/// Writes bytes to one page of the file.
fn fill_file<T: PageTable>(
    engine: &Engine<HostSystem<'_, T>>,
    file: FileId,
    index: u64,
    at: usize,
    bytes: &[u8],
) -> Result<()> {
    let files = engine.system().files();
    let (page, _) = engine
        .cache()
        .get(files, file, index)
        .map_err(|e| SubjectError::Host(format!("page {index} of the file: {e}")))?;
    page.with_bytes(|to| to.write(at, bytes));
    page.info().set(PageFlags::DIRTY);
    Ok(())
}

/// What may be locked. Linux counts for ever what `MREMAP_DONTUNMAP` leaves behind, and does not lock it any
/// more; ours does not, and has a lower limit here, so that all else can be compared (docs/posix.md).
#[derive(Clone, Copy)]
struct Locks {
    limit: u64,
    /// Bytes that Linux counts and that are not locked.
    lost: u64,
}

impl Locks {
    /// Never 0, which would allow nobody to lock anything.
    fn left(self) -> u64 {
        self.limit.saturating_sub(self.lost).max(u64::from(self.limit > 0))
    }
}

/// A sequence that runs.
struct Run<'a, 'e, 's, T: PageTable, N> {
    sequence: &'a Sequence,
    engine: &'e Engine<HostSystem<'s, T>>,
    file: FileId,
    /// Those that forked, and last the one that runs.
    spaces: Vec<Space<'e, 's, T>>,
    /// Bytes of regions when it began.
    start: u64,
    locks: Locks,
    /// Makes translations for a child.
    new: N,
}

impl<'e, 's, T, N> Run<'_, 'e, 's, T, N>
where
    T: PageTable,
    N: FnMut() -> Result<Mmu<'e, HostSystem<'s, T>>>,
{
    fn all(&mut self) -> Result<Trace> {
        let mut trace = Trace::default();
        for op in &self.sequence.ops {
            let outcome = self.step(op)?;
            trace.steps.push(Step { outcome, state: Some(self.look()?) });
        }
        trace.last = self.last()?;
        while self.spaces.len() > 1 {
            self.spaces.pop();
            trace.parents.push(self.last()?);
        }
        Ok(trace)
    }

    fn space(&self) -> Result<&Space<'e, 's, T>> {
        self.spaces.last().ok_or_else(|| SubjectError::Host("no space is left".into()))
    }

    fn look(&self) -> Result<State> {
        look::state(self.space()?, BASE, self.sequence)
    }

    fn last(&self) -> Result<Last> {
        let before = self.look()?;
        let space = self.space()?;
        let contents = probe_reads(space, self.sequence.pages)?;
        let between = self.look()?;
        let probes = probe_writes(space, contents)?;
        Ok(Last { before, probes, between, after: self.look()? })
    }

    fn step(&mut self, op: &Op) -> Result<Outcome> {
        let at = |place: Place| place.address(BASE);
        let space = self.space()?;
        Ok(match *op {
            Op::Map { at: place, len, prot, flags, from } => {
                let file = self.file_map(from);
                placed(space, space.mmap(at(place), len, prot, flags, file), len)
            }
            Op::Unmap { at: place, len } => done(space.munmap(at(place), len)),
            Op::Protect { at: place, len, prot } => done(space.mprotect(at(place), len, prot)),
            Op::Read { at: place } => match load(space, at(place))? {
                Ok(byte) => Outcome::Byte(byte),
                Err(signal) => Outcome::Signal(signal),
            },
            Op::Write { at: place, value } => stored(store(space, at(place), value)?),
            Op::Scan { at: place, len } => scan(space, at(place), len)?,
            Op::Fill { at: place, len, value } => {
                let mut pages = addresses(at(place), len);
                let failed = pages.find_map(|page| match store(space, page, value) {
                    Ok(Ok(())) => None,
                    other => Some(other),
                });
                stored(failed.unwrap_or(Ok(Ok(())))?)
            }
            Op::FileWrite { offset, len, value } => self.file_write(offset, len, value)?,
            Op::FileRead { offset, len } => self.file_read(offset, len),
            Op::Fork => match self.fork()? {
                Ok(child) => {
                    self.locks.lost = 0;
                    child.set_limits(Limits { locked: self.locks.left(), ..child.limits() });
                    self.spaces.push(child);
                    Outcome::Done(0)
                }
                Err(errno) => fails(errno),
            },
            Op::ForkProbe => match self.fork()? {
                Ok(child) => {
                    let contents = probe_reads(&child, self.sequence.pages)?;
                    Outcome::Probed(probe_writes(&child, contents)?)
                }
                Err(errno) => fails(errno),
            },
            Op::Break { to } => {
                let end = space.brk(BASE + to);
                Outcome::At(end.wrapping_sub(BASE).cast_signed())
            }
            Op::Limit { what, pages } => {
                let mut limits = space.limits();
                let bytes = pages * PAGE;
                match what {
                    Resource::AddressSpace => limits.address_space = self.start + bytes,
                    Resource::Data => limits.data = PROGRAM_BYTES + bytes,
                    // What was given up cannot be had back.
                    Resource::Locked => {
                        let limit = bytes.min(LOCKED_PAGES * PAGE);
                        limits.locked = Locks { limit, ..self.locks }.left();
                    }
                    Resource::Stack => limits.stack = bytes,
                }
                space.set_limits(limits);
                if what == Resource::Locked {
                    self.locks.limit = bytes.min(LOCKED_PAGES * PAGE);
                }
                Outcome::Done(0)
            }
            Op::Remap { at: place, old_len, new_len, flags, to } => {
                let was_locked = locked_in(space, at(place), old_len);
                let moved = space.mremap(at(place), old_len, new_len, flags, at(to));
                let lost =
                    if moved.is_ok() && flags & mremap::DONTUNMAP != 0 { was_locked } else { 0 };
                let outcome = placed(space, moved, new_len);
                self.locks.lost += lost;
                let space = self.space()?;
                space.set_limits(Limits { locked: self.locks.left(), ..space.limits() });
                outcome
            }
            Op::Advise { at: place, len, advice } => self.advise(at(place), len, advice)?,
            Op::Lock { at: place, len } => done(space.mlock(at(place), len)),
            Op::Lock2 { at: place, len, flags } => done(space.mlock2(at(place), len, flags)),
            Op::Unlock { at: place, len } => done(space.munlock(at(place), len)),
            Op::LockAll { flags } => done(space.mlockall(flags)),
            Op::UnlockAll => done(space.munlockall()),
            Op::Sync { at: place, len, flags } => done(space.msync(at(place), len, flags)),
            Op::InCore { at: place, len } => {
                let mut vector = vec![0; len.div_ceil(PAGE) as usize];
                match space.mincore(at(place), len, &mut vector) {
                    Ok(()) => Outcome::Vector(vector),
                    Err(errno) => fails(errno),
                }
            }
            Op::Seal { at: place, len, flags } => done(space.mseal(at(place), len, flags)),
            Op::Truncate { len } => self.truncate(len)?,
        })
    }

    fn file_map(&self, from: Source) -> Option<FileMap> {
        let Source::File(access, offset) = from else { return None };
        let (descriptor, readable, writable) = match access {
            Access::ReadWrite => (1, true, true),
            Access::Read => (2, true, false),
            Access::Write => (3, false, true),
        };
        Some(FileMap { file: self.file, descriptor, offset, readable, writable })
    }

    fn fork(&mut self) -> Result<core::result::Result<Space<'e, 's, T>, Errno>> {
        let mmu = (self.new)()?;
        Ok(self.space()?.fork(mmu))
    }

    /// `madvise`; a hole in the file is made in all spaces.
    fn advise(&self, at: u64, len: u64, advice: u64) -> Result<Outcome> {
        let outcome = done(self.space()?.madvise(at, len, advice));
        for (file, pages) in self.engine.system().files().take_punched() {
            for space in &self.spaces {
                space.punch_file(file, pages.clone()).map_err(refused)?;
            }
        }
        Ok(outcome)
    }

    /// `ftruncate`: the file, the page cache, all spaces.
    fn truncate(&self, len: u64) -> Result<Outcome> {
        let files = self.engine.system().files();
        let before = vellum_cache::Files::len_bytes(files, self.file);
        files.set_len(self.file, len);
        if len > before {
            // What was written behind the end is there now.
            return Ok(Outcome::Done(0));
        }
        self.engine.cache().truncate(files, self.file);
        for space in &self.spaces {
            space.truncate_file(self.file).map_err(refused)?;
        }
        Ok(Outcome::Done(0))
    }

    fn file_write(&self, offset: u64, len: u64, value: u8) -> Result<Outcome> {
        let files = self.engine.system().files();
        let end = offset + len;
        if len > 0 && end > vellum_cache::Files::len_bytes(files, self.file) {
            files.set_len(self.file, end);
        }
        let mut at = offset;
        while at < end {
            let within = at % PAGE;
            let some = (PAGE - within).min(end - at);
            let bytes = vec![value; some as usize];
            fill_file(self.engine, self.file, at / PAGE, within as usize, &bytes)?;
            at += some;
        }
        Ok(Outcome::Done(len))
    }

    /// What `pread` gives of a file in memory: of a hole it reads zeroes, and leaves it one.
    fn file_read(&self, offset: u64, len: u64) -> Outcome {
        let files = self.engine.system().files();
        let size = vellum_cache::Files::len_bytes(files, self.file);
        let came = len.min(MOST_READ).min(size.saturating_sub(offset));
        let first = |at: u64| {
            let page = self.engine.cache().ready(self.file, at / PAGE);
            let mut byte = [0];
            if let Some(page) = page {
                page.with_bytes(|from| from.read((at % PAGE) as usize, &mut byte));
            }
            byte[0]
        };
        let pages = 0..came.div_ceil(PAGE);
        Outcome::Pages(pages.map(|page| first(offset + page * PAGE)).collect(), None)
    }
}

/// Bytes of the locked regions that have a part in `[va, va + len)`.
fn locked_in<T: PageTable>(space: &Space<'_, '_, T>, va: u64, len: u64) -> u64 {
    let end = va.saturating_add(len);
    let mut locked = 0;
    space.each_region(|range, vma| {
        let start = range.start().as_u64();
        let bytes = range.count_pages() * PAGE;
        if vma.flags.contains(VmFlags::LOCKED) && start < end && va < start + bytes {
            locked += bytes;
        }
        start < end
    });
    locked
}

/// What a kernel does for a file cannot fail here.
fn refused(errno: Errno) -> SubjectError {
    SubjectError::Host(errno.to_string())
}

fn fails(errno: Errno) -> Outcome {
    Outcome::Fails(u64::from(errno.number().cast_unsigned()))
}

fn done(result: core::result::Result<(), Errno>) -> Outcome {
    result.map_or_else(fails, |()| Outcome::Done(0))
}

/// An address that a call gave; what is far from the arena goes at once.
fn placed<T: PageTable>(
    space: &Space<'_, '_, T>,
    result: core::result::Result<u64, Errno>,
    len: u64,
) -> Outcome {
    match result {
        Err(errno) => fails(errno),
        Ok(address) => {
            let offset = address.wrapping_sub(BASE).cast_signed();
            if offset.unsigned_abs() <= 2 * MARGIN {
                return Outcome::At(offset);
            }
            match space.munmap(address, len) {
                Ok(()) => Outcome::Elsewhere,
                Err(errno) => fails(errno),
            }
        }
    }
}

/// What an access gave: a signal, or an error of the run.
fn signal<V>(
    result: core::result::Result<V, AccessError>,
) -> Result<core::result::Result<V, Signal>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(AccessError { error: FaultError::Deny(deny), .. }) => Ok(Err(of(deny))),
        Err(other) => Err(SubjectError::Host(format!("an access: {other}"))),
    }
}

fn of(deny: Deny) -> Signal {
    let number = match deny.signal() {
        Kind::Bus => 7,
        Kind::Segv => 11,
    };
    let at = deny.addr().as_u64().wrapping_sub(BASE).cast_signed();
    Signal { number, code: i64::from(deny.code()), at }
}

fn load<T: PageTable>(
    space: &Space<'_, '_, T>,
    at: u64,
) -> Result<core::result::Result<u8, Signal>> {
    let mut byte = [0];
    Ok(signal(space.read(VirtAddr::new(at), &mut byte))?.map(|()| byte[0]))
}

fn store<T: PageTable>(
    space: &Space<'_, '_, T>,
    at: u64,
    value: u8,
) -> Result<core::result::Result<(), Signal>> {
    signal(space.write(VirtAddr::new(at), &[value]))
}

fn stored(result: core::result::Result<(), Signal>) -> Outcome {
    result.map_or_else(Outcome::Signal, |()| Outcome::Done(0))
}

/// The first byte in each page of a range.
fn addresses(at: u64, len: u64) -> impl Iterator<Item = u64> {
    let end = at.saturating_add(len);
    let next = |at: &u64| (at | (PAGE - 1)).checked_add(1);
    core::iter::successors(Some(at), next).take_while(move |&at| at < end)
}

fn scan<T: PageTable>(space: &Space<'_, '_, T>, at: u64, len: u64) -> Result<Outcome> {
    let mut bytes = Vec::new();
    for page in addresses(at, len) {
        match load(space, page)? {
            Ok(byte) => bytes.push(byte),
            Err(signal) => return Ok(Outcome::Pages(bytes, Some(signal))),
        }
    }
    Ok(Outcome::Pages(bytes, None))
}

type Content = core::result::Result<u64, Signal>;

fn probe_reads<T: PageTable>(space: &Space<'_, '_, T>, pages: u32) -> Result<Vec<Content>> {
    let one = |page: u64| {
        let mut bytes = [0; PAGE as usize];
        let read = space.read(VirtAddr::new(BASE + page * PAGE), &mut bytes);
        Ok(signal(read)?.map(|()| {
            let word = |index: u64| {
                let at = (index * 8) as usize;
                bytes[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
            };
            content_of((0..WORDS).map(word))
        }))
    };
    (0..u64::from(pages)).map(one).collect()
}

fn probe_writes<T: PageTable>(
    space: &Space<'_, '_, T>,
    contents: Vec<Content>,
) -> Result<Vec<Probe>> {
    let one = |(page, content)| {
        let written = store(space, BASE + page * PAGE, 0xa5)?;
        Ok(Probe { content, written })
    };
    (0..).zip(contents).map(one).collect()
}
