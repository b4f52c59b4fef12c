//! A look at an address space that changes nothing.

use super::run::Space;
use crate::abi::PAGE;
use crate::op::{MARGIN, Sequence};
use crate::trace::{Flags, KNOWN_FLAGS, Kind, PageState, Region, Sizes, State};
use core::ops::ControlFlow;
use vellum_cache::FileId;
use vellum_cache::page::State as PageFlags;
use vellum_cache::Pages;
use vellum_core::{Attr, Entry, PageTable, VirtAddr};
use vellum_fault::host::HostSystem;
use vellum_fault::soft::Marker;
use vellum_fault::{Backing, Engine};
use vellum_space::{VmFlags, Vma};

/// The state of a space.
pub(super) fn state<T: PageTable>(
    space: &Space<'_, '_, T>,
    engine: &Engine<HostSystem<'_, T>>,
    file: FileId,
    base: u64,
    sequence: &Sequence,
) -> State {
    let mut state = State { regions: Vec::new(), pages: Vec::new() };
    state.pages.resize(sequence.pages as usize, PageState::default());
    let brk = if sequence.heap { space.brk(0) } else { 0 };
    let page = |address: u64| address.wrapping_sub(base).cast_signed() / PAGE.cast_signed();
    let mut vmas = Vec::new();
    space.each_region(|range, vma| {
        vmas.push((range, *vma));
        true
    });
    for (range, vma) in vmas {
        let start = range.start().as_u64();
        let end = start + range.count_pages() * PAGE;
        if end + 2 * MARGIN <= base || start >= base + 2 * MARGIN {
            continue;
        }
        let (kind, offset) = match vma.backing {
            Backing::File(id) => {
                let kind = if id == file { Kind::File } else { Kind::SharedAnon };
                (kind, vma.index * PAGE)
            }
            _ if start < brk && end > base => (Kind::Heap, 0),
            _ => (Kind::Anon, 0),
        };
        let sizes = sizes(space, engine, (start, end), &vma, &mut |address, found| {
            let index = usize::try_from(page(address)).ok();
            if let Some(state) = index.and_then(|index| state.pages.get_mut(index)) {
                *state = found;
            }
        });
        for at in (start..end).step_by(PAGE as usize) {
            let index = usize::try_from(page(at)).ok();
            let Some(found) = index.and_then(|index| state.pages.get_mut(index)) else { continue };
            let there = match vma.backing {
                Backing::File(id) => {
                    let index = vma.index + (at - start) / PAGE;
                    engine.cache().is_resident(id, index)
                }
                _ => false,
            };
            found.in_core = Some(there || found.present);
        }
        let (start, end) = (page(start), page(end));
        let flags = flags(vma.flags);
        state.regions.push(Region { start, end, perms: perms(vma.flags), offset, kind, sizes, flags });
    }
    state
}

/// What the table has of a region, counted.
fn sizes<T: PageTable>(
    space: &Space<'_, '_, T>,
    engine: &Engine<HostSystem<'_, T>>,
    (start, end): (u64, u64),
    vma: &Vma,
    page: &mut impl FnMut(u64, PageState),
) -> Sizes {
    let mut sizes = Sizes::default();
    // Shares of pages, in 4096ths of a byte, as Linux adds them up.
    let mut shares = 0_u64;
    let mut count = |va: u64, pa: vellum_core::PhysAddr, attr: Attr, found: &mut PageState| {
        found.present = true;
        let info = (pa != engine.zeros()).then(|| engine.system().info(pa)).flatten();
        let Some(info) = info else { return };
        let state = info.state();
        let maps = u64::from(info.maps().max(1));
        found.file = !state.contains(PageFlags::ANON);
        sizes.rss += 4;
        shares += (PAGE << 12) / maps;
        sizes.anonymous += if found.file { 0 } else { 4 };
        sizes.shared += if maps > 1 { 4 } else { 0 };
        let dirty = attr.contains(Attr::DIRTY) || state.contains(PageFlags::DIRTY);
        sizes.dirty += if dirty { 4 } else { 0 };
        let _ = va;
    };
    let visited = space.with_mmu(|mmu| {
        mmu.visit(VirtAddr::new(start), end - start, &mut |span| {
            for at in (0..span.len).step_by(PAGE as usize) {
                let va = span.va.as_u64() + at;
                let mut found = PageState::default();
                match span.entry {
                    Entry::Leaf(pa, attr) => count(va, pa.wrapping_add(at), attr, &mut found),
                    Entry::Soft(soft) => match Marker::of(soft) {
                        Some(Marker::Guard) => found.guard = true,
                        _ => found.swapped = true,
                    },
                    Entry::Hole => {}
                }
                page(va, found);
            }
            ControlFlow::Continue(())
        })
    });
    debug_assert!(visited.is_ok(), "a region lies within what its table can hold");
    sizes.pss = shares >> 22;
    if vma.flags.contains(VmFlags::LOCKED) {
        sizes.locked = sizes.pss;
    }
    sizes
}

fn perms(flags: VmFlags) -> [u8; 4] {
    let letter = |flag, letter| if flags.contains(flag) { letter } else { b'-' };
    [
        letter(VmFlags::READ, b'r'),
        letter(VmFlags::WRITE, b'w'),
        letter(VmFlags::EXEC, b'x'),
        if flags.contains(VmFlags::MAYSHARE) { b's' } else { b'p' },
    ]
}

/// The flags as smaps has them.
fn flags(flags: VmFlags) -> Flags {
    let names = [
        ("rd", VmFlags::READ),
        ("wr", VmFlags::WRITE),
        ("ex", VmFlags::EXEC),
        ("sh", VmFlags::SHARED),
        ("mr", VmFlags::MAYREAD),
        ("mw", VmFlags::MAYWRITE),
        ("me", VmFlags::MAYEXEC),
        ("ms", VmFlags::MAYSHARE),
        ("gd", VmFlags::GROWSDOWN),
        ("lo", VmFlags::LOCKED),
        ("lf", VmFlags::LOCKONFAULT),
        ("sr", VmFlags::SEQ_READ),
        ("rr", VmFlags::RAND_READ),
        ("dc", VmFlags::DONTCOPY),
        ("de", VmFlags::DONTEXPAND),
        ("ac", VmFlags::ACCOUNT),
        ("nr", VmFlags::NORESERVE),
        ("wf", VmFlags::WIPEONFORK),
        ("dd", VmFlags::DONTDUMP),
        ("sl", VmFlags::SEALED),
        ("dp", VmFlags::DROPPABLE),
        ("hg", VmFlags::HUGEPAGE),
        ("nh", VmFlags::NOHUGEPAGE),
    ];
    let bit = |name: &str| KNOWN_FLAGS.iter().position(|known| *known == name);
    let set = names.iter().filter(|(_, flag)| flags.contains(*flag));
    Flags(set.filter_map(|(name, _)| bit(name)).fold(0, |bits, bit| bits | 1 << bit))
}
