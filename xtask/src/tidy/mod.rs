//! The house rules that the compiler does not know.
//!
//! Each check is a pure function from what was read to its findings; only [`run`] reads and prints.

mod calls;
mod fuzzing;
mod layers;
mod licences;
mod manifests;
mod readme;
mod size;
mod spdx;
mod words;

use std::path::Path;

use crate::Error;
use crate::cargo;
use crate::finding::Finding;
use crate::tree::Tree;

/// Holds the tree at `root` against every rule and prints what it finds; `true` where it found nothing.
pub(crate) fn run(root: &Path) -> Result<bool, Error> {
    let tree = Tree::read(root)?;
    let mut checks = vec![
        words::names(&tree),
        words::marks(&tree),
        words::places(&tree),
        calls::clocks_and_chance(&tree),
        size::functions(&tree),
        size::files(&tree),
        manifests::present(&tree),
        fuzzing::complete(&tree),
    ];
    match cargo::packages(root) {
        Ok(packages) => {
            let compiled = cargo::compiled(root)?;
            checks.push(layers::downwards(&packages));
            checks.push(manifests::lints(&packages, &tree));
            checks.push(manifests::versions_once(&packages, &tree));
            checks.push(readme::crates(&packages, &tree));
            checks.push(licences::check(&packages, &compiled, &tree));
        }
        Err(Error::Failed { message, .. }) => checks.push(vec![manifests::lock_refused(&message)]),
        Err(other) => return Err(other),
    }
    let count = checks.len();
    let mut findings: Vec<Finding> = checks.into_iter().flatten().collect();
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {count} checks, no findings");
    } else {
        println!("tidy: {count} checks, {} findings", findings.len());
    }
    Ok(findings.is_empty())
}
