//! The cases of sequences/*.txt, on the kernel of this host and on every design of ours: what
//! docs/posix.md says of Linux.

use vellum_difftest::{expect, ours};

/// The kernel that the expectations were recorded on: older ones may differ, newer ones should not.
const PINNED: (u32, u32) = (6, 18);

fn files() -> Vec<(String, Vec<expect::Case>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sequences");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("it is text");
        let name = path.display().to_string();
        let cases = expect::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, cases)
    };
    let mut files: Vec<_> = entries.map(|entry| read(entry.expect("an entry").path())).collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

#[test]
fn every_file_has_cases_with_names_of_their_own() {
    for (file, cases) in files() {
        let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
        assert!(!names.is_empty(), "{file}");
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{file}");
        assert!(cases.iter().all(|case| case.expects() > 0), "{file}: a case expects nothing");
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn linux_does_what_is_expected() {
    use vellum_difftest::linux::Linux;
    use vellum_difftest::subject::Subject;

    let mut linux = Linux::new().expect("a Linux has /proc and shared memory");
    let mut numbers = linux.host().release.split(['.', '-']).map(|number| number.parse().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    if version.is_none_or(|version| version < PINNED) {
        println!("skipped: {} is older than the kernel that was recorded", linux.host());
        return;
    }
    let mut failures = Vec::new();
    for (file, cases) in files() {
        for case in cases {
            let trace = linux.run(&case.sequence).unwrap_or_else(|e| panic!("{file}: {e}"));
            failures.extend(case.failures(&trace));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_design_does_what_is_expected() {
    let mut failures = Vec::new();
    for mut subject in ours::all() {
        let name = subject.name().to_owned();
        for (file, cases) in files() {
            for case in cases {
                let trace = subject.run(&case.sequence).unwrap_or_else(|e| panic!("{file}: {e}"));
                failures.extend(case.failures(&trace).into_iter().map(|f| format!("{name}: {f}")));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn random_sequences_give_the_same_on_linux_and_on_ours() {
    use vellum_difftest::linux::Linux;
    use vellum_difftest::subject::Subject;
    use vellum_difftest::{compare, generate};

    let mut linux = Linux::new().expect("a Linux has /proc and shared memory");
    let mut designs = ours::all();
    for number in 0..200_usize {
        let sequence = generate::sequence(21, number as u64, 40);
        let left = linux.run(&sequence).expect("it runs");
        let at = number % designs.len();
        let right = designs[at].run(&sequence).unwrap_or_else(|e| panic!("{e}\n{sequence}"));
        let found = compare::difference(&left, &right, compare::Mode::Strict);
        assert_eq!(found, None, "{}\n{sequence}", designs[at].name());
    }
}
