//! Sequences with what they are expected to give: the model of Linux, one case at a time.
//!
//! ```text
//!   # Which error comes first.
//!   case a length of zero is refused before the flags are looked at
//!   mmap 0 0 r|w fixed|anon = EINVAL
//!   mmap 0 4 r|w private|anon|fixed = at 0
//!   write 1 7 = ok
//!   ! maps 0-4 rw-p anon
//!   ! rss 4
//! ```
//!
//! A case runs from an empty arena. What follows ` = ` is the [`Outcome`]
//! of the operation; a line with `!` is a line of the [state](State::line) behind the operation
//! above it. Either may be left out.

use crate::op::{Op, Sequence};
use crate::trace::{LINES, Outcome, State, Trace};
use core::fmt::Write as _;

/// One case of a file.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Comments above it, and its operations, as they stand in the file: for writing it again.
    lines: Vec<Line>,
    /// The operations.
    pub sequence: Sequence,
}

#[derive(Clone, Debug)]
enum Line {
    /// As it is.
    Text(String),
    /// The operation of this index, and what is expected of it.
    Op(usize, Option<String>),
    /// A line of the state behind the operation of this index.
    State(usize, String, String),
}

/// Reads a file of cases.
///
/// # Errors
///
/// The first line that cannot be read, with its number.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    let mut comments = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            comments.push(Line::Text(line.to_owned()));
            continue;
        }
        let name = line.strip_prefix("case ");
        if name.is_some() || cases.is_empty() {
            let mut lines = core::mem::take(&mut comments);
            lines.extend(name.map(|_| Line::Text(line.to_owned())));
            let name = name.unwrap_or("the only one").to_owned();
            cases.push(Case { name, lines, sequence: Sequence::new(Vec::new()) });
        }
        if name.is_none()
            && let Some(case) = cases.last_mut()
        {
            case.lines.append(&mut comments);
            case.line(line).map_err(|e| format!("line {}: {e}", index + 1))?;
        }
    }
    for case in &cases {
        let refused = |(at, why)| format!("case {}, operation {}: {why}", case.name, at + 1);
        case.sequence.check().map_err(refused)?;
    }
    Ok(cases)
}

impl Case {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(expected) = line.strip_prefix('!') {
            let (name, text) =
                expected.trim().split_once(' ').ok_or("an expectation is missing")?;
            if !LINES.contains(&name) {
                return Err(format!("`{name}` is not one of {}", LINES.join(", ")));
            }
            let index = self.sequence.ops.len().checked_sub(1).ok_or("no operation above it")?;
            self.lines.push(Line::State(index, name.to_owned(), text.trim().to_owned()));
        } else if line == "heap" {
            self.sequence.heap = true;
            self.lines.push(Line::Text(line.to_owned()));
        } else if let Some(pages) = line.strip_prefix("arena ") {
            self.sequence.pages = pages.parse().map_err(|_| "an arena has a number of pages")?;
            self.lines.push(Line::Text(line.to_owned()));
        } else {
            let (op, outcome) = line.split_once(" = ").unwrap_or((line, ""));
            let op: Op = op.parse()?;
            let outcome = (!outcome.is_empty()).then(|| outcome.trim().to_owned());
            self.lines.push(Line::Op(self.sequence.ops.len(), outcome));
            self.sequence.ops.push(op);
        }
        Ok(())
    }

    /// How many expectations it has.
    #[must_use]
    pub fn expects(&self) -> usize {
        let expects = |line: &&Line| matches!(line, Line::Op(_, Some(_)) | Line::State(..));
        self.lines.iter().filter(expects).count()
    }

    /// Where a run is not as expected; empty if it is. An operation that was skipped, and all
    /// behind it, are not held against anything.
    #[must_use]
    pub fn failures(&self, trace: &Trace) -> Vec<String> {
        let skipped = |step: &crate::trace::Step| matches!(step.outcome, Outcome::Skipped(_));
        let until = trace.steps.iter().position(skipped).unwrap_or(usize::MAX);
        let mut failures = Vec::new();
        for line in &self.lines {
            let (index, what, expected, found) = match line {
                Line::Op(index, Some(expected)) => {
                    let found = trace.steps.get(*index).map(|step| step.outcome.to_string());
                    (*index, "outcome", expected, found)
                }
                Line::State(index, name, expected) => {
                    let state = trace.steps.get(*index).and_then(|step| step.state.as_ref());
                    (*index, name.as_str(), expected, state.and_then(|state| state.line(name)))
                }
                _ => continue,
            };
            let found = found.unwrap_or_else(|| "nothing".to_owned());
            if index < until && found != *expected {
                failures.push(format!(
                    "{}: `{}`: {what}: expected `{expected}`, found `{found}`",
                    self.name, self.sequence.ops[index]
                ));
            }
        }
        failures
    }

    /// The case with what a run gave in place of what was expected. Lines of the state that stand
    /// in it are renewed; `all` adds `maps` and `rss` where they changed.
    #[must_use]
    pub fn recorded(&self, trace: &Trace, all: bool) -> String {
        let mut text = String::new();
        let mut before = State::default();
        for line in &self.lines {
            // Writing to a string cannot fail.
            let _ = match line {
                Line::Text(line) => writeln!(text, "{line}"),
                Line::Op(index, _) => {
                    let Some(step) = trace.steps.get(*index) else { continue };
                    let _ = writeln!(text, "{} = {}", self.sequence.ops[*index], step.outcome);
                    let Some(state) = &step.state else { continue };
                    for name in ["maps", "rss", "incore"].iter().filter(|_| all) {
                        if state.line(name) != before.line(name) {
                            let _ =
                                writeln!(text, "! {name} {}", state.line(name).unwrap_or_default());
                        }
                    }
                    before = state.clone();
                    Ok(())
                }
                Line::State(index, name, _) => {
                    let state = trace.steps.get(*index).and_then(|step| step.state.as_ref());
                    let found = state.and_then(|state| state.line(name)).unwrap_or_default();
                    writeln!(text, "! {name} {found}")
                }
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Step;

    const TEXT: &str = "# Of lengths.\n\ncase one\nmunmap 0 0 = EINVAL\n! rss 0\nmunlock 0 1\n\
                        case two\nheap\nbrk 3 = at 3\n";

    fn trace(outcomes: &[Outcome]) -> Trace {
        let state = Some(State::default());
        let step = |outcome: &Outcome| Step { outcome: outcome.clone(), state: state.clone() };
        Trace { steps: outcomes.iter().map(step).collect(), ..Trace::default() }
    }

    #[test]
    fn cases_are_read_with_their_expectations() {
        let cases = parse(TEXT).expect("it is well formed");
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        assert!(cases[1].sequence.heap && !cases[0].sequence.heap);
        let good = trace(&[Outcome::Fails(22), Outcome::Done(0)]);
        assert_eq!(cases[0].failures(&good), [""; 0]);
        let bad = trace(&[Outcome::Fails(12), Outcome::Done(0)]);
        assert!(cases[0].failures(&bad)[0].contains("expected `EINVAL`, found `ENOMEM`"));
        let skipped = trace(&[Outcome::Skipped("no"), Outcome::Done(0)]);
        assert_eq!(cases[0].failures(&skipped), [""; 0]);
    }

    #[test]
    fn a_case_is_written_with_what_was_found() {
        let cases = parse(TEXT).expect("it is well formed");
        let found = cases[0].recorded(&trace(&[Outcome::Fails(12), Outcome::Done(0)]), false);
        assert_eq!(
            found,
            "# Of lengths.\n\ncase one\nmunmap 0 0 = ENOMEM\n! rss 0\nmunlock 0 1 = ok\n"
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        assert!(parse("case a\nmunmap 0 1\nfrob\n").expect_err("frob").starts_with("line 3"));
        assert!(parse("case a\nmunmap 0 1\n! mood 3\n").expect_err("mood").contains("`mood`"));
        assert!(parse("case a\nbrk 1\n").expect_err("no heap").contains("heap"));
    }
}
