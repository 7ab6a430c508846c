//! The key file of a home: read it, unlock it, make it.

use kith_identity::{Fingerprint, Identity, KeyFileError};
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

/// A passphrase; wiped from memory when dropped.
pub(crate) type Passphrase = Zeroizing<String>;

/// An identity, and what opened its file.
pub(crate) struct Unlocked {
    pub(crate) identity: Identity,
    /// None where the file is not encrypted.
    pub(crate) passphrase: Option<Passphrase>,
    /// The key file as it is.
    pub(crate) pem: Passphrase,
}

/// Name of the file that keeps the key with the fingerprint `old` after another has followed it.
pub(crate) fn old_file(old: &Fingerprint) -> String {
    format!("key.old-{old}.pem")
}

/// The identity of a home; asks for its passphrase on the terminal where no file holds it.
pub(crate) fn load(home: &Home, config: &Config) -> Result<Identity> {
    open(home, config).map(|unlocked| unlocked.identity)
}

/// Who a home is, where its key file says so without asking anybody.
pub(crate) fn own_unasked(home: &Home, config: &Config) -> Option<Fingerprint> {
    let bytes = home.read(FILE, MAX_BYTES).map(Zeroizing::new).ok()?;
    let is_encrypted = Identity::is_encrypted(&text(&home.path(FILE), &bytes).ok()?);
    let asks = is_encrypted && config.passphrase_file.is_none();
    if asks { None } else { load(home, config).ok().map(|identity| identity.fingerprint()) }
}

/// As [`load`], with what else the key file needs to be written anew.
pub(crate) fn open(home: &Home, config: &Config) -> Result<Unlocked> {
    let path = home.path(FILE);
    let bytes = home.read(FILE, MAX_BYTES).map(Zeroizing::new).map_err(|error| match error {
        HomeError::NotFound { .. } => {
            Failure::failed(format!("there is no identity in {}", home.dir().display()))
                .hint(format!("make one with 'kith --home {} init'", home.dir().display()))
        }
        other => Failure::failed(chain(&other)),
    })?;
    let pem = text(&path, &bytes)?;
    let passphrase = match (Identity::is_encrypted(&pem), &config.passphrase_file) {
        (false, _) => None,
        (true, Some(file)) => Some(read_passphrase(file)?),
        (true, None) => Some(ask(&format!("Passphrase of {}: ", path.display()))?),
    };
    let identity = unlock(&path, &pem, passphrase.as_ref())?;
    Ok(Unlocked { identity, passphrase, pem })
}

/// A key that this home had before; its file opens with the passphrase that it had then.
pub(crate) fn load_old(home: &Home, old: &Fingerprint, passphrase: Option<&Passphrase>) -> Result<Identity> {
    let name = old_file(old);
    let path = home.path(&name);
    let bytes =
        home.read(&name, MAX_BYTES).map(Zeroizing::new).map_err(|error| Failure::failed(chain(&error)))?;
    let identity = unlock(&path, &text(&path, &bytes)?, passphrase)?;
    match identity.fingerprint() == *old {
        true => Ok(identity),
        false => Err(Failure::failed(format!("{} holds another key", path.display()))),
    }
}

/// A key from a file of the person's; `passphrase` is tried before the person is asked for another. What opened it
/// comes with it.
pub(crate) fn load_file(
    path: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<(Identity, Option<Passphrase>)> {
    use std::io::Read;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::not_found(format!("there is no file {}", path.display())),
        _ => Failure::failed(format!("cannot read {}: {error}", path.display())),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path).map_err(failed)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let pem = text(path, &bytes)?;
    if !Identity::is_encrypted(&pem) {
        return Ok((unlock(path, &pem, None)?, None));
    }
    if let Some(ours) = passphrase
        && let Ok(identity) = unlock(path, &pem, Some(ours))
    {
        return Ok((identity, Some(ours.clone())));
    }
    let its_own = ask(&format!("Passphrase of {}: ", path.display()))?;
    Ok((unlock(path, &pem, Some(&its_own))?, Some(its_own)))
}

fn text(path: &Path, bytes: &[u8]) -> Result<Passphrase> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Failure::failed(format!("{} is not a PEM file", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn unlock(path: &Path, pem: &str, passphrase: Option<&Passphrase>) -> Result<Identity> {
    Identity::from_pem(pem, passphrase.map(|text| text.as_str())).map_err(|error| {
        let failure = Failure::failed(format!("{}: {}", path.display(), chain(&error)));
        match error {
            KeyFileError::WrongPassphrase => failure.hint("try again, or check passphrase-file in kith.toml"),
            _ => failure,
        }
    })
}

/// Puts `new` in the place of the key of a home, whose file is kept as that of an old key. After a crash the home
/// has one of the two, whole.
pub(crate) fn replace(
    home: &Home,
    old: &Unlocked,
    new: &Identity,
    passphrase: Option<&Passphrase>,
) -> Result<()> {
    let failed = |error: HomeError| Failure::failed(chain(&error));
    let pem = new.to_pem(passphrase.map(|text| text.as_str()), &mut OsRng);
    let pem = pem.map_err(|error| Failure::failed(chain(&error)))?;
    home.write_atomic(&old_file(&old.identity.fingerprint()), old.pem.as_bytes(), 0o600).map_err(failed)?;
    home.write_atomic(FILE, pem.as_bytes(), 0o600).map_err(failed)
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
