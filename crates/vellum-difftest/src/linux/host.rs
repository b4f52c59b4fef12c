//! What the host decides: its kernel, what that has, and settings that change outcomes.

use crate::op::Op;
use crate::subject::SubjectError;
use core::fmt;

/// What the host decides.
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// /proc/sys/vm/overcommit_memory.
    pub overcommit: String,
    /// /proc/sys/vm/max_map_count.
    pub max_map_count: String,
    /// Whether there is swap.
    pub swap: bool,
    /// Whether there is mseal (6.10).
    pub seal: bool,
    /// Whether there is MADV_GUARD_INSTALL (6.13; for files 6.15).
    pub guard: bool,
    /// Whether there is MAP_DROPPABLE (6.11).
    pub droppable: bool,
}

/// Something that a kernel may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// `mseal`.
    Seal,
    /// `MADV_GUARD_INSTALL` and `_REMOVE`.
    Guard,
    /// `MAP_DROPPABLE`.
    Droppable,
}

impl Lack {
    pub(super) const ALL: [Self; 3] = [Self::Seal, Self::Guard, Self::Droppable];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seal => "no mseal",
            Self::Guard => "no MADV_GUARD_INSTALL",
            Self::Droppable => "no MAP_DROPPABLE",
        }
    }
}

/// Of `mmap`'s flags, the one that is younger than the others.
const MAP_DROPPABLE: u64 = 8;

impl Host {
    /// Asks this host.
    pub(super) fn read() -> Result<Self, SubjectError> {
        let setting = |path: &str| {
            let text = std::fs::read_to_string(path);
            text.map(|text| text.trim().to_owned()).map_err(|e| SubjectError::io(path, &e))
        };
        let swaps = setting("/proc/swaps")?;
        Ok(Self {
            release: setting("/proc/sys/kernel/osrelease")?,
            overcommit: setting("/proc/sys/vm/overcommit_memory")?,
            max_map_count: setting("/proc/sys/vm/max_map_count")?,
            swap: swaps.lines().count() > 1,
            seal: has_seal(),
            guard: has_guard(),
            droppable: has_droppable(),
        })
    }

    /// What that operation needs and this host lacks.
    #[must_use]
    pub const fn lacks(&self, op: &Op) -> Option<Lack> {
        match *op {
            Op::Seal { .. } if !self.seal => Some(Lack::Seal),
            Op::Advise { advice: 102 | 103, .. } if !self.guard => Some(Lack::Guard),
            Op::Map { flags, .. } if flags & 15 == MAP_DROPPABLE && !self.droppable => {
                Some(Lack::Droppable)
            }
            _ => None,
        }
    }
}

/// mseal of nothing succeeds where it exists.
fn has_seal() -> bool {
    // SAFETY: of no bytes at address 0, nothing is sealed.
    unsafe { libc::syscall(libc::SYS_mseal, 0, 0, 0) == 0 }
}

/// Advice over no bytes succeeds if the advice is known.
fn has_guard() -> bool {
    // SAFETY: of no bytes at address 0, nothing is changed.
    unsafe { libc::syscall(libc::SYS_madvise, 0, 0, 102) == 0 }
}

fn has_droppable() -> bool {
    let flags = libc::MAP_ANONYMOUS | 8;
    // SAFETY: a new mapping where the kernel likes replaces none.
    let at = unsafe { libc::mmap(core::ptr::null_mut(), 4096, 1, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: it is the mapping made above, which nobody else knows of.
    unsafe { libc::munmap(at, 4096) == 0 }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, overcommit, max_map_count, .. } = self;
        write!(f, "Linux {release}, overcommit {overcommit}, {max_map_count} regions")?;
        write!(f, ", {}", if self.swap { "swap" } else { "no swap" })?;
        let lacks = [
            (self.seal, "mseal"),
            (self.guard, "MADV_GUARD_INSTALL"),
            (self.droppable, "MAP_DROPPABLE"),
        ];
        for (_, what) in lacks.iter().filter(|(has, _)| !has) {
            write!(f, ", without {what} (skipped)")?;
        }
        Ok(())
    }
}
