//! Instructions of a reference, counted by valgrind.
//!
//! ```text
//!   swap --pairs lru:lru 0      make the stream and the cache      n0
//!   swap --pairs lru:lru 1      and run a pass                     n1     (n1 - n0) / references
//! ```

use super::contenders::{self, Entry};
use super::plan::SMALL;
use crate::callgrind::collected;
use std::path::Path;
use vellum_reclaim::host::Stream;

/// How a child is told whom to run.
fn word(entry: &Entry) -> String {
    format!("{}:{}:{}", entry.name, entry.row, entry.is_ours)
}

/// Instructions of each reference.
pub(super) fn each(entry: &Entry, program: &Path) -> Result<f64, String> {
    let word = word(entry);
    let (none, one) = (collected(program, &word, 0)?, collected(program, &word, 1)?);
    Ok((one as f64 - none as f64) / SMALL.references as f64)
}

/// Sets one up, runs no pass or one, and ends, so that nothing else is counted.
///
/// # Errors
///
/// The line to say when there is no such contender, or no such number.
pub(super) fn child(name: &str, passes: &str) -> Result<(), String> {
    let all = contenders::all();
    let entry = all.iter().find(|entry| word(entry) == name);
    let entry = entry.ok_or_else(|| format!("nobody is called `{name}`"))?;
    let has_pass = match passes {
        "0" => false,
        "1" => true,
        _ => return Err(format!("`{passes}` is neither 0 nor 1")),
    };
    let stream = Stream::synthetic(SMALL.pages, SMALL.references);
    (entry.turn)(&stream, SMALL.frames, &mut |pass| {
        if has_pass {
            core::hint::black_box(pass());
        }
        std::process::exit(0);
    });
    Err(format!("`{name}` cannot be made"))
}
