//! A network with an issuer: real certificates and record sets, and messages as bytes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use kith_dht::node::{Input, Output};
use kith_dht::{Body, Card, Config, Contact, Gate, Message, Node, Parcel, Value};
use kith_identity::Identity;
use kith_identity::membership::{
    Adopted, Block, Issuer, Member, Members, MemoryLedger, NodeId, Request, Rolled, Terms, VerifiedMember,
};
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_sansio::{SeededRng, Span, Timestamp};
use kith_vnet::{Effect, Faults, Wiring, World};

/// When worlds begin.
const BEGINNING: Timestamp = Timestamp(1_767_225_600);

/// What goes over a connection: who speaks, as the connection proved, and bytes.
#[derive(Clone)]
struct Packet {
    from: Card,
    bytes: Bytes,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// The shells of all nodes: they write, read and verify.
struct Shells {
    gate: Members,
    cards: BTreeMap<NodeId, Card>,
    refused: usize,
}

impl Wiring for Shells {
    type Machine = Node;
    type Address = NodeId;
    type Message = Packet;
    type Event = Output;

    fn input(&mut self, from: NodeId, packet: Packet) -> Input {
        let contact = self.gate.contact(&packet.from, BEGINNING);
        let message =
            Message::read(&packet.bytes).and_then(|message| message.admit(&mut self.gate, BEGINNING));
        match (contact, message) {
            (Some(from), Ok(message)) => Input::Heard { from, message },
            _ => {
                self.refused += 1;
                Input::Unreachable(from)
            }
        }
    }

    fn effect(&mut self, at: &NodeId, output: Output) -> Effect<Shells> {
        match output {
            Output::Send { to, message } => {
                let packet = Packet { from: self.cards[at].clone(), bytes: message.to_bytes().into() };
                Effect::Send(to.id, packet)
            }
            event => Effect::Event(event),
        }
    }
}

fn identity(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

fn admit(issuer: &mut Issuer<MemoryLedger>, joining: &Identity) -> VerifiedMember {
    let network = issuer.network().id();
    let request = Request::sign(joining, &network).verify(&network).unwrap();
    issuer.admit(&request, BEGINNING).unwrap()
}

fn contact(member: &VerifiedMember, number: usize) -> Contact {
    Contact::of(member, ([10, 0, number as u8, 1], 7117).into())
}

fn record_set(identity: &Identity, at: Timestamp) -> VerifiedRecordSet {
    let draft = Draft { addresses: vec!["quic://192.0.2.1:4433".parse().unwrap()], ..Draft::default() };
    draft.sign(identity, at).unwrap()
}

struct Net {
    identities: Vec<Identity>,
    contacts: Vec<Contact>,
    issuer: Issuer<MemoryLedger>,
    rolled: Rolled,
    world: World<Shells>,
}

/// A network of so many members, all of whom have joined.
fn settled(count: usize) -> Net {
    let mut issuer = Issuer::new(identity(1 << 40), Terms::default(), MemoryLedger::default());
    let identities: Vec<_> = (0..count as u64).map(identity).collect();
    let members: Vec<_> = identities.iter().map(|identity| admit(&mut issuer, identity)).collect();
    let contacts: Vec<_> = members.iter().enumerate().map(|(number, m)| contact(m, number)).collect();
    let rolled = issuer.roll(BEGINNING, |_, _, _| [7; 32]).unwrap();
    let card =
        |contact: &Contact| Card { certificate: contact.certificate.clone(), address: contact.address };
    let cards = contacts.iter().map(|contact| (contact.id, card(contact))).collect();
    let gate = Members::new(rolled.epoch.clone(), 100);
    let mut world = World::new(1, Faults::default(), Shells { gate, cards, refused: 0 });
    for contact in &contacts {
        let config = Config { region: 8, bucket: 4, ..Config::default() };
        world.start(&contact.id, Node::new(contact.clone(), config, rolled.epoch.facts().members));
        world.input(&contact.id, Input::Join(vec![contacts[0].clone()]));
        world.run_until(world.now() + Span::secs(2));
    }
    world.run_until(world.now() + Span::secs(60));
    assert_eq!(world.wiring().refused, 0);
    Net { identities, contacts, issuer, rolled, world }
}

#[test]
fn a_record_set_is_found_by_the_fingerprint_alone() {
    let mut net = settled(24);
    let set = record_set(&net.identities[3], BEGINNING);
    net.world.input(&net.contacts[3].id, Input::Put { op: 1, value: Value::of(&set) });
    net.world.run_until(net.world.now() + Span::secs(10));
    let key = kith_dht::record_set_key(&net.identities[3].fingerprint());
    net.world.input(&net.contacts[20].id, Input::Get { op: 2, key });
    net.world.run_until(net.world.now() + Span::secs(10));
    let events: Vec<_> = net.world.events().iter().map(|(.., event)| event.clone()).collect();
    assert!(events.contains(&Output::Stored { op: 1, nodes: 20 }));
    assert!(events.contains(&Output::Got { op: 2, value: Some(Value::of(&set)) }));
}

#[test]
fn the_member_root_names_whom_a_node_has_not_heard_of() {
    let mut net = settled(24);
    let own = net.contacts[5].id;
    let block = net.world.machine(&own).unwrap().routes().block();
    let range = net.rolled.members.range(&block).unwrap();
    let members: Vec<_> = net.rolled.epoch.block(&range).unwrap().iter().map(|leaf| leaf.id).collect();
    let known = net.world.machine(&own).unwrap().routes().region().len();
    assert_eq!(known + 1, members.len(), "the region is whole");
    let hidden = members.iter().copied().find(|id| *id != own).unwrap();
    let from = net.contacts.iter().find(|contact| contact.id == hidden).unwrap().clone();
    net.world.input(&own, Input::Heard { from, message: Message { id: 0, body: Body::Leave } });
    net.world.input(&own, Input::Roster(members));
    net.world.run_until(net.world.now() + Span::secs(60));
    assert!(net.world.machine(&own).unwrap().routes().find(&hidden).is_some());
    assert_ne!(block, Block::WHOLE);
}

#[test]
fn who_has_no_valid_certificate_is_let_in_nowhere() {
    let mut net = settled(4);
    let good = net.contacts[1].clone();
    let card =
        |certificate: &[u8]| Card { certificate: Bytes::copy_from_slice(certificate), address: good.address };
    let mut gate = Members::new(net.rolled.epoch.clone(), 100);
    assert_eq!(gate.contact(&card(&good.certificate), BEGINNING), Some(good.clone()));
    // Every byte counts.
    for place in 0..good.certificate.len() {
        let mut bytes = good.certificate.to_vec();
        bytes[place] ^= 1;
        assert_eq!(gate.contact(&card(&bytes), BEGINNING), None, "byte {place}");
    }
    let ends =
        Member::from_bytes(&good.certificate).unwrap().verify(net.issuer.network(), BEGINNING).unwrap();
    assert_eq!(gate.contact(&card(&good.certificate), ends.not_after()), None, "remembered, but expired");
    let mut other = Issuer::new(identity(77), Terms::default(), MemoryLedger::default());
    let foreign = admit(&mut other, &net.identities[2]);
    assert_eq!(gate.contact(&card(&foreign.as_member().to_bytes()), BEGINNING), None);
    net.issuer.revoke(&good.fingerprint, BEGINNING).unwrap();
    let rolled = net.issuer.roll(BEGINNING, |_, _, _| [7; 32]).unwrap();
    assert_eq!(gate.adopt(rolled.epoch), Ok(Adopted::Newest));
    gate.revoke(&rolled.revoked.range(&Block::WHOLE).unwrap()).unwrap();
    assert_eq!(gate.contact(&card(&good.certificate), BEGINNING), None);
}

#[test]
fn a_value_at_another_key_or_with_a_changed_byte_is_refused() {
    let mut gate = Members::new(settled(2).rolled.epoch, 100);
    let value = Value::of(&record_set(&identity(9), BEGINNING));
    let good = Parcel { kind: value.kind, key: value.key, bytes: value.bytes.clone() };
    assert_eq!(gate.value(&good, BEGINNING), Some(value.clone()));
    for place in 0..value.bytes.len() {
        let mut bytes = value.bytes.to_vec();
        bytes[place] ^= 1;
        assert_eq!(gate.value(&Parcel { bytes: bytes.into(), ..good.clone() }, BEGINNING), None);
    }
    let elsewhere = Parcel { key: NodeId::from_bytes([1; 32]), ..good.clone() };
    assert_eq!(gate.value(&elsewhere, BEGINNING), None);
    assert_eq!(gate.value(&Parcel { kind: 2, ..good.clone() }, BEGINNING), None);
    assert_eq!(gate.value(&good, value.expires), None);
    assert_eq!(gate.value(&Parcel { bytes: Bytes::new(), ..good }, BEGINNING), None);
}
