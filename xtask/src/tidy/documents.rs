//! Documents that have to name everything of a kind.

use super::{DEPENDENCIES, Findings, has_word, read};
use crate::stop::{Result, Stop};
use crate::workspace::Workspace;
use std::fs;
use std::path::Path;

/// The documents with a map of the crates.
const MAPS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// The folder of decisions.
const DECISIONS: &str = "docs/adr";

pub(super) fn check(root: &Path, workspace: &Workspace, findings: &mut Findings) -> Result {
    let crates: Vec<_> = workspace.packages.iter().map(|package| package.name.as_str()).collect();
    for map in MAPS {
        let names = crates.iter().copied().filter(|name| *name != "xtask");
        check_names(root, map, names, findings)?;
    }
    let manifest = read(&root.join("Cargo.toml"))?;
    let external = workspace_dependencies(&manifest).filter(|name| !crates.contains(name));
    check_names(root, DEPENDENCIES, external, findings)?;
    check_numbers(&decision_numbers(&root.join(DECISIONS))?, findings);
    Ok(())
}

/// Each name stands in the document, as a word.
fn check_names<'a>(
    root: &Path,
    document: &str,
    names: impl Iterator<Item = &'a str>,
    findings: &mut Findings,
) -> Result {
    let path = root.join(document);
    if !path.is_file() {
        findings.problem(format!("{document} is missing"));
        return Ok(());
    }
    let text = read(&path)?;
    for name in names.filter(|name| !has_word(&text, name)) {
        findings.problem(format!("{document} does not name {name}"));
    }
    Ok(())
}

/// The names under `[workspace.dependencies]`.
fn workspace_dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| Some(line.split_once(['=', '.'])?.0.trim()))
        .filter(|name| !name.is_empty() && !name.contains(['"', '{', '}']))
}

/// The number of each decision: `0007-title.md` has 7, a name without a number 0.
fn decision_numbers(folder: &Path) -> Result<Vec<u32>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let stop = |e: std::io::Error| Stop::file("list", folder, e);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(stop)? {
        let name = entry.map_err(stop)?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".md") && name != "README.md" {
            let number = name.split_once('-').and_then(|(number, _)| number.parse().ok());
            numbers.push(number.unwrap_or(0));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Decisions count 1, 2, 3, ...
fn check_numbers(numbers: &[u32], findings: &mut Findings) {
    if numbers.is_empty() {
        findings.problem(format!("{DECISIONS} has no decisions"));
    }
    for (expected, &number) in (1..).zip(numbers) {
        if number != expected {
            findings.problem(format!(
                "{DECISIONS}: {number:04} stands where {expected:04} should (named NNNN-title.md, \
                 without gaps)"
            ));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_dependencies_end_at_the_next_table() {
        let manifest = "[package]\nname = \"a\"\n[workspace.dependencies]\n# c = 1\nclap = { \
                        version = \"4\" }\nrayon = \"1\"\nspin.version = \"1\"\n\n[profile.dev]\nx = 1\n";
        let names: Vec<_> = workspace_dependencies(manifest).collect();
        assert_eq!(names, ["clap", "rayon", "spin"]);
    }

    #[test]
    fn gaps_and_doubles_among_decisions_are_found() {
        let problems = |numbers: &[u32]| {
            let mut findings = Findings::default();
            check_numbers(numbers, &mut findings);
            findings.problems.len()
        };
        assert_eq!(problems(&[1, 2, 3]), 0);
        assert_eq!(problems(&[1, 3]), 1);
        assert_eq!(problems(&[1, 1, 2]), 1);
        assert_eq!(problems(&[0, 1]), 1);
        assert_eq!(problems(&[]), 1);
    }

    #[test]
    fn a_document_that_lacks_a_name_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("map.md"), "vellum-core is the base").unwrap();
        let mut findings = Findings::default();
        let names = ["vellum-core", "vellum-tlb"];
        check_names(folder.path(), "map.md", names.into_iter(), &mut findings).unwrap();
        check_names(folder.path(), "none.md", names.into_iter(), &mut findings).unwrap();
        assert_eq!(findings.problems, ["map.md does not name vellum-tlb", "none.md is missing"]);
    }
}
