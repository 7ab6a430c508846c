//! Developer's tools of the house: `cargo xtask tidy` and `cargo xtask fuzz`.
//!
//! `tidy` holds the tree against the rules that the compiler does not know: layering, words, sizes, licences.
//! `fuzz` runs the fuzz functions of the crates, with sanitizers for long or on the stable compiler for short.
//!
//! Invariants: changes nothing in the tree, needs no network.

mod cargo;
mod finding;
mod fuzz;
mod rust;
mod tidy;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer's tools of the house.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hold the tree against the house rules; exit code 1 where one is broken
    Tidy,
    /// Run the fuzz functions of the crates
    Fuzz(fuzz::Arguments),
}

/// Why a tool could not do its work; a broken house rule is a finding, not an error.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A program of the system did not start.
    #[error("cannot start '{program}': {source}")]
    Start { program: String, source: std::io::Error },
    /// A program of the system ended badly.
    #[error("'{program}' failed{}", detail(.message))]
    Failed { program: String, message: String },
    /// A program wrote what this one does not understand.
    #[error("cannot read what '{program}' says: {message}")]
    Unreadable { program: String, message: String },
    /// A file of the tree cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// The person asked for something that is not there.
    #[error("{0}")]
    Usage(String),
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {}", message.trim_end()) }
}

fn main() -> ExitCode {
    let root = tree::root();
    let outcome = match Arguments::parse().command {
        Command::Tidy => tidy::run(&root),
        Command::Fuzz(arguments) => fuzz::run(&root, &arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
