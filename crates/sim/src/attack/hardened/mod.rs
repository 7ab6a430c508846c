//! A network of members with real keys, certificates and trees.

mod plots;
mod scene;

use std::convert::Infallible;

use kith_actors::hardened::{Terms, Ticket, View};
use kith_actors::ktable::{KTable, Network, epoch_hash};
use kith_identity::membership::tree::TreeError;
use kith_identity::membership::{
    Block, Issuer, IssuerError, MemberLeaf, MemoryLedger, NodeId, Nonce, REGION_MEMBERS, Request, Rolled,
    Terms as NetworkTerms, Threshold, VerifiedRequest, region_bits,
};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::SeededRng;

use super::{Attack, AttackParams};
use crate::run::{Purpose, Run, chance};
use crate::talk::NOW;
use crate::{Mode, SimError};

/// How many keys the adversary tries for each position.
const KEYS: usize = 64;

/// The networks that the attacks are played in; none where the run was stopped before they were founded.
pub(super) struct Villages {
    usual: Option<Village>,
    /// With members whose keys were tried.
    tried: Option<Village>,
}

/// A network in one epoch.
pub(super) struct Village {
    issuer: Fingerprint,
    rolled: Rolled,
    /// All members by place, with their keys.
    people: Vec<(NodeId, Identity)>,
    /// The same by their public keys.
    by_key: Vec<usize>,
    /// What the members of each region know.
    views: Vec<View>,
    bits: u8,
    /// Groups of members whose keys were tried, by place.
    tried: Vec<Vec<NodeId>>,
    /// Some that were members once.
    revoked: Vec<MemberLeaf>,
}

/// Who asks to join.
type Joining = (Identity, VerifiedRequest);

impl Villages {
    pub(super) fn found(params: &AttackParams, run: &Run) -> Result<Villages, SimError> {
        let is_played = params.modes.contains(&Mode::Hardened);
        let any = |of: fn(&Attack) -> bool| is_played && params.attacks.iter().any(of);
        let found = |tried| Village::found(params, tried, run);
        let k = KTable::dyadic(Network::new(params.nodes, params.colluding, params.alpha)?)?.k_max();
        let groups = params.attempts.min(params.nodes / 2 / (k + 1));
        Ok(Villages {
            usual: if any(|one| *one != Attack::Keys) { found((0, 0)) } else { None },
            tried: if any(|one| *one == Attack::Keys) { found((groups, k + 1)) } else { None },
        })
    }

    pub(super) fn of(&self, attack: Attack) -> Option<&Village> {
        if attack == Attack::Keys { self.tried.as_ref() } else { self.usual.as_ref() }
    }
}

impl Village {
    /// A network with so many groups of so many members whose keys were tried; none where the run is stopped.
    fn found(params: &AttackParams, (groups, size): (u64, u64), run: &Run) -> Option<Village> {
        let AttackParams { nodes, colluding, seed, .. } = *params;
        let mut rng = chance(seed, Purpose::Places, 0);
        let issuer = Identity::generate(&mut rng);
        let network = issuer.fingerprint();
        // As many as may collude were found to, and revoked.
        let others = nodes - groups * size + colluding;
        run.plan(others + groups);
        let others =
            run.map(others, |number| joining(&network, &mut chance(seed, Purpose::Places, 1 + number)));
        let tried = run
            .map(groups, |number| tried(&network, size, &mut chance(seed, Purpose::Work, 1 << 40 | number)));
        if run.is_stopped() {
            return None;
        }
        Some(Village::of(issuer, params, others, tried))
    }

    #[expect(
        clippy::expect_used,
        reason = "an issuer with a ledger in memory admits new keys, and a table for these numbers was made before"
    )]
    fn of(
        issuer: Identity,
        params: &AttackParams,
        others: Vec<Joining>,
        tried: Vec<Vec<Joining>>,
    ) -> Village {
        let terms = NetworkTerms {
            colluding_per_mille: 0,
            colluding_least: params.colluding,
            threshold: Threshold::new(params.alpha).unwrap_or(Threshold::DEFAULT),
            ..NetworkTerms::default()
        };
        let network = issuer.fingerprint();
        let mut issuer = Issuer::new(issuer, terms, MemoryLedger::default());
        let (mut people, mut revoked) = (Vec::new(), Vec::new());
        for (number, (identity, request)) in others.into_iter().enumerate() {
            let leaf = admitted(&mut issuer, &identity, &request).expect("a new key");
            if (number as u64) < params.colluding {
                issuer.revoke(&identity.fingerprint(), NOW.utc).expect("a member");
                revoked.push(leaf);
            } else {
                people.push((leaf.id, identity));
            }
        }
        let mut groups = Vec::new();
        for group in tried {
            let mut ids = Vec::new();
            for (identity, request) in group {
                let leaf = admitted(&mut issuer, &identity, &request).expect("a new key");
                ids.push(leaf.id);
                people.push((leaf.id, identity));
            }
            groups.push(ids);
        }
        let table = |nodes, colluding, alpha: Threshold| epoch_hash(nodes, colluding, alpha.alpha());
        let rolled = issuer.roll(NOW.utc, table).expect("members at different places");
        people.sort_by_key(|(id, _)| *id);
        let bits = region_bits(people.len() as u64, REGION_MEMBERS);
        let view = |number| view(&rolled, number, bits).expect("a region that its own tree proves");
        let views = (0..1u32 << bits).map(view).collect();
        let mut by_key: Vec<_> = (0..people.len()).collect();
        by_key.sort_by_key(|index| *people[*index].1.public().as_bytes());
        Village { issuer: network, rolled, people, by_key, views, bits, tried: groups, revoked }
    }

    /// What the members of the region around a place know.
    fn view(&self, place: &NodeId) -> &View {
        &self.views[(first_bits(place) >> (32 - u64::from(self.bits))) as usize]
    }

    fn index(&self, id: &NodeId) -> Option<usize> {
        self.people.binary_search_by_key(id, |(id, _)| *id).ok()
    }

    /// A draw of a member, for the `number`-th query of the adversary.
    fn ticket(&self, params: &AttackParams, trigger: NodeId, sequence: u32, query: u8) -> Ticket {
        Ticket {
            network: self.issuer,
            epoch: self.rolled.epoch.facts().epoch,
            trigger,
            sequence,
            terms: Terms {
                manifest: [query; 32],
                actors: params.actors as u16,
                role: 0,
                expires: NOW.utc.plus_secs(600),
            },
        }
    }
}

fn joining(network: &Fingerprint, rng: &mut SeededRng) -> Joining {
    asks(network, Identity::generate(rng))
}

#[expect(clippy::expect_used, reason = "the request was signed just now")]
fn asks(network: &Fingerprint, identity: Identity) -> Joining {
    let request = Request::sign(&identity, network).verify(network).expect("a request that was just signed");
    (identity, request)
}

/// A group of keys, each of them the one of many that looks nearest to the first: without the issuer's secret nobody can
/// tell where a key will be, so that the adversary looks at the place that the key would have without it.
fn tried(network: &Fingerprint, size: u64, rng: &mut SeededRng) -> Vec<Joining> {
    let seeming = |identity: &Identity| NodeId::of(&identity.fingerprint(), &Nonce::from_bytes([0; 64]));
    let first = Identity::generate(rng);
    let goal = seeming(&first);
    let mut all = vec![first];
    for _ in 1..size {
        let keys = (0..KEYS).map(|_| Identity::generate(rng));
        all.extend(keys.min_by_key(|identity| goal.distance(&seeming(identity))));
    }
    all.into_iter().map(|identity| asks(network, identity)).collect()
}

fn admitted(
    issuer: &mut Issuer<MemoryLedger>,
    identity: &Identity,
    request: &VerifiedRequest,
) -> Result<MemberLeaf, IssuerError<Infallible>> {
    let member = issuer.admit(request, NOW.utc)?;
    let vrf = *identity.vrf_secret().key().as_bytes();
    Ok(MemberLeaf { id: member.id(), key: *identity.public().as_bytes(), vrf })
}

fn view(rolled: &Rolled, number: u32, bits: u8) -> Result<View, TreeError> {
    let mut first = [0; 32];
    first[..4].copy_from_slice(&((u64::from(number) << (32 - u32::from(bits))) as u32).to_be_bytes());
    let range = rolled.members.range(&Block::around(&NodeId::from_bytes(first), bits))?;
    View::new(rolled.epoch.clone(), range).map_err(|_| TreeError::Root)
}

fn first_bits(place: &NodeId) -> u64 {
    let [a, b, c, d, ..] = *place.as_bytes();
    u64::from(u32::from_be_bytes([a, b, c, d]))
}
