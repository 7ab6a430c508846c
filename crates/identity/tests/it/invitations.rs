//! Links, proofs and messages of invitations.

use kith_identity::invitation::{
    Binding, Introduction, Invitation, InvitationError, MAX_PLACES, Message, Proof, Role, Secret, Terms,
    Ticket,
};
use kith_identity::{Address, Fingerprint, Ni, fuzz};
use kith_sansio::{SeededRng, Timestamp};
use proptest::prelude::*;

/// The vector of `docs/protocol-invite.md`.
const VECTOR: &str = "kith:aeawaaaaaairceirceirceirceirceirceirceirceirceirceirceirceircirceirceirceiztgmztgmztgmztgmztgmztgmzqwzlymfwxa3dffzxxezycapaaaaqbdpgqmiabbw4aaaaaaaaaaaaaaaaaaai3z3vqjemp";
const JOINER_PROOF: &str = "3e73afa5b0c4861730371524c588725ad2dda2e8d01d67f37b139d14f8054109";
const INVITER_PROOF: &str = "d9fcdcf8160e0ec95b56074295f840b41de7ee0e333f7ff196382d487f40fe40";

fn terms(authority: Option<&str>, addresses: &[&str], offers: bool) -> Terms {
    let inviter = Ni::new(Fingerprint::from_bytes([0x11; 32]), authority.map(|name| name.parse().unwrap()));
    let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
    Terms { inviter, addresses, expires: Timestamp(0x6000_0000), offers }
}

fn vector() -> Invitation {
    let terms = terms(
        Some("example.org"),
        &["quic://192.0.2.1:7117", "tcp://192.0.2.1:7117", "quic://[2001:db8::1]:7118"],
        true,
    );
    Invitation::with(&terms, Ticket::from_bytes([0x22; 8]), Secret::from_bytes([0x33; 16])).unwrap()
}

fn binding() -> Binding {
    Binding {
        ticket: Ticket::from_bytes([0x22; 8]),
        exported: [0x44; 32],
        joiner: Fingerprint::from_bytes([0x55; 32]),
        inviter: Fingerprint::from_bytes([0x11; 32]),
    }
}

/// The bytes of a proof, which only travel inside messages.
fn bytes(proof: Proof) -> String {
    let message = Message::Welcome { proof, who: Introduction::default() }.to_bytes();
    data_encoding::HEXLOWER.encode(&message[1..33])
}

#[test]
fn the_vector_of_the_protocol_page() {
    assert_eq!(*vector().link(), VECTOR);
    let read: Invitation = VECTOR.parse().ok().unwrap();
    assert_eq!(read.inviter(), vector().inviter());
    assert_eq!(read.inviter().authority.unwrap().to_string(), "example.org");
    assert_eq!(read.addresses(), vector().addresses());
    assert_eq!(read.addresses().len(), 3);
    assert_eq!((read.expires(), read.offers()), (Timestamp(0x6000_0000), true));
    assert_eq!(read.ticket(), Ticket::from_bytes([0x22; 8]));
    assert_eq!(read.secret().as_bytes(), &[0x33; 16]);
    let secret = read.secret();
    assert_eq!(bytes(secret.prove(Role::Joiner, &binding())), JOINER_PROOF);
    assert_eq!(bytes(secret.prove(Role::Inviter, &binding())), INVITER_PROOF);
    let page = include_str!("../../../../docs/protocol-invite.md");
    for stated in [VECTOR, JOINER_PROOF, INVITER_PROOF] {
        let stated_there = page.split_whitespace().collect::<String>().contains(stated);
        assert!(stated_there, "{stated} is not on the page");
    }
}

#[test]
fn a_link_survives_wrapping_scanning_and_copying() {
    let link = vector().link();
    let wrapped: String = link
        .chars()
        .enumerate()
        .flat_map(|(at, c)| if at % 40 == 39 { vec![c, '\r', '\n', ' '] } else { vec![c] })
        .collect();
    for text in [wrapped, format!("  {}\n", *link), vector().qr_text().to_string()] {
        assert_eq!(text.parse::<Invitation>().ok().unwrap().link(), link);
    }
    let alphanumeric = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase() || c == ':';
    assert!(vector().qr_text().chars().all(alphanumeric));
}

#[test]
fn a_wrong_or_missing_character_anywhere_is_noticed_without_asking_anybody() {
    let link = vector().link();
    for at in 0..link.len() {
        let (head, tail) = link.split_at(at);
        assert!(head.parse::<Invitation>().is_err(), "cut at {at}");
        let other = if tail.starts_with('a') { 'b' } else { 'a' };
        let altered = format!("{head}{other}{}", &tail[1..]);
        assert!(altered.parse::<Invitation>().is_err(), "altered at {at}");
    }
    let refusal = |text: &str| text.parse::<Invitation>().err();
    assert_eq!(refusal("ni:///sha3-256;x"), Some(InvitationError::Scheme));
    assert_eq!(refusal("kith:"), Some(InvitationError::Alphabet));
    assert_eq!(refusal("kith:1!"), Some(InvitationError::Alphabet));
    assert_eq!(refusal(&"k".repeat(5000)), Some(InvitationError::TooLong));
}

#[test]
fn an_invitation_without_a_way_to_the_inviter_is_none() {
    let nowhere = Invitation::new(&terms(None, &[], false), &mut SeededRng::new(1)).err();
    assert_eq!(nowhere, Some(InvitationError::Nowhere));
    assert!(Invitation::new(&terms(None, &["tcp://192.0.2.1:0"], false), &mut SeededRng::new(1)).is_err());
    let many: Vec<Address> =
        (1..=200).map(|port| format!("tcp://192.0.2.1:{port}").parse().unwrap()).collect();
    let terms = Terms { addresses: many.clone(), ..terms(None, &[], false) };
    let kept = Invitation::new(&terms, &mut SeededRng::new(1)).ok().unwrap();
    assert_eq!(kept.addresses(), many[..MAX_PLACES]);
    assert!(kept.link().parse::<Invitation>().is_ok());
}

#[test]
fn a_proof_holds_for_one_role_one_session_and_one_pair_of_keys() {
    let secret = Secret::from_bytes([0x33; 16]);
    let proof = secret.prove(Role::Joiner, &binding());
    assert!(secret.is_proved_by(&proof, Role::Joiner, &binding()));
    assert!(!secret.is_proved_by(&proof, Role::Inviter, &binding()));
    let other = Fingerprint::from_bytes([0x66; 32]);
    for altered in [
        Binding { ticket: Ticket::from_bytes([0x23; 8]), ..binding() },
        Binding { exported: [0x45; 32], ..binding() },
        Binding { joiner: other, ..binding() },
        Binding { inviter: other, ..binding() },
        Binding { joiner: binding().inviter, inviter: binding().joiner, ..binding() },
    ] {
        assert!(!secret.is_proved_by(&proof, Role::Joiner, &altered), "{altered:?}");
    }
    for bit in 0..128 {
        let mut bytes = [0x33; 16];
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!Secret::from_bytes(bytes).is_proved_by(&proof, Role::Joiner, &binding()));
    }
}

fn address() -> impl Strategy<Value = Address> {
    let socket = prop_oneof![
        (any::<[u8; 4]>(), 1u16..).prop_map(|(ip, port)| (std::net::IpAddr::from(ip), port)),
        (any::<[u8; 16]>(), 1u16..).prop_map(|(ip, port)| (std::net::IpAddr::from(ip), port)),
    ];
    (prop_oneof![Just("tcp"), Just("quic")], socket)
        .prop_map(|(transport, socket)| Address::new(transport.parse().unwrap(), socket.into()))
}

proptest! {
    #[test]
    fn a_link_is_read_as_it_was_written(
        addresses in proptest::collection::vec(address(), 0..12),
        authority in proptest::option::of("[a-z]{1,20}\\.[a-z]{2,8}(:[1-9][0-9]{0,3})?"),
        expires: u32,
        offers: bool,
        seed: u64,
    ) {
        let terms = Terms {
            addresses,
            expires: Timestamp(expires.into()),
            ..terms(authority.as_deref(), &[], offers)
        };
        if let Ok(invitation) = Invitation::new(&terms, &mut SeededRng::new(seed)) {
            let read: Invitation = invitation.link().parse().ok().unwrap();
            prop_assert_eq!(read.link(), invitation.link());
            prop_assert_eq!(read.inviter().authority, terms.inviter.authority);
            prop_assert_eq!(read.addresses(), invitation.addresses());
            prop_assert_eq!(read.expires(), terms.expires);
            prop_assert_eq!(read.ticket().to_string().parse(), Ok(invitation.ticket()));
            fuzz::fuzz_invitation(read.qr_text().as_bytes());
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written(
        name in proptest::option::of("[a-zA-Zäß日]{1,64}"),
        addresses in proptest::collection::vec(address(), 0..12),
        seed: u64,
    ) {
        let secret = Secret::random(&mut SeededRng::new(seed));
        let who = Introduction {
            name: name.map(|name| name.parse().unwrap()),
            authority: Some("example.org:8443".parse().unwrap()),
            addresses,
        };
        let ticket = Ticket::random(&mut SeededRng::new(seed ^ 1));
        let proof = secret.prove(Role::Joiner, &binding());
        let messages = [
            Message::Join { ticket, proof, who: who.clone() },
            Message::Welcome { proof, who: who.clone() },
            Message::Refused,
            Message::Stored,
            Message::Seen,
        ];
        for message in messages {
            let bytes = message.to_bytes();
            fuzz::fuzz_invitation(&bytes);
            let read = Message::from_bytes(&bytes).unwrap();
            prop_assert_eq!(read.to_bytes(), bytes.clone());
            if let Message::Join { proof, who: read, .. } = read {
                prop_assert_eq!(&read.name, &who.name);
                prop_assert!(secret.is_proved_by(&proof, Role::Joiner, &binding()));
            }
            for cut in 0..bytes.len() {
                prop_assert!(Message::from_bytes(&bytes[..cut]).is_err());
            }
            prop_assert!(Message::from_bytes(&[bytes, vec![0]].concat()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(data: Vec<u8>, kind in 0u8..7) {
        fuzz::fuzz_invitation(&data);
        fuzz::fuzz_invitation(&[vec![kind], data.clone()].concat());
        let text = data_encoding::BASE32_NOPAD.encode(&data);
        fuzz::fuzz_invitation(format!("kith:{text}").as_bytes());
    }
}
