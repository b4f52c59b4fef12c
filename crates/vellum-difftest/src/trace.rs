//! What a run of a sequence showed: one step for each operation, and a look at the end.
//!
//! ```text
//!   Trace
//!   +-- steps[i]     outcome of operation i, and the state behind it (where one was taken)
//!   +-- last         state, a reading of every page, state, a writing of every page, state
//!   '-- parents      the same of each process that forked, from the last one up
//! ```
//!
//! A [`State`] is looked at without changing it: no page is touched. What pages contain is seen by
//! the operations that touch, and at the end, when nothing is left to disturb.
//!
//! Offsets of regions and addresses of signals are relative to the arena's base. Names of files are
//! reduced to a [`Kind`].

use crate::abi::{self, PAGE};
use crate::op::text::Bytes;
use core::fmt;

/// What one operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded and returned this number.
    Done(u64),
    /// It returned an address, so many bytes from the arena's base.
    At(i64),
    /// It returned an address far from the arena. What it had put there was unmapped at once.
    Elsewhere,
    /// It failed with this error number.
    Fails(u64),
    /// An access raised a signal.
    Signal(Signal),
    /// The byte that was read.
    Byte(u8),
    /// The first byte of each page, until a signal or the end.
    Pages(Vec<u8>, Option<Signal>),
    /// The vector of `mincore`.
    Vector(Vec<u8>),
    /// What each page gave to a child that read and wrote it.
    Probed(Vec<Probe>),
    /// The subject does not have this; the reason.
    Skipped(&'static str),
}

/// A signal of an access, and where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: u64,
    /// `si_code`.
    pub code: i64,
    /// `si_addr`, in bytes from the arena's base.
    pub at: i64,
}

/// What a page gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// A number made of the page's content, 0 if all of it is zero; or the signal.
    pub content: Result<u64, Signal>,
    /// Whether it could be written.
    pub written: Result<(), Signal>,
}

/// How the processes stands, seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The regions in and near the arena, ascending.
    pub regions: Vec<Region>,
    /// One for each page of the arena.
    pub pages: Vec<PageState>,
}

/// One region, with what /proc/PID/smaps says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first page, counted from the arena's.
    pub start: i64,
    /// The page behind its last one.
    pub end: i64,
    /// `rwxp` or with hyphens, as /proc/PID/maps has them.
    pub perms: [u8; 4],
    /// Where in the file it begins, in bytes; 0 without a file.
    pub offset: u64,
    /// What it is made of.
    pub kind: Kind,
    /// Sizes, in KiB.
    pub sizes: Sizes,
    /// `VmFlags`, without those that an implementation may have or not.
    pub flags: Flags,
    /// The text of its part of smaps, but for [what is not compared](crate::compare::UNCOMPARED); nothing
    /// of a heap, which lies elsewhere in every process.
    pub text: String,
}

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private, without a file.
    Anon,
    /// Shared, without a file: Linux makes one, and calls it /dev/zero.
    SharedAnon,
    /// The file of the sequence.
    File,
    /// The heap.
    Heap,
    /// The stack: a region that grows down is not called so, unless a process' own.
    Stack,
}

/// What /proc/PID/smaps counts, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Pages present, but for the zero page.
    pub rss: u64,
    /// The same, each divided by how often it is mapped.
    pub pss: u64,
    /// Present and mapped elsewhere too.
    pub shared: u64,
    /// Dirty ones among the present.
    pub dirty: u64,
    /// Present and not of a file.
    pub anonymous: u64,
    /// Given up by MADV_FREE, and not written since.
    pub lazy_free: u64,
    /// Swapped out.
    pub swap: u64,
    /// `pss` of locked regions.
    pub locked: u64,
}

/// Two-letter flags of a region, each as one bit by its place in [`KNOWN_FLAGS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

/// The flags of `VmFlags` that are kept: what an operation of the language sets. Left out are `sd`
/// (soft dirty, for checkpoints), `nh` and `hg` (huge pages) where not asked for, and `??`.
pub const KNOWN_FLAGS: [&str; 26] = [
    "rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "lf", "sr", "rr", "dc", "ac", "nr",
    "dd", "wf", "dp", "sl", "hg", "nh", "de", "sf", "mg", "gu",
];

/// One page of the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageState {
    /// `mincore` says so; nothing if it is not mapped.
    pub in_core: Option<bool>,
    /// The page table has a page there, the zero page included.
    pub present: bool,
    /// The page table says that it was swapped out.
    pub swapped: bool,
    /// It is a page of a file, or of shared memory.
    pub file: bool,
    /// It is a guard, of MADV_GUARD_INSTALL.
    pub guard: bool,
}

/// An operation's outcome, and the state behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it gave.
    pub outcome: Outcome,
    /// How things stood then, if that was looked at.
    pub state: Option<State>,
}

/// The look at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// Before anything is touched.
    pub before: State,
    /// What each page gave: read from the lowest on, then written from the lowest on.
    pub probes: Vec<Probe>,
    /// Between reading and writing.
    pub between: State,
    /// Behind both.
    pub after: State,
}

/// What a run showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// One for each operation.
    pub steps: Vec<Step>,
    /// Of the process that came to the end.
    pub last: Last,
    /// Of each process that forked on the way, from the last up.
    pub parents: Vec<Last>,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = abi::name(abi::SIGNAL, self.number).unwrap_or("signal");
        write!(f, "{name}/{} {}", self.code, crate::op::Place::Arena(self.at))
    }
}

/// Equal neighbours as runs: `65x3 0 7x2`.
fn runs<T: PartialEq + fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for run in items.chunk_by(PartialEq::eq) {
        match run {
            [one] => write!(f, " {one}")?,
            [one, ..] => write!(f, " {one}x{}", run.len())?,
            [] => {}
        }
    }
    Ok(())
}

impl Probe {
    /// What page number `page` gave, in words; addresses that are the page's own are left out.
    fn words(&self, page: usize) -> String {
        let own = i64::try_from(page).unwrap_or(0) * PAGE.cast_signed();
        let signal = |signal: Signal| {
            let text = signal.to_string();
            let end =
                if signal.at == own { text.find(' ').unwrap_or(text.len()) } else { text.len() };
            text[..end].to_owned()
        };
        let content = self.content.map_or_else(signal, |content| format!("{content:x}"));
        let written = self.written.map_or_else(signal, |()| "w".to_owned());
        format!("{content}|{written}")
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words(usize::MAX))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(0) => f.write_str("ok"),
            Self::Done(number) => write!(f, "{number}"),
            Self::At(at) => write!(f, "at {}", crate::op::Place::Arena(*at)),
            Self::Elsewhere => f.write_str("elsewhere"),
            Self::Fails(errno) => match abi::name(abi::ERRNO, *errno) {
                Some(name) => f.write_str(name),
                None => write!(f, "errno {errno}"),
            },
            Self::Signal(signal) => signal.fmt(f),
            Self::Byte(byte) => write!(f, "byte {byte}"),
            Self::Pages(bytes, end) => {
                f.write_str("pages")?;
                runs(f, bytes)?;
                end.map_or(Ok(()), |signal| write!(f, " {signal}"))
            }
            Self::Vector(bytes) => {
                f.write_str("vector")?;
                runs(f, bytes)
            }
            Self::Probed(probes) => {
                f.write_str("child")?;
                let words: Vec<_> =
                    probes.iter().enumerate().map(|(page, probe)| probe.words(page)).collect();
                runs(f, &words)
            }
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anon => "anon",
            Self::SharedAnon => "shm",
            Self::File => "file",
            Self::Heap => "heap",
            Self::Stack => "stack",
        })
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = KNOWN_FLAGS.iter().enumerate().filter(|(bit, _)| self.0 & 1 << bit != 0);
        let names: Vec<_> = set.map(|(_, name)| *name).collect();
        f.write_str(&names.join(" "))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let perms: String = self.perms.iter().map(|&b| char::from(b)).collect();
        write!(f, "{}-{} {perms} {}", self.start, self.end, self.kind)?;
        if self.offset != 0 {
            write!(f, " {}", Bytes(self.offset))?;
        }
        Ok(())
    }
}

impl State {
    /// The state in words: what an expectation is held against, and what a report shows.
    ///
    /// The names are those of [`LINES`]; nothing for others.
    #[must_use]
    pub fn line(&self, name: &str) -> Option<String> {
        let sum = |of: fn(&Sizes) -> u64| {
            let kib: u64 = self.regions.iter().map(|region| of(&region.sizes)).sum();
            Some(kib.to_string())
        };
        let pages = |of: fn(&PageState) -> bool| Some(self.list(of));
        match name {
            "maps" => Some(join(self.regions.iter().map(ToString::to_string))),
            "flags" => Some(join(
                self.regions.iter().map(|r| format!("{}-{} {}", r.start, r.end, r.flags)),
            )),
            "rss" => sum(|s| s.rss),
            "pss" => sum(|s| s.pss),
            "shared" => sum(|s| s.shared),
            "dirty" => sum(|s| s.dirty),
            "anonymous" => sum(|s| s.anonymous),
            "lazyfree" => sum(|s| s.lazy_free),
            "swap" => sum(|s| s.swap),
            "locked" => sum(|s| s.locked),
            "incore" => pages(|p| p.in_core == Some(true)),
            "mapped" => pages(|p| p.in_core.is_some()),
            "present" => pages(|p| p.present),
            "swapped" => pages(|p| p.swapped),
            "filepages" => pages(|p| p.file),
            "guards" => pages(|p| p.guard),
            _ => None,
        }
    }

    /// The pages that have a property, as ranges: `0-3 7`; `none` if there are none.
    fn list(&self, of: fn(&PageState) -> bool) -> String {
        let mut ranges: Vec<String> = Vec::new();
        let mut at = 0;
        for run in self.pages.chunk_by(|a, b| of(a) == of(b)) {
            let last = at + run.len() - 1;
            if of(&run[0]) {
                ranges.push(if last == at { at.to_string() } else { format!("{at}-{last}") });
            }
            at = last + 1;
        }
        if ranges.is_empty() { "none".to_owned() } else { ranges.join(" ") }
    }
}

/// The names of [`State::line`].
pub const LINES: [&str; 16] = [
    "maps",
    "flags",
    "rss",
    "pss",
    "shared",
    "dirty",
    "anonymous",
    "lazyfree",
    "swap",
    "locked",
    "incore",
    "mapped",
    "present",
    "swapped",
    "filepages",
    "guards",
];

fn join(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// A number made of a page's content: 0 for zeroes, and otherwise never 0.
#[must_use]
pub fn content_of(words: impl Iterator<Item = u64>) -> u64 {
    let mut any = 0;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for word in words {
        any |= word;
        hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    if any == 0 { 0 } else { hash | 1 }
}

/// Words in a page.
pub const WORDS: u64 = PAGE / 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_listed_as_ranges() {
        let page = |present| PageState { present, ..PageState::default() };
        let pages = [true, true, false, true, false].map(page).to_vec();
        let state = State { regions: Vec::new(), pages };
        assert_eq!(state.line("present").as_deref(), Some("0-1 3"));
        assert_eq!(state.line("guards").as_deref(), Some("none"));
        assert_eq!(state.line("maps").as_deref(), Some("none"));
        assert_eq!(state.line("mood"), None);
        assert!(LINES.iter().all(|name| state.line(name).is_some()));
    }

    #[test]
    fn only_zeroes_have_the_number_zero() {
        assert_eq!(content_of([0; 512].into_iter()), 0);
        assert_ne!(content_of([0, 1, 0].into_iter()), 0);
        assert_ne!(content_of([1, 0].into_iter()), content_of([0, 1].into_iter()));
    }
}
