//! The protocols of SEP2P §3 between all nodes of a small network.

use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};
use kith_actors::paper::baseline::{Actors, HashedList, ServedList};
use kith_actors::paper::{Message, Node, Refusal, Share, VerifiableRandom};
use kith_actors::scheme::{Counting, Hash, Key, Operations, Pretended, Scheme, Signature};
use kith_sansio::SeededRng;

use crate::town::{NOW, Town, keys};

/// Ed25519, with certificates that one issuer signs.
#[derive(Clone)]
struct Real {
    issuer: VerifyingKey,
    key: SigningKey,
}

fn checks(key: &Key, statement: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify(statement, &signature).is_ok())
}

impl Scheme for Real {
    fn sign(&mut self, statement: &Hash) -> Signature {
        self.key.sign(statement).to_bytes()
    }

    fn verify(&mut self, key: &Key, statement: &Hash, signature: &Signature) -> bool {
        checks(key, statement, signature)
    }

    fn certifies(&mut self, key: &Key, certificate: &Signature) -> bool {
        checks(self.issuer.as_bytes(), key, certificate)
    }
}

fn real(count: usize, cache: f64) -> Town<Real> {
    let issuer = SigningKey::from_bytes(&[1; 32]);
    let node = |key: SigningKey| {
        let public = key.verifying_key();
        let node = Node::new(public.to_bytes(), issuer.sign(public.as_bytes()).to_bytes());
        (node, Real { issuer: issuer.verifying_key(), key })
    };
    Town::new(keys(count).into_iter().map(node).collect(), cache)
}

fn pretended(count: usize, cache: f64) -> Town<Pretended> {
    let node = |key: SigningKey| {
        let key = key.verifying_key().to_bytes();
        (Node::new(key, Pretended::certificate(&key)), Pretended(key))
    };
    Town::new(keys(count).into_iter().map(node).collect(), cache)
}

fn checker() -> Counting<Pretended> {
    Counting::new(Pretended([0; 32]))
}

fn random(town: &Town<Pretended>) -> VerifiableRandom {
    town.random(town.nodes[0].0, 1).unwrap().0
}

#[test]
fn a_selection_is_verified_with_two_operations_for_each_builder() {
    let town = pretended(1_000, 256.0);
    let (random, first) = town.random(town.nodes[0].0, 1).unwrap();
    let witnesses = random.shares.len();
    assert_eq!(first.messages, 4 * witnesses);
    assert_eq!(first.operations, Operations { signed: witnesses as u64, ..Operations::default() });
    let mut checker = checker();
    assert_eq!(random.verify(&town.rules, &mut checker), Ok(random.value()));
    assert_eq!(checker.operations.total(), 2 * witnesses as u64 + 1);

    let (list, cost) = town.select(random, 32, 2).unwrap();
    let builders = list.attestations.len();
    assert_eq!(list.actors.len(), 32);
    assert_eq!(cost.messages, builders * (6 + 2 * 32));
    assert_eq!(cost.operations.signed, builders as u64);
    assert_eq!(cost.operations.verified, (builders * witnesses) as u64);
    let mut checker = self::checker();
    list.verify(&town.rules, &mut checker).unwrap();
    let k = builders as u64;
    assert_eq!(checker.operations, Operations { signed: 0, verified: k, certificates: k });
}

#[test]
fn real_signatures_give_the_same_counts_and_the_same_list() {
    let (real, pretended) = (real(600, 128.0), pretended(600, 128.0));
    let (shares, cost) = real.random(real.nodes[3].0, 5).unwrap();
    let (pretended_shares, pretended_cost) = pretended.random(pretended.nodes[3].0, 5).unwrap();
    assert_eq!(cost, pretended_cost);
    assert_eq!(shares.value(), pretended_shares.value());
    let (list, cost) = real.select(shares, 16, 6).unwrap();
    let (pretended_list, pretended_cost) = pretended.select(pretended_shares, 16, 6).unwrap();
    assert_eq!(cost, pretended_cost);
    assert_eq!(list.actors, pretended_list.actors);
    let mut real_checker = Counting::new(real.nodes[0].1.clone());
    let mut checker = checker();
    list.verify(&real.rules, &mut real_checker).unwrap();
    pretended_list.verify(&pretended.rules, &mut checker).unwrap();
    assert_eq!(real_checker.operations, checker.operations);
}

#[test]
fn a_region_with_too_few_candidates_is_left_and_the_list_proves_it() {
    let town = pretended(1_000, 36.0);
    let moved = (0..40).find_map(|at| {
        let (random, _) = town.random(town.nodes[at].0, at as u64).ok()?;
        let (list, _) = town.select(random, 32, 2).ok()?;
        (!list.moves.is_empty()).then_some(list)
    });
    let mut list = moved.unwrap();
    let mut checker = checker();
    list.verify(&town.rules, &mut checker).unwrap();
    let moves: usize = list.moves.iter().map(Vec::len).sum();
    assert_eq!(checker.operations.total(), 2 * (moves + list.attestations.len()) as u64);
    let forged = list.moves[0][0].signature;
    list.moves[0][0].signature = list.attestations[0].signature;
    assert_eq!(list.verify(&town.rules, &mut checker), Err(Refusal::Signer));
    list.moves[0][0].signature = forged;
    list.moves.pop();
    assert_eq!(list.verify(&town.rules, &mut checker), Err(Refusal::Signer));
}

#[test]
fn who_does_not_answer_is_no_actor() {
    let mut town = pretended(1_000, 256.0);
    let random = random(&town);
    let (list, cost) = town.select(random.clone(), 16, 2).unwrap();
    town.dead = list.actors[..4].to_vec();
    let (others, more) = town.select(random, 16, 2).unwrap();
    assert_eq!(others.actors.len(), 16);
    assert_eq!(others.actors[..12], list.actors[4..]);
    assert_eq!(more.messages, cost.messages + others.attestations.len() * 2 * 4);
}

#[test]
fn total_communication_grows_linearly_with_the_actors() {
    let town = pretended(1_000, 400.0);
    let random = random(&town);
    let messages = |actors| town.select(random.clone(), actors, 2).unwrap().1.messages;
    let [eight, sixteen, all] = [8, 16, 64].map(messages);
    assert_eq!((all - eight) * (16 - 8), (sixteen - eight) * (64 - 8));
}

#[test]
fn a_value_that_was_committed_to_cannot_be_changed() {
    let mut town = pretended(600, 128.0);
    let trigger = town.nodes[0].0;
    town.tamper = |_, message| {
        if let Message::Reveal { random, .. } = message {
            random[0] ^= 1;
        }
    };
    assert_eq!(town.random(trigger, 1), Err(Refusal::Broken));
    town.tamper = |_, message| {
        if let Message::Commits(commits) = message {
            commits[0][0] ^= 1;
        }
    };
    assert_eq!(town.random(trigger, 1), Err(Refusal::NotCommitted));
    town.tamper = |_, _| {};
    let (random, _) = town.random(trigger, 1).unwrap();
    town.tamper = |_, message| {
        if let Message::Disclosed(all) = message {
            all[0].candidates.pop();
        }
    };
    assert_eq!(town.select(random, 16, 1).err(), Some(Refusal::Broken));
}

#[test]
fn more_witnesses_than_needed_are_refused() {
    let mut town = pretended(600, 128.0);
    town.tamper = |_, message| {
        if let Message::Ask { k, .. } = message {
            *k += 1;
        }
    };
    let refusal = town.random(town.nodes[0].0, 1).unwrap_err();
    assert!(matches!(refusal, Refusal::NotSmallest { asked, smallest } if asked == smallest + 1));
}

#[test]
fn silence_ends_a_conversation() {
    let mut town = pretended(600, 128.0);
    town.tamper = |_, message| {
        if matches!(message, Message::Reveal { .. }) {
            *message = Message::Commit([0; 32]);
        }
    };
    assert_eq!(town.random(town.nodes[0].0, 1).err(), Some(Refusal::Silence));
}

#[test]
fn a_random_value_with_any_other_witness_number_or_time_does_not_verify() {
    let town = pretended(600, 128.0);
    let random = random(&town);
    let refused = |change: &dyn Fn(&mut VerifiableRandom)| {
        let mut changed = random.clone();
        change(&mut changed);
        changed.verify(&town.rules, &mut checker()) == Err(Refusal::Random)
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|random| random.at.0 += 1));
    assert!(refused(&|random| random.shares[0].random[5] ^= 1));
    assert!(refused(&|random| random.shares[0].signature[5] ^= 1));
    assert!(refused(&|random| random.shares[0] = random.shares[1].clone()));
    assert!(refused(&|random| random.shares.truncate(1)));
    assert!(refused(&|random| random.shares[0].witness = random.trigger));
    let far = |random: &VerifiableRandom| {
        *town
            .nodes
            .iter()
            .map(|(node, _)| node)
            .max_by_key(|node| random.trigger.place().distance(node.place()))
            .unwrap()
    };
    assert!(refused(&|random| random.trigger = far(random)));
    let fake = Node::new(*random.trigger.key(), [0; 64]);
    assert!(refused(&|random| random.trigger = fake));
}

/// Definition 4 asks for nothing but the place; `kith simulate attack own-witness` says what comes of it.
#[test]
fn a_trigger_passes_for_its_own_only_witness() {
    let town = pretended(600, 128.0);
    let (trigger, random, at) = (town.nodes[0].0, [7; 32], NOW.utc);
    let statement = VerifiableRandom::statement(at, &[VerifiableRandom::commitment(&random)]);
    let signature = Pretended(*trigger.key()).sign(&statement);
    let alone = VerifiableRandom { trigger, at, shares: vec![Share { witness: trigger, random, signature }] };
    assert_eq!(alone.verify(&town.rules, &mut checker()), Ok(random));
}

#[test]
fn the_other_strategies_cost_what_the_paper_says_and_two_or_three_operations_more() {
    let town = pretended(1_000, 256.0);
    let random = random(&town);
    let k = random.shares.len() as u64;
    let cost = |verify: &dyn Fn(&mut Counting<Pretended>) -> Result<(), Refusal>| {
        let mut checker = checker();
        verify(&mut checker).unwrap();
        checker.operations.total()
    };
    let setter = town.at(HashedList::targets(&random, 1)[0]);
    let (view, mut scheme) = (town.view(&setter), Pretended(*setter.key()));
    let mut rng = SeededRng::new(1);
    let served = ServedList::new(&town.rules, &mut scheme, (setter, &view), (random.clone(), 32), &mut rng);
    assert_eq!(cost(&|checker| served.verify(&town.rules, checker, Actors::Unchecked)), 2 * k + 1 + 2);
    assert_eq!(cost(&|checker| served.verify(&town.rules, checker, Actors::Checked)), 2 * k + 1 + 2 + 32);
    let actors = HashedList::targets(&random, 32).into_iter().map(|place| town.at(place)).collect();
    let hashed = HashedList { random, actors };
    assert_eq!(cost(&|checker| hashed.verify(&town.rules, checker)), 2 * k + 1 + 32);
}

#[test]
fn only_the_setter_that_is_near_serves_a_list_and_only_certificates_tell_genuine_actors() {
    let town = pretended(1_000, 256.0);
    let random = random(&town);
    let target = HashedList::targets(&random, 1)[0];
    let far =
        *town.nodes.iter().map(|(node, _)| node).max_by_key(|node| target.distance(node.place())).unwrap();
    let list = ServedList::signed(&mut Pretended(*far.key()), far, random.clone(), vec![]);
    assert_eq!(list.verify(&town.rules, &mut checker(), Actors::Unchecked), Err(Refusal::Signer));
    let setter = town.at(target);
    let invented = vec![Node::new([9; 32], [0; 64])];
    let list = ServedList::signed(&mut Pretended(*setter.key()), setter, random.clone(), invented.clone());
    assert_eq!(list.verify(&town.rules, &mut checker(), Actors::Unchecked), Ok(()));
    assert_eq!(list.verify(&town.rules, &mut checker(), Actors::Checked), Err(Refusal::Actor));
    let hashed = HashedList { random, actors: invented };
    assert_eq!(hashed.verify(&town.rules, &mut checker()), Err(Refusal::Actor));
}
