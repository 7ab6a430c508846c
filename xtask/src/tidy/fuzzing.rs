//! Every fuzz function of a crate has a target and kept inputs.

use crate::finding::Finding;
use crate::fuzz::target_of;
use crate::rust::tokens;
use crate::tree::Tree;

/// Finds fuzz functions without a target, targets without a function, and targets without kept inputs.
pub(crate) fn complete(tree: &Tree) -> Vec<Finding> {
    let functions = functions(tree);
    let targets = crate::fuzz::targets(&tree.paths);
    let manifest = tree.file("fuzz/Cargo.toml").map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();
    for (path, line, target) in &functions {
        if !targets.contains(target) {
            let what = format!("no fuzz target {target}");
            findings.push(Finding::new(
                path,
                *line,
                what,
                "every parser of outside bytes is fuzzed: add it in fuzz/",
            ));
        }
    }
    for target in &targets {
        let path = format!("fuzz/fuzz_targets/{target}.rs");
        if !functions.iter().any(|(_, _, known)| known == target) {
            findings.push(Finding::new(&path, 1, "no such fuzz function in the crates", "remove the target"));
        }
        if !manifest.contains(&format!("name = \"{target}\"")) {
            findings.push(Finding::new(
                "fuzz/Cargo.toml",
                1,
                format!("no [[bin]] {target}"),
                "cargo fuzz needs it",
            ));
        }
        if !tree.paths.iter().any(|path| path.starts_with(&format!("fuzz/corpus/{target}/"))) {
            let why = "keep at least one accepted input, so that mutations start near good ones";
            findings.push(Finding::new(&path, 1, format!("no inputs in fuzz/corpus/{target}"), why));
        }
    }
    findings
}

/// Path, line and target name of each public fuzz function.
fn functions(tree: &Tree) -> Vec<(String, usize, String)> {
    let mut found = Vec::new();
    for file in tree.rust_below(&["crates/"]) {
        let Some((folder, module)) = file.path.strip_prefix("crates/").and_then(|p| p.split_once("/src/"))
        else {
            continue;
        };
        if module != "fuzz.rs" && !module.starts_with("fuzz/") {
            continue;
        }
        for words in tokens(&file.text).windows(3) {
            if words[0].text == "pub" && words[1].text == "fn" && words[2].text.starts_with("fuzz_") {
                found.push((file.path.clone(), words[2].line, target_of(folder, words[2].text)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    #[test]
    fn functions_targets_and_inputs_belong_together() {
        let source =
            "pub fn fuzz_ni(data: &[u8]) {}\nfn fuzz_private() {}\npub fn fuzz_new(data: &[u8]) {}\n";
        let files = vec![
            File::of("crates/identity/src/fuzz.rs", source),
            File::of("fuzz/Cargo.toml", "[[bin]]\nname = \"identity_ni\"\n"),
        ];
        let paths = [
            "fuzz/fuzz_targets/identity_ni.rs",
            "fuzz/corpus/identity_ni/a",
            "fuzz/fuzz_targets/identity_gone.rs",
        ];
        let tree = Tree { files, paths: paths.map(str::to_owned).to_vec() };
        let found: Vec<_> = complete(&tree).into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            found,
            [
                "no fuzz target identity_new",
                "no such fuzz function in the crates",
                "no [[bin]] identity_gone",
                "no inputs in fuzz/corpus/identity_gone"
            ]
        );
    }
}
