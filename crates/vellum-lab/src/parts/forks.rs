//! A program that forks again and again: what sharing and copy-on-write ask of each design.
//!
//! ```text
//!   parent    ====+=======+==+=======+==         4,096 pages; it goes on reading and writing
//!                 |fork   |exit
//!   child         +=======+                      64 times, one child at a time
//! ```
//!
//! Pages hold values: a write to a shared page takes a frame of its own and copies what was there, or
//! makes the page writable where nobody else has it any more; frames are counted by their sharers, and
//! those that an ended child leaves come out of the gather. Whoever reads adds to a checksum, which is
//! that of a model with plain vectors, or a design has mixed up two processes.
//!
//! # Invariants
//!
//! - A frame is free exactly if no process has it.
//! - Every design sees the same accesses.

use crate::designs::Design;
use crate::experiment::{ATTR, DesignError, Experiment, Random, Scene, gathered_into};
use crate::histogram::mean;
use crate::machine::{Machine, MachineConfig};
use crate::ram::DataFrames;
use crate::replay::ReplayError;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use vellum_core::{
    Attr, Cause, Change, Entry, Gone, PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, Ref,
    ReplaceError, Run, Span, VirtAddr, Vpn,
};
use vellum_tlb::{Asid, Leaf, Port};

/// Pages of the program, and its first one.
const PAGES: u64 = 4096;
const FIRST: u64 = 1 << 18;

/// Children, one after the other.
const FORKS: u64 = 64;

/// Turns that a child has, and accesses in each turn of the child and of its parent; one of four is a
/// write.
const TURNS: u64 = 16;
const ACCESSES: [u64; 2] = [32, 64];

/// One design under a program that forks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForksReport {
    /// The design's name.
    pub design: String,
    /// Pages of the program.
    pub pages: u64,
    /// How often it forked.
    pub forks: u64,
    /// Accesses of all processes.
    pub accesses: u64,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Writes that took a frame of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u64>,
    /// Writes to pages that nobody else had any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuses: Option<u64>,
    /// Walks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walks: Option<u64>,
    /// Entries that a walk read: mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refs_mean: Option<f64>,
    /// Cycles of walks, by the cache model, for each access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk_cycles_per_access: Option<f64>,
    /// Bytes of the table with the parent alone, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_bytes: Option<u64>,
    /// The most that they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_peak_bytes: Option<u64>,
}

/// The row of a design on this processor.
///
/// # Errors
///
/// [`ReplayError`].
pub fn measure(design: &Design, machine: &MachineConfig) -> Result<ForksReport, ReplayError> {
    let named = ForksReport {
        design: design.name.to_owned(),
        pages: PAGES,
        forks: FORKS,
        accesses: FORKS * TURNS * (ACCESSES[0] + ACCESSES[1]),
        unsupported: None,
        copies: None,
        reuses: None,
        walks: None,
        refs_mean: None,
        walk_cycles_per_access: None,
        table_bytes: None,
        table_peak_bytes: None,
    };
    match design.measure(&Forks { machine }) {
        Ok(done) => Ok(ForksReport {
            copies: Some(done.copies),
            reuses: Some(done.reuses),
            walks: Some(done.machine.walk_counts().refs.total()),
            refs_mean: Some(done.machine.walk_counts().refs.mean()),
            walk_cycles_per_access: Some(mean(done.machine.walk_counts().cycles, named.accesses)),
            table_bytes: Some(done.bytes),
            table_peak_bytes: Some(done.peak_bytes),
            ..named
        }),
        Err(DesignError::Unsupported { reason, .. }) => {
            Ok(ForksReport { unsupported: Some(reason), ..named })
        }
        Err(DesignError::Failed(e)) => Err(e),
    }
}

/// What the program runs on: a parent, and at times a child.
trait World {
    type Error;
    fn fork(&mut self) -> Result<(), Self::Error>;
    fn exit(&mut self) -> Result<(), Self::Error>;
    /// `who` is 0 for the parent, 1 for the child.
    fn read(&mut self, who: usize, page: u64) -> Result<u64, Self::Error>;
    fn write(&mut self, who: usize, page: u64, value: u64) -> Result<(), Self::Error>;
}

/// The program; its checksum of all that was read.
fn program<W: World>(world: &mut W) -> Result<u64, W::Error> {
    let mut random = Random::new(4);
    let mut sum = 0u64;
    for _ in 0..FORKS {
        world.fork()?;
        for _ in 0..TURNS {
            for (who, count) in ACCESSES.into_iter().enumerate() {
                for _ in 0..count {
                    let r = random.next();
                    let page = (r >> 2) % PAGES;
                    if r.is_multiple_of(4) {
                        world.write(who, page, r)?;
                    } else {
                        sum = sum.rotate_left(1) ^ world.read(who, page)?;
                    }
                }
            }
        }
        world.exit()?;
    }
    Ok(sum)
}

/// What a page holds at first.
const fn at_first(page: u64) -> u64 {
    page * 0x1_0001
}

struct Forks<'m> {
    machine: &'m MachineConfig,
}

struct Forked {
    machine: Machine,
    copies: u64,
    reuses: u64,
    bytes: u64,
    peak_bytes: u64,
    #[cfg_attr(not(test), allow(dead_code, reason = "what tests look at"))]
    checksum: u64,
}

impl Experiment for Forks<'_> {
    type Out = Forked;

    fn count_pages(&self) -> u64 {
        2 * PAGES
    }

    fn highest(&self) -> Vpn {
        Vpn::new(FIRST + PAGES - 1).unwrap_or_default()
    }

    fn run<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        make: &mut dyn FnMut(u16) -> Result<T, ReplayError>,
    ) -> Result<Forked, DesignError> {
        let mut tables = Tables {
            make,
            spaces: [None, None],
            frames: Frames::new(scene.data),
            machine: Machine::new(self.machine),
            copies: 0,
            reuses: 0,
        };
        tables.begin()?;
        let checksum = program(&mut tables)?;
        let meter = scene.ram.meter();
        let Tables { machine, copies, reuses, .. } = tables;
        let (bytes, peak_bytes) = (meter.now, meter.peak);
        Ok(Forked { machine, copies, reuses, bytes, peak_bytes, checksum })
    }
}

/// Frames with what they hold, and how many pages have each.
struct Frames<'d, 'm> {
    data: &'d DataFrames<'m>,
    free: Vec<PhysAddr>,
    used: HashMap<PhysAddr, Frame>,
}

#[derive(Clone, Copy)]
struct Frame {
    value: u64,
    sharers: u32,
}

impl<'d, 'm> Frames<'d, 'm> {
    fn new(data: &'d DataFrames<'m>) -> Self {
        Self { data, free: Vec::new(), used: HashMap::new() }
    }

    /// A frame that one page has.
    fn take(&mut self, value: u64) -> Result<PhysAddr, ReplayError> {
        let pa = match self.free.pop() {
            Some(pa) => pa,
            None => self.data.alloc().map_err(ReplayError::OutOfData)?,
        };
        self.used.insert(pa, Frame { value, sharers: 1 });
        Ok(pa)
    }

    /// One more page has each frame of a span.
    fn shared(&mut self, span: Span) {
        if let Entry::Leaf(pa, _) = span.entry {
            for frame in pages_of(pa, span.len) {
                self.used.entry(frame).and_modify(|frame| frame.sharers += 1);
            }
        }
    }

    /// One page less has what left a table.
    fn gone(&mut self, gone: Gone) {
        let Gone::Run(run) = gone else { return };
        for pa in pages_of(run.pa, run.len) {
            let Some(frame) = self.used.get_mut(&pa) else { continue };
            frame.sharers -= 1;
            if frame.sharers == 0 {
                self.used.remove(&pa);
                self.free.push(pa);
            }
        }
    }
}

fn pages_of(pa: PhysAddr, len: u64) -> impl Iterator<Item = PhysAddr> {
    (0..len >> PAGE_SHIFT).map(move |n| pa.wrapping_add(n << PAGE_SHIFT))
}

fn address(page: u64) -> VirtAddr {
    VirtAddr::new((FIRST + page) << PAGE_SHIFT)
}

const READ_ONLY: Change = Change { set: Attr::NONE, clear: Attr::WRITE };

/// The design's tables, and all that is around them.
struct Tables<'t, 'd, 'm, T> {
    make: &'t mut dyn FnMut(u16) -> Result<T, ReplayError>,
    spaces: [Option<T>; 2],
    frames: Frames<'d, 'm>,
    machine: Machine,
    copies: u64,
    reuses: u64,
}

fn asid(who: usize) -> Asid {
    Asid::new(who as u16).unwrap_or_default()
}

impl<T: PageTable> Tables<'_, '_, '_, T> {
    /// The parent with all its pages.
    fn begin(&mut self) -> Result<(), ReplayError> {
        let mut parent = (self.make)(0)?;
        for page in 0..PAGES {
            let frame = self.frames.take(at_first(page))?;
            let run = Run::new(address(page), frame, PAGE_SIZE, ATTR);
            gathered_into::<T, _, _>(|gone| self.frames.gone(gone), |g| parent.map(run, g))?;
        }
        self.spaces = [Some(parent), None];
        Ok(())
    }

    /// The leaf of a page, through the TLB as a processor does it.
    fn leaf(&mut self, who: usize, page: u64) -> Result<(PhysAddr, Attr), ReplayError> {
        let va = address(page);
        let missed = !self.machine.translate(va, asid(who), Port::Data);
        let mut refs = Vec::new();
        let Some(table) = &self.spaces[who] else { return Err(ReplayError::Spaces) };
        let span = table.walk(va, &mut |r: Ref| refs.push(r)).map_err(ReplayError::Walk)?;
        let Entry::Leaf(pa, attr) = span.entry else { return Err(ReplayError::Lost(span)) };
        if missed {
            self.machine.walked(va, asid(who), Port::Data, Leaf::PAGE_4K, &refs);
        }
        Ok((pa, attr))
    }

    /// The leaf of a page, writable and nobody else's.
    fn own(&mut self, who: usize, page: u64) -> Result<PhysAddr, ReplayError> {
        let (pa, attr) = self.leaf(who, page)?;
        if attr.contains(Attr::WRITE) {
            return Ok(pa);
        }
        let Frame { value, sharers } =
            self.frames.used.get(&pa).copied().unwrap_or(Frame { value: 0, sharers: 0 });
        let own = if sharers == 1 {
            self.reuses += 1;
            pa
        } else {
            self.copies += 1;
            self.frames.take(value)?
        };
        let Some(table) = &self.spaces[who] else { return Err(ReplayError::Spaces) };
        let (old, new) = (Entry::Leaf(pa, attr), Entry::Leaf(own, ATTR));
        let va = address(page);
        let mut stock = table.stock();
        let frames = &mut self.frames;
        let done = gathered_into::<T, _, _>(
            |gone| frames.gone(gone),
            |g| table.replace_refilling(va, PAGE_SIZE, old, new, &mut stock, g),
        );
        done.map_err(|e| match e {
            ReplaceError::Invalid(Cause::OutOfFrames(e)) => ReplayError::OutOfFrames(e),
            e => ReplayError::Install(va, e),
        })?;
        self.machine.flush_page(va, asid(who));
        Ok(self.leaf(who, page)?.0)
    }
}

impl<T: PageTable> World for Tables<'_, '_, '_, T> {
    type Error = ReplayError;

    fn fork(&mut self) -> Result<(), ReplayError> {
        let mut child = (self.make)(1)?;
        let frames = &mut self.frames;
        let Some(parent) = &mut self.spaces[0] else { return Err(ReplayError::Spaces) };
        let nothing = |_: Gone| debug_assert!(false, "a fork unmaps nothing");
        gathered_into::<T, _, _>(nothing, |g| {
            gathered_into::<T, _, _>(nothing, |h| {
                let (va, len) = (address(0), PAGES << PAGE_SHIFT);
                let child = (&mut child, h);
                parent.share(va, len, READ_ONLY, g, child, &mut |span| frames.shared(span))
            })
        })?;
        // What the parent could write it must not find in its TLB; the child's identifier had
        // another owner.
        self.machine.flush_asid(asid(0));
        self.machine.flush_asid(asid(1));
        self.spaces[1] = Some(child);
        Ok(())
    }

    fn exit(&mut self) -> Result<(), ReplayError> {
        let Some(child) = self.spaces[1].take() else { return Err(ReplayError::Spaces) };
        gathered_into::<T, _, _>(|gone| self.frames.gone(gone), |g| child.retire(g));
        Ok(())
    }

    fn read(&mut self, who: usize, page: u64) -> Result<u64, ReplayError> {
        let (pa, _) = self.leaf(who, page)?;
        Ok(self.frames.used.get(&pa).map_or(0, |frame| frame.value))
    }

    fn write(&mut self, who: usize, page: u64, value: u64) -> Result<(), ReplayError> {
        let pa = self.own(who, page)?;
        self.frames.used.entry(pa).and_modify(|frame| frame.value = value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CachePreset;
    use crate::designs::DESIGNS;
    use core::convert::Infallible;
    use vellum_tlb::{Preset, WALK_CACHE_X86};

    /// Processes as plain vectors.
    struct Plain([Vec<u64>; 2]);

    impl World for Plain {
        type Error = Infallible;

        fn fork(&mut self) -> Result<(), Infallible> {
            self.0[1] = self.0[0].clone();
            Ok(())
        }

        fn exit(&mut self) -> Result<(), Infallible> {
            self.0[1].clear();
            Ok(())
        }

        fn read(&mut self, who: usize, page: u64) -> Result<u64, Infallible> {
            Ok(self.0[who][page as usize])
        }

        fn write(&mut self, who: usize, page: u64, value: u64) -> Result<(), Infallible> {
            self.0[who][page as usize] = value;
            Ok(())
        }
    }

    #[test]
    fn no_design_mixes_up_two_processes() {
        let Ok(expected) = program(&mut Plain([(0..PAGES).map(at_first).collect(), Vec::new()]));
        let machine = &MachineConfig {
            tlb: Preset::REFERENCE,
            walk_caches: WALK_CACHE_X86.to_vec(),
            cache: CachePreset::DEFAULT,
        };
        let mut counts = Vec::new();
        for design in DESIGNS {
            let done = design.measure(&Forks { machine }).unwrap();
            assert_eq!(done.checksum, expected, "{}", design.name);
            assert!(done.bytes <= done.peak_bytes);
            counts.push((done.copies, done.reuses, done.machine.walk_counts().refs.total()));
        }
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        let (copies, reuses, walks) = counts[0];
        let writes = FORKS * TURNS * (ACCESSES[0] + ACCESSES[1]) / 4;
        assert!(copies > writes / 2 && reuses > 0 && copies + reuses < writes * 11 / 10);
        assert!(walks > writes);
    }
}
