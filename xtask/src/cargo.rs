//! What cargo says of the workspace.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Error;

/// A package that the lock file knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Path of its manifest from the root of the tree; absolute for packages from elsewhere.
    pub(crate) manifest: String,
    /// SPDX expression, where it states one.
    pub(crate) license: Option<String>,
    /// Where it comes from; `None` for a folder.
    pub(crate) source: Option<String>,
    /// Is it a member of the workspace?
    pub(crate) member: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line under a package's dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Only for tests?
    pub(crate) dev: bool,
}

/// Runs `command` and gives its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|source| Error::Start { program: program.clone(), source })?;
    if !done.status.success() {
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(Error::Failed { program, message });
    }
    String::from_utf8(done.stdout).map_err(|error| Error::Unreadable { program, message: error.to_string() })
}

/// The cargo that runs this program.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// All packages of the lock file; fails where it does not fit the manifests.
pub(crate) fn packages(root: &Path) -> Result<Vec<Package>, Error> {
    let text = output(cargo(root).args(["metadata", "--format-version", "1", "--locked"]))?;
    let unreadable = |message: String| Error::Unreadable { program: "cargo metadata".to_owned(), message };
    let value: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    parse_metadata(&value).ok_or_else(|| unreadable("a field is missing".to_owned()))
}

fn parse_metadata(value: &Value) -> Option<Vec<Package>> {
    let root = value["workspace_root"].as_str()?;
    let members: BTreeSet<&str> =
        value["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
    let mut packages = Vec::new();
    for package in value["packages"].as_array()? {
        let manifest = package["manifest_path"].as_str()?;
        let inside = manifest.strip_prefix(root).map(|rest| rest.trim_start_matches('/'));
        let mut dependencies = Vec::new();
        for dependency in package["dependencies"].as_array()? {
            let name = dependency["name"].as_str()?.to_owned();
            dependencies.push(Dependency { name, dev: dependency["kind"].as_str() == Some("dev") });
        }
        packages.push(Package {
            name: package["name"].as_str()?.to_owned(),
            version: package["version"].as_str()?.to_owned(),
            manifest: inside.unwrap_or(manifest).to_owned(),
            license: package["license"].as_str().map(str::to_owned),
            source: package["source"].as_str().map(str::to_owned),
            member: members.contains(package["id"].as_str()?),
            dependencies,
        });
    }
    Some(packages)
}

/// Names and versions that are really compiled on some platform.
///
/// The lock file lists more: packages that only a feature nobody switches on would bring.
pub(crate) fn compiled(root: &Path) -> Result<BTreeSet<(String, String)>, Error> {
    let edges = ["tree", "--locked", "--workspace", "--target", "all", "-e", "normal,build,dev"];
    let text = output(cargo(root).args(edges).args(["--prefix", "none", "-f", "{p}"]))?;
    Ok(parse_tree(&text))
}

fn parse_tree(text: &str) -> BTreeSet<(String, String)> {
    let pair = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split_whitespace().next()?.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_read_with_its_marks() {
        let text =
            "kith v0.1.0 (/somewhere/crates/kith)\nbytes v1.10.0\nserde_derive v1.0.2 (proc-macro) (*)\n\n";
        let set = parse_tree(text);
        let names: Vec<_> = set.iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(names, ["bytes 1.10.0", "kith 0.1.0", "serde_derive 1.0.2"]);
    }

    #[test]
    fn metadata_gives_members_kinds_and_paths_from_the_root() {
        let value = serde_json::json!({
            "workspace_root": "/r", "workspace_members": ["a#1"],
            "packages": [
                {"id": "a#1", "name": "a", "version": "1.0.0", "manifest_path": "/r/crates/a/Cargo.toml",
                 "license": "MIT", "source": null,
                 "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]},
                {"id": "b#1", "name": "b", "version": "1.0.0", "manifest_path": "/x/b/Cargo.toml",
                 "license": null, "source": "registry+x", "dependencies": []}]});
        let packages = parse_metadata(&value).unwrap();
        assert_eq!(packages[0].manifest, "crates/a/Cargo.toml");
        assert!(packages[0].member && !packages[1].member);
        assert!(!packages[0].dependencies[0].dev && packages[0].dependencies[1].dev);
        assert_eq!(packages[1].manifest, "/x/b/Cargo.toml");
        assert_eq!(parse_metadata(&serde_json::json!({})), None);
    }
}
