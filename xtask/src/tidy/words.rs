//! Words that do not belong into the tree.

use crate::finding::Finding;
use crate::rust::{spells, tokens};
use crate::tree::Tree;

/// Names of modules that say nothing of what is inside.
const EMPTY_MODULES: &[&str] = &["common", "util", "utils", "types", "helper", "helpers"];

/// Names of functions that a trait of somebody else demands: that of plotters for what pictures are drawn on.
const DEMANDED: &[&str] = &["get_size"];

/// Marks of unfinished work; put together here so that this file does not find itself.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Places of one machine or one network, which mean nothing in a clone.
const PLACES: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// The one registry, as lock files write it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Finds names that the house does not use.
pub(crate) fn names(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        let tokens = tokens(&file.text);
        for pair in tokens.windows(2) {
            let (word, name) = (pair[0].text, pair[1].text);
            let why = match word {
                "fn" if name.starts_with("get_") && !DEMANDED.contains(&name) => {
                    "say what it gives, without 'get_'"
                }
                "struct" | "enum" | "trait" | "type" | "union"
                    if name.ends_with("Manager") || name.ends_with("Helper") =>
                {
                    "name the thing, not that it manages or helps"
                }
                "mod" if EMPTY_MODULES.contains(&name) => "name the module after what is inside",
                _ => continue,
            };
            findings.push(Finding::new(&file.path, pair[1].line, format!("{word} {name}"), why));
        }
    }
    findings
}

/// Finds marks of unfinished work, in code, comments and documents, and tests that are switched off.
pub(crate) fn marks(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (line, text) in numbered(&file.text) {
            for mark in MARKS.iter().filter(|mark| has_word(text, mark)) {
                let why = "finish it, or write it down where open work is kept";
                findings.push(Finding::new(&file.path, line, format!("mark {mark}"), why));
            }
        }
        if !file.is_rust() {
            continue;
        }
        let tokens = tokens(&file.text);
        for (at, token) in tokens.iter().enumerate() {
            if spells(&tokens, at, &["todo", "!"]) || spells(&tokens, at, &["unimplemented", "!"]) {
                let what = format!("{}!", token.text);
                findings.push(Finding::new(&file.path, token.line, what, "build it or leave it out"));
            }
            if spells(&tokens, at, &["#", "[", "ignore"]) {
                let why = "a test runs, or it says what it needs and returns";
                findings.push(Finding::new(&file.path, token.line, "an ignored test", why));
            }
        }
    }
    findings
}

/// Finds paths of one machine, and lock files that name another registry than crates.io.
pub(crate) fn places(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let lock = file.path.ends_with("Cargo.lock");
        for (line, text) in numbered(&file.text) {
            for place in PLACES.iter().filter(|place| has_path(text, place)) {
                let why = "a clone stands elsewhere: use a relative path";
                findings.push(Finding::new(&file.path, line, format!("absolute path {place}"), why));
            }
            let source = text.strip_prefix("source = \"").filter(|_| lock);
            if let Some(source) = source.filter(|source| source.trim_end_matches('"') != REGISTRY) {
                let what = format!("source {}", source.trim_end_matches('"'));
                findings.push(Finding::new(&file.path, line, what, "packages come from crates.io only"));
            }
        }
    }
    findings
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next()))
}

/// Does `path` stand in `line` as the start of an absolute path?
fn has_path(line: &str, path: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || "_-.~/*}$".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].chars().next_back().is_some_and(inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn tree(path: &str, text: &str) -> Tree {
        Tree { files: vec![File::of(path, text)], paths: vec![path.to_owned()] }
    }

    #[test]
    fn empty_names_are_found_and_the_same_words_in_comments_are_not() {
        let text = "fn get_key() {}\nstruct KeyManager;\nmod util;\n// fn get_x, mod util\nfn target() {}\nuse std::any::type_name;";
        let found: Vec<_> = names(&tree("a.rs", text)).iter().map(|f| f.line).collect();
        assert_eq!(found, [1, 2, 3]);
        assert!(names(&tree("a.md", text)).is_empty());
    }

    #[test]
    fn marks_are_whole_words_anywhere() {
        let mark = MARKS[0];
        let text = format!("fn a() {{}} // {mark}: later\nlet {mark}S = 1;\n");
        assert_eq!(marks(&tree("a.rs", &text)).len(), 1);
        assert_eq!(marks(&tree("a.md", &text)).len(), 1);
    }

    #[test]
    fn open_macros_and_ignored_tests_are_found_in_code_only() {
        let text = "fn a() { todo!() }\n#[ignore = \"slow\"]\nfn b() {}\nlet c = \"todo!() #[ignore]\";";
        let found: Vec<_> = marks(&tree("a.rs", text)).iter().map(|f| f.line).collect();
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn only_absolute_paths_of_a_machine_are_found() {
        let place = PLACES[0];
        assert_eq!(places(&tree("a.md", &format!("see {place}main"))).len(), 1);
        assert!(places(&tree("a.md", &format!("see docs{place}main"))).is_empty());
        assert!(places(&tree("a.md", &format!("see $HOME{place}main ${{a}}{place}"))).is_empty());
    }

    #[test]
    fn a_lock_file_names_crates_io_only() {
        let good = format!("source = \"{REGISTRY}\"\n");
        assert!(places(&tree("Cargo.lock", &good)).is_empty());
        let bad =
            "source = \"registry+https://mirror.example/index\"\nsource = \"git+https://example.org/a\"\n";
        assert_eq!(places(&tree("fuzz/Cargo.lock", bad)).len(), 2);
        assert!(places(&tree("a.md", bad)).is_empty());
    }
}
