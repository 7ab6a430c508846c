//! The protocol of `docs/actors-protocol.md` between all members of a small network.

use kith_actors::hardened::{
    ActorList, ListError, MAX_MESSAGE_BYTES, Message, MessageError, Refusal, Suite, Terms, Witnessed,
};
use kith_actors::ktable::TableError;
use kith_actors::scheme::Counting;
use kith_identity::Identity;
use kith_identity::membership::{MemberLeaf, NodeId};
use kith_sansio::{SeededRng, Timestamp};
use proptest::prelude::*;

use crate::village::{Village, ids};

/// Inputs that are kept for the fuzzer.
const PROPOSAL: &[u8] = include_bytes!("../../../../fuzz/corpus/actors_message/proposal");
const REPORT: &[u8] = include_bytes!("../../../../fuzz/corpus/actors_message/report");

fn village() -> Village {
    Village::new(300, 4, 1e-6, 64).unwrap()
}

fn selected(village: &mut Village, trigger: usize, actors: u16) -> ActorList {
    let drawn = village.draw(village.ticket(trigger, 1, actors)).unwrap();
    village.select(drawn).unwrap()
}

#[test]
fn a_list_verifies_from_its_bytes_and_the_issuers_fingerprint_alone() {
    let mut village = village();
    let list = selected(&mut village, 7, 8);
    let read = ActorList::from_bytes(&list.to_bytes()).unwrap();
    assert_eq!(read, list);
    let verified = read.verify(&village.issuer).unwrap();
    assert_eq!(verified.actors().len(), 8);
    assert_eq!(verified.operations(), 2 * list.endorsement.signatures.len());
    let stranger = Identity::generate(&mut SeededRng::new(1)).fingerprint();
    assert!(matches!(list.verify(&stranger), Err(ListError::Epoch(_))));
}

#[test]
fn a_change_of_any_one_byte_is_noticed() {
    let mut village = village();
    let bytes = selected(&mut village, 7, 4).to_bytes();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let verified = ActorList::from_bytes(&changed).and_then(|list| list.verify(&village.issuer));
        assert!(verified.is_err(), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn actors_are_all_of_one_region_without_trigger_and_witnesses_and_do_not_depend_on_the_terms_alone() {
    let mut village = village();
    let ticket = village.ticket(7, 1, 16);
    let (place, order) = village.draw(ticket).unwrap();
    let witnesses = ids(&order.draw.proposal.group.members);
    let list = village.select((place, order)).unwrap();
    let actors = ids(&list.actors);
    assert!(!actors.contains(&ticket.trigger) && witnesses.iter().all(|witness| !actors.contains(witness)));
    let next = village.draw(village.ticket(7, 2, 16)).unwrap();
    assert_ne!(village.select(next).unwrap().seed, list.seed);
}

#[test]
fn absent_members_are_left_out_of_groups_and_of_the_list() {
    let mut village = village();
    let list = selected(&mut village, 7, 8);
    let mut again = self::village();
    let first = |leaves: &[MemberLeaf]| leaves[0].id;
    again.dead = vec![list.actors[0].id, list.actors[3].id];
    let (_, order) = village.draw(village.ticket(7, 2, 8)).unwrap();
    let witness = first(&order.draw.proposal.group.members);
    let drawn = again.draw(again.ticket(7, 1, 8)).unwrap();
    let others = again.select(drawn).unwrap();
    assert_eq!(others.seed, list.seed);
    assert!(again.dead.iter().all(|dead| !ids(&others.actors).contains(dead)));
    again.dead = vec![witness];
    let (_, order) = again.draw(again.ticket(7, 2, 8)).unwrap();
    assert_eq!(order.draw.proposal.group.skipped, [witness]);
}

#[test]
fn a_region_with_too_few_candidates_is_left_and_the_list_carries_the_proof() {
    let mut village = Village::new(300, 4, 1e-6, 32).unwrap();
    let moved = (0..40).find_map(|trigger| {
        let drawn = village.draw(village.ticket(trigger, 1, 34)).ok()?;
        village.select(drawn).ok().filter(|list| !list.moves.is_empty())
    });
    let mut list = moved.unwrap();
    let k: usize = list.moves.iter().chain([&list.endorsement]).map(|step| step.signatures.len()).sum();
    assert_eq!(list.clone().verify(&village.issuer).unwrap().operations(), 2 * k);
    list.moves.pop();
    assert!(list.verify(&village.issuer).is_err());
}

#[test]
fn where_too_many_may_collude_there_is_no_selection_and_the_reason_is_told() {
    let refused = Village::new(5, 4, 1e-6, 512).err();
    assert_eq!(refused, Some(Refusal::NoTable(TableError::TooFewNodes { nodes: 5, colluding: 4 })));
    let mut tiny = Village::new(8, 4, 1e-6, 512).unwrap();
    let list = selected(&mut tiny, 0, 2);
    assert_eq!((list.endorsement.bits, list.endorsement.signatures.len()), (0, 5));
    list.verify(&tiny.issuer).unwrap();
}

#[test]
fn who_answers_cannot_be_left_out() {
    let mut village = village();
    village.tamper = |_, message| {
        if let Message::Propose(proposal) = message {
            let left_out = proposal.group.members[0].id;
            proposal.group.skipped.push(left_out);
        }
    };
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Refusal::Group));
}

#[test]
fn a_number_is_good_for_one_draw_and_no_more_than_the_quota() {
    let mut village = village();
    village.draw(village.ticket(7, 2, 8)).unwrap();
    for sequence in [0, 1, 2, 9] {
        assert_eq!(village.draw(village.ticket(7, sequence, 8)).err(), Some(Refusal::Sequence));
    }
    village.draw(village.ticket(7, 8, 8)).unwrap();
}

#[test]
fn a_draw_serves_one_selection() {
    let mut village = village();
    let drawn = village.draw(village.ticket(7, 1, 8)).unwrap();
    village.select(drawn.clone()).unwrap();
    assert_eq!(village.select(drawn).err(), Some(Refusal::Sequence));
}

#[test]
fn expired_and_foreign_tickets_are_refused() {
    let mut village = village();
    let mut ticket = village.ticket(7, 1, 8);
    ticket.terms.expires = Timestamp(1);
    assert_eq!(village.draw(ticket).err(), Some(Refusal::Expired));
    let mut ticket = village.ticket(7, 1, 8);
    ticket.epoch += 1;
    assert_eq!(village.draw(ticket).err(), Some(Refusal::Epoch));
}

#[test]
fn a_changed_random_output_or_signature_ends_the_draw() {
    let mut village = village();
    village.tamper = |_, message| {
        if let Message::Reveal(proof) = message {
            let mut bytes = *proof.as_bytes();
            bytes[40] ^= 1;
            *proof = kith_identity::vrf::Proof::from_bytes(bytes);
        }
    };
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Refusal::Signer));
    village.tamper = |_, message| {
        if let Message::Accept(signature) = message {
            signature[1] ^= 1;
        }
    };
    assert_eq!(village.draw(village.ticket(7, 2, 8)).err(), Some(Refusal::Signer));
}

#[test]
fn a_builder_whose_report_was_changed_does_not_sign() {
    let mut village = village();
    let drawn = village.draw(village.ticket(7, 1, 8)).unwrap();
    village.tamper = |_, message| {
        if let Message::Reports(reports) = message {
            let everybody: Vec<NodeId> = (0..=255).map(|byte| NodeId::from_bytes([byte; 32])).collect();
            reports.fill(everybody);
        }
    };
    assert_eq!(village.select(drawn).err(), Some(Refusal::Report));
}

#[test]
fn two_outcomes_of_one_draw_are_evidence_against_their_signer() {
    let mut village = village();
    let (_, order) = village.draw(village.ticket(7, 1, 8)).unwrap();
    let proposal = &order.draw.proposal;
    let identity = &village.people[&proposal.group.members[0].id].0;
    let mut other = proposal.ticket;
    other.terms = Terms { manifest: [6; 32], ..other.terms };
    let (first, second) = (proposal.ticket.pledge(&proposal.group), other.pledge(&proposal.group));
    let mut suite = Counting::new(identity);
    let (one, two) = (suite.sign(&first), suite.sign(&second));
    let mut seen = Witnessed::default();
    assert_eq!(seen.note(&identity.public(), first, one), None);
    assert_eq!(seen.note(&identity.public(), first, one), None);
    let evidence = seen.note(&identity.public(), second, two).unwrap();
    assert_eq!(*evidence.signer(), identity.public());
    assert_eq!(suite.operations.signed, 2);
}

#[test]
fn the_kept_input_of_the_fuzzer_is_a_list() {
    let mut village = village();
    let list = selected(&mut village, 7, 2);
    let kept = include_bytes!("../../../../fuzz/corpus/actors_list/list");
    assert_eq!(ActorList::from_bytes(kept).unwrap().to_bytes(), kept);
    assert_eq!(kept.as_slice(), list.to_bytes());
}

#[test]
fn the_kept_messages_of_the_fuzzer_are_a_proposal_and_a_report() {
    for kept in [PROPOSAL, REPORT] {
        assert_eq!(Message::from_bytes(kept).unwrap().to_bytes(), kept);
    }
    assert!(matches!(Message::from_bytes(PROPOSAL), Ok(Message::Propose(_))));
    assert_eq!(Message::from_bytes(&[0]), Err(MessageError::Kind(0)));
    assert_eq!(Message::from_bytes(&vec![6; MAX_MESSAGE_BYTES + 1]), Err(MessageError::TooLarge));
    assert_eq!(Message::from_bytes(&[6, 255, 255]), Err(MessageError::TooLarge));
}

proptest! {
    #[test]
    fn no_bytes_break_a_reader(mut bytes: Vec<u8>) {
        kith_actors::fuzz::fuzz_list(&bytes);
        kith_actors::fuzz::fuzz_message(&bytes);
        bytes.insert(0, bytes.len() as u8 % 10);
        kith_actors::fuzz::fuzz_message(&bytes);
    }

    #[test]
    fn no_change_of_a_message_breaks_the_reader(at in 0usize..4096, to: u8) {
        let mut bytes = PROPOSAL.to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        kith_actors::fuzz::fuzz_message(&bytes);
    }

    #[test]
    fn no_change_of_a_list_breaks_the_reader(at in 0usize..4096, to: u8) {
        let mut bytes = include_bytes!("../../../../fuzz/corpus/actors_list/list").to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        kith_actors::fuzz::fuzz_list(&bytes);
    }
}

/// How long the check takes beside eight single signatures is printed; the clock decides nothing.
#[test]
fn a_list_of_eight_builders_and_thirty_two_actors_verifies_and_shows_its_time() {
    let mut village = Village::new(1_000, 10, 1e-12, 256).unwrap();
    let list = (0..200).find_map(|trigger| {
        let drawn = village.draw(village.ticket(trigger, 1, 32)).ok()?;
        village
            .select(drawn)
            .ok()
            .filter(|list| list.moves.is_empty() && list.endorsement.signatures.len() == 8)
    });
    let (bytes, issuer) = (list.unwrap().to_bytes(), village.issuer);
    let identity = Identity::generate(&mut SeededRng::new(2));
    let (key, signature) = (identity.public(), identity.sign(b"message"));
    let timed = |work: &dyn Fn()| {
        let begin = kith_sansio::system::time();
        (0..200).for_each(|_| work());
        (kith_sansio::system::time() - begin).0 / 200
    };
    let list = timed(&|| drop(ActorList::from_bytes(&bytes).unwrap().verify(&issuer).unwrap()));
    let single = timed(&|| (0..8).for_each(|_| key.verify(b"message", &signature).unwrap()));
    println!("{} bytes: list {list} us, eight signatures {single} us", bytes.len());
}
