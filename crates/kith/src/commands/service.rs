//! `kith install-service`: the node as a unit of the person's own systemd.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use super::Context;
use crate::cli::InstallService;
use crate::config::Config;
use crate::failure::{Failure, Result, chain};
use crate::identity_file;

/// The unit of the Debian package, which this one differs from in its command line alone.
const PACKAGED: &str = include_str!("../../../../packaging/kith.service");
const PACKAGED_COMMAND: &str = "ExecStart=/usr/bin/kith up";
/// Name of the unit.
const UNIT: &str = "kith.service";
/// First line of every unit that this command wrote; others are left alone.
const MARK: &str =
    "# Written by 'kith install-service'; 'kith install-service --remove' takes it away again.\n";

/// What was done, and what is left to do.
#[derive(Debug, Serialize)]
struct Done {
    /// Path of the unit.
    unit: String,
    /// Its text; missing once it is removed.
    text: Option<String>,
    did: Vec<String>,
    /// For the person to do.
    todo: Vec<String>,
}

impl Done {
    fn text(&self) -> String {
        let todo = self.todo.iter().map(|todo| format!("left to do: {todo}"));
        self.did.iter().cloned().chain(todo).collect::<Vec<_>>().join("\n")
    }
}

pub(super) fn install(context: &Context, options: &InstallService) -> Result<()> {
    let path = folder()?.join(UNIT);
    let mut done = Done { unit: path.display().to_string(), text: None, did: Vec::new(), todo: Vec::new() };
    if options.remove {
        remove(&path, &mut done)?;
        return context.out.result(&done, || done.text());
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
    let unit = unit(&program, context.home.dir());
    done.text = Some(unit.clone());
    if options.print {
        return context.out.result(&done, || unit);
    }
    refuse_a_key_that_needs_a_person(context)?;
    write(&path, &unit)?;
    done.did.push(format!("wrote {}", path.display()));
    if options.no_start {
        done.todo.push(format!("systemctl --user daemon-reload && systemctl --user enable --now {UNIT}"));
    } else {
        start(&mut done)?;
    }
    done.todo.push("loginctl enable-linger, where the node is to run while you are not logged in".to_owned());
    context.out.result(&done, || done.text())
}

/// Where a person's own units stand.
fn folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("systemd/user")).ok_or_else(|| {
        Failure::failed("neither XDG_CONFIG_HOME nor HOME says where the unit goes")
            .hint("'kith install-service --print' prints it")
    })
}

fn unit(program: &Path, home: &Path) -> String {
    let command = format!(
        "ExecStart={} --home {} up",
        quoted(&program.to_string_lossy()),
        quoted(&home.to_string_lossy())
    );
    let packaged: String =
        PACKAGED.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    format!("{MARK}{}", packaged.replace(PACKAGED_COMMAND, &command))
}

/// A word of a unit's command line (systemd.service(5), "Command lines").
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '%' => "%%".to_owned(),
            '$' => "$$".to_owned(),
            '\n' => "\\n".to_owned(),
            other => other.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// A service cannot ask for a passphrase.
fn refuse_a_key_that_needs_a_person(context: &Context) -> Result<()> {
    if !context.home.exists() || Config::load(&context.home)?.passphrase_file.is_some() {
        return Ok(());
    }
    let pem = fs::read_to_string(context.home.path(identity_file::FILE)).unwrap_or_default();
    if kith_identity::Identity::is_encrypted(&pem) {
        return Err(Failure::failed("the key has a passphrase, and a service cannot ask for it")
            .hint("set passphrase-file in kith.toml"));
    }
    Ok(())
}

fn write(path: &Path, unit: &str) -> Result<()> {
    refuse_others(path)?;
    let failed = |error: io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    kith_store::Home::at(folder)
        .write_atomic(UNIT, unit.as_bytes(), 0o644)
        .map_err(|error| Failure::failed(chain(&error)))
}

/// A unit that somebody wrote by hand stays as it is.
fn refuse_others(path: &Path) -> Result<()> {
    match fs::read_to_string(path) {
        Ok(text) if !text.starts_with(MARK) => Err(Failure::failed(format!(
            "{} was not written by this command and stays as it is",
            path.display()
        ))
        .hint("move it away, or change it by hand; 'kith install-service --print' prints a unit")),
        _ => Ok(()),
    }
}

fn start(done: &mut Done) -> Result<()> {
    let by_hand = format!("systemctl --user daemon-reload && systemctl --user enable --now {UNIT}");
    match systemctl(&["daemon-reload"]) {
        Systemctl::Done => {}
        Systemctl::NotThere(why) => {
            done.did.push(format!("did not start it: {why}"));
            done.todo.push(by_hand);
            return Ok(());
        }
    }
    match systemctl(&["enable", "--now", UNIT]) {
        Systemctl::Done => {
            done.did.push(format!("enabled and started {UNIT}"));
            Ok(())
        }
        Systemctl::NotThere(why) => {
            Err(Failure::failed(format!("{UNIT} is written and does not start: {why}"))
                .hint(format!("'journalctl --user -u {UNIT}' and 'kith doctor' say more")))
        }
    }
}

fn remove(path: &Path, done: &mut Done) -> Result<()> {
    if !path.exists() {
        return Err(Failure::not_found(format!("there is no {}", path.display())));
    }
    refuse_others(path)?;
    match systemctl(&["disable", "--now", UNIT]) {
        Systemctl::Done => done.did.push(format!("stopped and disabled {UNIT}")),
        Systemctl::NotThere(why) => {
            done.did.push(format!("could not ask systemd to stop it: {why}"));
            done.todo.push("kith down, where the node runs".to_owned());
        }
    }
    fs::remove_file(path)
        .map_err(|error| Failure::failed(format!("cannot remove {}: {error}", path.display())))?;
    done.did.push(format!("removed {}", path.display()));
    if let Systemctl::NotThere(_) = systemctl(&["daemon-reload"]) {
        done.todo.push("systemctl --user daemon-reload".to_owned());
    }
    Ok(())
}

/// How the person's service manager took an order.
enum Systemctl {
    Done,
    NotThere(String),
}

fn systemctl(words: &[&str]) -> Systemctl {
    let run = Command::new("systemctl").arg("--user").args(words).stdin(Stdio::null()).output();
    match run {
        Ok(output) if output.status.success() => Systemctl::Done,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or("it does not say why");
            Systemctl::NotThere(format!("systemctl {}: {first}", words.join(" ")))
        }
        Err(error) => Systemctl::NotThere(format!("systemctl: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_packaged_one_with_a_command_of_its_own() {
        assert!(PACKAGED.contains(PACKAGED_COMMAND));
        let unit = unit(Path::new("/opt/my kith/kith"), Path::new("/home/u/100%/$x"));
        assert!(unit.contains("ExecStart=\"/opt/my kith/kith\" --home \"/home/u/100%%/$$x\" up\n"), "{unit}");
        assert!(!unit.contains("/usr/bin/kith") && unit.starts_with(MARK));
        assert!(unit.contains("NoNewPrivileges=yes"));
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
    }
}
