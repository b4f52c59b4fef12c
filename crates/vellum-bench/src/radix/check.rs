//! Does each contender do what it is measured for? Asked before any clock is started.
//!
//! ```text
//!   map    |..####################..|   found where it was put; not found before and behind
//!   unmap  |......................  |   every frame handed back once; nothing found any more
//!   give back: no frame is missing
//! ```

use super::ram::{self, DATA};
use super::rows::{PA, Row, VA};
use super::table::{self, LARGE, PAGE, Table, Visit};
use std::collections::BTreeSet;

/// Bytes of the range: several tables of the lowest level.
const LEN: u64 = 4 * LARGE;

/// Asks each.
///
/// # Errors
///
/// Who failed, and at what.
pub fn all() -> Result<(), String> {
    struct Ask(Result<(), String>);
    impl Visit for Ask {
        fn visit<T: Table>(&mut self) {
            if self.0.is_ok() {
                self.0 = one::<T>().map_err(|what| format!("{} {what}", T::NAME));
            }
        }
    }
    let mut ask = Ask(Ok(()));
    table::all(&mut ask);
    ask.0
}

/// Asks one.
///
/// # Errors
///
/// At what it failed.
pub fn one<T: Table>() -> Result<(), &'static str> {
    maps_and_unmaps::<T>()?;
    maps_pages::<T>()?;
    makes_room::<T>()?;
    maps_large::<T>()?;
    changes_rights::<T>()?;
    frees::<T>()
}

/// Whether the test holds; what it was otherwise.
fn expect(good: bool, what: &'static str) -> Result<(), &'static str> {
    if good { Ok(()) } else { Err(what) }
}

/// Ends the life of a table.
fn end<T: Table>(table: T) -> Result<(), &'static str> {
    table.retire();
    expect(ram::frames_in_use() == 0, "keeps frames of its tables")?;
    ram::rewind();
    Ok(())
}

/// Whether exactly the range is mapped, byte by byte as far as that is to be seen.
fn is_there<T: Table>(table: &T) -> bool {
    let inside = |at| table.translate(VA + at) == Some(PA + at);
    let all = (0..LEN).step_by(PAGE as usize).all(|at| inside(at) && inside(at + 0x123));
    all && inside(LEN - 1) && is_nowhere(table, VA - 1) && is_nowhere(table, VA + LEN)
}

fn is_nowhere<T: Table>(table: &T, va: u64) -> bool {
    table.translate(va).is_none()
}

fn is_gone<T: Table>(table: &T) -> bool {
    (VA..VA + LEN).step_by(PAGE as usize).all(|va| is_nowhere(table, va))
}

fn maps_and_unmaps<T: Table>() -> Result<(), &'static str> {
    let mut table = T::new();
    expect(is_gone(&table), "finds pages in an empty table")?;
    expect(table.map(VA, PA, LEN) && is_there(&table), "does not find what it mapped")?;
    let mut frames = BTreeSet::new();
    let mut twice = false;
    let done = table.unmap(VA, LEN, &mut |pa, len| {
        (pa..pa + len).step_by(PAGE as usize).for_each(|pa| twice |= !frames.insert(pa));
    });
    expect(done && is_gone(&table), "finds what it unmapped")?;
    let all = frames.into_iter().eq((PA..PA + LEN).step_by(PAGE as usize));
    expect(all && !twice, "does not hand back each frame once")?;
    expect(table.map(VA, PA, LEN) && is_there(&table), "cannot map again what it unmapped")?;
    expect(table.unmap_blind(VA, LEN) && is_gone(&table), "finds what it unmapped blindly")?;
    end(table)
}

fn maps_pages<T: Table>() -> Result<(), &'static str> {
    let mut table = T::new();
    let pages = (0..LEN).step_by(PAGE as usize).map(|at| (VA + at, PA + at));
    expect(table.map_each(pages) && is_there(&table), "does not find pages that it mapped")?;
    end(table)
}

/// Nothing may be mapped, and mapping may take no frame any more.
fn makes_room<T: Table>() -> Result<(), &'static str> {
    let mut table = T::new();
    expect(table.make_room(VA, LEN) && is_gone(&table), "cannot make room")?;
    let before = ram::frames_in_use();
    // The root, one table on each of the next two levels, and one for each large leaf's place.
    expect(before == 3 + (LEN / LARGE) as usize, "makes room with other tables than are needed")?;
    expect(table.map(VA, PA, LEN) && is_there(&table), "cannot use the room")?;
    expect(ram::frames_in_use() == before, "takes frames where there was room")?;
    end(table)
}

fn maps_large<T: Table>() -> Result<(), &'static str> {
    let mut table = T::new();
    expect(table.map_large(VA, PA, LEN) && is_there(&table), "does not find large leaves")?;
    expect(ram::frames_in_use() == 3, "has tables below large leaves")?;
    end(table)
}

fn changes_rights<T: Table>() -> Result<(), &'static str> {
    let mut table = T::new();
    let mut good = table.map(VA, PA, LEN) && table.is_writable(VA);
    for writable in [false, true, false] {
        good &= table.protect(VA + LARGE, PA + LARGE, LARGE, writable) && is_there(&table);
        let are_so = |from: u64, writable| {
            (from..from + LARGE).step_by(PAGE as usize).all(|va| table.is_writable(va) == writable)
        };
        good &= are_so(VA, true) && are_so(VA + LARGE, writable) && are_so(VA + 2 * LARGE, true);
    }
    expect(good, "does not change rights of just the range")?;
    end(table)
}

fn frees<T: Table>() -> Result<(), &'static str> {
    let mut table = T::new();
    if !T::LACKS.contains(&Row::Free) {
        // Its own table at each level, and a page elsewhere that stays.
        let (stays, frame) = (VA << 1, DATA);
        let mut bytes = 0;
        let done = table.map(stays, frame, PAGE)
            && table.map(VA, PA, LEN)
            && table.unmap_free(VA, LEN, &mut |_, len| bytes += len);
        expect(done && bytes == LEN && is_gone(&table), "does not free a range")?;
        expect(ram::frames_in_use() == 4, "does not give back the tables that it emptied")?;
        expect(table.translate(stays) == Some(frame), "loses what stays")?;
    }
    end(table)
}
