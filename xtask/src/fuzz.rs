//! `cargo xtask fuzz`: long runs with sanitizers, short runs on the stable compiler.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Error;
use crate::cargo::{cargo, output};
use crate::tree::Tree;

/// What to fuzz.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target, as `--list` names it
    #[arg(required_unless_present_any = ["list", "short"], conflicts_with_all = ["list", "short"])]
    target: Option<String>,
    /// How long to search, in seconds
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Name the targets
    #[arg(long, conflicts_with = "short")]
    list: bool,
    /// Run every target over its kept inputs and mutations of them, on the stable compiler
    #[arg(long)]
    short: bool,
    /// With --short: mutations for each target
    #[arg(long, default_value_t = 30_000, value_name = "N", requires = "short")]
    inputs: u32,
}

/// The target that stands for the function `fuzz_NAME` of the crate in `crates/FOLDER`: `FOLDER_NAME`.
pub(crate) fn target_of(folder: &str, function: &str) -> String {
    format!("{folder}_{}", function.trim_start_matches("fuzz_"))
}

/// The targets among `paths`.
pub(crate) fn targets(paths: &[String]) -> Vec<String> {
    let name = |path: &String| Some(path.strip_prefix("fuzz/fuzz_targets/")?.strip_suffix(".rs")?.to_owned());
    paths.iter().filter_map(name).collect()
}

/// Lists, runs short or runs long; `true` where nothing broke.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<bool, Error> {
    if arguments.short {
        return short(root, arguments.inputs);
    }
    let targets = targets(&Tree::read(root)?.paths);
    let Some(wanted) = &arguments.target else {
        for target in &targets {
            println!("{target}");
        }
        return Ok(true);
    };
    if !targets.contains(wanted) {
        let known = targets.join(", ");
        return Err(Error::Usage(format!("no fuzz target '{wanted}'; there are {known}")));
    }
    long(root, wanted, arguments.seconds)
}

/// The whole workspace, so that nothing is compiled with other features than the tests have.
fn short(root: &Path, inputs: u32) -> Result<bool, Error> {
    let mut command = cargo(root);
    command.args(["test", "--workspace", "--test", "corpus"]).env("KITH_FUZZ_INPUTS", inputs.to_string());
    succeeds(&mut command)
}

/// New inputs go to `fuzz/target`, so that the kept ones stay few and chosen by hand.
fn long(root: &Path, target: &str, seconds: u32) -> Result<bool, Error> {
    if output(cargo(root).args(["fuzz", "--version"])).is_err() {
        let message = "cargo-fuzz is missing; install it with 'cargo install --locked cargo-fuzz'";
        return Err(Error::Usage(message.to_owned()));
    }
    copy_lock(root)?;
    let (found, kept) = (format!("fuzz/target/found/{target}"), format!("fuzz/corpus/{target}"));
    std::fs::create_dir_all(root.join(&found))
        .map_err(|source| Error::File { path: found.clone().into(), source })?;
    let mut command = cargo(root);
    // Sanitizers are unstable options of the compiler; this lets the stable one take them.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.args(["fuzz", "run", target, &found, &kept, "--"]);
    command.args([format!("-max_total_time={seconds}"), "-max_len=65536".to_owned()]);
    succeeds(&mut command)
}

/// The fuzz crate stands outside the workspace; with its lock file it fuzzes the versions that the house uses.
fn copy_lock(root: &Path) -> Result<(), Error> {
    let path = root.join("fuzz/Cargo.lock");
    std::fs::copy(root.join("Cargo.lock"), &path).map_err(|source| Error::File { path, source })?;
    Ok(())
}

fn succeeds(command: &mut Command) -> Result<bool, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().map_err(|source| Error::Start { program, source })?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_after_crate_and_function() {
        assert_eq!(target_of("identity", "fuzz_record_json"), "identity_record_json");
        let paths = ["fuzz/Cargo.toml", "fuzz/fuzz_targets/sansio_wire.rs", "fuzz/corpus/sansio_wire/a"];
        assert_eq!(targets(&paths.map(str::to_owned)), ["sansio_wire"]);
    }
}
