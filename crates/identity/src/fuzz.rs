//! Entry points for fuzzing every parser of outside bytes: each asserts what must hold of whatever it accepts.
//! Ordinary functions, called by the property tests too.

use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, Writer};
use rustls::pki_types::CertificateDer;

use crate::contacts::{Contact, Hint, Petname};
use crate::invitation::{Invitation, Message, Ticket};
use crate::membership::pledge::{Evidence, VerifiedEvidence};
use crate::membership::tree::{Leaf, Path, Range, Root};
use crate::membership::{Enrolment, Epoch, Member, MemberLeaf, Request, RevokedLeaf};
use crate::record::{Kind, MAX_RECORDS, MAX_SIGNED_BYTES, RecordSet};
use crate::tls::{leaf_key, peer_key};
use crate::vrf::{self, PROOF_BYTES, Proof};
use crate::{Address, Authority, Identity, Ni, PublicKey, Relay, Succession, fqdn, url};

/// Any bytes as JSON of a record set.
pub fn fuzz_json(data: &[u8]) {
    if let Ok(set) = RecordSet::from_json(data) {
        check_set(&set);
    }
}

/// Any bytes as the binary form of a record set.
pub fn fuzz_binary(data: &[u8]) {
    if let Ok(set) = RecordSet::from_bytes(data) {
        assert_eq!(set.to_bytes(), data);
        check_set(&set);
    }
}

/// Any bytes, cut at newlines, as TXT records of a record set.
pub fn fuzz_txt(data: &[u8]) {
    if let Ok(set) = RecordSet::from_txt(data.split(|byte| *byte == b'\n')) {
        check_set(&set);
    }
}

/// Any bytes as a statement of succession, in its binary form and as text.
pub fn fuzz_succession(data: &[u8]) {
    if let Ok(statement) = Succession::from_bytes(data) {
        assert_eq!(statement.to_bytes(), data);
        assert_eq!(statement.to_string().parse(), Ok(statement.clone()));
        if let Ok(verified) = statement.clone().verify(&statement.claimed_old()) {
            assert_ne!(verified.old(), verified.successor());
            assert_eq!(verified.to_record().map(|record| record.value().to_vec()), Ok(data.to_vec()));
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        same::<Succession>(text, true);
    }
}

/// Any text as names, addresses, relays, hints and petnames.
pub fn fuzz_names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ni) = text.parse::<Ni>() {
        let again = ni.to_string().parse::<Ni>();
        assert_eq!(again.as_ref(), Ok(&ni));
        assert_eq!(again.ok().and_then(|ni| ni.authority), ni.authority);
        if let Some(authority) = &ni.authority {
            let _ = (fqdn(&ni.fingerprint, authority), url(&ni.fingerprint, authority));
        }
    }
    same::<Authority>(text, false);
    same::<Address>(text, true);
    same::<Relay>(text, false);
    same::<Hint>(text, false);
    same::<Petname>(text, true);
    if let Ok(address) = text.parse::<Address>() {
        let _ = address.reach();
    }
}

/// Any bytes as a public key, a certificate, a key file without passphrase, and a row of the contacts.
pub fn fuzz_keys(data: &[u8]) {
    if let Ok(key) = PublicKey::from_spki(data) {
        assert_eq!(key.spki(), data);
    }
    let _ = peer_key(Some(&[data.into()]));
    if let Ok(pem) = std::str::from_utf8(data) {
        let _ = Identity::from_pem(pem, None);
    }
    if let Ok(contact) = serde_json::from_slice::<Contact>(data) {
        let row = serde_json::to_vec(&contact).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<Contact>(&row).ok(), Some(contact));
    }
}

/// Any text as an invitation's link, and any bytes as a message between inviter and joiner.
pub fn fuzz_invitation(data: &[u8]) {
    if let Ok(message) = Message::from_bytes(data) {
        let bytes = message.to_bytes();
        assert_eq!(Message::from_bytes(&bytes).map(|again| again.to_bytes()), Ok(bytes.clone()));
        assert_eq!(bytes, data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(invitation) = text.parse::<Invitation>() {
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(*invitation.link(), compact.to_ascii_lowercase());
        let again = invitation.qr_text().parse::<Invitation>();
        assert_eq!(again.map(|again| again.link()), Ok(invitation.link()));
    }
    let _ = text.parse::<Ticket>();
}

/// Any bytes as a certificate, a request for one, a row of the issuer's book, the statement of an epoch, evidence, and
/// proofs about members and revocations.
pub fn fuzz_membership(data: &[u8]) {
    if let Ok(member) = Member::from_bytes(data) {
        assert_eq!(member.to_bytes(), data);
        let _ = member.pledge().message();
    }
    if let Ok(enrolment) = Enrolment::from_bytes(data) {
        assert_eq!(enrolment.to_bytes(), data);
    }
    if let Ok(request) = Request::from_bytes(data) {
        assert_eq!(request.to_bytes(), data);
    }
    if let Ok(epoch) = Epoch::from_bytes(data) {
        assert_eq!(epoch.to_bytes(), data);
        if let Ok(verified) = epoch.clone().verify(&epoch.claimed_network()) {
            assert_eq!(verified.network().id(), epoch.claimed_network());
        }
    }
    if let Ok(evidence) = Evidence::from_bytes(data) {
        assert_eq!(evidence.to_bytes(), data);
        if let Ok(verified) = evidence.verify() {
            assert_eq!(VerifiedEvidence::as_evidence(&verified).to_bytes(), data);
        }
    }
    check_proofs::<MemberLeaf>(data);
    check_proofs::<RevokedLeaf>(data);
}

/// Any bytes as a key of the verifiable random function and a proof by it, about what comes after them.
pub fn fuzz_vrf(data: &[u8]) {
    let mut reader = Reader::new(data);
    let (Ok(key), Ok(proof)) = (reader.array(), reader.array::<PROOF_BYTES>()) else { return };
    let proof = Proof::from_bytes(proof);
    if let Ok(key) = vrf::Key::from_bytes(&key) {
        let output = key.verify(reader.rest(), &proof);
        assert!(output.is_err() || output == proof.claimed_output());
    }
}

fn check_proofs<L: Leaf + std::fmt::Debug>(data: &[u8]) {
    let root = Root::from_bytes([1; 32]);
    let (mut reader, mut writer) = (Reader::new(data), Writer::new());
    if let Ok(path) = Path::<L>::read(&mut reader) {
        path.write(&mut writer);
        assert_eq!(writer.finish(), data[..data.len() - reader.left()]);
        assert!(path.verify(&root).is_err());
    }
    let (mut reader, mut writer) = (Reader::new(data), Writer::new());
    if let Ok(range) = Range::<L>::read(&mut reader) {
        range.write(&mut writer);
        assert_eq!(writer.finish(), data[..data.len() - reader.left()]);
        assert!(range.verify(&root).is_err());
        let _ = range.path(&range.block().first());
    }
}

fn same<T>(text: &str, canonical: bool)
where
    T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    let Ok(value) = text.parse::<T>() else { return };
    let shown = value.to_string();
    assert!(!canonical || shown == text, "{text:?} became {shown:?}");
    assert_eq!(shown.parse().ok(), Some(value), "{text:?} became {shown:?}");
}

fn check_set(set: &RecordSet) {
    let bytes = set.to_bytes();
    assert!(bytes.len() <= MAX_SIGNED_BYTES + 64);
    assert!(set.to_txt().len() <= MAX_RECORDS);
    assert_eq!(RecordSet::from_bytes(&bytes).as_ref(), Ok(set));
    assert_eq!(RecordSet::from_json(&set.to_json()).as_ref(), Ok(set));
    assert_eq!(RecordSet::from_txt(set.to_txt().iter().rev()).as_ref(), Ok(set));
    for kind in [Kind::VERSION, Kind::TTL, Kind::TIMESTAMP, Kind::PUBKEY] {
        assert_eq!(set.records(&kind).count(), 1);
    }
}

/// Any bytes as a certificate for DTLS: none is taken that its identity did not sign, and none at another time.
pub fn fuzz_leaf(data: &[u8]) {
    // Three days, among them that of the leaf in the corpus.
    for at in [Timestamp(0), Timestamp(1_790_000_000), Timestamp::MAX] {
        if let Ok(key) = leaf_key(data, at) {
            assert!(
                leaf_key(data, at.plus_secs(2 * 86_400)).is_err(),
                "a leaf of {} lives on",
                key.fingerprint()
            );
            assert!(
                peer_key(Some(&[CertificateDer::from(data)])).is_err(),
                "a leaf passes for a certificate of TLS"
            );
        }
    }
}
