//! docs/posix.md has a row for every flag of `vellum_space::abi`, and what its rows name is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use vellum_difftest::expect;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rows of the tables of calls and flags: name, what becomes of it, what shows it.
fn rows() -> Vec<[String; 3]> {
    let document = text("docs/posix.md");
    let section =
        document.split("\n## ").find(|part| part.starts_with("Every call and every flag"));
    let lines = section.expect("the section is there").lines();
    let rows = lines.filter_map(|line| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let mut cells = line.splitn(3, " | ").map(str::to_owned);
        Some([cells.next()?, cells.next()?, cells.next()?])
    });
    rows.filter(|row| row[1] != "here").collect()
}

/// What a module of `abi` is called in C.
fn prefix(module: &str, name: &str) -> Option<&'static str> {
    match (module, name) {
        // Masks, and places of bits.
        ("map", "TYPE" | "LEGACY" | "HUGE_SHIFT" | "HUGE_MASK") => None,
        ("prot", _) => Some("PROT_"),
        ("map", _) => Some("MAP_"),
        ("mremap", _) => Some("MREMAP_"),
        ("msync", _) => Some("MS_"),
        ("mlock", "ONFAULT") => Some("MLOCK_"),
        ("mlock", "MCL_ONFAULT") => Some(""),
        ("mlock", _) => Some("MCL_"),
        ("madv", _) => Some("MADV_"),
        _ => panic!("a module `{module}` of abi without a name in C"),
    }
}

/// The names of all flags of `vellum_space::abi`, as C has them.
fn flags() -> BTreeSet<String> {
    let abi = text("crates/vellum-space/src/abi.rs");
    let mut module = "";
    let mut names = BTreeSet::new();
    for line in abi.lines() {
        if let Some(rest) = line.strip_prefix("pub mod ") {
            module = rest.trim_end_matches(" {");
        }
        let Some(rest) = line.trim().strip_prefix("pub const ") else { continue };
        let name = rest.split(':').next().unwrap_or_default();
        if let Some(prefix) = prefix(module, name) {
            names.insert(format!("{prefix}{name}").replace("_BIT32", "_32BIT"));
        }
    }
    names
}

#[test]
fn every_flag_has_a_row() {
    let rows = rows();
    let named: BTreeSet<String> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(named.len(), rows.len(), "a name has two rows");
    let mut flags = flags();
    assert!(flags.len() > 60, "{flags:?}");
    // It is no bit.
    flags.insert("PROT_NONE".to_owned());
    let is_flag =
        |name: &&String| name.chars().all(|c| c.is_ascii_uppercase() || "_0123456789G".contains(c));
    let in_rows: BTreeSet<String> = named.iter().filter(is_flag).cloned().collect();
    assert_eq!(in_rows, flags);
}

#[test]
fn every_call_of_an_address_space_has_a_row() {
    let folder = root().join("crates/vellum-space/src/space");
    let calls = ["mmap", "munmap", "mprotect", "mremap", "madvise", "mlock", "mlock2", "munlock"];
    let more = ["mlockall", "munlockall", "msync", "mincore", "mseal", "brk", "sbrk", "fork"];
    let sources: String = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("it is text"))
        .collect();
    let rows = rows();
    for call in calls.iter().chain(&more) {
        assert!(sources.contains(&format!("pub fn {call}(")), "{call}");
        assert!(rows.iter().any(|row| row[0] == *call), "{call} has no row");
    }
}

#[test]
fn every_row_says_what_becomes_of_it() {
    for [name, here, _] in rows() {
        let begins = ["done", "ignored", "refused: ", "differs", "not here", "ours alone"];
        assert!(begins.iter().any(|word| here.starts_with(word)), "{name}: {here}");
        // The error, or that it is the same as above.
        let with_error = here.starts_with("refused: the same") || here.contains("E");
        assert!(!here.starts_with("refused") || with_error, "{name}: {here}");
    }
}

/// Whether there is a case whose name begins like that in this file.
fn has_case(file: &str, start: &str) -> bool {
    let cases = text(&format!("crates/vellum-difftest/sequences/{file}.txt"));
    let cases = expect::parse(&cases).unwrap_or_else(|e| panic!("{file}: {e}"));
    cases.iter().any(|case| case.name.starts_with(start))
}

/// Whether a test of this name is in the crate's folder of tests.
fn has_test(crate_name: &str, test: &str) -> bool {
    let mut folders = vec![root().join("crates").join(crate_name).join("tests")];
    let wanted = [format!("fn {test}("), format!("fn {test}<")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of tests") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("it is text");
                if wanted.iter().any(|wanted| text.contains(wanted)) {
                    return true;
                }
            }
        }
    }
    false
}

#[test]
fn what_shows_it_is_there() {
    for [name, _, shown] in rows() {
        let (place, what) = shown.split_once(": ").unwrap_or_else(|| panic!("{name}: {shown}"));
        let is_there = match what.as_bytes() {
            [b'"', .., b'"'] => has_case(place, what.trim_matches('"')),
            [b'`', .., b'`'] => has_test(place, what.trim_matches('`')),
            _ => false,
        };
        assert!(is_there, "{name}: nothing is called {shown}");
    }
    assert!(!has_case("flags", "no case is called so"));
    assert!(!has_test("vellum-space", "no_test_is_called_so"));
}
