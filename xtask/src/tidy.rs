//! `tidy`: the rules of the house that no compiler checks.
//!
//! ```text
//!   layers        a crate's normal dependencies lie strictly below it (LAYERS)
//!   dependencies  by path: members only. External: from a registry, named in
//!                 docs/dependencies.md, and at most one for each library crate
//!   files         above 500 lines: look twice; above 800: split. No mod.rs
//!   crates        folder = name, README.md, [lints] workspace = true
//!   documents     docs/dependencies.md has each crate of [workspace.dependencies], the crate
//!                 maps have each of ours, docs/adr is numbered without gaps
//! ```
//!
//! A library crate is one below the top layer. It has at most one direct dependency outside this
//! repository, tests apart: that is what somebody else's kernel takes in with it. vellum-testkit
//! may have proptest besides, for it is itself a part of tests.
//!
//! All problems are listed, not only the first.

mod dependencies;
mod documents;
mod files;
mod layers;

use crate::stop::{Result, Stop};
use crate::workspace::{Workspace, root};
use std::path::Path;

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    /// What must be put right.
    problems: Vec<String>,
    /// What deserves a look.
    warnings: Vec<String>,
}

impl Findings {
    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    fn warning(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }
}

/// Checks the repository.
pub(crate) fn run() -> Result {
    let workspace = Workspace::load()?;
    let root = root();
    let mut findings = Findings::default();
    layers::check(&workspace, &mut findings);
    dependencies::check(&root, &workspace, &mut findings)?;
    files::check(&root, &workspace, &mut findings)?;
    documents::check(&root, &workspace, &mut findings)?;
    for warning in &findings.warnings {
        say!("warning: {warning}");
    }
    for problem in &findings.problems {
        say!("problem: {problem}");
    }
    match findings.problems.len() {
        0 => {
            say!("tidy: {} crates, nothing to put right", workspace.packages.len());
            Ok(())
        }
        count => Err(Stop::failed(format!("tidy found {count} problems"))),
    }
}

/// The document with a reason for each external crate.
const DEPENDENCIES: &str = "docs/dependencies.md";

/// What only tests may use.
const TESTKIT: &str = "vellum-testkit";

/// Whether `name` stands in `text` and is not a part of a longer name.
fn has_word(text: &str, name: &str) -> bool {
    let of_a_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(of_a_name) && !after.is_some_and(of_a_name)
    })
}

/// The text of a file.
fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Stop::file("read", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_inside_a_longer_one_does_not_count() {
        assert!(has_word("| `vellum` | all |", "vellum"));
        assert!(!has_word("| `vellum-core` | seams |", "vellum"));
        assert!(has_word("`vellum-core` and `vellum`.", "vellum"));
        assert!(!has_word("my_zstd zstd-safe", "zstd"));
    }
}
