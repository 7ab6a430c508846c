//! `kith actors`: the check of a list works on its file alone.

use std::io::{ErrorKind, Read};
use std::path::Path;

use data_encoding::HEXLOWER;
use kith_actors::hardened::{ActorList, ListError, MAX_LIST_BYTES, VerifiedActorList};
use kith_identity::membership::{MemberLeaf, signature};
use kith_identity::{Fingerprint, Identity, Ni};
use kith_sansio::system::{self, OsRng};
use serde::Serialize;

use super::Context;
use crate::cli::{self, VerifyActors};
use crate::failure::{Failure, Result, chain};

/// How often the check is timed.
const ROUNDS: usize = 15;

/// What holds about a list.
#[derive(Debug, Serialize)]
struct Verified {
    network: String,
    epoch: u64,
    members: u64,
    colluding: u64,
    alpha: f64,
    trigger: String,
    sequence: u32,
    manifest: String,
    role: u8,
    expires: String,
    expired: bool,
    seed: String,
    actors: Vec<Actor>,
    builders: Vec<String>,
    moves: usize,
    operations: usize,
    micros: f64,
    single_micros: f64,
}

#[derive(Debug, Serialize)]
struct Actor {
    id: String,
    ni: String,
}

pub(super) fn actors(context: &Context, command: &cli::Actors) -> Result<()> {
    match command {
        cli::Actors::Verify(options) => verify(context, options),
    }
}

fn verify(context: &Context, options: &VerifyActors) -> Result<()> {
    let issuer: Ni = options.issuer.parse().map_err(|error| Failure::usage(chain(&error)))?;
    let bytes = read(&options.file)?;
    let list = checked(&bytes, &issuer.fingerprint).map_err(|error| refused(&options.file, &error))?;
    let (micros, single_micros) = timed(&bytes, &issuer.fingerprint, list.operations());
    let verified = told(&list, micros, single_micros);
    context.out.result(&verified, || text(&verified))?;
    if verified.expired && !options.expired {
        let told = Failure::not_trusted(format!("the list was good until {}", verified.expires));
        return Err(told.hint("have a new one selected; --expired accepts an old one").told());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Failure::not_found(format!("there is no file {}", path.display())),
        _ => Failure::failed(format!("cannot read {}: {error}", path.display())),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_LIST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn checked(bytes: &[u8], issuer: &Fingerprint) -> std::result::Result<VerifiedActorList, ListError> {
    ActorList::from_bytes(bytes)?.verify(issuer)
}

fn refused(path: &Path, error: &ListError) -> Failure {
    let refused = Failure::not_trusted(format!("{} does not hold: {}", path.display(), chain(error)));
    match error {
        ListError::Form(_) | ListError::Tag | ListError::TooLarge => {
            refused.hint("this is no file of 'kith actors select', or it was cut or changed on its way")
        }
        ListError::Epoch(_) => refused.hint("is it a list of the network of this --issuer?"),
        _ => refused.hint("do not use it: it was changed, or forged"),
    }
}

/// Microseconds of a check, and of as many single checks of signatures as it counts operations.
fn timed(bytes: &[u8], issuer: &Fingerprint, operations: usize) -> (f64, f64) {
    let identity = Identity::generate(&mut OsRng);
    let (key, signed) = (identity.public(), identity.sign(b"one signature"));
    let single = || (0..operations).all(|_| signature::verify(&key, b"one signature", &signed).is_ok());
    let rounds = (0..ROUNDS).map(|_| (micros(|| checked(bytes, issuer).is_ok()), micros(single)));
    let (lists, singles) = rounds.unzip();
    (median(lists), median(singles))
}

fn micros(work: impl Fn() -> bool) -> f64 {
    let begin = system::time();
    std::hint::black_box(work());
    (system::time() - begin).0 as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn told(list: &VerifiedActorList, micros: f64, single_micros: f64) -> Verified {
    let (ticket, facts) = (list.ticket(), list.epoch().facts());
    let actor = |leaf: &MemberLeaf| Actor {
        id: leaf.id.to_string(),
        ni: Ni::new(leaf.fingerprint(), None).to_string(),
    };
    let endorsement = &list.as_list().endorsement;
    Verified {
        network: Ni::new(ticket.network, None).to_string(),
        epoch: ticket.epoch,
        members: facts.members,
        colluding: facts.colluding,
        alpha: facts.threshold.alpha(),
        trigger: ticket.trigger.to_string(),
        sequence: ticket.sequence,
        manifest: HEXLOWER.encode(&ticket.terms.manifest),
        role: ticket.terms.role,
        expires: ticket.terms.expires.to_string(),
        expired: ticket.terms.expires <= system::utc(),
        seed: HEXLOWER.encode(&list.as_list().seed),
        actors: list.actors().iter().map(actor).collect(),
        builders: endorsement.signatures.iter().map(|(path, _)| path.claimed_leaf().id.to_string()).collect(),
        moves: list.as_list().moves.len(),
        operations: list.operations(),
        micros,
        single_micros,
    }
}

fn text(list: &Verified) -> String {
    let actors = list.actors.iter().map(|actor| format!("actor     {}\t{}\n", actor.id, actor.ni));
    let over = if list.expired { " (over)" } else { "" };
    format!(
        "{}network   {}\tepoch {}, {} members, {} of whom may collude\n\
         selected  for {}, role {}, by draw {} of {}\n\
         expires   {}{over}\n\
         verified  {} builders, {} moves: {} operations in {:.0} µs; as many single checks take {:.0} µs here",
        actors.collect::<String>(),
        list.network,
        list.epoch,
        list.members,
        list.colluding,
        list.manifest,
        list.role,
        list.sequence,
        list.trigger,
        list.expires,
        list.builders.len(),
        list.moves,
        list.operations,
        list.micros,
        list.single_micros,
    )
}
