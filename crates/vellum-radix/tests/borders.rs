//! Borders and other parties: where a pinned part begins, a second root, another CPU in the middle of
//! a harvest, a memory whose frames no entry can hold.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{
    Attr, Change, Direct, Entry, FrameSource, Gone, Memory, OutOfFrames, PageTable, PhysAddr,
    PhysMap, Ref, ReplaceError, Run, VirtAddr, Walk,
};
use vellum_radix::{AArch64, Flat, Format, Policy, Radix, Sv32, X86, X86_64};
use vellum_testkit::Arena;

fn direct() -> Direct<impl FnMut(Gone)> {
    // SAFETY: no CPU has any table of these tests.
    unsafe { Direct::new(|_| {}) }
}

fn va(n: u64) -> VirtAddr {
    VirtAddr::new(n)
}

fn pa(n: u64) -> PhysAddr {
    PhysAddr::new(n)
}

#[test]
fn a_run_of_large_leaves_stops_before_the_pinned_part() {
    let arena = Arena::new(2000);
    let mut owner = Radix::<X86, _>::new(&arena).unwrap();
    owner.pin_from(va(0xc000_0000)).unwrap();
    // SAFETY: the owner is pinned, and retired last.
    let child = unsafe { Radix::<X86, _>::sharing(&owner) }.unwrap();
    let rights = Attr::RWX;
    let run = Run::new(va(0xbfc0_0000), pa(0), 8 << 20, rights).with_leaves_up_to(22);
    owner.map(run, &mut direct()).unwrap();
    assert_eq!(child.translate(va(0xc000_0000)), Some(pa(0x40_0000)));
}

#[test]
fn pinning_again_higher_up_unpins_nothing() {
    let arena = Arena::new(2000);
    let mut owner = Radix::<X86_64<4>, _>::new(&arena).unwrap();
    let (low, high) = (0xffff_8000_0000_0000, 0xffff_c000_0000_0000);
    owner.pin_from(va(low)).unwrap();
    // SAFETY: the owner is pinned, and retired last.
    let child = unsafe { Radix::<X86_64<4>, _>::sharing(&owner) }.unwrap();
    owner.pin_from(va(high)).unwrap();
    let before = arena.frames_in_use();
    owner.unmap(va(low), 1 << 39, &mut direct()).unwrap();
    assert_eq!(arena.frames_in_use(), before, "a node that the child links was freed");
    assert_eq!(child.translate(va(low)), None);
}

/// A memory that plays another CPU once, at the n-th access to one word.
struct Meddling<'a> {
    arena: &'a Arena,
    at: Cell<Option<(PhysAddr, u32, u64)>>,
}
// SAFETY: an arena, or forwards to one, whose contract that is.
unsafe impl PhysMap for Meddling<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        self.arena.with(pa, |p| {
            if let Some((at, n, raw)) = self.at.get().filter(|&(at, ..)| at == pa) {
                if n == 0 {
                    // SAFETY: an entry of a table, changed atomically as another CPU would.
                    unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) }.store(raw, Ordering::SeqCst);
                    self.at.set(None);
                } else {
                    self.at.set(Some((at, n - 1, raw)));
                }
            }
            f(p)
        })
    }
}
// SAFETY: an arena, or forwards to one, whose contract that is.
unsafe impl FrameSource for Meddling<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.arena.alloc(order)
    }
    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: passed on.
        unsafe { self.arena.free(pa, order) }
    }
}
impl PartialEq for Meddling<'_> {
    fn eq(&self, o: &Self) -> bool {
        core::ptr::eq(self, o)
    }
}
// SAFETY: an arena, or forwards to one, whose contract that is.
unsafe impl Memory for &Meddling<'_> {}

#[test]
fn harvest_reports_status_with_the_frame_that_had_it() {
    let arena = Arena::new(64);
    let mem = Meddling { arena: &arena, at: Cell::new(None) };
    let mut table = Radix::<X86_64<4>, _>::new(&mem).unwrap();
    let dirty = Attr::RW | Attr::STATUS;
    table.map(Run::new(va(0x1000), pa(0xa000), 0x1000, dirty), &mut direct()).unwrap();
    let mut slot = pa(0);
    table.walk(va(0x1000), &mut |r: Ref| slot = r.pa).unwrap();
    // Between the look at the entry and its change, another CPU breaks copy-on-write.
    let other = <X86_64<4>>::encode(Entry::Leaf(pa(0xb000), dirty), 12).unwrap();
    mem.at.set(Some((slot, 1, other)));
    let mut seen = None;
    table
        .harvest(va(0x1000), 0x1000, Attr::DIRTY, &mut direct(), &mut |s| seen = Some(s.entry))
        .unwrap();
    assert_eq!(seen, Some(Entry::Leaf(pa(0xb000), dirty)));
}

/// Entry `i` of a root with entries of 64 bits.
fn entry(arena: &Arena, root: PhysAddr, i: u64) -> u64 {
    // SAFETY: an entry of a node in use, which nobody writes now.
    arena.with(root.wrapping_add(i * 8), |p| unsafe { p.cast::<u64>().read() })
}

type Arm = AArch64<12, 39>;

fn arm_pair(arena: &Arena) -> (Radix<Arm, &Arena>, PhysAddr) {
    let from = va(256 << 30);
    let mut owner = Radix::<Arm, _>::new(arena).expect("room");
    let mut stubs = Radix::<Arm, _>::new(arena).expect("room");
    owner.pin_from(from).expect("room");
    stubs.pin_from(from).expect("room");
    // SAFETY: pinned, and never retired: a table that is dropped leaks its nodes.
    let mut table = unsafe { Radix::<Arm, _>::sharing(&owner) }.expect("room");
    // SAFETY: as above.
    let user = unsafe { table.add_user_root(&stubs) }.expect("room");
    (table, user)
}

#[test]
#[cfg_attr(miri, ignore = "pins 512 nodes twice, which takes an interpreter minutes")]
fn a_root_with_a_second_one_gets_no_leaves() {
    let arena = Arena::new(4000);
    let (mut table, user) = arm_pair(&arena);
    let attr = Attr::READ | Attr::USER;
    let run = Run::new(va(0), pa(0), 16 << 30, attr).with_leaves_up_to(34);
    table.map(run, &mut direct()).unwrap();
    assert_eq!(table.walk(va(0), &mut ()).unwrap().len, 32 << 20, "a group of the level below");
    assert_eq!(
        entry(&arena, user, 0),
        entry(&arena, table.root(), 0) & !0xffc,
        "but for its count"
    );
    table.unmap(va(0), 16 << 30, &mut direct()).unwrap();
    assert_eq!((entry(&arena, user, 0), entry(&arena, table.root(), 0)), (0, 0));
    let leaf = Entry::Leaf(pa(0), attr);
    let mut stock = table.stock();
    let refused = table.replace(va(0), 1 << 30, Entry::Hole, leaf, &mut stock, &mut direct());
    assert_eq!(refused, Err(ReplaceError::Structure));
}

#[test]
fn a_run_that_reaches_into_the_kernels_part_is_not_for_users() {
    let arena = Arena::new(64);
    let policy = Policy { kernel_from: Some(va(0xc000_0000)), ..Policy::default() };
    let mut table = Radix::<Sv32, _>::with_policy(&arena, policy).unwrap();
    let attr = Attr::RW | Attr::USER;
    let run = Run::new(va(0xbfff_f000), pa(0x4000), 0x2000, attr);
    let e = table.map(run, &mut direct());
    assert!(e.is_err(), "at 0xc000_0000: {:?}", table.walk(va(0xc000_0000), &mut ()));
}

#[test]
fn protecting_across_the_border_gives_no_user_anything() {
    let arena = Arena::new(64);
    let policy = Policy { kernel_from: Some(va(0x8000)), ..Policy::default() };
    let mut table = Radix::<Flat<20>, _>::with_policy(&arena, policy).unwrap();
    table.map(Run::new(va(0x7000), pa(0x4000), 0x2000, Attr::RW), &mut direct()).unwrap();
    let e = table.protect(va(0x7000), 0x2000, Change::setting(Attr::USER), &mut direct());
    assert!(e.is_err(), "{:?}", table.walk(va(0x8000), &mut ()));
}

#[test]
fn a_need_of_another_table_is_no_panic() {
    let arena = Arena::new(64);
    let table = Radix::<X86_64<4>, _>::new(&arena).unwrap();
    let five = Radix::<X86_64<5>, _>::new(&arena).unwrap();
    let leaf = Entry::Leaf(pa(0), Attr::RW);
    let asked = five.replace(va(0), 0x1000, Entry::Hole, leaf, &mut five.stock(), &mut direct());
    let Err(ReplaceError::Need(need)) = asked else { panic!("{asked:?}") };
    let _ = table.refill(&mut table.stock(), need);
}

/// A memory whose frames lie above 2^52.
#[derive(Clone, Copy, PartialEq)]
struct High<'a>(usize, core::marker::PhantomData<&'a Arena>);
thread_local! { static ARENA: Arena = Arena::new(64); }
// SAFETY: an arena, or forwards to one, whose contract that is.
unsafe impl PhysMap for High<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        assert!(pa.as_u64() >> 52 == 1, "{pa} is not a frame of this memory");
        ARENA.with(|a| a.with(PhysAddr::new(pa.as_u64() & ((1 << 52) - 1)), f))
    }
}
// SAFETY: an arena, or forwards to one, whose contract that is.
unsafe impl FrameSource for High<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        ARENA.with(|a| a.alloc(order)).map(|pa| pa.wrapping_add(1 << 52))
    }
    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: passed on, as the arena knows the frame.
        ARENA.with(|a| unsafe { a.free(PhysAddr::new(pa.as_u64() & ((1 << 52) - 1)), order) })
    }
}
// SAFETY: an arena, or forwards to one, whose contract that is.
unsafe impl Memory for High<'_> {}

#[test]
fn nodes_above_what_an_entry_holds_are_refused() {
    let high = High(0, core::marker::PhantomData);
    let Ok(mut table) = Radix::<X86_64<4>, _>::new(high) else { return };
    let mapped = table.map(Run::new(va(0x1000), pa(0x1000), 0x1000, Attr::RW), &mut direct());
    assert!(mapped.is_err());
}
