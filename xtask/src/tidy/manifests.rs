//! Manifests and the files that every clone must have.

use toml::{Table, Value};

use crate::cargo::Package;
use crate::finding::Finding;
use crate::tree::Tree;

/// Files that must be there, and what for.
const FILES: &[(&str, &str)] = &[
    ("README.md", "a fresh clone starts there"),
    ("ARCHITECTURE.md", "it tells the floors and their invariants as built"),
    ("CHANGELOG.md", "it tells what a user notices"),
    ("LICENSE-MIT", "the manifests promise it"),
    ("LICENSE-APACHE", "the manifests promise it"),
    ("Cargo.lock", "a clone builds what was tested"),
];

/// Finds missing files.
pub(crate) fn present(tree: &Tree) -> Vec<Finding> {
    let missing = |(path, _): &&(&str, &'static str)| !tree.paths.iter().any(|known| known == path);
    FILES.iter().filter(missing).map(|(path, why)| Finding::new(path, 1, "no such file", why)).collect()
}

/// The finding for a workspace that cargo does not accept with its lock file as it is.
pub(crate) fn lock_refused(message: &str) -> Finding {
    let error = message.lines().find_map(|line| line.strip_prefix("error: "));
    let what = error.unwrap_or("cargo refuses the workspace").to_owned();
    Finding::new("Cargo.lock", 1, what, "run 'cargo metadata' and keep the lock file it writes")
}

/// Finds crates that do not take the workspace's lints.
pub(crate) fn lints(packages: &[Package], tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, manifest) in manifests(packages, tree) {
        let taken = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        if taken != Some(true) {
            let why = "every crate has '[lints]' with 'workspace = true'";
            findings.push(Finding::new(path, 1, "the workspace's lints are not taken", why));
        }
    }
    findings
}

/// Finds dependencies whose version does not stand in the workspace's manifest.
pub(crate) fn versions_once(packages: &[Package], tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, manifest) in manifests(packages, tree) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, dependency) in manifest.get(kind).and_then(Value::as_table).into_iter().flatten() {
                if dependency.get("workspace").and_then(Value::as_bool) != Some(true) {
                    let why = "versions stand once, in the workspace's Cargo.toml";
                    findings.push(Finding::new(path, 1, format!("{name} has a version of its own"), why));
                }
            }
        }
    }
    findings
}

/// Path and content of the members' manifests that can be read; cargo itself refuses the others.
fn manifests<'a>(packages: &'a [Package], tree: &'a Tree) -> impl Iterator<Item = (&'a str, Table)> {
    packages.iter().filter(|package| package.member).filter_map(|package| {
        let manifest: Table = tree.file(&package.manifest)?.text.parse().ok()?;
        Some((package.manifest.as_str(), manifest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn crate_with(manifest: &str) -> ([Package; 1], Tree) {
        let path = "crates/a/Cargo.toml".to_owned();
        let tree = Tree { files: vec![File::of(&path, manifest)], paths: vec![path.clone()] };
        ([Package { name: "a".to_owned(), manifest: path, member: true, ..Package::default() }], tree)
    }

    #[test]
    fn a_crate_takes_the_workspaces_lints() {
        let (packages, tree) = crate_with("[lints]\nworkspace = true\n");
        assert!(lints(&packages, &tree).is_empty());
        for manifest in ["", "[lints]\nworkspace = false\n", "[lints.clippy]\nall = \"allow\"\n"] {
            let (packages, tree) = crate_with(manifest);
            assert_eq!(lints(&packages, &tree).len(), 1, "{manifest}");
        }
    }

    #[test]
    fn versions_stand_in_the_workspace() {
        let (packages, tree) = crate_with(
            "[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = { version = \"1\" }\n",
        );
        assert_eq!(versions_once(&packages, &tree).len(), 2);
    }

    #[test]
    fn missing_files_are_named() {
        let (_, mut tree) = crate_with("");
        assert_eq!(present(&tree).len(), FILES.len());
        tree.paths.push("README.md".to_owned());
        assert_eq!(present(&tree).len(), FILES.len() - 1);
    }

    #[test]
    fn cargos_own_words_are_kept_for_a_lock_file_out_of_date() {
        let finding = lock_refused("    Updating index\nerror: the lock file needs an update\nmore");
        assert_eq!(finding.what, "the lock file needs an update");
    }
}
