//! A crate's normal dependencies lie strictly below it.
//!
//! vellum-testkit is for tests: it may be a dev-dependency, and nothing else. What tests alone
//! depend on is free otherwise, since no user gets it.

use super::{Findings, TESTKIT};
use crate::workspace::{Kind, Package, Workspace};

/// The crates of each layer, from the bottom; docs/adr/0007 and 0016 say why two of them have two
/// parts.
const LAYERS: &[(&str, &[&str])] = &[
    ("0", &["vellum-core", "vellum-testkit"]),
    ("0, upper part", &["vellum-global"]),
    (
        "1",
        &[
            "vellum-frame",
            "vellum-radix",
            "vellum-hashed",
            "vellum-inverted",
            "vellum-tlb",
            "vellum-reclaim",
            "vellum-aslr",
            "vellum-vdso",
            "vellum-image",
            "vellum-heap",
            "vellum-x86",
        ],
    ),
    ("1, upper part", &["vellum-cache", "vellum-swap"]),
    ("2", &["vellum-fault"]),
    ("3", &["vellum-space"]),
    ("4", &["vellum-lab", "vellum-bench", "vellum-difftest", "vellum-kernel", "vellum"]),
];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, crates)| crates.contains(&name))
}

/// Whether it is a library crate: one that lies below the top layer.
pub(super) fn is_library(name: &str) -> bool {
    layer(name).is_some_and(|layer| layer + 1 < LAYERS.len())
}

pub(super) fn check(workspace: &Workspace, findings: &mut Findings) {
    for package in workspace.packages.iter().filter(|package| package.name != "xtask") {
        let Some(own) = layer(&package.name) else {
            findings.problem(format!(
                "{} is on no layer; give it one in xtask/src/tidy/layers.rs",
                package.name
            ));
            continue;
        };
        check_one(workspace, package, own, findings);
    }
}

fn check_one(workspace: &Workspace, package: &Package, own: usize, findings: &mut Findings) {
    let ours = package.dependencies.iter().filter(|d| workspace.package(&d.name).is_some());
    for dependency in ours.filter(|dependency| dependency.kind != Kind::Dev) {
        let name = &dependency.name;
        if name == TESTKIT && package.name != TESTKIT {
            findings.problem(format!("{} uses {TESTKIT} outside of its tests", package.name));
        }
        // The kit is on core's own layer and uses it: it is the one exception.
        let exception = package.name == TESTKIT && name == "vellum-core";
        match layer(name) {
            Some(theirs) if theirs >= own && !exception => findings.problem(format!(
                "{} (layer {}) depends on {name} (layer {}), which is not below it",
                package.name, LAYERS[own].0, LAYERS[theirs].0
            )),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Dependency, Source};

    fn package(name: &str, dependencies: &[(&str, Kind)]) -> Package {
        Package {
            name: name.to_owned(),
            folder: format!("/w/crates/{name}").into(),
            rust_version: None,
            dependencies: dependencies
                .iter()
                .map(|&(name, kind)| Dependency {
                    name: name.to_owned(),
                    kind,
                    optional: false,
                    source: Source::Path(format!("/w/crates/{name}").into()),
                })
                .collect(),
        }
    }

    fn problems(extra: Vec<Package>) -> Vec<String> {
        let mut packages = vec![
            package("vellum-core", &[("proptest", Kind::Dev)]),
            package("vellum-testkit", &[("vellum-core", Kind::Normal)]),
            package("vellum-frame", &[("vellum-core", Kind::Normal)]),
            package("xtask", &[("clap", Kind::Normal)]),
        ];
        packages.extend(extra);
        let mut findings = Findings::default();
        check(&Workspace { packages, target: "/t".into() }, &mut findings);
        findings.problems
    }

    #[test]
    fn lower_layers_and_test_dependencies_are_fine() {
        let lab = package("vellum-lab", &[("vellum-frame", Kind::Normal), ("x", Kind::Normal)]);
        let dev = [("vellum-testkit", Kind::Dev), ("vellum-frame", Kind::Dev)];
        assert_eq!(problems(vec![lab, package("vellum-radix", &dev)]), [""; 0]);
    }

    #[test]
    fn the_own_layer_and_upper_layers_are_not() {
        let radix = package("vellum-radix", &[("vellum-frame", Kind::Normal)]);
        assert_eq!(problems(vec![radix]).len(), 1);
        let build = package("vellum-tlb", &[("vellum-space", Kind::Build)]);
        let found = problems(vec![build, package("vellum-space", &[])]);
        assert!(found[0].contains("vellum-space (layer 3)"), "{found:?}");
    }

    #[test]
    fn the_test_kit_is_for_tests() {
        let kernel = package("vellum-kernel", &[("vellum-testkit", Kind::Normal)]);
        assert!(problems(vec![kernel])[0].contains("outside of its tests"));
    }

    #[test]
    fn a_crate_without_a_layer_is_named() {
        assert!(problems(vec![package("vellum-new", &[])])[0].contains("vellum-new"));
    }
}
