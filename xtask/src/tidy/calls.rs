//! One clock and one source of chance.

use crate::finding::Finding;
use crate::rust::{spells, tokens};
use crate::tree::Tree;

/// The one place that may read the clock and draw chance.
const SYSTEM: &str = "crates/sansio/src/system.rs";

const TIME: &str = "time is an argument; shells take it from kith_sansio::system";
const CHANCE: &str = "chance is an argument; shells take it from kith_sansio::system";
const SLEEP: &str = "wait for the event, with a deadline";

/// Calls as the code spells them, and what to do instead.
const CALLS: &[(&[&str], &str)] = &[
    (&["Instant", ":", ":", "now"], TIME),
    (&["SystemTime", ":", ":", "now"], TIME),
    (&["UNIX_EPOCH", ".", "elapsed"], TIME),
    (&["Utc", ":", ":", "now"], TIME),
    (&["Timestamp", ":", ":", "now"], TIME),
    (&["Zoned", ":", ":", "now"], TIME),
    (&["thread", ":", ":", "sleep"], SLEEP),
    (&["getrandom", ":", ":"], CHANCE),
    (&["rand", ":", ":", "rng"], CHANCE),
    (&["rand", ":", ":", "random"], CHANCE),
    (&["thread_rng", "("], CHANCE),
    (&["ThreadRng"], CHANCE),
];

/// Finds clocks, sleeps and random sources outside the one module for them.
///
/// clippy knows the plain calls too; this finds them also behind a lint that was switched off, and where a
/// function is passed instead of called. A comment `tidy: clock because …` on the line or above it excuses one.
pub(crate) fn clocks_and_chance(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_below(&["crates/", "xtask/"]).filter(|file| file.path != SYSTEM) {
        let tokens = tokens(&file.text);
        for (at, token) in tokens.iter().enumerate() {
            let called = CALLS.iter().find(|(words, _)| spells(&tokens, at, words));
            let Some((words, why)) = called else { continue };
            if !file.excuses("clock", token.line.saturating_sub(2), token.line) {
                findings.push(Finding::new(&file.path, token.line, words.concat(), why));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn found(path: &str, text: &str) -> Vec<usize> {
        let tree = Tree { files: vec![File::of(path, text)], paths: Vec::new() };
        clocks_and_chance(&tree).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn clocks_sleeps_and_chance_are_found() {
        let text = "let a = std::time::Instant::now();\nlet b = map(Instant::now);\nstd::thread::sleep(c);\n\
                    getrandom::fill(&mut d);\nSystemTime :: now();\nlet e = \"Instant::now()\"; // Instant::now()\n";
        assert_eq!(found("crates/a/src/lib.rs", text), [1, 2, 3, 4, 5]);
        assert!(found(SYSTEM, text).is_empty());
        assert!(found("bench/compare/main.rs", text).is_empty());
    }

    #[test]
    fn an_excuse_covers_the_call_below_it() {
        let text = "// tidy: clock because the test measures a real process\nlet a = Instant::now();\n\n\nInstant::now();\n";
        assert_eq!(found("crates/a/tests/it/main.rs", text), [5]);
    }
}
