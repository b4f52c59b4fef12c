//! The records of a run: how a child writes them, and how they are read.
//!
//! ```text
//!   STEP index outcome [STATE ... | NO_STATE]       for each operation
//!   LAST STATE contents STATE stores STATE          of the process that came to the end
//!   LAST ...                                        of each that forked, from the last up
//! ```
//!
//! Numbers are 8 bytes, tags one. An outcome is a tag and what [`Outcome`] has.

use super::child::relative;
use super::host::Lack;
use super::memory::Records;
use super::probe::Raised;
use crate::op::{MARGIN, Sequence};
use crate::smaps;
use crate::subject::SubjectError;
use crate::trace::{Last, Outcome, PageState, Probe, Signal, State, Step, Trace};

/// The bits of a page.
pub(super) mod page {
    pub(in crate::linux) const MAPPED: u8 = 1;
    pub(in crate::linux) const IN_CORE: u8 = 2;
    pub(in crate::linux) const PRESENT: u8 = 4;
    pub(in crate::linux) const SWAPPED: u8 = 8;
    pub(in crate::linux) const FILE: u8 = 16;
    pub(in crate::linux) const GUARD: u8 = 32;
}

const STEP: u8 = b'>';
const STATE: u8 = b'S';
const NO_STATE: u8 = b'-';
const LAST: u8 = b'L';
const DONE: u8 = b'd';
const AT: u8 = b'a';
const ELSEWHERE: u8 = b'e';
const FAILS: u8 = b'f';
const SIGNAL: u8 = b's';
const BYTE: u8 = b'b';
const PAGES: u8 = b'p';
const VECTOR: u8 = b'v';
const PROBED: u8 = b'c';
const SKIPPED: u8 = b'x';
const CONTENT: u8 = b'=';

pub(super) fn begin(out: Records, index: usize) {
    out.byte(STEP);
    out.word(index as u64);
}

pub(super) fn state(out: Records, base: u64) {
    out.byte(STATE);
    out.word(base);
}

pub(super) fn no_state(out: Records) {
    out.byte(NO_STATE);
}

pub(super) fn last(out: Records) {
    out.byte(LAST);
}

pub(super) fn done(out: Records, number: u64) {
    out.byte(DONE);
    out.word(number);
}

pub(super) fn at(out: Records, offset: i64) {
    out.byte(AT);
    out.word(offset.cast_unsigned());
}

pub(super) fn elsewhere(out: Records) {
    out.byte(ELSEWHERE);
}

pub(super) fn fails(out: Records, errno: u64) {
    out.byte(FAILS);
    out.word(errno);
}

pub(super) fn signal(out: Records, raised: Raised, base: u64) {
    out.byte(SIGNAL);
    relative(raised, base).into_iter().for_each(|word| out.word(word));
}

pub(super) fn read_byte(out: Records, byte: u8) {
    out.byte(BYTE);
    out.byte(byte);
}

/// Begins a list of bytes whose length is not known yet: where the length goes.
pub(super) fn open_pages(out: Records) -> *mut u8 {
    out.byte(PAGES);
    let count = out.room(8);
    out.word(0);
    count
}

/// Ends it.
pub(super) fn close_pages(out: Records, at: *mut u8, pages: u64, end: Option<Raised>, base: u64) {
    // SAFETY: the eight bytes that `open_pages` kept for it.
    unsafe { at.cast::<u64>().write_unaligned(pages) };
    stored(out, end, base);
}

pub(super) fn vector(out: Records, pages: u64) {
    out.byte(VECTOR);
    out.word(pages);
}

pub(super) fn probed(out: Records) {
    out.byte(PROBED);
}

pub(super) fn skipped(out: Records, why: Lack) {
    out.byte(SKIPPED);
    out.byte(why as u8);
}

pub(super) fn content(out: Records, content: u64) {
    out.byte(CONTENT);
    out.word(content);
}

pub(super) fn content_signal(out: Records, raised: Raised, base: u64) {
    signal(out, raised, base);
}

/// An access that gave nothing but perhaps a signal.
pub(super) fn stored(out: Records, raised: Option<Raised>, base: u64) {
    match raised {
        None => out.byte(DONE),
        Some(raised) => signal(out, raised, base),
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, SubjectError>;

fn broken<T>(what: &str) -> Read<T> {
    Err(SubjectError::Record(what.to_owned()))
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: u64) -> Read<&'a [u8]> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match self.0.split_at_checked(count) {
            Some((bytes, rest)) => {
                self.0 = rest;
                Ok(bytes)
            }
            None => broken("it ends too early"),
        }
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.bytes(1)?.iter().copied().sum())
    }

    fn word(&mut self) -> Read<u64> {
        let bytes = self.bytes(8)?;
        Ok(bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
    }

    fn signal(&mut self) -> Read<Signal> {
        let (number, code, at) = (self.word()?, self.word()?, self.word()?);
        Ok(Signal { number, code: code.cast_signed(), at: at.cast_signed() })
    }

    fn end(&mut self) -> Read<Option<Signal>> {
        match self.byte()? {
            DONE => Ok(None),
            SIGNAL => Ok(Some(self.signal()?)),
            _ => broken("an access without an end"),
        }
    }

    fn outcome(&mut self, sequence: &Sequence) -> Read<Outcome> {
        Ok(match self.byte()? {
            DONE => Outcome::Done(self.word()?),
            AT => Outcome::At(self.word()?.cast_signed()),
            ELSEWHERE => Outcome::Elsewhere,
            FAILS => Outcome::Fails(self.word()?),
            SIGNAL => Outcome::Signal(self.signal()?),
            BYTE => Outcome::Byte(self.byte()?),
            PAGES => {
                let count = self.word()?;
                let bytes = self.bytes(count)?.to_vec();
                Outcome::Pages(bytes, self.end()?)
            }
            VECTOR => {
                let count = self.word()?;
                Outcome::Vector(self.bytes(count)?.to_vec())
            }
            PROBED => {
                let contents = self.contents(sequence)?;
                Outcome::Probed(self.stores(contents)?)
            }
            SKIPPED => {
                let lack = self.byte()?;
                let known = Lack::ALL.into_iter().find(|known| *known as u8 == lack);
                known.map_or_else(
                    || broken("a lack that no host has"),
                    |l| Ok(Outcome::Skipped(l.name())),
                )?
            }
            _ => return broken("an outcome of no kind"),
        })
    }

    fn contents(&mut self, sequence: &Sequence) -> Read<Vec<Result<u64, Signal>>> {
        let one = |_| match self.byte()? {
            CONTENT => Ok(Ok(self.word()?)),
            SIGNAL => Ok(Err(self.signal()?)),
            _ => broken("a page without content"),
        };
        (0..sequence.pages).map(one).collect()
    }

    fn stores(&mut self, contents: Vec<Result<u64, Signal>>) -> Read<Vec<Probe>> {
        let one = |content| {
            let written = self.end()?.map_or(Ok(()), Err);
            Ok(Probe { content, written })
        };
        contents.into_iter().map(one).collect()
    }

    fn state(&mut self, sequence: &Sequence) -> Read<Option<State>> {
        match self.byte()? {
            NO_STATE => return Ok(None),
            STATE => {}
            _ => return broken("no state where one is due"),
        }
        let base = self.word()?;
        let count = self.word()?;
        let pages = self.bytes(count)?.iter().map(|&bits| page_state(bits)).collect();
        let length = self.word()?;
        // The page below an arena on the heap is the fence, and then comes somebody else's heap.
        let low = if sequence.heap { base } else { base - 2 * MARGIN };
        let text = core::str::from_utf8(self.bytes(length)?);
        let text = text.map_err(|_| SubjectError::Record("smaps is no text".to_owned()))?;
        let regions = smaps::regions(text, low, base).map_err(SubjectError::Record)?;
        Ok(Some(State { regions, pages }))
    }

    fn some_state(&mut self, sequence: &Sequence) -> Read<State> {
        self.state(sequence)?.map_or_else(|| broken("a state is missing"), Ok)
    }

    fn last(&mut self, sequence: &Sequence) -> Read<Last> {
        let before = self.some_state(sequence)?;
        let contents = self.contents(sequence)?;
        let between = self.some_state(sequence)?;
        let probes = self.stores(contents)?;
        Ok(Last { before, probes, between, after: self.some_state(sequence)? })
    }
}

const fn page_state(bits: u8) -> PageState {
    PageState {
        in_core: if bits & page::MAPPED == 0 { None } else { Some(bits & page::IN_CORE != 0) },
        present: bits & page::PRESENT != 0,
        swapped: bits & page::SWAPPED != 0,
        file: bits & page::FILE != 0,
        guard: bits & page::GUARD != 0,
    }
}

/// Reads what a run recorded.
pub(super) fn read(bytes: &[u8], sequence: &Sequence) -> Read<Trace> {
    let mut reader = Reader(bytes);
    let mut trace = Trace::default();
    for index in 0..sequence.ops.len() {
        if reader.byte()? != STEP || reader.word()? != index as u64 {
            return broken("a step is missing");
        }
        let outcome = reader.outcome(sequence)?;
        trace.steps.push(Step { outcome, state: reader.state(sequence)? });
    }
    let mut lasts = Vec::new();
    while !reader.0.is_empty() {
        if reader.byte()? != LAST {
            return broken("something behind the end");
        }
        lasts.push(reader.last(sequence)?);
    }
    if lasts.is_empty() {
        return broken("the last look is missing");
    }
    trace.last = lasts.remove(0);
    trace.parents = lasts;
    Ok(trace)
}
