//! Functions and files stay short.

use crate::finding::Finding;
use crate::rust;
use crate::tree::{File, Tree};

/// Lines of a function, from `fn` to its closing brace, before a reason must be given.
const FUNCTION_LINES: usize = 80;

/// Lines of a file before a reason must be given.
const FILE_LINES: usize = 800;

/// Within how many lines of a file its reason must stand.
const TOP_LINES: usize = 30;

/// Finds long functions without `tidy: long because …` in the comments above them.
pub(crate) fn functions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        let lines: Vec<&str> = file.text.lines().collect();
        for function in rust::functions(&rust::tokens(&file.text)) {
            let length = function.last - function.first + 1;
            let top = above(&lines, function.first);
            if length > FUNCTION_LINES && !file.excuses("long", top, function.first) {
                let what = format!("fn {} has {length} lines", function.name);
                let why = "split it, or say above it 'tidy: long because …'";
                findings.push(Finding::new(&file.path, function.first, what, why));
            }
        }
    }
    findings
}

/// The first line of the comments and attributes that stand directly above `line`.
fn above(lines: &[&str], line: usize) -> usize {
    let mut top = line;
    while top > 1 {
        let text = lines[top - 2].trim_start();
        if !(text.starts_with("//") || text.starts_with("#[")) {
            break;
        }
        top -= 1;
    }
    top
}

/// Finds large source files without `tidy: large because …` at their top.
pub(crate) fn files(tree: &Tree) -> Vec<Finding> {
    let is_source = |file: &&File| file.is_rust() || file.path.ends_with(".py") || file.path.ends_with(".sh");
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(is_source) {
        let length = file.text.lines().count();
        if length > FILE_LINES && !file.excuses("large", 1, TOP_LINES) {
            let why = "split it, or say at its top 'tidy: large because …'";
            findings.push(Finding::new(&file.path, 1, format!("{length} lines"), why));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree { files: vec![File::of("a.rs", text)], paths: Vec::new() }
    }

    #[test]
    fn a_function_of_81_lines_needs_a_reason() {
        let body = |lines: usize| format!("fn a() {{\n{}}}\n", "x();\n".repeat(lines - 2));
        assert!(functions(&tree(&body(80))).is_empty());
        assert_eq!(functions(&tree(&body(81)))[0].what, "fn a has 81 lines");
        let excused =
            format!("/// A table.\n// tidy: long because it is a table\n#[rustfmt::skip]\n{}", body(81));
        assert!(functions(&tree(&excused)).is_empty());
        let elsewhere = format!("// tidy: long because it is a table\n\n{}", body(81));
        assert_eq!(functions(&tree(&elsewhere)).len(), 1);
    }

    #[test]
    fn a_file_of_801_lines_needs_a_reason_at_its_top() {
        assert!(files(&tree(&"\n".repeat(800))).is_empty());
        assert_eq!(files(&tree(&"\n".repeat(801))).len(), 1);
        assert!(
            files(&tree(&format!("//! A.\n// tidy: large because it is a table\n{}", "\n".repeat(800))))
                .is_empty()
        );
        assert_eq!(files(&tree(&format!("{}// tidy: large because\n", "\n".repeat(801)))).len(), 1);
    }
}
