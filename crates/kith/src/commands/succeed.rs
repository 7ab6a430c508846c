//! `kith id succeed`.

use kith_identity::{Identity, Ni, VerifiedSuccession};
use kith_sansio::system::{self, OsRng};
use kith_store::HomeError;
use serde_json::json;

use super::Context;
use crate::cli::Succeed;
use crate::config::Config;
use crate::failure::{Failure, Result, chain};
use crate::identity_file::{self, Passphrase, Unlocked};
use crate::node::{old_keys, open_database};

/// Gives the home a new key. First the statement is stored, then the old key's file, and the new key takes its place
/// last: a home that crashes before is as it was.
pub(super) fn succeed(context: &Context, options: &Succeed) -> Result<()> {
    context.refuse_without_identity()?;
    let home = &context.home;
    let _lock = home.lock("id succeed").map_err(|error| match error {
        HomeError::Locked { .. } => Failure::failed(chain(&error))
            .hint("stop the node with 'kith down'; it takes up the new key when it starts again"),
        other => Failure::failed(chain(&other)),
    })?;
    let config = Config::load(home)?;
    let old = identity_file::open(home, &config)?;
    let database = open_database(home)?;
    if let Some(known) = old_keys::published(&database, &old.identity.fingerprint())? {
        return Err(Failure::failed(format!(
            "{} has a successor already, {}, and contacts may know it",
            old.identity.fingerprint(),
            known.successor()
        ))
        .hint("contacts refuse a second one; put that key back, or make a new identity in another home"));
    }
    let (new, passphrase) = new_key(&old, options)?;
    let past = old_keys::chain_to(&database, &old.identity.fingerprint())?;
    if past.iter().any(|step| step.old() == new.fingerprint()) {
        return Err(Failure::usage(format!("{} was this home's key before", new.fingerprint()))
            .hint("a key that was followed cannot follow"));
    }
    let statement = VerifiedSuccession::sign(&old.identity, &new, system::utc())
        .map_err(|error| Failure::usage(chain(&error)))?;
    old_keys::prepare(&database, &statement)?;
    identity_file::replace(home, &old, &new, passphrase.as_ref())?;
    told(context, &config, &statement)
}

/// The new key, and the passphrase that protects it: the home's, or its own where the home has none.
fn new_key(old: &Unlocked, options: &Succeed) -> Result<(Identity, Option<Passphrase>)> {
    let Some(file) = &options.new_key else {
        return Ok((Identity::generate(&mut OsRng), old.passphrase.clone()));
    };
    let (new, its_own) = identity_file::load_file(file, old.passphrase.as_ref())?;
    Ok((new, old.passphrase.clone().or(its_own)))
}

fn told(context: &Context, config: &Config, statement: &VerifiedSuccession) -> Result<()> {
    let authority = config.authorities.first().cloned();
    let (old, new) = (statement.old(), Ni::new(statement.successor(), authority.clone()));
    let until = old_keys::until(statement);
    let value = json!({
        "ni": new.to_string(),
        "old": Ni::new(old, authority).to_string(),
        "statement": statement.as_succession().to_string(),
        "announced_until": until.to_string(),
    });
    let file = context.home.path(&identity_file::old_file(&old));
    context.out.result(&value, || {
        format!(
            "this home is {new} now\nthe old key is kept in {}; it is announced with its successor until {until}\n\
             start the node, and ask your contacts to confirm the new key",
            file.display()
        )
    })?;
    if config.directory.as_ref().is_some_and(|zone| zone.certificate.is_none()) {
        context.out.aside(
            "this home serves a directory with its own key: whoever pins it needs the new fingerprint",
        );
    }
    Ok(())
}
