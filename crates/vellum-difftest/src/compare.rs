//! Where two runs of a sequence differ first.
//!
//! ```text
//!   normalised   neighbours that differ in nothing are one region: how a kernel came to have two
//!                is its own affair (anon_vma, the order of merges)
//!   strict       regions as they are, what depends on how pages are counted, and the text of smaps
//! ```
//!
//! A state is compared by its lines ([`State::line`]), so that a difference reads as what differs:
//! what one subject shows, and what the other one does. Everything behind the first difference may
//! follow from it, and is not compared.

use crate::explained::{EXPLAINED, Explained};
use crate::trace::{Kind, Last, Probe, Region, State, Trace};
use core::fmt;

/// How closely is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Regions that differ in nothing are one.
    #[default]
    Normalised,
    /// Everything.
    Strict,
}

/// The lines of a state that are compared in both modes.
const ALWAYS: [&str; 11] = [
    "maps",
    "flags",
    "rss",
    "anonymous",
    "swap",
    "locked",
    "incore",
    "present",
    "swapped",
    "filepages",
    "guards",
];

/// Those that depend on how pages are counted and written back.
/// Lazily freed pages are not among them: they are counted only when Linux has emptied a list of
/// the processor.
const STRICT: [&str; 3] = ["pss", "shared", "dirty"];

/// Lines of smaps that are not compared, and why.
pub const UNCOMPARED: [(&str, &str); 3] = [
    (
        "Referenced",
        "a hint for reclaim: on Linux pages around a fault begin as used, those of a child as not",
    ),
    (
        "LazyFree",
        "Linux counts such pages when it empties a list of the processor, sooner or later",
    ),
    ("ProtectionKey", "a line that there is on processors with keys alone"),
];

/// Where in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At this operation, counted from 0.
    Op(usize),
    /// In the last look, before anything was touched.
    Before,
    /// When all pages were read.
    Between,
    /// When all pages were written.
    After,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of the process that came to the end (0), or of one that forked: 1 is the last of them.
    pub process: usize,
    /// When.
    pub moment: Moment,
    /// In what: `outcome`, `page 3`, or a name of [`LINES`](crate::trace::LINES).
    pub aspect: String,
    /// What the first one shows.
    pub left: String,
    /// What the second one shows.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.moment {
            Moment::Op(index) => write!(f, "operation {}", index + 1)?,
            Moment::Before => f.write_str("at the end")?,
            Moment::Between => f.write_str("at the end, all pages read")?,
            Moment::After => f.write_str("at the end, all pages written")?,
        }
        match self.process {
            0 => write!(f, ": {}", self.aspect),
            parent => write!(f, ", in the parent of fork {parent} from the last: {}", self.aspect),
        }
    }
}

/// The first difference of two runs, if there is one that nothing explains.
#[must_use]
pub fn difference(left: &Trace, right: &Trace, mode: Mode) -> Option<Difference> {
    match first(left, right, mode) {
        Some(found) if explanation(left, &found).is_some() => None,
        found => found,
    }
}

/// What explains a difference of a run from the one that shows `left`.
#[must_use]
pub fn explanation(left: &Trace, difference: &Difference) -> Option<&'static Explained> {
    EXPLAINED.iter().find(|explained| (explained.applies)(left, difference))
}

/// The first difference, explained or not.
#[must_use]
pub fn first(left: &Trace, right: &Trace, mode: Mode) -> Option<Difference> {
    let steps = left.steps.iter().zip(&right.steps).enumerate();
    let in_steps = steps.filter(|(_, (left, right))| left != right).find_map(|(index, pair)| {
        let (left, right) = pair;
        let moment = Moment::Op(index);
        if left.outcome != right.outcome {
            let (left, right) = (left.outcome.to_string(), right.outcome.to_string());
            let aspect = "outcome".into();
            return Some(Difference { process: 0, moment, aspect, left, right });
        }
        state(0, moment, left.state.as_ref()?, right.state.as_ref()?, mode)
    });
    in_steps
        .or_else(|| count(left.steps.len(), right.steps.len(), "steps"))
        .or_else(|| last(0, &left.last, &right.last, mode))
        .or_else(|| {
            let parents = left.parents.iter().zip(&right.parents).enumerate();
            let mut found = parents.filter_map(|(at, (l, r))| last(at + 1, l, r, mode));
            found.next()
        })
        .or_else(|| count(left.parents.len(), right.parents.len(), "processes"))
}

fn count(left: usize, right: usize, aspect: &str) -> Option<Difference> {
    let (moment, aspect) = (Moment::Before, aspect.to_owned());
    let (l, r) = (left.to_string(), right.to_string());
    (left != right).then_some(Difference { process: 0, moment, aspect, left: l, right: r })
}

fn last(process: usize, left: &Last, right: &Last, mode: Mode) -> Option<Difference> {
    if left == right {
        return None;
    }
    state(process, Moment::Before, &left.before, &right.before, mode)
        .or_else(|| contents(process, &left.probes, &right.probes))
        .or_else(|| state(process, Moment::Between, &left.between, &right.between, mode))
        .or_else(|| state(process, Moment::After, &left.after, &right.after, mode))
}

fn contents(process: usize, left: &[Probe], right: &[Probe]) -> Option<Difference> {
    let (page, (left, right)) =
        left.iter().zip(right).enumerate().find(|(_, (left, right))| left != right)?;
    Some(Difference {
        process,
        moment: Moment::After,
        aspect: format!("page {page}"),
        left: left.to_string(),
        right: right.to_string(),
    })
}

fn state(
    process: usize,
    moment: Moment,
    left: &State,
    right: &State,
    mode: Mode,
) -> Option<Difference> {
    if left == right {
        return None;
    }
    let whole = (mode == Mode::Normalised).then(|| (merged(left), merged(right)));
    let (left, right) = whole.as_ref().map_or((left, right), |(left, right)| (left, right));
    let more: &[&str] = if mode == Mode::Strict { &STRICT } else { &[] };
    let in_lines = ALWAYS.iter().chain(more).find_map(|&aspect| {
        let (left, right) = (left.line(aspect)?, right.line(aspect)?);
        let aspect = aspect.to_owned();
        (left != right).then_some(Difference { process, moment, aspect, left, right })
    });
    let text = || if mode == Mode::Strict { text(process, moment, left, right) } else { None };
    in_lines.or_else(text)
}

/// The first line of smaps that differs.
fn text(process: usize, moment: Moment, left: &State, right: &State) -> Option<Difference> {
    let lines = |state: &State| -> Vec<String> {
        state.regions.iter().flat_map(|region| region.text.lines().map(str::to_owned)).collect()
    };
    let (left, right) = (lines(left), lines(right));
    let longest = left.len().max(right.len());
    let line = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_default();
    let at = (0..longest).find(|&at| left.get(at) != right.get(at))?;
    let (left, right) = (line(&left, at), line(&right, at));
    Some(Difference { process, moment, aspect: "smaps".into(), left, right })
}

/// The state with neighbours as one region where nothing is different but the place.
#[must_use]
pub fn merged(state: &State) -> State {
    let mut regions: Vec<Region> = Vec::with_capacity(state.regions.len());
    for region in &state.regions {
        match regions.last_mut() {
            Some(last) if continues(last, region) => {
                last.end = region.end;
                add(last, region);
            }
            _ => regions.push(region.clone()),
        }
    }
    State { regions, pages: state.pages.clone() }
}

fn continues(last: &Region, next: &Region) -> bool {
    let pages = (last.end - last.start).unsigned_abs();
    let offset = match last.kind {
        Kind::File | Kind::SharedAnon => last.offset + pages * crate::abi::PAGE,
        Kind::Anon | Kind::Heap | Kind::Stack => last.offset,
    };
    last.end == next.start
        && last.perms == next.perms
        && last.kind == next.kind
        && last.flags == next.flags
        && next.offset == offset
}

fn add(to: &mut Region, from: &Region) {
    let (sizes, more) = (&mut to.sizes, &from.sizes);
    sizes.rss += more.rss;
    sizes.pss += more.pss;
    sizes.shared += more.shared;
    sizes.dirty += more.dirty;
    sizes.anonymous += more.anonymous;
    sizes.lazy_free += more.lazy_free;
    sizes.swap += more.swap;
    sizes.locked += more.locked;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Flags, Outcome, Sizes, Step};

    fn region(start: i64, end: i64, perms: [u8; 4]) -> Region {
        let (sizes, flags) = (Sizes { rss: 4, ..Sizes::default() }, Flags::default());
        let text = String::new();
        Region { start, end, perms, offset: 0, kind: Kind::Anon, sizes, flags, text }
    }

    fn trace(regions: Vec<Region>) -> Trace {
        let state = Some(State { regions, pages: Vec::new() });
        Trace { steps: vec![Step { outcome: Outcome::Done(0), state }], ..Trace::default() }
    }

    #[test]
    fn how_equal_neighbours_are_cut_counts_only_in_strict_mode() {
        let one = trace(vec![Region {
            sizes: Sizes { rss: 8, ..Sizes::default() },
            ..region(0, 4, *b"rw-p")
        }]);
        let two = trace(vec![region(0, 2, *b"rw-p"), region(2, 4, *b"rw-p")]);
        assert_eq!(first(&one, &two, Mode::Normalised), None);
        let found = first(&one, &two, Mode::Strict).expect("they differ");
        assert_eq!((found.aspect.as_str(), found.moment), ("maps", Moment::Op(0)));
    }

    #[test]
    fn neighbours_with_other_permissions_stay_apart() {
        let one = trace(vec![region(0, 2, *b"rw-p"), region(2, 4, *b"r--p")]);
        let other = trace(vec![region(0, 2, *b"rw-p"), region(2, 4, *b"rw-p")]);
        let found = first(&one, &other, Mode::Normalised).expect("they differ");
        assert_eq!(found.right, "0-4 rw-p anon");
    }

    #[test]
    fn an_outcome_comes_before_the_state_behind_it() {
        let mut other = trace(vec![region(0, 2, *b"rw-p")]);
        other.steps[0].outcome = Outcome::Fails(22);
        let found = first(&trace(Vec::new()), &other, Mode::Normalised).expect("they differ");
        assert_eq!((found.left.as_str(), found.right.as_str()), ("ok", "EINVAL"));
    }
}
