//! The README's list of crates and the tree say the same.

use std::collections::BTreeSet;

use crate::cargo::Package;
use crate::finding::Finding;
use crate::tree::Tree;

const README: &str = "README.md";
const HEADING: &str = "## The crates";

/// Developer's tools outside the workspace; a row for one is welcome while its folder is there.
const OUTSIDE: &[&str] = &["bench", "fuzz"];

/// Finds crates that the table does not list, and rows of crates that are not there.
pub(crate) fn crates(packages: &[Package], tree: &Tree) -> Vec<Finding> {
    let Some(readme) = tree.file(README) else {
        return Vec::new(); // the list of files that must be there tells it
    };
    let Some((heading, rows)) = table(&readme.text) else {
        let what = format!("no section '{HEADING}'");
        return vec![Finding::new(README, 1, what, "it lists every crate of the workspace")];
    };
    let members: BTreeSet<&str> = packages.iter().filter(|p| p.member).map(|p| p.name.as_str()).collect();
    let outside = |name: &str| {
        OUTSIDE.contains(&name) && tree.paths.iter().any(|path| path.starts_with(&format!("{name}/")))
    };
    let mut findings = Vec::new();
    for (line, name) in &rows {
        if !members.contains(name) && !outside(name) {
            findings.push(Finding::new(
                README,
                *line,
                format!("row {name}"),
                "the workspace has no such crate",
            ));
        }
    }
    for name in members.iter().filter(|name| !rows.iter().any(|(_, row)| row == *name)) {
        findings.push(Finding::new(
            README,
            heading,
            format!("no row for {name}"),
            "the table lists every crate",
        ));
    }
    findings
}

/// Line of the heading, and line and name of each row whose first column is a name in backticks.
fn table(text: &str) -> Option<(usize, Vec<(usize, &str)>)> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let (heading, _) = lines.find(|(_, line)| line.trim_end() == HEADING)?;
    let rows = lines
        .take_while(|(_, line)| !line.starts_with("## ") && !line.starts_with("# "))
        .filter_map(|(line, text)| {
            let first = text.trim_start().strip_prefix('|')?.split('|').next()?;
            Some((line, first.trim().strip_prefix('`')?.split('`').next()?))
        })
        .collect();
    Some((heading, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn found(readme: &str) -> Vec<String> {
        let member = |name: &str| Package { name: name.to_owned(), member: true, ..Package::default() };
        let stranger = Package { name: "serde".to_owned(), ..Package::default() };
        let packages = [member("kith"), member("kith-store"), stranger];
        let files = vec![File::of(README, readme)];
        let tree = Tree { files, paths: vec!["fuzz/Cargo.toml".to_owned()] };
        crates(&packages, &tree).iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn the_table_lists_every_crate_and_no_other() {
        let head = "# Kith\n\n## The crates\n\n| crate | what |\n| --- | --- |\n";
        let rows = "| `kith` | it |\n| `kith-store` | it |\n| `fuzz` | it |\n";
        assert!(found(&format!("{head}{rows}\n## More\n\n| `gone` | |\n")).is_empty());
        assert_eq!(found(&format!("{head}{rows}| `gone` | |\n")), ["10: row gone"]);
        assert_eq!(
            found(&format!("{head}| `kith` | |\n| `bench` | |\n")),
            ["8: row bench", "3: no row for kith-store"]
        );
    }

    #[test]
    fn a_missing_section_is_told() {
        assert_eq!(found("# Kith\n"), ["1: no section '## The crates'"]);
    }
}
