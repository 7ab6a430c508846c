//! What every command says about itself: exit codes, files, environment and examples, at the end of `--help` and as
//! sections of its man page. One table ([`table::PAGES`]) feeds both; a command without an entry fails the tests.

pub(crate) mod man;
mod table;

use std::fmt::Write;

use clap::{Command, CommandFactory, FromArgMatches};

use crate::cli::Cli;

/// What is said of one command beside its options.
pub(crate) struct Page {
    /// The words after `kith`; empty for the program itself.
    pub(crate) path: &'static str,
    /// Exit codes beside 0 and 2, which every command has, with what they mean here.
    pub(crate) exits: &'static [(u8, &'static str)],
    /// Files it reads or writes beside the home folder itself.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Command lines with what they do.
    pub(crate) examples: &'static [(&'static str, &'static str)],
}

/// Variables that every command reads.
pub(crate) const ENVIRONMENT: &[(&str, &str)] = &[
    ("KITH_HOME", "home folder where --home is not given"),
    ("XDG_DATA_HOME", "the home folder is its folder kith where neither is given, else ~/.local/share/kith"),
    (
        "KITH_LOG",
        "what is logged to standard error, such as info or kith_connect=debug; goes before -v and -q",
    ),
];

/// The command line's definition with its help pages.
pub(crate) fn command() -> Command {
    decorated(Cli::command(), "")
}

/// The command line of this process.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let mut matches = command().try_get_matches()?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command()))
}

/// The page of the command at `path`.
pub(crate) fn page(path: &str) -> Option<&'static Page> {
    table::PAGES.iter().find(|page| page.path == path)
}

/// Exit codes of a command, with their meaning.
pub(crate) fn exits(page: &Page) -> Vec<(u8, &'static str)> {
    let mut exits = vec![(0, "done"), (2, "wrong usage")];
    exits.extend(page.exits);
    exits.sort_unstable_by_key(|(code, _)| *code);
    exits
}

fn decorated(command: Command, path: &str) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = match page(path) {
        Some(page) => command.after_long_help(text(page)),
        None => command,
    };
    names.into_iter().fold(command, |command, name| {
        let below = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command.mut_subcommand(name, |command| decorated(command, &below))
    })
}

/// The end of a command's `--help`.
fn text(page: &Page) -> String {
    let mut text = String::new();
    let mut section = |title: &str, rows: &[(String, &str)]| {
        if rows.is_empty() {
            return;
        }
        let gap = if text.is_empty() { "" } else { "\n\n" };
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let _a_string_takes_all = write!(text, "{gap}{title}:");
        for (name, meaning) in rows {
            let _a_string_takes_all = write!(text, "\n  {name:width$}  {meaning}");
        }
    };
    let named = |rows: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
        rows.iter().map(|(name, meaning)| ((*name).to_owned(), *meaning)).collect()
    };
    let exits: Vec<_> = exits(page).into_iter().map(|(code, meaning)| (code.to_string(), meaning)).collect();
    section("Exit codes", &exits);
    section("Files", &named(page.files));
    section("Environment", &named(ENVIRONMENT));
    if !page.examples.is_empty() {
        text.push_str("\n\nExamples:");
        for (line, meaning) in page.examples {
            let _a_string_takes_all = write!(text, "\n  {meaning}:\n      {line}");
        }
    }
    text
}

/// Every command that can be run, as the words after `kith`, and every group of commands.
#[cfg(test)]
pub(crate) fn paths(command: &Command) -> Vec<String> {
    let mut all = Vec::new();
    walk(command, "", &mut |path, _| all.push(path.to_owned()));
    all
}

/// Visits a command and all below it.
pub(crate) fn walk(command: &Command, path: &str, visit: &mut impl FnMut(&str, &Command)) {
    visit(path, command);
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let name = below.get_name();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path} {name}") };
        walk(below, &path, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_page_a_command() {
        let mut paths = paths(&Cli::command());
        let mut pages: Vec<_> = table::PAGES.iter().map(|page| page.path.to_owned()).collect();
        paths.sort_unstable();
        pages.sort_unstable();
        assert_eq!(pages, paths, "src/help/table.rs holds a page for each command of src/cli.rs");
    }

    #[test]
    fn every_example_is_a_command_line_that_parses() {
        for page in table::PAGES {
            for (line, _) in page.examples {
                let words = words(line);
                assert_eq!(words[0], "kith", "{line}");
                let parsed = command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                let first = page.path.split(' ').next().unwrap();
                assert!(page.path.is_empty() || words.iter().any(|word| word == first), "{line}");
            }
        }
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted_in_the_examples() {
        let outside = |line: &str| line.split('\'').step_by(2).any(|part| part.contains(';'));
        assert!(outside("kith id; kith up") && !outside("kith ping 'ni:///a;b' --count 1"));
        let lines = table::PAGES.iter().flat_map(|page| page.examples).map(|(line, _)| *line);
        assert_eq!(lines.filter(|line| outside(line)).collect::<Vec<_>>(), [""; 0]);
    }

    /// The words of a shell line without quotes; what follows a pipe, a redirection or `&` is the shell's.
    fn words(line: &str) -> Vec<String> {
        let own = line.split(['|', '&', '>', '<']).next().unwrap();
        own.split_whitespace().map(|word| word.replace(['"', '\''], "")).collect()
    }

    #[test]
    fn exit_codes_are_those_of_the_program_and_told_once() {
        for page in table::PAGES {
            let codes: Vec<_> = exits(page).iter().map(|(code, _)| *code).collect();
            assert!(codes.windows(2).all(|two| two[0] < two[1]) && codes.iter().all(|code| *code <= 5));
        }
    }

    #[test]
    fn every_command_has_a_purpose_in_one_line() {
        walk(&command(), "", &mut |path, command| {
            let about = command.get_about().unwrap_or_else(|| panic!("{path} has no purpose")).to_string();
            assert!(!about.contains('\n') && !about.ends_with('.') || path.is_empty(), "{path}: {about}");
        });
    }
}
