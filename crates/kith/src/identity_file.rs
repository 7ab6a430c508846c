//! The key file of a home: read it, unlock it, make it.

use kith_identity::{Identity, KeyFileError};
use kith_sansio::system::OsRng;
use kith_store::{Home, HomeError};
use std::io::IsTerminal;
use std::path::Path;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::failure::{Failure, Result, chain};

/// Name of the key file in the home folder.
pub(crate) const FILE: &str = "key.pem";
const MAX_BYTES: u64 = 16 * 1024;

/// The identity of a home; asks for its passphrase on the terminal where no file holds it.
pub(crate) fn load(home: &Home, config: &Config) -> Result<Identity> {
    let path = home.path(FILE);
    let bytes = home.read(FILE, MAX_BYTES).map(Zeroizing::new).map_err(|error| match error {
        HomeError::NotFound { .. } => {
            Failure::failed(format!("there is no identity in {}", home.dir().display()))
                .hint(format!("make one with 'kith --home {} init'", home.dir().display()))
        }
        other => Failure::failed(chain(&other)),
    })?;
    let pem = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::failed(format!("{} is not a PEM file", path.display())))?;
    let passphrase = match (Identity::is_encrypted(pem), &config.passphrase_file) {
        (false, _) => None,
        (true, Some(file)) => Some(read_passphrase(file)?),
        (true, None) => Some(ask(&format!("Passphrase of {}: ", path.display()))?),
    };
    Identity::from_pem(pem, passphrase.as_ref().map(|text| text.as_str())).map_err(|error| {
        let failure = Failure::failed(format!("{}: {}", path.display(), chain(&error)));
        match error {
            KeyFileError::WrongPassphrase => failure.hint("try again, or check passphrase-file in kith.toml"),
            _ => failure,
        }
    })
}

/// Makes a fresh identity in a home that has none.
pub(crate) fn create(home: &Home, passphrase: Option<&str>) -> Result<Identity> {
    let identity = Identity::generate(&mut OsRng);
    let pem = identity.to_pem(passphrase, &mut OsRng).map_err(|error| Failure::failed(chain(&error)))?;
    home.create_new(FILE, pem.as_bytes(), 0o600).map_err(|error| match error {
        HomeError::Exists { .. } => {
            Failure::failed(format!("{} holds an identity already", home.dir().display()))
                .hint("choose another home folder with --home, or keep using this one")
        }
        other => Failure::failed(chain(&other)),
    })?;
    Ok(identity)
}

/// The passphrase in a file: its first line.
pub(crate) fn read_passphrase(file: &Path) -> Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        Failure::failed(format!("cannot read the passphrase file {}: {error}", file.display()))
    })?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::failed(format!("the passphrase file {} is empty", file.display())));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A passphrase for a new key file, asked for twice.
pub(crate) fn ask_twice() -> Result<Zeroizing<String>> {
    let first = ask("New passphrase: ")?;
    if first.is_empty() {
        return Err(Failure::usage("an empty passphrase protects nothing").hint("leave --passphrase out"));
    }
    if *ask("Once more: ")? != *first {
        return Err(Failure::usage("the two passphrases differ"));
    }
    Ok(first)
}

fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::failed("the key file needs its passphrase and there is no terminal to ask on")
            .hint("set passphrase-file in kith.toml"));
    }
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Failure::failed(format!("cannot read the passphrase: {error}")))
}
