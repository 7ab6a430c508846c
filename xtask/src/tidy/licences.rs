//! Licences, bans and sources of everything that is compiled, as `deny.toml` lists them.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::spdx;
use crate::cargo::Package;
use crate::finding::Finding;
use crate::tree::Tree;

/// The one list, in the form that `cargo deny` reads too.
const POLICY: &str = "deny.toml";

/// What may be used.
#[derive(Debug, Default)]
struct Policy {
    licences: Vec<String>,
    banned: Vec<String>,
    registries: Vec<String>,
}

/// Finds packages that may not be used.
pub(crate) fn check(
    packages: &[Package],
    compiled: &BTreeSet<(String, String)>,
    tree: &Tree,
) -> Vec<Finding> {
    match tree.file(POLICY).map(|file| file.text.parse::<Table>()) {
        Some(Ok(table)) => violations(packages, compiled, &policy(&table)),
        Some(Err(error)) => vec![Finding::new(POLICY, 1, error.message(), "it must be TOML")],
        None => vec![Finding::new(POLICY, 1, "no such file", "it lists allowed licences and banned crates")],
    }
}

fn policy(table: &Table) -> Policy {
    let list = |section: &str, key: &str| -> Vec<String> {
        let values = table.get(section).and_then(|section| section.get(key)).and_then(Value::as_array);
        let name = |value: &Value| Some(value.as_str().or_else(|| value.get("crate")?.as_str())?.to_owned());
        values.into_iter().flatten().filter_map(name).collect()
    };
    Policy {
        licences: list("licenses", "allow"),
        banned: list("bans", "deny"),
        registries: list("sources", "allow-registry"),
    }
}

fn violations(packages: &[Package], compiled: &BTreeSet<(String, String)>, policy: &Policy) -> Vec<Finding> {
    let allowed: Vec<&str> = policy.licences.iter().map(String::as_str).collect();
    let mut findings = Vec::new();
    for package in packages {
        let title = format!("{} {}", package.name, package.version);
        let mut find = |what: String, why| findings.push(Finding::new("Cargo.lock", 1, what, why));
        let registry = |source: &String| policy.registries.iter().any(|r| *source == format!("registry+{r}"));
        if !package.source.as_ref().map_or(package.member, registry) {
            let from = package.source.as_deref().unwrap_or("a folder outside the workspace");
            find(format!("{title} comes from {from}"), "deny.toml allows other sources only");
        }
        if !compiled.contains(&(package.name.clone(), package.version.clone())) {
            continue;
        }
        if policy.banned.contains(&package.name) {
            find(format!("{title} is used"), "deny.toml bans it and says why");
        }
        match package.license.as_deref().map(|expression| spdx::is_met(expression, &allowed)) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => {
                let expression = package.license.as_deref().unwrap_or_default();
                find(format!("{title} has licence {expression}"), "deny.toml does not allow it");
            }
            Some(Err(error)) => find(format!("{title}: {error}"), "a licence must be known"),
            None => find(format!("{title} states no licence"), "a licence must be known"),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[licenses]\nallow = ['MIT', 'ISC']\n\
                        [bans]\ndeny = [{ crate = 'ring', reason = 'x' }, 'nfq']\n\
                        [sources]\nallow-registry = ['https://good.example/index']\n";

    fn found(name: &str, license: Option<&str>, source: &str, used: bool) -> Vec<String> {
        let package = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            source: Some(source.to_owned()),
            ..Package::default()
        };
        let compiled: BTreeSet<_> = used.then(|| (name.to_owned(), "1.0.0".to_owned())).into_iter().collect();
        let policy = policy(&TEXT.parse().unwrap());
        violations(&[package], &compiled, &policy).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn licences_bans_and_sources_are_held_against_the_policy() {
        let good = "registry+https://good.example/index";
        assert!(found("serde", Some("MIT OR GPL-3.0"), good, true).is_empty());
        assert_eq!(found("serde", Some("GPL-3.0"), good, true), ["serde 1.0.0 has licence GPL-3.0"]);
        assert_eq!(found("serde", None, good, true), ["serde 1.0.0 states no licence"]);
        assert_eq!(found("ring", Some("MIT"), good, true), ["ring 1.0.0 is used"]);
        assert_eq!(found("nfq", Some("MIT"), good, true), ["nfq 1.0.0 is used"]);
        assert_eq!(
            found("serde", Some("MIT"), "git+https://x", true),
            ["serde 1.0.0 comes from git+https://x"]
        );
        assert_eq!(found("serde", Some("MIT OR"), good, true).len(), 1);
    }

    #[test]
    fn what_only_an_unused_feature_would_bring_is_held_to_its_source_alone() {
        assert!(found("ring", Some("GPL-3.0"), "registry+https://good.example/index", false).is_empty());
        assert_eq!(found("ring", Some("MIT"), "git+https://x", false).len(), 1);
    }

    #[test]
    fn a_missing_or_broken_policy_is_told() {
        assert_eq!(check(&[], &BTreeSet::new(), &Tree::default()).len(), 1);
    }
}
