//! `kith init`.

use kith_identity::{Authority, Ni};
use serde_json::json;

use super::Context;
use crate::cli::Init;
use crate::config::{self, Config};
use crate::failure::{Failure, Result, chain};
use crate::identity_file;

pub(super) fn init(context: &Context, options: &Init) -> Result<()> {
    let ni = make(context, options)?;
    let home = context.home.dir().display().to_string();
    context.out.result(&json!({ "ni": ni.to_string(), "home": home }), || {
        format!("made the identity {ni}\nin {home}")
    })?;
    Ok(())
}

/// Makes configuration and identity.
pub(super) fn make(context: &Context, options: &Init) -> Result<Ni> {
    let home = &context.home;
    if home.exists() {
        return Err(Failure::failed(format!("{} holds an identity already", home.dir().display()))
            .hint("choose another home folder with --home, or keep using this one"));
    }
    let mut config = Config { name: options.name.clone(), ..Config::default() };
    config.authorities = options
        .authority
        .iter()
        .map(|text| text.parse::<Authority>().map_err(|error| Failure::usage(chain(&error))))
        .collect::<Result<_>>()?;
    config.resolvers.clone_from(&options.resolver);
    config.passphrase_file = options.passphrase_file.as_deref().map(super::absolute).transpose()?;
    if let Some(pin) = &options.pin {
        pin_all(&mut config, pin)?;
    }
    let is_configured = home.path(config::FILE).exists();
    if is_configured {
        config = written_by_hand(context, options)?;
    }
    let passphrase = match (&config.passphrase_file, options.passphrase) {
        (Some(file), _) => Some(identity_file::read_passphrase(file)?),
        (None, true) => Some(identity_file::ask_twice()?),
        (None, false) => None,
    };
    home.create().map_err(|error| Failure::failed(chain(&error)))?;
    // The key comes last: a home with a key is complete.
    if !is_configured {
        config.store(home)?;
    }
    let identity = identity_file::create(home, passphrase.as_ref().map(|text| text.as_str()))?;
    Ok(Ni::new(identity.fingerprint(), config.authorities.first().cloned()))
}

/// The configuration that is there already: it stays as it is.
fn written_by_hand(context: &Context, options: &Init) -> Result<Config> {
    let asks_for_nothing = options.authority.is_empty()
        && options.name.is_none()
        && options.pin.is_none()
        && options.resolver.is_empty()
        && options.passphrase_file.is_none();
    if asks_for_nothing {
        return Config::load(&context.home);
    }
    let file = context.home.path(config::FILE);
    Err(Failure::failed(format!("{} is there already and stays as it is", file.display()))
        .hint("write these settings into it and run 'kith init' without them, or move it away"))
}

/// The pin goes for every authority named with it.
fn pin_all(config: &mut Config, pin: &str) -> Result<()> {
    let ni: Ni = pin.trim().parse().map_err(|error| Failure::usage(format!("--pin: {}", chain(&error))))?;
    let authorities = match (config.authorities.as_slice(), &ni.authority) {
        ([], Some(authority)) => vec![authority.clone()],
        ([], None) => {
            return Err(Failure::usage("--pin needs to know whose certificate it is")
                .hint("name the directory with --authority"));
        }
        (named, _) => named.to_vec(),
    };
    for authority in authorities {
        config.pins.insert(authority.to_string(), ni.to_string());
    }
    Ok(())
}
