//! `kith actors`: the running node has actors drawn; the check of a list works on its file alone.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use hyper::Method;
use kith_actors::hardened::{ActorList, ListError, MAX_LIST_BYTES, VerifiedActorList};
use kith_identity::membership::{MemberLeaf, signature};
use kith_identity::{Fingerprint, Identity, Ni};
use kith_sansio::system::{self, OsRng};
use kith_store::HomeError;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::api::actors::{ActorsStatus, DrawnActors, NewActors};
use crate::api::shapes::Status;
use crate::cli::{self, SelectActors, VerifyActors};
use crate::failure::{Failure, Result, chain};
use crate::output::printable;

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

/// What was drawn.
#[derive(Debug, Serialize)]
struct Drawn {
    #[serde(flatten)]
    verified: Verified,
    draws: u32,
    list: String,
}

pub(super) async fn actors(context: &Context, command: cli::Actors) -> Result<()> {
    match command {
        cli::Actors::Select(options) => select(context, options).await,
        cli::Actors::Verify(options) => verify(context, &options),
    }
}

async fn select(
    context: &Context,
    SelectActors { count, manifest, role, expires, out }: SelectActors,
) -> Result<()> {
    // Before a draw is spent on a list that cannot be written.
    out.as_deref().map_or(Ok(()), kith_store::refuse_unwritable).map_err(|error| cannot_keep(&error))?;
    let mut node = context.node().await?;
    let wish = NewActors { manifest, count, role, expires: expires.map(|expires| expires.to_string()) };
    let DrawnActors { network, draws, list } = node.call(Method::POST, "/v1/actors", Some(&wish)).await?;
    let bytes = BASE64.decode(list.as_bytes()).map_err(Failure::failed)?;
    let issuer: Ni = network.parse().map_err(|error| Failure::failed(chain(&error)))?;
    let checked = checked(&bytes, &issuer.fingerprint).map_err(|error| {
        Failure::failed(format!("the list that the node has given does not hold: {}", chain(&error)))
    })?;
    let (micros, single_micros) = timed(&bytes, &issuer.fingerprint, checked.operations());
    let drawn = Drawn { verified: told(&checked, micros, single_micros), draws, list };
    let print = || context.out.result(&drawn, || text(&drawn.verified));
    hand_over(print, out.as_deref(), &bytes)?;
    if !context.out.is_json() && out.is_none() {
        context.out.aside("--out FILE keeps the list, which 'kith actors verify' checks; this one is gone");
    }
    Ok(())
}

/// Prints what was drawn and writes the list into its file; neither of the two is lost with the other one.
fn hand_over(print: impl FnOnce() -> Result<()>, file: Option<&Path>, list: &[u8]) -> Result<()> {
    let printed = print();
    let kept = file.map_or(Ok(()), |file| kith_store::write_atomic(file, list, 0o644));
    printed.and(kept.map_err(|error| cannot_keep(&error).hint("'list' of --json has the list too").told()))
}

fn cannot_keep(error: &HomeError) -> Failure {
    Failure::failed(format!("the list cannot be written: {}", chain(error)))
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
    let file = File::open(path).map_err(failed)?;
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

/// What `status` says of selections; nothing where the node takes no part.
pub(super) fn status_line(status: &Status) -> Option<String> {
    let section = status.floors.get("actors").and_then(|section| ActorsStatus::deserialize(section).ok())?;
    let ActorsStatus { epoch, region, takes_part, draws_left, refused, .. } = section;
    Some(match (epoch, refused) {
        (None, _) => "actors       the region is not known yet".to_owned(),
        (Some(epoch), Some(why)) => format!("actors       none in epoch {epoch}: {}", printable(&why)),
        (Some(epoch), None) => {
            let part = match takes_part {
                true => format!("{draws_left} draws left"),
                false => "takes no part before the next one".to_owned(),
            };
            format!("actors       epoch {epoch}, region of {region}, {part}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn a_draw_is_printed_even_where_its_file_cannot_be_written_any_more() {
        let place = tempfile::tempdir().unwrap();
        let (folder, mut is_printed) = (place.path().join("folder"), false);
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("list");
        kith_store::refuse_unwritable(&file).unwrap();
        let print = || {
            is_printed = true;
            std::fs::remove_dir(&folder).map_err(Failure::failed)
        };
        let failure = hand_over(print, Some(&file), b"list").unwrap_err();
        assert!(is_printed && failure.is_told && failure.code == Code::Failed, "{failure:?}");
        assert!(failure.error.contains("does not exist"), "{failure:?}");
    }

    #[test]
    fn a_list_is_written_even_where_nobody_can_be_told() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("list");
        let failure =
            hand_over(|| Err(Failure::failed("the disk is full")), Some(&file), b"list").unwrap_err();
        assert_eq!(
            (failure.error.as_str(), std::fs::read(&file).unwrap()),
            ("the disk is full", b"list".into())
        );
        hand_over(|| Ok(()), None, b"list").unwrap();
    }
}
