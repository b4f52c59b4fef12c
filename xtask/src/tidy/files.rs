//! Files and folders: sizes, names, and what every crate has.

use super::{Findings, read};
use crate::stop::{Result, Stop};
use crate::workspace::{Package, Workspace};
use std::fs;
use std::path::{Path, PathBuf};

/// Above this, look twice.
const WARN_LINES: usize = 500;

/// Above this, split.
const MAX_LINES: usize = 800;

/// The folders with Rust files of ours.
const FOLDERS: [&str; 3] = ["crates", "xtask", "tests"];

pub(super) fn check(root: &Path, workspace: &Workspace, findings: &mut Findings) -> Result {
    for folder in FOLDERS {
        for file in rust_files(&root.join(folder))? {
            let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            check_file(&shown, &read(&file)?, findings);
        }
    }
    for package in &workspace.packages {
        check_crate(root, package, findings)?;
    }
    Ok(())
}

fn check_file(shown: &str, text: &str, findings: &mut Findings) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.problem(format!("{shown} has {lines} lines; split above {MAX_LINES}"));
    } else if lines > WARN_LINES {
        findings.warning(format!("{shown} has {lines} lines; look twice above {WARN_LINES}"));
    }
    if shown.ends_with("/mod.rs") {
        findings.problem(format!("{shown}: name it after its module, beside the folder"));
    }
}

fn check_crate(root: &Path, package: &Package, findings: &mut Findings) -> Result {
    let name = &package.name;
    if !package.folder.ends_with(name) {
        findings.problem(format!("{name} lies in {}", package.folder.display()));
    }
    if !has_workspace_lints(&read(&package.folder.join("Cargo.toml"))?) {
        findings.problem(format!("{name} does not inherit the lints: [lints] workspace = true"));
    }
    let library = package.folder.starts_with(root.join("crates"));
    if library && !package.folder.join("README.md").is_file() {
        findings.problem(format!("{name} has no README.md"));
    }
    Ok(())
}

/// Whether a manifest says `[lints]` with `workspace = true`.
fn has_workspace_lints(manifest: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| {
            line.split_once('=').is_some_and(|(k, v)| (k.trim(), v.trim()) == ("workspace", "true"))
        })
}

/// All `.rs` files below, build products left out; none when there is no such folder.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    let stop = |e: std::io::Error| Stop::file("list", folder, e);
    for entry in fs::read_dir(folder).map_err(stop)? {
        let entry = entry.map_err(stop)?;
        let path = entry.path();
        if entry.file_type().map_err(stop)?.is_dir() {
            if entry.file_name() != "target" {
                files.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_warn_and_then_fail() {
        let mut findings = Findings::default();
        check_file("a.rs", &"x\n".repeat(WARN_LINES), &mut findings);
        assert!(findings.warnings.is_empty() && findings.problems.is_empty());
        check_file("a.rs", &"x\n".repeat(MAX_LINES), &mut findings);
        assert_eq!((findings.warnings.len(), findings.problems.len()), (1, 0));
        check_file("a.rs", &"x\n".repeat(MAX_LINES + 1), &mut findings);
        assert_eq!((findings.warnings.len(), findings.problems.len()), (1, 1));
    }

    #[test]
    fn mod_rs_is_refused() {
        let mut findings = Findings::default();
        check_file("crates/a/src/b/mod.rs", "", &mut findings);
        assert_eq!(findings.problems.len(), 1);
    }

    #[test]
    fn lints_count_only_under_their_heading() {
        assert!(has_workspace_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!has_workspace_lints("[lints]\n\n[dependencies]\nworkspace = true\n"));
        assert!(!has_workspace_lints("[lints]\nworkspace = false\n"));
    }

    #[test]
    fn files_are_found_below_and_build_products_are_not() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["src/b", "target/debug"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        for path in ["src/a.rs", "src/b/c.rs", "src/d.txt", "target/debug/e.rs"] {
            fs::write(folder.path().join(path), "").unwrap();
        }
        let found = rust_files(folder.path()).unwrap();
        assert_eq!(found, ["src/a.rs", "src/b/c.rs"].map(|path| folder.path().join(path)));
        assert!(rust_files(&folder.path().join("none")).unwrap().is_empty());
    }
}
