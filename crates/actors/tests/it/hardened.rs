//! The protocol of `docs/actors-protocol.md` between all members of a small network.

use kith_actors::hardened::{
    AROUND, ActorList, Book, BookError, GRACE_SECS, Group, ListError, MAX_MESSAGE_BYTES, MAX_STALLED,
    Message, MessageError, Output, Refusal, Reminder, Suite, Terms, Ticket, View, Witnessed,
};
use kith_actors::ktable::TableError;
use kith_actors::scheme::Counting;
use kith_identity::Identity;
use kith_identity::membership::pledge::{Kind, Pledge, Slot};
use kith_identity::membership::tree::Path;
use kith_identity::membership::{Block, MemberLeaf, NodeId, region_bits};
use kith_sansio::{SeededRng, Timestamp};
use proptest::prelude::*;
use sha3::{Digest, Sha3_256};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::village::{Village, ids};

/// Inputs that are kept for the fuzzer.
const PROPOSAL: &[u8] = include_bytes!("../../../../fuzz/corpus/actors_message/proposal");
const REPORT: &[u8] = include_bytes!("../../../../fuzz/corpus/actors_message/report");
const REMINDER: &[u8] = include_bytes!("../../../../fuzz/corpus/actors_message/reminder");

fn village() -> Village {
    Village::new(300, 4, 1e-6).unwrap()
}

/// No witnesses at all.
fn empty() -> Group {
    Group { bits: 0, members: Vec::new(), skipped: Vec::new() }
}

/// SHA3-256 of a domain string and parts, each after its length.
fn hash(domain: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let parts = parts.iter().map(|part| [&(part.len() as u64).to_be_bytes()[..], part].concat());
    Sha3_256::digest([domain.to_vec(), parts.collect::<Vec<_>>().concat()].concat()).into()
}

/// Where a seed selects, as `docs/actors-protocol.md` says.
fn place(seed: &[u8; 32]) -> NodeId {
    NodeId::from_bytes(hash(b"kithnet actors place v1", &[seed, &[0; 8]]))
}

/// What a member signs under a list without moves, as `docs/actors-protocol.md` says.
fn signature(list: &ActorList, village: &Village, signer: &Path<MemberLeaf>) -> [u8; 64] {
    let (ticket, facts) = (&list.ticket, village.rolled.epoch.facts());
    let Terms { manifest, actors, role, expires } = &ticket.terms;
    let draw = [
        b"kithnet draw v1",
        &ticket.network.as_bytes()[..],
        &ticket.epoch.to_be_bytes(),
        ticket.trigger.as_bytes(),
        &ticket.sequence.to_be_bytes(),
    ];
    let key = hash(b"kithnet actors slot v1", &[&draw.concat(), &[0; 8]]);
    let leaves =
        list.actors.iter().map(|one| [one.id.as_bytes(), &one.key, &one.vrf].map(|part| &part[..]).concat());
    let content = [
        &manifest[..],
        &actors.to_be_bytes(),
        &[*role],
        &expires.0.to_be_bytes(),
        &list.seed,
        &[list.endorsement.bits],
        &(list.endorsement.signatures.len() as u16).to_be_bytes(),
        &[list.region_bits],
        facts.roll.as_bytes(),
        &[1],
        &hash(b"kithnet actors root v1", &[&leaves.collect::<Vec<_>>().concat()]),
    ];
    let slot = Slot { kind: Kind::ACTOR_LIST, network: ticket.network, key };
    Pledge::new(slot, &content.concat()).sign(&village.people[&signer.claimed_leaf().id].0)
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
    let mut village = Village::new(1_000, 10, 1e-12).unwrap();
    // One of the two regions has too few left.
    village.dead = village.people.keys().take(350).copied().collect();
    let moved = (600..700).find_map(|trigger| {
        let drawn = village.draw(village.ticket(trigger, 1, 220)).ok()?;
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
    let refused = Village::new(5, 4, 1e-6).err();
    assert_eq!(refused, Some(Refusal::NoTable(TableError::TooFewNodes { nodes: 5, colluding: 4 })));
    let mut tiny = Village::new(8, 4, 1e-6).unwrap();
    let list = selected(&mut tiny, 0, 2);
    assert_eq!((list.endorsement.bits, list.endorsement.signatures.len()), (0, 5));
    list.verify(&tiny.issuer).unwrap();
}

#[test]
fn who_answers_cannot_be_left_out() {
    let mut village = village();
    village.tamper = Box::new(|_, message| {
        if let Message::Propose(proposal) = message {
            let left_out = proposal.group.members[0].id;
            proposal.group.skipped.push(left_out);
        }
        true
    });
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Output::Refused(Refusal::Group)));
}

#[test]
fn a_number_is_good_for_one_draw_and_no_more_than_the_quota() {
    let mut village = village();
    village.draw(village.ticket(7, 2, 8)).unwrap();
    for sequence in [0, 2, 9] {
        assert_eq!(
            village.draw(village.ticket(7, sequence, 8)).err(),
            Some(Output::Refused(Refusal::Sequence))
        );
        // Nor do the witnesses, whatever the trigger has forgotten.
        let trigger = village.ticket(7, sequence, 8).trigger;
        village.people.get_mut(&trigger).unwrap().2 = Book::new(&village.rolled.epoch, 100);
        assert_eq!(
            village.draw(village.ticket(7, sequence, 8)).err(),
            Some(Output::Refused(Refusal::Sequence))
        );
    }
    let trigger = village.ticket(7, 8, 8).trigger;
    village.people.get_mut(&trigger).unwrap().2 = Book::new(&village.rolled.epoch, 8);
    village.draw(village.ticket(7, 8, 8)).unwrap();
    // A lower number has witnesses who have not seen a higher one. It is good once as well.
    let forgets = |village: &mut Village| {
        village.people.get_mut(&trigger).unwrap().2 = Book::new(&village.rolled.epoch, 8);
    };
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Output::Refused(Refusal::Sequence)));
    forgets(&mut village);
    village.draw(village.ticket(7, 1, 8)).unwrap();
    forgets(&mut village);
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Output::Refused(Refusal::Sequence)));
}

#[test]
fn each_draw_has_witnesses_of_its_own_beside_the_trigger() {
    let village = village();
    let bits = region_bits(village.people.len() as u64, AROUND);
    assert_eq!(bits, 2);
    let mut beside = Vec::new();
    for (trigger, sequence) in [(5, 1), (5, 2), (5, 3), (200, 1)] {
        let ticket = village.ticket(trigger, sequence, 8);
        let place = ticket.place(&village.rolled.epoch);
        assert!(Block::around(&ticket.trigger, bits).contains(&place));
        // What it is for has no part in it.
        assert_eq!(village.ticket(trigger, sequence, 9).place(&village.rolled.epoch), place);
        beside.extend(village.witnesses(&ticket));
    }
    let everywhere = |id: &&NodeId| beside.iter().filter(|other| other == id).count() > 2;
    assert_eq!(beside.iter().find(everywhere), None);
}

#[test]
fn a_draw_serves_one_selection() {
    let mut village = village();
    let drawn = village.draw(village.ticket(7, 1, 8)).unwrap();
    village.select(drawn.clone()).unwrap();
    assert_eq!(village.select(drawn).err(), Some(Output::Refused(Refusal::Sequence)));
}

#[test]
fn expired_and_foreign_tickets_are_refused() {
    let mut village = village();
    let mut ticket = village.ticket(7, 1, 8);
    ticket.terms.expires = Timestamp(1);
    assert_eq!(village.draw(ticket).err(), Some(Output::Refused(Refusal::Expired)));
    let mut ticket = village.ticket(7, 1, 8);
    ticket.epoch += 1;
    assert_eq!(village.draw(ticket).err(), Some(Output::Refused(Refusal::Epoch)));
}

#[test]
fn a_changed_random_output_or_signature_ends_the_draw_and_its_sender_is_named() {
    let mut village = village();
    let witness = village.witnesses(&village.ticket(7, 1, 8))[0];
    village.tamper = Box::new(move |from, message| {
        if let (true, Message::Reveal(proof)) = (*from == witness, message) {
            let mut bytes = *proof.as_bytes();
            bytes[40] ^= 1;
            *proof = kith_identity::vrf::Proof::from_bytes(bytes);
        }
        true
    });
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Output::Lied(witness)));
    let witness = village.witnesses(&village.ticket(7, 2, 8))[0];
    village.tamper = Box::new(move |from, message| {
        if let (true, Message::Accept(signature)) = (*from == witness, message) {
            signature[1] ^= 1;
        }
        true
    });
    assert_eq!(village.draw(village.ticket(7, 2, 8)).err(), Some(Output::Lied(witness)));
}

#[test]
fn who_does_not_take_part_is_told_from_who_stops_after_it_accepted() {
    let mut village = village();
    let witness = village.witnesses(&village.ticket(7, 1, 8))[0];
    village.tamper =
        Box::new(move |from, message| *from != witness || !matches!(message, Message::Accept(_)));
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Output::Unanswered(vec![witness])));
    village.tamper =
        Box::new(move |from, message| *from != witness || !matches!(message, Message::Reveal(_)));
    let witness = village.witnesses(&village.ticket(7, 2, 8))[0];
    village.tamper =
        Box::new(move |from, message| *from != witness || !matches!(message, Message::Reveal(_)));
    assert_eq!(village.draw(village.ticket(7, 2, 8)).err(), Some(Output::Silent(vec![witness])));
}

/// A village so small that some member witnesses each of the first draws of the sixth one, with the first of these draws,
/// in which this witness accepted and did not reveal.
fn stalled() -> (Village, NodeId) {
    let mut village = Village::new(10, 4, 1e-6).unwrap();
    let [first, others @ ..] = [1, 2, 3].map(|sequence| village.witnesses(&village.ticket(5, sequence, 4)));
    let witness = first.into_iter().find(|id| others.iter().all(|other| other.contains(id)));
    let witness = witness.expect("a witness of all three");
    village.tamper =
        Box::new(move |from, message| *from != witness || !matches!(message, Message::Reveal(_)));
    assert_eq!(village.draw(village.ticket(5, 1, 4)).err(), Some(Output::Silent(vec![witness])));
    let unfinished = village.unfinished.take().unwrap();
    assert!(unfinished.awaits(&witness) && unfinished.silent() == [witness]);
    village.stalled.push(unfinished);
    (village, witness)
}

/// The reminder of the next draw, in which the witness stays silent.
fn reminded(village: &mut Village) -> Reminder {
    let said = Rc::new(RefCell::new(None));
    let heard = Rc::clone(&said);
    let silent = std::mem::replace(&mut village.tamper, Box::new(|_: &NodeId, _: &mut Message| true));
    village.tamper = Box::new(move |from, message| {
        if let Message::Remind(reminder) = &*message {
            *heard.borrow_mut() = Some((**reminder).clone());
        }
        silent(from, message)
    });
    let drawn = village.draw(village.ticket(5, 2, 4)).unwrap();
    let reminder: Reminder = said.borrow_mut().take().unwrap();
    assert_eq!(reminder.proposal, drawn.1.draw.proposal);
    let list = village.select(drawn).unwrap();
    assert_eq!(list.verify(&village.issuer).unwrap().actors().len(), 4);
    reminder
}

#[test]
fn who_accepts_and_does_not_reveal_is_left_out_of_the_next_draw() {
    let (mut village, witness) = stalled();
    let reminder = reminded(&mut village);
    assert_eq!(reminder.proposal.group.skipped, [witness]);
    assert!(reminder.leaves_out(&witness) && reminder.stalled[0].signatures.len() > 1);
    assert!(Message::Remind(Box::new(reminder)).to_bytes() == REMINDER, "the kept input of the fuzzer");
}

#[test]
fn a_trigger_that_lies_about_silence_leaves_out_nobody_and_has_what_it_missed() {
    let (mut village, witness) = stalled();
    let said = Rc::new(Cell::new(None));
    let heard = Rc::clone(&said);
    village.tamper = Box::new(move |_, message| {
        if let Message::Late { from, proof } = message {
            heard.set(Some((*from, **proof)));
        }
        true
    });
    assert_eq!(village.draw(village.ticket(5, 2, 4)).err(), Some(Output::Refused(Refusal::LeftOut(witness))));
    let (late, proof) = said.take().unwrap();
    assert_eq!(late, witness);
    let mut unfinished = village.stalled.remove(0);
    let trigger = village.ticket(5, 1, 4).trigger;
    let drawn = {
        let (identity, view, _) = &village.people[&trigger];
        let wrong = kith_identity::vrf::Proof::from_bytes([7; 80]);
        let refused = unfinished.reveal(&witness, wrong, view, &mut &*identity).err();
        assert_eq!(refused, Some(Refusal::Signer));
        unfinished.reveal(&witness, proof, view, &mut &*identity).unwrap().unwrap()
    };
    assert!(unfinished.silent().is_empty());
    let list = village.select((drawn.0, *drawn.1)).unwrap();
    assert_eq!((list.ticket.sequence, list.verify(&village.issuer).is_ok()), (1, true));
}

#[test]
fn a_wrong_answer_to_a_reminder_is_none() {
    let (mut village, witness) = stalled();
    village.tamper = Box::new(move |from, message| {
        if let (true, Message::Reveal(proof)) = (*from == witness, message) {
            *proof = kith_identity::vrf::Proof::from_bytes([7; 80]);
        }
        true
    });
    village.draw(village.ticket(5, 2, 4)).unwrap();
}

#[test]
fn reminders_that_do_not_hold_are_refused_by_all_who_hear_them() {
    let (mut village, witness) = stalled();
    let genuine = reminded(&mut village);
    village.owed(&witness, &genuine).unwrap();
    let changes: [fn(&mut Reminder); 8] = [
        |reminder| reminder.stalled[0].signatures[0][3] ^= 1,
        |reminder| reminder.stalled[0].signatures.truncate(1),
        |reminder| reminder.stalled[0].proposal.signature[3] ^= 1,
        |reminder| reminder.stalled[0].proposal.ticket.epoch += 1,
        |reminder| reminder.stalled[0].proposal.ticket.trigger = NodeId::from_bytes([1; 32]),
        |reminder| reminder.stalled[0].proposal.ticket.terms.role ^= 1,
        // A draw that is not before the proposed one.
        |reminder| {
            let Reminder { proposal, stalled } = reminder;
            stalled[0].proposal = proposal.clone();
        },
        |reminder| reminder.stalled.push(reminder.stalled[0].clone()),
    ];
    for change in &changes[..6] {
        let mut changed = genuine.clone();
        change(&mut changed);
        assert_eq!(village.owed(&witness, &changed).err(), Some(Refusal::Signer));
    }
    let ticket = village.ticket(5, 3, 4);
    for change in changes {
        village.people.get_mut(&ticket.trigger).unwrap().2 = Book::new(&village.rolled.epoch, 8);
        village.tamper = Box::new(move |_, message| {
            if let Message::Remind(reminder) = message {
                change(reminder);
            }
            true
        });
        assert_eq!(village.draw(ticket).err(), Some(Output::Refused(Refusal::Signer)));
    }
    // Nobody reveals to whom the trigger has not sent.
    let mut unsigned = genuine.clone();
    unsigned.proposal.signature[3] ^= 1;
    assert_eq!(village.owed(&witness, &unsigned).err(), Some(Refusal::Signer));
    let owing = &genuine.stalled[0].proposal.group;
    let kept =
        owing.members.iter().find(|member| genuine.proposal.group.members.contains(member)).unwrap().id;
    assert_eq!(village.owed(&kept, &genuine).err(), Some(Refusal::Signer));
    let mut forged = genuine;
    let leaf = forged.stalled[0].proposal.group.members.iter_mut().find(|member| member.id == witness);
    leaf.unwrap().key = [9; 32];
    assert_eq!(village.owed(&witness, &forged).err(), Some(Refusal::Group));
}

#[test]
fn a_builder_that_signs_something_else_or_reports_strangers_is_named() {
    let mut village = village();
    let said: [fn(&mut Message); 3] = [
        |message| {
            if let Message::Signed { actors, .. } = message {
                actors.reverse();
            }
        },
        |message| {
            if let Message::Signed { signature, .. } = message {
                *message = Message::Insufficient(*signature);
            }
        },
        |message| {
            if let Message::Report(failed) = message {
                failed.push(NodeId::from_bytes([9; 32]));
            }
        },
    ];
    for (sequence, change) in (1..).zip(said) {
        village.tamper = Box::new(|_, _| true);
        let drawn = village.draw(village.ticket(7, sequence, 8)).unwrap();
        let builder = village.builder(&drawn);
        village.tamper = Box::new(move |from, message| {
            if *from == builder {
                change(message);
            }
            true
        });
        assert_eq!(village.select(drawn).err(), Some(Output::Lied(builder)));
    }
}

#[test]
fn nobody_who_answers_the_others_is_left_out_because_one_says_otherwise() {
    let mut village = village();
    let ticket = village.ticket(7, 1, 8);
    let witness = village.witnesses(&village.ticket(7, 1, 8))[0];
    village.liar = Some((ticket.trigger, witness));
    assert_eq!(village.draw(ticket).err(), Some(Output::Refused(Refusal::LeftOut(witness))));
    village.liar = None;
    let (place, order) = village.draw(village.ticket(7, 2, 8)).unwrap();
    let (setter, builder) = (village.at(&place), village.builder(&(place, order.clone())));
    village.liar = Some((setter, builder));
    let refused = village.select((place, order)).err();
    assert_eq!(refused, Some(Output::Refused(Refusal::LeftOut(builder))));
}

#[test]
fn one_builder_cannot_drop_a_candidate() {
    let mut village = village();
    let list = selected(&mut village, 7, 8);
    let mut again = self::village();
    let builder = list.endorsement.signatures[1].0.claimed_leaf().id;
    again.liar = Some((builder, list.actors[0].id));
    assert_eq!(selected(&mut again, 7, 8).actors, list.actors);
}

#[test]
fn a_setter_that_stops_has_used_the_draw_up() {
    let mut village = village();
    let drawn = village.draw(village.ticket(7, 1, 8)).unwrap();
    village.tamper = Box::new(|_, message| !matches!(message, Message::Report(_)));
    assert!(matches!(village.select(drawn.clone()), Err(Output::Unanswered(_))));
    village.tamper = Box::new(|_, _| true);
    assert_eq!(village.select(drawn).err(), Some(Output::Refused(Refusal::Sequence)));
}

#[test]
fn without_the_book_of_the_epoch_a_member_takes_no_part() {
    let mut village = village();
    let book = Book::new(&village.rolled.epoch, 8).to_bytes();
    let mut other = book.clone();
    other[15 + 32 + 7] ^= 1;
    let witness = village.witnesses(&village.ticket(7, 1, 8))[0];
    village.people.get_mut(&witness).unwrap().2 = Book::from_bytes(&other).unwrap();
    assert_eq!(village.draw(village.ticket(7, 1, 8)).err(), Some(Output::Refused(Refusal::Book)));
    for length in 0..book.len() {
        assert!(Book::from_bytes(&book[..length]).is_err());
    }
    let entries = [&[0, 0, 0, 2][..], &[7; 36], &[7; 36], &[0; 8]].concat();
    let twice = [&book[..book.len() - 12], &entries[..]].concat();
    assert_eq!(Book::from_bytes(&twice), Err(BookError::Entries));
}

#[test]
fn who_is_barred_by_evidence_has_no_draws_and_is_no_actor() {
    let mut village = village();
    let list = selected(&mut village, 7, 8);
    let mut again = self::village();
    let (barred, other) = (list.actors[0], list.actors[1]);
    let mut seen = Witnessed::default();
    let evidence = {
        let identity = &again.people[&barred.id].0;
        let pledges =
            [village.ticket(7, 1, 8), village.ticket(7, 1, 9)].map(|ticket| ticket.pledge(&empty()));
        let evidence = pledges.map(|pledge| seen.note(&identity.public(), pledge, pledge.sign(identity)));
        evidence.into_iter().flatten().next().unwrap()
    };
    for (_, _, book) in again.people.values_mut() {
        assert!(book.bar(&barred, &evidence) && !book.bar(&other, &evidence));
    }
    let actors = ids(&selected(&mut again, 7, 8).actors);
    assert_eq!((actors[0], actors.contains(&barred.id)), (other.id, false));
    let trigger = again.people.keys().position(|id| *id == barred.id).unwrap();
    assert_eq!(again.draw(again.ticket(trigger, 1, 8)).err(), Some(Output::Refused(Refusal::Signer)));
}

#[test]
fn evidence_is_found_whatever_others_and_other_kinds_of_pledges_came_before() {
    let village = village();
    let mut people = village.people.values().map(|(identity, ..)| identity);
    let (noisy, cheat) = (people.next().unwrap(), people.next().unwrap());
    let mut seen = Witnessed::default();
    for sequence in 0..5_000 {
        let pledge = village.ticket(0, sequence, 8).pledge(&empty());
        assert_eq!(seen.note(&noisy.public(), pledge, [0; 64]), None);
    }
    let [first, second] = [8, 9].map(|actors| village.ticket(1, 1, actors).pledge(&empty()));
    let other = Pledge { slot: Slot { kind: Kind::ACTOR_LIST, ..first.slot }, ..first };
    for pledge in [other, first] {
        assert_eq!(seen.note(&cheat.public(), pledge, pledge.sign(cheat)), None);
    }
    assert!(seen.note(&cheat.public(), second, second.sign(cheat)).is_some());
    // Once is enough.
    assert_eq!(seen.note(&cheat.public(), second, second.sign(cheat)), None);
}

/// With α = 1e-2 a region fixed beforehand is safe with one signer in one block of 512. Who may choose the seed finds
/// such a block in no time.
#[test]
fn a_list_cannot_be_made_alone_by_looking_for_a_seed() {
    let mut village = Village::new(300, 4, 1e-2).unwrap();
    let genuine = selected(&mut village, 7, 4);
    let resigned = signature(&genuine, &village, &genuine.endorsement.signatures[0].0);
    assert_eq!(resigned, genuine.endorsement.signatures[0].1, "as the page says");
    let forger = village.rolled.members.leaves()[20];
    let mut forged = genuine;
    let bits = 9;
    forged.seed = (0u64..)
        .map(|number| hash(b"a seed", &[&number.to_be_bytes()]))
        .find(|seed| Block::around(&place(seed), bits).contains(&forger.id))
        .unwrap();
    let path = village.rolled.members.path(&forger.id).unwrap();
    forged.endorsement.bits = bits;
    forged.endorsement.signatures = vec![(path.clone(), [0; 64])];
    forged.endorsement.signatures[0].1 = signature(&forged, &village, &path);
    assert_eq!(forged.verify(&village.issuer).err(), Some(ListError::TooFew { k: 1, bits }));
}

#[test]
fn neither_lists_for_ever_nor_any_number_of_actors_can_be_asked_for() {
    let mut village = village();
    let facts = *village.rolled.epoch.facts();
    let last = facts.ends().plus_secs(GRACE_SECS);
    let asks = |actors, expires| Terms { manifest: [5; 32], actors, role: 0, expires };
    let cases = [
        (asks(8, last.plus_secs(1)), Refusal::Lasting),
        (asks(0, last), Refusal::Actors { most: 150 }),
        (asks(151, last), Refusal::Actors { most: 150 }),
    ];
    let genuine = selected(&mut village, 7, 8);
    for (terms, refusal) in cases {
        let mut ticket = village.ticket(7, 2, 8);
        ticket.terms = terms;
        assert_eq!(village.draw(ticket).err(), Some(Output::Refused(refusal)));
        let mut list = genuine.clone();
        list.ticket.terms = terms;
        assert_eq!(list.verify(&village.issuer).err(), Some(ListError::Ticket(refusal)));
        // The witnesses do not rely on the trigger.
        village.tamper = Box::new(move |_, message| {
            if let Message::Propose(proposal) = message {
                proposal.ticket.terms = terms;
            }
            true
        });
        let trigger = village.ticket(7, 2, 8).trigger;
        village.people.get_mut(&trigger).unwrap().2 = Book::new(&village.rolled.epoch, 8);
        assert_eq!(village.draw(village.ticket(7, 2, 8)).err(), Some(Output::Refused(refusal)));
        village.tamper = Box::new(|_, _| true);
    }
    let ticket = Ticket { terms: asks(150, last), ..village.ticket(7, 3, 8) };
    village.draw(ticket).unwrap();
}

#[test]
fn all_members_have_regions_of_one_size() {
    let village = village();
    let half = village.rolled.members.range(&Block::around(&NodeId::from_bytes([0; 32]), 1)).unwrap();
    let refused = View::new(village.rolled.epoch.clone(), half).err();
    assert_eq!(refused, Some(Refusal::Region));
    let mut list = selected(&mut { village }, 7, 8);
    list.region_bits = 1;
    let issuer = list.ticket.network;
    assert_eq!(list.verify(&issuer).err(), Some(ListError::Actors));
}

#[test]
fn a_builder_whose_report_was_changed_does_not_sign() {
    let mut village = village();
    let drawn = village.draw(village.ticket(7, 1, 8)).unwrap();
    village.tamper = Box::new(|_, message| {
        if let Message::Reports(reports) = message {
            let everybody: Vec<NodeId> = (0..=255).map(|byte| NodeId::from_bytes([byte; 32])).collect();
            reports.fill(everybody);
        }
        true
    });
    assert_eq!(village.select(drawn).err(), Some(Output::Refused(Refusal::Report)));
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
    assert!(list.to_bytes() == kept, "the list that this village makes");
}

#[test]
fn the_kept_messages_of_the_fuzzer_are_messages() {
    for kept in [PROPOSAL, REPORT, REMINDER] {
        assert_eq!(Message::from_bytes(kept).unwrap().to_bytes(), kept);
    }
    assert!(matches!(Message::from_bytes(PROPOSAL), Ok(Message::Propose(_))));
    assert_eq!(Message::from_bytes(&[0]), Err(MessageError::Kind(0)));
    assert_eq!(Message::from_bytes(&vec![6; MAX_MESSAGE_BYTES + 1]), Err(MessageError::TooLarge));
    assert_eq!(Message::from_bytes(&[6, 255, 255]), Err(MessageError::TooLarge));
    for length in 0..REMINDER.len() {
        assert!(Message::from_bytes(&REMINDER[..length]).is_err());
    }
    let Ok(Message::Remind(mut reminder)) = Message::from_bytes(REMINDER) else { panic!() };
    reminder.stalled = vec![reminder.stalled[0].clone(); MAX_STALLED + 1];
    let many = Message::Remind(reminder).to_bytes();
    assert_eq!(Message::from_bytes(&many), Err(MessageError::TooLarge));
}

proptest! {
    #[test]
    fn no_bytes_break_a_reader(mut bytes: Vec<u8>) {
        kith_actors::fuzz::fuzz_list(&bytes);
        kith_actors::fuzz::fuzz_book(&bytes);
        kith_actors::fuzz::fuzz_message(&bytes);
        bytes.insert(0, bytes.len() as u8 % 19);
        kith_actors::fuzz::fuzz_message(&bytes);
    }

    #[test]
    fn no_change_of_a_message_breaks_the_reader(at in 0usize..4096, to: u8) {
        for mut bytes in [PROPOSAL.to_vec(), REMINDER.to_vec()] {
            let at = at % bytes.len();
            bytes[at] = to;
            kith_actors::fuzz::fuzz_message(&bytes);
        }
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
    let mut village = Village::new(1_000, 10, 1e-12).unwrap();
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
