//! Putting a switch before each call that tells a gather of a flush.
//!
//! ```text
//!   gather.stale(flush);            if crate::mutants::keeps(7) { gather.stale(flush) };
//!   gather.detach(flush, part);     gather.detach(crate::mutants::of(8, flush), part);
//! ```
//!
//! What a call to `detach` unlinked would leak without it; so the call stays, and its flush shrinks to a
//! byte.

/// What begins a call that is to be left out. A call's arguments have no strings with parentheses.
const CALLS: [&str; 7] = [
    "gather.stale(",
    "gather.leaf(",
    "gather.drain(",
    "settle_breaks::<F, M, G>(",
    "self.owe_fresh(",
    "self.owed.add(",
    "self.invalidate.flush(",
];

/// What begins a call whose first argument is to be spoilt.
const SPOILT: &str = "gather.detach(";

/// What a comment in the lines above a call says if nothing has to notice that it is left out.
const HARMLESS: &str = "// Harmless to leave out:";

/// A call that was given a switch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The switch's number.
    pub(super) number: usize,
    /// The line of the call, from 1.
    pub(super) line: usize,
    /// What it calls.
    pub(super) call: &'static str,
    /// Its comment says that it may go.
    pub(super) is_harmless: bool,
}

/// The source with a switch at every call, numbered from `first` on, and what it has. Unit tests at the
/// end stay as they are.
pub(super) fn rewrite(source: &str, first: usize) -> (String, Vec<Place>) {
    let code = source.find("#[cfg(test)]").unwrap_or(source.len());
    let (mut text, mut places, mut at) = (String::new(), Vec::new(), 0);
    while let Some((found, call)) = next_call(&source[at..code]) {
        let (found, open) = (at + found, at + found + call.len());
        // `self.` before it, or a longer name.
        let start = source[..found].trim_end_matches(is_name).len();
        let close = end_of(source, open, b')');
        let number = first + places.len();
        if is_comment(source, start) {
            text.push_str(&source[at..open]);
            at = open;
            continue;
        }
        let line = source[..start].matches('\n').count() + 1;
        let call = call.trim_end_matches('(');
        places.push(Place { number, line, call, is_harmless: is_harmless(source, start) });
        text.push_str(&source[at..start]);
        if call == SPOILT.trim_end_matches('(') {
            let comma = end_of(source, open, b',');
            text.push_str(&format!("{}crate::mutants::of({number}, ", &source[start..open]));
            text.push_str(&format!("{}){}", &source[open..comma], &source[comma..=close]));
        } else {
            let whole = &source[start..=close];
            text.push_str(&format!("if crate::mutants::keeps({number}) {{ {whole} }}"));
        }
        at = close + 1;
    }
    text.push_str(&source[at..]);
    (text, places)
}

/// The first call of the text.
fn next_call(text: &str) -> Option<(usize, &'static str)> {
    let find = |call: &'static str| Some((text.find(call)?, call));
    CALLS.into_iter().chain([SPOILT]).filter_map(find).min()
}

/// Where the list of arguments that begins at `open` has `sought` outside of brackets.
fn end_of(source: &str, open: usize, sought: u8) -> usize {
    let mut depth = 0_usize;
    for (i, byte) in source.bytes().enumerate().skip(open) {
        match byte {
            byte if byte == sought && depth == 0 => return i,
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    source.len() - 1
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || "_.:".contains(c)
}

fn line_of(source: &str, at: usize) -> &str {
    let start = source[..at].rfind('\n').map_or(0, |n| n + 1);
    &source[start..at]
}

fn is_comment(source: &str, at: usize) -> bool {
    line_of(source, at).trim_start().starts_with("//")
}

/// Whether the comment that ends in the line before says so.
fn is_harmless(source: &str, at: usize) -> bool {
    let start = at - line_of(source, at).len();
    let above = source[..start].lines().rev().map(str::trim_start);
    above.take_while(|line| line.starts_with("//")).any(|line| line.starts_with(HARMLESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
fn f() {
    // gather.stale(not this)
    child_gather.stale(Flush::new(va, (1 << 2), [0]));
    match x { A => self.gather.leaf(run), B => {} }
    // Harmless to leave out: nobody
    // looks.
    gather.detach(Flush::tables(a, b), part);
}
#[cfg(test)]
mod tests { fn g() { gather.drain(); } }
";

    #[test]
    fn calls_get_a_switch_each_and_comments_and_tests_do_not() {
        let (text, places) = rewrite(SOURCE, 5);
        let found: Vec<_> =
            places.iter().map(|p| (p.number, p.line, p.call, p.is_harmless)).collect();
        assert_eq!(
            found,
            [
                (5, 3, "gather.stale", false),
                (6, 4, "gather.leaf", false),
                (7, 7, "gather.detach", true),
            ]
        );
        for wanted in [
            "// gather.stale(not this)\n",
            "if crate::mutants::keeps(5) { child_gather.stale(Flush::new(va, (1 << 2), [0])) };",
            "A => if crate::mutants::keeps(6) { self.gather.leaf(run) }, B",
            "gather.detach(crate::mutants::of(7, Flush::tables(a, b)), part);",
            "fn g() { gather.drain(); }",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }

    #[test]
    fn a_text_without_calls_stays_as_it_is() {
        assert_eq!(rewrite("fn f() {}\n", 1), ("fn f() {}\n".to_owned(), Vec::new()));
    }
}
