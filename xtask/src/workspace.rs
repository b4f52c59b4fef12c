//! The workspace as `cargo metadata` describes it.

use crate::process;
use crate::stop::{Result, Stop};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's top folder.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// The cargo that runs us, in the repository's top folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The condition that nothing but tests sets: with it a crate is built over loom's atomics instead
/// of the processor's, which is of use to a model checker alone. Nobody who takes the crate gets
/// what it depends on then.
const TESTS_ALONE: &str = "cfg(loom)";

/// Where a dependency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the crate itself.
    Normal,
    /// In its tests, examples and benches: also in the crate itself under [`TESTS_ALONE`].
    Dev,
    /// In its build script.
    Build,
}

/// A dependency of a workspace member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The package's own name.
    pub(crate) name: String,
    /// Where it counts.
    pub(crate) kind: Kind,
    /// Whether only a feature brings it in.
    pub(crate) optional: bool,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// Where a dependency comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// This folder.
    Path(PathBuf),
    /// A registry, a git repository: as cargo writes it.
    External(String),
}

/// A workspace member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// The folder of its Cargo.toml.
    pub(crate) folder: PathBuf,
    /// The oldest compiler that it promises to build with.
    pub(crate) rust_version: Option<String>,
    /// What it depends on.
    pub(crate) dependencies: Vec<Dependency>,
}

/// All members, and where cargo builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workspace {
    /// The members.
    pub(crate) packages: Vec<Package>,
    /// The folder of build products.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let mut metadata = cargo();
        metadata.args(["metadata", "--format-version", "1", "--no-deps"]);
        let text = process::output(&mut metadata).ok_or_else(|| {
            Stop::unable("`cargo metadata` failed; run it by hand to see what is wrong")
        })?;
        Self::parse(&text)
    }

    /// Reads what `cargo metadata` prints.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)
            .map_err(|e| Stop::unable(format!("`cargo metadata` printed no JSON: {e}")))?;
        let packages = json["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Self {
            packages: packages.iter().map(Package::from_json).collect(),
            target: json["target_directory"].as_str().unwrap_or("target").into(),
        })
    }

    /// The member of this name.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}

impl Package {
    fn from_json(json: &Value) -> Self {
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let manifest = PathBuf::from(text("manifest_path").unwrap_or_default());
        let dependencies = json["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            name: text("name").unwrap_or_default(),
            folder: manifest.parent().unwrap_or(&manifest).to_path_buf(),
            rust_version: text("rust_version"),
            dependencies: dependencies.iter().map(Dependency::from_json).collect(),
        }
    }
}

impl Dependency {
    fn from_json(json: &Value) -> Self {
        let text = |key: &str| json[key].as_str().unwrap_or_default();
        Self {
            name: text("name").to_owned(),
            kind: match text("kind") {
                "dev" => Kind::Dev,
                _ if text("target") == TESTS_ALONE => Kind::Dev,
                "build" => Kind::Build,
                _ => Kind::Normal,
            },
            optional: json["optional"].as_bool().unwrap_or(false),
            source: match text("path") {
                "" => Source::External(text("source").to_owned()),
                path => Source::Path(path.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let text = r#"{"target_directory":"/t","packages":[{"name":"a","manifest_path":"/w/a/Cargo.toml",
            "rust_version":"1.87","dependencies":[
            {"name":"b","kind":null,"source":"registry+x"},
            {"name":"c","kind":"dev","source":null,"path":"/w/c"},
            {"name":"d","kind":null,"target":"cfg(loom)","source":"registry+x"},
            {"name":"e","kind":null,"target":"cfg(unix)","source":"registry+x"}]}]}"#;
        let workspace = Workspace::parse(text).unwrap();
        assert_eq!(workspace.target, Path::new("/t"));
        let a = workspace.package("a").unwrap();
        assert_eq!(a.folder, Path::new("/w/a"));
        assert_eq!(a.rust_version.as_deref(), Some("1.87"));
        let external = Source::External("registry+x".into());
        let b =
            Dependency { name: "b".into(), kind: Kind::Normal, optional: false, source: external };
        assert_eq!(a.dependencies[0], b);
        assert_eq!(a.dependencies[1].kind, Kind::Dev);
        assert_eq!(a.dependencies[1].source, Source::Path("/w/c".into()));
        let kinds: Vec<_> = a.dependencies.iter().map(|dependency| dependency.kind).collect();
        assert_eq!(kinds, [Kind::Normal, Kind::Dev, Kind::Dev, Kind::Normal]);
        assert!(workspace.package("b").is_none());
    }

    #[test]
    fn this_workspace_has_this_crate() {
        let workspace = Workspace::load().unwrap();
        assert_eq!(workspace.package("xtask").unwrap().folder, root().join("xtask"));
    }
}
