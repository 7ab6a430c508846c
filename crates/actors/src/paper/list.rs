//! The verifiable actor list of SEP2P §3.5, and how it is checked.

use kith_sansio::Timestamp;

use super::{Node, Place, Refusal, Rules};
use crate::scheme::{Hash, Scheme, Signature, hash};

/// The signature of one builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Who signed.
    pub builder: Node,
    /// The signature.
    pub signature: Signature,
}

/// The actors, signed by all builders of one region: VAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorList {
    /// RND_T.
    pub random: Hash,
    /// When it was asked for.
    pub at: Timestamp,
    /// Builders of each region that held too few candidates, who say so.
    pub moves: Vec<Vec<Attestation>>,
    /// The actors.
    pub actors: Vec<Node>,
    /// The builders that chose them.
    pub attestations: Vec<Attestation>,
}

impl ActorList {
    /// What its builders sign: RND_T, its time, and the actors.
    pub fn statement(&self) -> Hash {
        statement(&self.random, self.at, &self.actors)
    }

    /// Checks the list with 2k operations, and 2k more for each move: each builder's certificate and signature.
    pub fn verify(&self, rules: &Rules, scheme: &mut impl Scheme) -> Result<(), Refusal> {
        verify_moves(rules, scheme, &self.random, self.at, &self.moves)?;
        let place = place(&self.random, self.moves.len());
        verify(rules, scheme, place, &self.statement(), &self.attestations)
    }
}

/// Where the selection of `random` happens after so many moves: at its hash, and then at the hash of that (§3.6).
pub(super) fn place(random: &Hash, moves: usize) -> Place {
    let first = hash(b"sep2p setter", &[random]);
    Place::of(&(0..moves).fold(first, |at, _| hash(b"sep2p setter", &[&at])))
}

/// What builders sign about the actors.
pub(super) fn statement(random: &Hash, at: Timestamp, actors: &[Node]) -> Hash {
    let keys: Vec<_> = actors.iter().map(|actor| *actor.key()).collect();
    hash(b"sep2p actors", &[random, &at.0.to_be_bytes(), keys.as_flattened()])
}

/// What builders sign about a region with too few candidates: that the `moves`-th move is needed.
pub(super) fn insufficient(random: &Hash, at: Timestamp, moves: usize) -> Hash {
    hash(b"sep2p insufficient", &[random, &at.0.to_be_bytes(), &(moves as u64).to_be_bytes()])
}

/// Checks that builders of each region left say that it holds too few candidates: 2k operations each.
pub(super) fn verify_moves(
    rules: &Rules,
    scheme: &mut impl Scheme,
    random: &Hash,
    at: Timestamp,
    moves: &[Vec<Attestation>],
) -> Result<(), Refusal> {
    moves.iter().enumerate().try_for_each(|(before, attestations)| {
        let statement = insufficient(random, at, before);
        verify(rules, scheme, place(random, before), &statement, attestations)
    })
}

fn verify(
    rules: &Rules,
    scheme: &mut impl Scheme,
    place: Place,
    statement: &Hash,
    attestations: &[Attestation],
) -> Result<(), Refusal> {
    let builders: Vec<_> = attestations.iter().map(|attestation| &attestation.builder).collect();
    let are_valid = rules.are_legitimate(scheme, place, &builders)
        && attestations.iter().all(|one| scheme.verify(one.builder.key(), statement, &one.signature));
    if are_valid { Ok(()) } else { Err(Refusal::Signer) }
}
