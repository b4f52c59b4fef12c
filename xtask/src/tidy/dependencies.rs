//! What the crates depend on: members by path, and few others, each with its reason.
//!
//! ```text
//!   cargo metadata --> each dependency of each member
//!        by path:   the folder of a member           (all kinds)
//!        external:  from a registry, not from git    (all kinds)
//!                   named in docs/dependencies.md    (all kinds)
//!                   at most one                      (library crates; tests and the
//!                                                     adapters behind features apart)
//! ```
//!
//! Asked of cargo and not of `[workspace.dependencies]`: a version written straight into a
//! crate's own manifest counts like any other.

use super::{DEPENDENCIES, Findings, TESTKIT, has_word, layers, read};
use crate::stop::Result;
use crate::workspace::{Kind, Package, Source, Workspace};
use std::collections::BTreeSet;
use std::path::Path;

/// What the test kit may have beside its one.
const PROPTEST: &str = "proptest";

pub(super) fn check(root: &Path, workspace: &Workspace, findings: &mut Findings) -> Result {
    let path = root.join(DEPENDENCIES);
    // That it is missing, `documents` says.
    let reasons = if path.is_file() { read(&path)? } else { String::new() };
    for package in &workspace.packages {
        check_sources(workspace, package, &reasons, findings);
        check_count(package, findings);
    }
    Ok(())
}

fn check_sources(workspace: &Workspace, package: &Package, reasons: &str, findings: &mut Findings) {
    let own = &package.name;
    for dependency in &package.dependencies {
        let name = &dependency.name;
        match &dependency.source {
            Source::Path(folder) => {
                if !workspace.packages.iter().any(|member| member.folder == *folder) {
                    let folder = folder.display();
                    findings.problem(format!("{own} depends on {name} in {folder}, no member"));
                }
            }
            Source::External(source) => {
                if !source.starts_with("registry+") && !source.starts_with("sparse+") {
                    findings.problem(format!("{own} takes {name} from {source}, no registry"));
                }
                if !has_word(reasons, name) {
                    findings.problem(format!(
                        "{own} depends on {name}; {DEPENDENCIES} does not name it"
                    ));
                }
            }
        }
    }
}

fn check_count(package: &Package, findings: &mut Findings) {
    let own = &package.name;
    let external: BTreeSet<&str> = package
        .dependencies
        .iter()
        .filter(|d| d.kind != Kind::Dev && !d.optional)
        .filter(|d| matches!(d.source, Source::External(_)))
        .map(|d| d.name.as_str())
        .filter(|name| (own.as_str(), *name) != (TESTKIT, PROPTEST))
        .collect();
    if layers::is_library(own) && external.len() > 1 {
        let names: Vec<_> = external.into_iter().collect();
        findings.problem(format!(
            "{own} depends on {}: a library crate has at most one dependency outside this \
             repository",
            names.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    const REASONS: &str = "| arrayvec | in place |\n| proptest | properties |\n| spin | a lock |";

    fn external(name: &str, kind: Kind) -> Dependency {
        let source = Source::External("registry+https://x".into());
        Dependency { name: name.into(), kind, optional: false, source }
    }

    fn by_path(name: &str, folder: &str) -> Dependency {
        let source = Source::Path(folder.into());
        Dependency { name: name.into(), kind: Kind::Normal, optional: false, source }
    }

    fn problems(name: &str, dependencies: Vec<Dependency>) -> Vec<String> {
        let package = |name: &str, dependencies| Package {
            name: name.into(),
            folder: format!("/w/crates/{name}").into(),
            rust_version: None,
            dependencies,
        };
        let packages = vec![package("vellum-core", vec![]), package(name, dependencies)];
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("docs")).unwrap();
        std::fs::write(folder.path().join(DEPENDENCIES), REASONS).unwrap();
        let mut findings = Findings::default();
        let workspace = Workspace { packages, target: "/t".into() };
        check(folder.path(), &workspace, &mut findings).unwrap();
        findings.problems
    }

    #[test]
    fn members_and_one_external_crate_with_its_reason_are_fine() {
        let core = by_path("vellum-core", "/w/crates/vellum-core");
        let one = external("arrayvec", Kind::Normal);
        let test = external("proptest", Kind::Dev);
        assert_eq!(problems("vellum-radix", vec![core, one, test]), [""; 0]);
    }

    #[test]
    fn an_external_crate_without_its_reason_is_named_whatever_its_kind() {
        for kind in [Kind::Normal, Kind::Build, Kind::Dev] {
            for own in ["vellum-radix", "vellum-lab", "xtask"] {
                let found = problems(own, vec![external("libc", kind)]);
                assert!(found.len() == 1 && found[0].contains("libc"), "{found:?}");
            }
        }
    }

    #[test]
    fn a_path_leads_to_a_member() {
        let outside = by_path("outside", "/w/outside");
        assert!(problems("vellum-radix", vec![outside])[0].contains("/w/outside, no member"));
        // Nor is it enough to have a member's name.
        assert_eq!(problems("vellum-radix", vec![by_path("vellum-core", "/w/copy")]).len(), 1);
    }

    #[test]
    fn nothing_comes_from_git() {
        let source = Source::External("git+https://x/arrayvec".into());
        let git = Dependency { source, ..external("arrayvec", Kind::Normal) };
        assert!(problems("vellum-radix", vec![git])[0].contains("no registry"));
    }

    #[test]
    fn a_library_crate_has_one_external_dependency_at_most() {
        let two = || vec![external("arrayvec", Kind::Normal), external("spin", Kind::Build)];
        assert!(problems("vellum-tlb", two())[0].contains("arrayvec, spin"));
        assert_eq!(problems("vellum-lab", two()), [""; 0]);
        assert_eq!(problems("vellum-kernel", two()), [""; 0]);
    }

    #[test]
    fn an_adapter_behind_a_feature_does_not_count() {
        let adapter = Dependency { optional: true, ..external("spin", Kind::Normal) };
        let both = vec![external("arrayvec", Kind::Normal), adapter];
        assert_eq!(problems("vellum-radix", both), [""; 0]);
    }

    #[test]
    fn the_same_crate_in_two_tables_counts_once() {
        let twice = vec![external("spin", Kind::Normal), external("spin", Kind::Build)];
        assert_eq!(problems("vellum-tlb", twice), [""; 0]);
    }

    #[test]
    fn the_test_kit_may_have_proptest_besides() {
        let with = |other| vec![external("proptest", Kind::Normal), external(other, Kind::Normal)];
        assert_eq!(problems(TESTKIT, with("spin")), [""; 0]);
        assert_eq!(problems("vellum-tlb", with("spin")).len(), 1);
    }
}
