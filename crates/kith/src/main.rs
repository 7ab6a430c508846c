//! `kith`: from a fingerprint to a folder in a friend's inbox.
//!
//! The program of floor 7: commands ([`commands`]), the node that they talk to ([`node`]) and the control API
//! between them ([`api`]). Only this crate touches the terminal, the environment and the configuration file.

mod api;
mod cli;
mod commands;
mod config;
mod failure;
mod floors;
mod help;
mod identity_file;
mod node;
mod output;
mod supervisor;

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::failure::{Failure, Result};
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match help::parse() {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    let out = Output::new(cli.json, cli.quiet);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.code.exit())
        }
    }
}

/// Shows the help that was asked for, or what is wrong with the command line; a program gets that as JSON too.
fn misunderstood(error: &clap::Error) -> ExitCode {
    let _nobody_reads_it = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json") {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let failure = Failure::usage(first.strip_prefix("error: ").unwrap_or(first));
        let _the_exit_code_says_it = Output::new(true, false).result(&failure, String::new);
    }
    ExitCode::from(failure::Code::Usage.exit())
}

fn run(cli: cli::Cli) -> Result<()> {
    log(cli.verbose, cli.quiet)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(Box::pin(commands::run(cli)));
    // A thread that waits for a line on the terminal must not keep the program.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

/// Logs go to standard error: warnings by default, `KITH_LOG` or `-v` for more.
fn log(verbose: u8, quiet: bool) -> Result<()> {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = match std::env::var("KITH_LOG") {
        Ok(text) => tracing_subscriber::EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("KITH_LOG={text}: {error}")))?,
        Err(_) => tracing_subscriber::EnvFilter::new(level),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}
