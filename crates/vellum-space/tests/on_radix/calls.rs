//! What the embedder hears, and when.

use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use lock_api::{GuardNoSend, RawRwLock};
use vellum_cache::{FileError, FileId, Files, Page, PageInfo, Pages};
use vellum_core::{
    Attr, Batch, Entry, FrameBytes, OutOfFrames, PAGE_SIZE, PageTable, PhysAddr, VirtAddr, Walk,
};
use vellum_fault::host::{HostSystem, MemoryFiles, MemorySwap, NoTlb, Ram};
use vellum_fault::{Access, Cost, Deny, Engine, FaultError, System};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{madv, map, mlock, prot};
use vellum_space::{AccessError, AddressSpace, Errno, FileMap, Layout, Limits, Rules};

type Table<'r> = Radix<X86_64<4>, &'r Ram>;
type Space<'e, 'r> = AddressSpace<'e, Watched<'r>, Lock>;

const RW: u64 = prot::READ | prot::WRITE;
const BASE: u64 = 0x7000_0000_0000;
const AT: VirtAddr = VirtAddr::new(BASE);

thread_local! {
    /// Locks of spaces that this thread holds.
    static HELD: Cell<i32> = const { Cell::new(0) };
}

/// A lock that counts who holds it.
struct Lock(spin::RwLock<()>);

// SAFETY: forwards to spin's.
unsafe impl RawRwLock for Lock {
    #[allow(clippy::declare_interior_mutable_const, reason = "what a lock begins as")]
    const INIT: Self = Self(<spin::RwLock<()> as RawRwLock>::INIT);
    type GuardMarker = GuardNoSend;

    fn lock_shared(&self) {
        RawRwLock::lock_shared(&self.0);
        HELD.set(HELD.get() + 1);
    }

    fn try_lock_shared(&self) -> bool {
        let locked = RawRwLock::try_lock_shared(&self.0);
        HELD.set(HELD.get() + i32::from(locked));
        locked
    }

    unsafe fn unlock_shared(&self) {
        HELD.set(HELD.get() - 1);
        // SAFETY: the caller's.
        unsafe { RawRwLock::unlock_shared(&self.0) }
    }

    fn lock_exclusive(&self) {
        RawRwLock::lock_exclusive(&self.0);
        HELD.set(HELD.get() + 1);
    }

    fn try_lock_exclusive(&self) -> bool {
        let locked = RawRwLock::try_lock_exclusive(&self.0);
        HELD.set(HELD.get() + i32::from(locked));
        locked
    }

    unsafe fn unlock_exclusive(&self) {
        HELD.set(HELD.get() - 1);
        // SAFETY: the caller's.
        unsafe { RawRwLock::unlock_exclusive(&self.0) }
    }
}

/// Files that count holes they heard of, with no space's lock held.
#[derive(Default)]
struct Heard {
    files: MemoryFiles,
    holes: AtomicU64,
    /// Shares in shared anonymous memory.
    shares: AtomicU64,
}

impl Files for Heard {
    fn len_bytes(&self, file: FileId) -> u64 {
        self.files.len_bytes(file)
    }

    fn read(&self, file: FileId, index: u64, to: FrameBytes<'_>) -> Result<(), FileError> {
        self.files.read(file, index, to)
    }

    fn write(&self, file: FileId, index: u64, from: FrameBytes<'_>) -> Result<(), FileError> {
        self.files.write(file, index, from)
    }

    fn is_memory(&self, file: FileId) -> bool {
        self.files.is_memory(file)
    }

    fn create_shared(&self, len: u64) -> Result<FileId, OutOfFrames> {
        self.shares.fetch_add(1, Relaxed);
        self.files.create_shared(len)
    }

    fn mapped(&self, file: FileId) {
        if self.is_memory(file) {
            assert_ne!(self.shares.fetch_add(1, Relaxed), 0, "it may be gone by now");
        }
    }

    fn unmapped(&self, file: FileId) {
        if self.is_memory(file) {
            assert_ne!(self.shares.fetch_sub(1, Relaxed), 0, "none is left to give back");
        }
    }

    fn punched(&self, file: FileId, pages: Range<u64>) {
        assert_eq!(HELD.get(), 0, "other spaces cannot be told with this one locked");
        self.holes.fetch_add(1, Relaxed);
        self.files.punched(file, pages);
    }

    fn write_name(&self, file: FileId, to: &mut dyn core::fmt::Write) -> core::fmt::Result {
        self.files.write_name(file, to)
    }

    fn write_hook_name(&self, number: u64, to: &mut dyn core::fmt::Write) -> core::fmt::Result {
        to.write_str(if number == 1 { "[vvar]" } else { "[vdso]" })
    }
}

/// The host's system, with these files.
struct Watched<'r> {
    host: HostSystem<'r, Table<'r>>,
    files: Heard,
}

// SAFETY: forwards to the host's.
unsafe impl<'r> Pages for Watched<'r> {
    type Memory = &'r Ram;

    fn memory(&self) -> &Self::Memory {
        self.host.memory()
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        self.host.info(pa)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        self.host.each_info(f);
    }
}

impl<'r> System for Watched<'r> {
    type Table = Table<'r>;
    type Cpus = NoTlb;
    type Files = Heard;
    type Swap = MemorySwap;

    fn files(&self) -> &Heard {
        &self.files
    }

    fn swap(&self) -> &MemorySwap {
        self.host.swap()
    }
}

fn run(test: impl for<'e, 'r> FnOnce(&Space<'e, 'r>, &'e Heard)) {
    let ram = Ram::new(1 << 12);
    let rules = Rules::new(ram.count_frames());
    let system = Watched { host: HostSystem::new(&ram), files: Heard::default() };
    let engine = Engine::new(system, 0).unwrap();
    // SAFETY: a new table, over a processor that caches nothing.
    let mmu = unsafe { engine.mmu(Table::new(&ram).unwrap(), NoTlb) };
    let space = Space::new(mmu, &rules, Layout::default(), Limits::default());
    test(&space, &engine.system().files);
}

fn file_of(heard: &Heard, pages: u64) -> FileMap {
    let file = heard.files.create(&vec![7; (pages * PAGE_SIZE) as usize]);
    FileMap { file, descriptor: 3, offset: 0, readable: true, writable: true }
}

fn status(space: &Space<'_, '_>, name: &str) -> u64 {
    let mut text = String::new();
    space.write_status(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn files_hear_of_holes_with_no_space_locked() {
    run(|space, heard| {
        let (one, other) = (file_of(heard, 4), file_of(heard, 4));
        let fixed = map::SHARED | map::FIXED;
        space.mmap(BASE, 4 * PAGE_SIZE, RW, fixed, Some(one)).unwrap();
        space.mmap(BASE + 4 * PAGE_SIZE, 4 * PAGE_SIZE, RW, fixed, Some(other)).unwrap();
        space.write(VirtAddr::new(BASE + 3 * PAGE_SIZE), &[1]).unwrap();
        space.madvise(BASE + 2 * PAGE_SIZE, 4 * PAGE_SIZE, madv::REMOVE).unwrap();
        assert_eq!(heard.holes.load(Relaxed), 2);
        let punched = heard.files.take_punched();
        assert_eq!(punched, [(one.file, 2..4), (other.file, 0..2)]);
        let mut bytes = [9];
        space.read(VirtAddr::new(BASE + 3 * PAGE_SIZE), &mut bytes).unwrap();
        assert_eq!(bytes, [0]);
    });
}

#[test]
fn no_name_of_a_file_makes_a_line_of_its_own() {
    run(|space, heard| {
        let file = file_of(heard, 1);
        heard.files.set_name(file.file, "/a\n7000-8000 rwxp\n");
        space.mmap(BASE, PAGE_SIZE, RW, map::SHARED | map::FIXED, Some(file)).unwrap();
        let mut text = String::new();
        space.write_maps(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(text.get(73..), Some("/a\\0127000-8000 rwxp\\012\n"));
    });
}

#[test]
fn shared_memory_has_as_many_owners_as_regions() {
    run(|space, heard| {
        let shares = || heard.shares.load(Relaxed);
        let flags = map::SHARED | map::ANONYMOUS | map::FIXED;
        space.mmap(BASE, 3 * PAGE_SIZE, RW, flags, None).unwrap();
        assert_eq!(shares(), 1);
        space.munmap(BASE + PAGE_SIZE, PAGE_SIZE).unwrap();
        assert_eq!(shares(), 2);
        space.mmap(BASE, PAGE_SIZE, RW, flags, None).unwrap();
        assert_eq!(shares(), 2);
        space.munmap(BASE, 3 * PAGE_SIZE).unwrap();
        assert_eq!(shares(), 0);
    });
}

#[test]
fn a_device_is_its_regions_and_not_memory() {
    run(|space, _| {
        space.map_hook(BASE, PAGE_SIZE, RW, 5).unwrap();
        assert_eq!(space.fault(AT, Access::Write), Err(FaultError::Hook(5)));
        let device = Entry::Leaf(PhysAddr::new(0xfee0_0000), Attr::RW | Attr::USER);
        space.with_mmu(|mmu| {
            // SAFETY: a hole of a hook's region becomes a leaf to what has no record.
            let table = unsafe { mmu.root_table() };
            let mut stock = table.stock();
            // SAFETY: nothing has cached anything of this table.
            let mut gather: Batch<_, _, _, 2> = unsafe { Batch::new(NoTlb, |_| {}) };
            let hole = Entry::Hole;
            table.replace_refilling(AT, PAGE_SIZE, hole, device, &mut stock, &mut gather).unwrap();
            gather.finish();
        });
        let refused = AccessError { done: 0, error: FaultError::Hook(5) };
        assert_eq!(space.write(AT, &[1]), Err(refused));
        space.munmap(BASE, PAGE_SIZE).unwrap();
        assert_eq!(space.with_mmu(|mmu| mmu.table().translate(AT)), None);
    });
}

/// A program as it lies in memory: text, data, BSS, heap, what is mapped, stack, vvar and vDSO.
#[test]
fn a_process_has_its_parts_and_between_them_nothing() {
    run(|space, heard| {
        let layout = space.layout();
        let fixed = map::PRIVATE | map::FIXED;
        let (text, rx) = (0x40_0000, prot::READ | prot::EXEC);
        let program = file_of(heard, 3);
        space.mmap(text, 2 * PAGE_SIZE, rx, fixed, Some(program)).unwrap();
        let rest = FileMap { offset: 2 * PAGE_SIZE, ..program };
        let data = text + 2 * PAGE_SIZE;
        space.mmap(data, PAGE_SIZE, RW, fixed, Some(rest)).unwrap();
        space.mmap(data + PAGE_SIZE, PAGE_SIZE, RW, fixed | map::ANONYMOUS, None).unwrap();
        let heap = space.sbrk(5 * 0x1000).unwrap();
        let mapped = space.mmap(0, PAGE_SIZE, RW, map::PRIVATE | map::ANONYMOUS, None).unwrap();
        let (stack, grows) = (layout.stack & !0xfff, fixed | map::ANONYMOUS | map::GROWSDOWN);
        space.mmap(stack, PAGE_SIZE, RW, grows, None).unwrap();
        let vvar = layout.mmap_top + 16 * PAGE_SIZE;
        space.map_hook(vvar, PAGE_SIZE, prot::READ, 1).unwrap();
        space.map_hook(vvar + PAGE_SIZE, PAGE_SIZE, rx, 2).unwrap();
        let mut lines = String::new();
        space.write_maps(&mut lines).unwrap();
        let parts: Vec<(u64, &str, &str)> = lines
            .lines()
            .map(|line| {
                let start = u64::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap();
                let name = line.split_whitespace().nth(5).unwrap_or("");
                (start, line.split(' ').nth(1).unwrap(), name)
            })
            .collect();
        let name = parts[0].2;
        let all = [
            (text, "r-xp", name),
            (data, "rw-p", name),
            (data + PAGE_SIZE, "rw-p", ""),
            (heap, "rw-p", "[heap]"),
            (mapped, "rw-p", ""),
            (vvar, "r--p", "[vvar]"),
            (vvar + PAGE_SIZE, "r-xp", "[vdso]"),
            (stack, "rw-p", "[stack]"),
        ];
        assert_eq!(parts, all);
        let fault = |at, access| space.fault(VirtAddr::new(at), access);
        let unmapped = |at| Err(FaultError::Deny(Deny::Unmapped(VirtAddr::new(at))));
        let forbidden = |at| Err(FaultError::Deny(Deny::Forbidden(VirtAddr::new(at))));
        for nowhere in [0, text - 1, data + 2 * PAGE_SIZE, layout.end, 0xffff_8000_0000_0000] {
            assert_eq!(fault(nowhere, Access::Read), unmapped(nowhere));
        }
        assert_eq!(fault(text, Access::Write), forbidden(text));
        assert_eq!(fault(data, Access::Execute), forbidden(data));
        assert_eq!(fault(vvar, Access::Write), forbidden(vvar));
        assert_eq!(fault(vvar, Access::Read), Err(FaultError::Hook(1)));
        let mut bss = [1; 16];
        space.read(VirtAddr::new(data + PAGE_SIZE), &mut bss).unwrap();
        assert_eq!(bss, [0; 16], "zeros on its first touch");
        space.write(VirtAddr::new(stack - 0x5000), &[1]).unwrap();
    });
}

/// What a pager does: a fault, its page, and the same access again.
#[test]
fn pages_of_a_hooks_region_are_what_the_embedder_shows() {
    run(|space, _| {
        let system = space.with_mmu(|mmu| mmu.engine()).system();
        space.map_hook(BASE, 2 * PAGE_SIZE, RW, 5).unwrap();
        assert_eq!(space.fault(AT, Access::Write), Err(FaultError::Hook(5)));
        let page = Page::zeroed(system).unwrap();
        page.with_bytes(|bytes| bytes.write(3, b"paged"));
        let kept = page.share();
        assert_eq!(space.show(AT, page), Ok(true));
        let mut read = [0; 5];
        space.read(VirtAddr::new(BASE + 3), &mut read).unwrap();
        assert_eq!((&read, status(space, "VmRSS")), (b"paged", 4));
        // Another page does not take its place; in another place it is the same memory.
        assert_eq!(space.show(AT, Page::zeroed(system).unwrap()), Ok(false));
        assert_eq!(space.show(VirtAddr::new(BASE + PAGE_SIZE), kept.share()), Ok(true));
        space.write(VirtAddr::new(BASE + PAGE_SIZE + 3), b"P").unwrap();
        space.read(VirtAddr::new(BASE + 3), &mut read).unwrap();
        assert_eq!(&read, b"Paged");
        let swap = system.swap();
        let out = space.page_out(AT, |bytes| Some(swap.store(bytes)));
        assert_eq!(out, Ok(false), "no fault would bring it back");
        let outside = FaultError::Deny(Deny::Unmapped(VirtAddr::new(BASE + 2 * PAGE_SIZE)));
        assert_eq!(space.show(VirtAddr::new(BASE + 2 * PAGE_SIZE), kept.share()), Err(outside));
        let fixed = map::PRIVATE | map::ANONYMOUS | map::FIXED;
        let other = BASE + 8 * PAGE_SIZE;
        space.mmap(other, PAGE_SIZE, RW, fixed, None).unwrap();
        let refused = FaultError::Deny(Deny::Unmapped(VirtAddr::new(other)));
        assert_eq!(space.show(VirtAddr::new(other), kept.share()), Err(refused));
        space.munmap(BASE, 2 * PAGE_SIZE).unwrap();
        assert_eq!((kept.info().owners(), kept.info().maps(), status(space, "VmRSS")), (1, 0, 0));
    });
}

#[test]
fn what_is_shown_has_the_rights_of_its_region_and_no_others() {
    run(|space, _| {
        let system = space.with_mmu(|mmu| mmu.engine()).system();
        space.map_hook(BASE, PAGE_SIZE, prot::READ, 5).unwrap();
        let page = Page::zeroed(system).unwrap();
        assert_eq!(space.show(AT, page.share()), Ok(true));
        let refused = FaultError::Deny(Deny::Forbidden(AT));
        assert_eq!(space.write(AT, &[1]), Err(AccessError { done: 0, error: refused }));
        assert_eq!(space.show(AT, page), Ok(true), "it is there already");
    });
}

#[test]
fn a_page_that_was_taken_out_comes_back_by_a_fault() {
    run(|space, _| {
        let private = map::PRIVATE | map::ANONYMOUS | map::FIXED;
        space.mmap(BASE, 2 * PAGE_SIZE, RW, private, None).unwrap();
        space.write(AT, &[7; 2 * PAGE_SIZE as usize]).unwrap();
        space.mlock(BASE + PAGE_SIZE, PAGE_SIZE).unwrap();
        let out = |at| {
            let engine = space.with_mmu(|mmu| mmu.engine());
            space.page_out(VirtAddr::new(at), |bytes| Some(engine.system().swap().store(bytes)))
        };
        assert_eq!(out(BASE + PAGE_SIZE), Ok(false), "it is locked");
        assert_eq!(
            (out(BASE), out(BASE), out(BASE + 9 * PAGE_SIZE)),
            (Ok(true), Ok(false), Ok(false))
        );
        assert_eq!((status(space, "VmRSS"), status(space, "VmSwap")), (4, 4));
        assert_eq!(status(space, "VmHWM"), 8);
        assert_eq!(space.fault(AT, Access::Read), Ok(Cost::Major));
        let mut byte = [0];
        space.read(AT, &mut byte).unwrap();
        assert_eq!((byte, status(space, "VmSwap")), ([7], 0));
    });
}

#[test]
fn locking_passes_over_what_is_not_memory() {
    run(|space, _| {
        let fixed = map::PRIVATE | map::ANONYMOUS | map::FIXED;
        space.map_hook(BASE, PAGE_SIZE, prot::READ, 5).unwrap();
        space.mmap(BASE + PAGE_SIZE, PAGE_SIZE, RW, fixed, None).unwrap();
        assert_eq!(space.mlock(BASE, 2 * PAGE_SIZE), Ok(()));
        assert_eq!((space.locked_bytes(), space.usage().rss), (PAGE_SIZE, PAGE_SIZE));
        assert_eq!(space.mlockall(mlock::CURRENT), Ok(()));
        assert_eq!(space.locked_bytes(), PAGE_SIZE);
    });
}

#[test]
fn what_was_resident_before_a_file_shrank_is_remembered() {
    run(|space, heard| {
        let file = file_of(heard, 4);
        space.mmap(BASE, 4 * PAGE_SIZE, RW, map::SHARED | map::FIXED, Some(file)).unwrap();
        space.write(AT, &[1; 4 * PAGE_SIZE as usize]).unwrap();
        heard.files.set_len(file.file, PAGE_SIZE);
        space.with_mmu(|mmu| mmu.engine().cache().truncate(heard, file.file));
        space.truncate_file(file.file).unwrap();
        assert_eq!((status(space, "VmRSS"), status(space, "VmHWM")), (4, 16));
    });
}

#[test]
fn guards_and_holes_leave_the_highest_count_of_pages() {
    run(|space, heard| {
        let fixed = map::PRIVATE | map::ANONYMOUS | map::FIXED;
        space.mmap(BASE, 4 * PAGE_SIZE, RW, fixed, None).unwrap();
        space.write(AT, &[1; 4 * PAGE_SIZE as usize]).unwrap();
        space.madvise(BASE, 4 * PAGE_SIZE, madv::GUARD_INSTALL).unwrap();
        assert_eq!((status(space, "VmRSS"), status(space, "VmHWM")), (0, 16));
        let (file, at) = (file_of(heard, 8), BASE + 8 * PAGE_SIZE);
        space.mmap(at, 8 * PAGE_SIZE, RW, map::SHARED | map::FIXED, Some(file)).unwrap();
        space.write(VirtAddr::new(at), &[1; 8 * PAGE_SIZE as usize]).unwrap();
        space.madvise(at, 8 * PAGE_SIZE, madv::REMOVE).unwrap();
        assert_eq!((status(space, "VmRSS"), status(space, "VmHWM")), (0, 32));
    });
}

/// Runs `test` on a space that lies like this.
fn with_layout(layout: Layout, test: impl FnOnce(&Space<'_, '_>)) {
    let ram = Ram::new(1 << 10);
    let before = ram.frames_in_use();
    {
        let rules = Rules::new(ram.count_frames());
        let system = Watched { host: HostSystem::new(&ram), files: Heard::default() };
        let engine = Engine::new(system, 0).unwrap();
        // SAFETY: a new table, over a processor that caches nothing.
        let mmu = unsafe { engine.mmu(Table::new(&ram).unwrap(), NoTlb) };
        test(&Space::new(mmu, &rules, layout, Limits::default()));
    }
    assert_eq!(ram.frames_in_use(), before, "every frame is back");
}

#[test]
fn a_layout_whose_data_ends_before_it_begins_has_a_heap() {
    with_layout(Layout { data: (PAGE_SIZE, 0), ..Layout::default() }, |space| {
        let top = space.brk(0) + PAGE_SIZE;
        assert_eq!(space.brk(top), top);
    });
}

#[test]
fn a_layout_that_reaches_beyond_the_table_ends_with_it() {
    const ALL: u64 = u64::MAX;
    let (data, code) = ((0, ALL), (ALL, 0));
    let layout =
        Layout { end: ALL, mmap_top: ALL, mmap_bottom: 4097, heap: ALL, data, code, stack: ALL };
    with_layout(layout, |space| {
        let Layout { end, mmap_top, mmap_bottom, heap, .. } = space.layout();
        assert_eq!((end, mmap_top, mmap_bottom, heap), (1 << 47, 1 << 47, 4096, 1 << 47));
        let private = map::PRIVATE | map::ANONYMOUS;
        let at = space.mmap(0, PAGE_SIZE, RW, private, None).unwrap();
        assert_eq!(at, end - PAGE_SIZE, "the highest page");
        space.write(VirtAddr::new(at), &[7]).unwrap();
        let behind = space.mmap(end, PAGE_SIZE, RW, private | map::FIXED, None);
        assert_eq!(behind, Err(Errno::Enomem));
        assert_eq!((space.brk(ALL), space.brk(0)), (heap, heap));
        let mut maps = String::new();
        space.write_maps(&mut maps).unwrap();
        assert!(maps.starts_with("7ffffffff000-800000000000 rw-p"), "{maps}");
        space.munmap(at, PAGE_SIZE).unwrap();
        assert_eq!(space.with_mmu(|mmu| mmu.rss().resident()), 0);
    });
}

#[test]
fn a_layout_between_pages_is_one_of_whole_pages() {
    let uneven = Layout { end: 0x7000_0000_0fff, mmap_top: 0x6000_0000_0001, ..Layout::default() };
    with_layout(uneven, |space| {
        let Layout { end, mmap_top, .. } = space.layout();
        assert_eq!((end, mmap_top), (0x7000_0000_0000, 0x6000_0000_0000));
        let at = space.mmap(0, PAGE_SIZE, RW, map::PRIVATE | map::ANONYMOUS, None);
        assert_eq!(at, Ok(mmap_top - PAGE_SIZE));
    });
    with_layout(Layout { end: 4095, ..Layout::default() }, |space| {
        let nowhere = space.mmap(0, PAGE_SIZE, RW, map::PRIVATE | map::ANONYMOUS, None);
        assert_eq!((nowhere, space.brk(1 << 30)), (Err(Errno::Enomem), 0));
    });
}
