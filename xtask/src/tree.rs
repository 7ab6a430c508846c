//! The files of the tree, read once.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;
use crate::cargo::output;

/// One text file of the tree.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl File {
    /// A file with this content, for tests.
    #[cfg(test)]
    pub(crate) fn of(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    /// Is this a Rust source file?
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Does a comment `tidy: KIND because …` stand in the lines `from..=to` (counted from 1)?
    pub(crate) fn excuses(&self, kind: &str, from: usize, to: usize) -> bool {
        let mark = format!("tidy: {kind} because ");
        let lines = self.text.lines().skip(from.saturating_sub(1)).take((to + 1).saturating_sub(from.max(1)));
        lines.into_iter().any(|line| line.contains(&mark))
    }
}

/// All files that belong to the repository or could be added to it.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// The text files; binary ones and the kept fuzz inputs are left out.
    pub(crate) files: Vec<File>,
    /// The paths of all files.
    pub(crate) paths: Vec<String>,
}

impl Tree {
    /// Reads the tree at `root`, asking git which files count.
    pub(crate) fn read(root: &Path) -> Result<Tree, Error> {
        let mut command = Command::new("git");
        command.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let mut paths: Vec<String> = output(&mut command)?.split('\0').map(str::to_owned).collect();
        paths.sort_unstable();
        paths.dedup();
        paths.retain(|path| !path.is_empty() && root.join(path).is_file());
        let mut files = Vec::new();
        for path in &paths {
            if path.starts_with("fuzz/corpus/") {
                continue;
            }
            let bytes = std::fs::read(root.join(path))
                .map_err(|source| Error::File { path: PathBuf::from(path), source })?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File { path: path.clone(), text });
            }
        }
        Ok(Tree { files, paths })
    }

    /// The file at `path`, where there is one.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust sources below one of `folders`.
    pub(crate) fn rust_below<'a>(&'a self, folders: &'a [&str]) -> impl Iterator<Item = &'a File> {
        let below = |file: &&File| folders.iter().any(|folder| file.path.starts_with(folder));
        self.files.iter().filter(|file| file.is_rust()).filter(below)
    }
}

/// The folder of the workspace: this crate's parent folder as it was compiled, or where cargo runs it.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excuse_counts_only_where_it_stands() {
        let file = File::of("a.rs", "one\n// tidy: long because a table\nthree\n");
        assert!(file.excuses("long", 1, 3));
        assert!(file.excuses("long", 2, 2));
        assert!(!file.excuses("long", 3, 3));
        assert!(!file.excuses("large", 1, 3));
    }
}
