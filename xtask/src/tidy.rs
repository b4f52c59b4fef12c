//! `tidy`: the rules of the house that no compiler checks.
//!
//! ```text
//!   layers     a crate's normal dependencies lie strictly below it (LAYERS)
//!   files      above 500 lines: look twice; above 800: split. No mod.rs
//!   crates     folder = name, README.md, [lints] workspace = true
//!   documents  docs/dependencies.md has each external crate, the crate maps have each of ours,
//!              docs/adr is numbered without gaps
//! ```
//!
//! All problems are listed, not only the first.

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

/// The text of a file.
fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Stop::file("read", path, e))
}
