//! The home folder: who may read it, what is in it, who works on it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kith_identity::Identity;
use kith_sansio::{Timestamp, system};
use kith_store::{Condition, Database, Home, StoreError};
use zeroize::Zeroizing;

use super::{Patient, Report};
use crate::config::{self, Config};
use crate::failure::chain;
use crate::identity_file;

/// Less free space than this stops a node from working.
const NO_SPACE: u64 = 32 << 20;
/// Less than this is soon too little.
const LITTLE_SPACE: u64 = 1 << 30;
/// A file that is this much newer than now was written under another clock, in seconds.
const AHEAD_SECS: u64 = 60;

/// The folder belongs to this user alone.
pub(super) fn folder(report: &mut Report, home: &Home) {
    let dir = home.dir();
    let Ok(found) = fs::metadata(dir) else {
        report.fail(
            "home",
            format!("there is no folder {}", dir.display()),
            "run 'kith up', it makes one, or name yours with --home",
        );
        return;
    };
    let mine = rustix::process::geteuid().as_raw();
    let mode = found.permissions().mode() & 0o777;
    if !found.is_dir() {
        report.fail("home", format!("{} is no folder", dir.display()), "name another with --home");
    } else if found.uid() != mine {
        report.fail(
            "home",
            format!("{} belongs to user {}, and this is user {mine}", dir.display(), found.uid()),
            format!("run as its owner, or give it away: chown -R {mine} {}", dir.display()),
        );
    } else if mode & 0o077 != 0 {
        report.fail(
            "home",
            format!("{} is open to others (mode {mode:o})", dir.display()),
            format!("chmod 700 {}", dir.display()),
        );
    } else {
        report.ok("home", format!("{} is yours alone", dir.display()));
    }
}

/// The configuration, or the defaults where it cannot be read.
pub(super) fn configuration(report: &mut Report, home: &Home) -> Config {
    match Config::load(home) {
        Ok(config) => {
            let says = if home.path(config::FILE).exists() {
                "kith.toml is read"
            } else {
                "there is none: defaults"
            };
            report.ok("configuration", says);
            config
        }
        Err(failure) => {
            let todo =
                failure.hint.unwrap_or_else(|| "mend it; docs/kith.example.toml shows every key".to_owned());
            report.fail("configuration", failure.error, todo);
            Config::default()
        }
    }
}

/// The key file; a passphrase is read from its file and never asked for.
pub(super) fn identity(report: &mut Report, home: &Home, config: &Config) -> Option<Identity> {
    let path = home.path(identity_file::FILE);
    let Ok(found) = fs::metadata(&path) else {
        report.fail(
            "identity",
            format!("there is no {}", path.display()),
            "make an identity with 'kith init' or 'kith up'",
        );
        return None;
    };
    let private = |report: &mut Report, path: &Path, mode: u32| {
        if mode & 0o077 != 0 {
            report.fail(
                "identity",
                format!("others may read {} (mode {:o})", path.display(), mode & 0o777),
                format!("chmod 600 {}", path.display()),
            );
        }
    };
    private(report, &path, found.permissions().mode());
    if let Some(file) = &config.passphrase_file
        && let Ok(found) = fs::metadata(file)
    {
        private(report, file, found.permissions().mode());
    }
    let pem = match fs::read_to_string(&path) {
        Ok(pem) => Zeroizing::new(pem),
        Err(error) => {
            report.fail(
                "identity",
                format!("cannot read {}: {error}", path.display()),
                "run as the owner of the home",
            );
            return None;
        }
    };
    if Identity::is_encrypted(&pem) && config.passphrase_file.is_none() {
        report.warn(
            "identity",
            "the key has a passphrase, so what needs the key is not looked at; 'kith up' asks for it",
            "for starts without a person set passphrase-file in kith.toml",
        );
        return None;
    }
    match identity_file::load(home, config) {
        Ok(identity) => {
            let ni = kith_identity::Ni::new(identity.fingerprint(), config.authorities.first().cloned());
            report.ok("identity", ni.to_string());
            Some(identity)
        }
        Err(failure) => {
            let todo = failure.hint.unwrap_or_else(|| "put a backup of key.pem in its place".to_owned());
            report.fail("identity", failure.error, todo);
            None
        }
    }
}

/// The node of this home: it answers, and it is this version.
pub(super) fn node(report: &mut Report, patient: &Patient<'_>, socket: &Path) {
    let own = env!("CARGO_PKG_VERSION");
    match &patient.status {
        Some(status) if status.version != own => report.warn(
            "node",
            format!("process {} is version {}, this command is {own}", status.pid, status.version),
            "restart it: 'kith down', then 'kith up'",
        ),
        Some(status) if !status.ready => report.warn(
            "node",
            format!("process {} runs and is not announced to all its directories", status.pid),
            "the lines on directories below say why",
        ),
        Some(status) => report.ok("node", format!("process {} runs and is ready", status.pid)),
        None => match holder(patient.home) {
            Some(pid) => report.fail(
                "node",
                format!("process {pid} works on this home and does not answer on {}", socket.display()),
                format!("wait a moment; if it stays so: kill {pid}, then 'kith up'"),
            ),
            None => report.warn("node", "none is running", "start one with 'kith up'"),
        },
    }
}

/// The living process of this program that the home's lock file names.
fn holder(home: &Home) -> Option<u32> {
    let line = fs::read_to_string(home.path("lock")).ok()?;
    let (pid, what) = line.trim().split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (what == "up" && program.trim() == "kith" && pid != std::process::id()).then_some(pid)
}

/// The databases can be opened.
pub(super) fn databases(report: &mut Report, patient: &Patient<'_>) {
    for name in ["node.redb", "directory.redb"] {
        let path = patient.home.path(name);
        if !path.exists() {
            continue;
        }
        match Database::inspect(&path) {
            Ok(Condition::Closed) => report.ok("database", format!("{name} can be opened")),
            Ok(Condition::Unclosed) => {
                report.ok("database", format!("{name} was not closed in order; the next start mends it"));
            }
            Err(StoreError::InUse { .. }) => {
                report.ok("database", format!("{name} is open in a running process"));
            }
            Err(error) => {
                report.fail("database", chain(&error), error.hint().unwrap_or("put a backup in its place"));
            }
        }
    }
}

/// There is room on the disk of the home.
pub(super) fn disk(report: &mut Report, home: &Home) {
    let Some(found) = home.dir().ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok()) else {
        return;
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let says = format!("{} free on the disk of the home", indicatif::BinaryBytes(free));
    if free < NO_SPACE {
        report.fail("disk", says, "free some space; without it nothing is stored or received");
    } else if free < LITTLE_SPACE {
        report.warn("disk", says, "free some space");
    } else {
        report.ok("disk", says);
    }
}

/// The clock has not gone back behind what was written before.
pub(super) fn clock(report: &mut Report, home: &Home) {
    let written = |name: &str| {
        let modified = fs::metadata(home.path(name)).ok()?.modified().ok()?;
        Some(Timestamp(modified.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()))
    };
    let newest = ["key.pem", "kith.toml", "node.redb"].into_iter().filter_map(written).max();
    let now = system::utc();
    match newest {
        Some(newest) if newest > now.plus_secs(AHEAD_SECS) => report.fail(
            "clock",
            format!("it is {now} here, and files of the home were written at {newest}"),
            "set the clock, for example by installing systemd-timesyncd or chrony",
        ),
        _ => report.ok("clock", format!("it is {now} here")),
    }
}
