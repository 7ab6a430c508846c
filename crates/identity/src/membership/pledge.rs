//! Pledges: signatures by which somebody says one thing about something and never another; and the evidence that
//! they did say another, which anybody can check without knowing what it was about.

use std::fmt;

use kith_sansio::wire::{Reader, WireError, Writer};
use sha3::{Digest, Sha3_256};

use super::signature;
use crate::key::SPKI_BYTES;
use crate::{Fingerprint, Identity, KeyError, PublicKey, fingerprint_of_spki};

/// What every pledge starts with when it is signed.
const TAG: &[u8; 17] = b"kithnet pledge v1";
/// What every evidence starts with.
const EVIDENCE_TAG: &[u8; 19] = b"kithnet evidence v1";
/// Length of evidence in bytes.
pub const EVIDENCE_BYTES: usize = EVIDENCE_TAG.len() + SPKI_BYTES + 16 + 32 + 32 + 2 * (32 + 64);

/// Why two signatures show nothing against their signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Not [`EVIDENCE_BYTES`] long, or of another kind or version; how many bytes there are.
    #[error("{0} bytes are no evidence")]
    Form(usize),
    /// The kind is no word.
    #[error("the evidence is of no known form of kind")]
    Kind,
    /// The signer's key cannot be used.
    #[error("the accused key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The two are about different things, so that both may be said.
    #[error("the two statements do not exclude each other")]
    DifferentSlots,
    /// They say the same, or stand in the wrong order.
    #[error("the two statements do not contradict each other in order")]
    NoContradiction,
    /// One of the signatures is not by this key.
    #[error("the accused has not signed both statements")]
    Signature,
}

/// What sort of thing a pledge is about: a word of at most 16 letters and hyphens, padded with blanks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind([u8; 16]);

/// What a pledge is about. Whoever signs one content for it must never sign another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    /// What sort of thing.
    pub kind: Kind,
    /// In which network.
    pub network: Fingerprint,
    /// Which one of them: a number, or a hash where numbers are not enough.
    pub key: [u8; 32],
}

/// A slot and the one thing that is said about it: `"kithnet pledge v1" ‖ 16 bytes kind ‖ 32 bytes network ‖ 32 bytes
/// key ‖ 32 bytes hash of the content`, which is what is signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pledge {
    /// What it is about.
    pub slot: Slot,
    /// The hash of what is said.
    pub content: [u8; 32],
}

/// Two pledges of one signer that contradict each other. **Not verified**: anybody can write this down.
///
/// ```text
/// "kithnet evidence v1" ‖ 44 bytes SPKI ‖ 16 bytes kind ‖ 32 bytes network ‖ 32 bytes key
///   ‖ 32 bytes content ‖ 64 bytes signature ‖ 32 bytes content ‖ 64 bytes signature
/// ```
///
/// The lower content comes first.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    spki: [u8; SPKI_BYTES],
    slot: Slot,
    statements: [([u8; 32], [u8; 64]); 2],
}

/// Evidence whose signatures hold: its signer has broken a pledge, or has lost the key to somebody who did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedEvidence {
    evidence: Evidence,
    signer: PublicKey,
}

impl Kind {
    /// Certificates, by serial number.
    pub const MEMBER: Kind = Kind(*b"member          ");
    /// Statements of epochs, by number.
    pub const EPOCH: Kind = Kind(*b"epoch           ");
    /// Tickets of a selection of actors, by the hash of the draw.
    pub const TICKET: Kind = Kind(*b"ticket          ");
    /// Lists of actors, by the hash of the draw and of how many regions were left.
    pub const ACTOR_LIST: Kind = Kind(*b"actor-list      ");

    /// The kind with these bytes: lower-case letters and hyphens, then blanks.
    pub const fn from_bytes(bytes: [u8; 16]) -> Result<Kind, EvidenceError> {
        let mut at = 0;
        while at < 16 && matches!(bytes[at], b'a'..=b'z' | b'-') {
            at += 1;
        }
        let word = at;
        while at < 16 && bytes[at] == b' ' {
            at += 1;
        }
        if word > 0 && at == 16 { Ok(Kind(bytes)) } else { Err(EvidenceError::Kind) }
    }
}

impl Slot {
    /// The slot of a thing that has a number.
    pub fn numbered(kind: Kind, network: Fingerprint, number: u64) -> Slot {
        let mut key = [0; 32];
        key[24..].copy_from_slice(&number.to_be_bytes());
        Slot { kind, network, key }
    }
}

impl Pledge {
    /// The pledge to say this about `slot` and nothing else: its content is sha3-256 over `statement`.
    pub fn new(slot: Slot, statement: &[u8]) -> Pledge {
        Pledge { slot, content: Sha3_256::digest(statement).into() }
    }

    /// Signs it.
    pub fn sign(&self, signer: &Identity) -> [u8; 64] {
        signer.sign(&self.message())
    }

    /// Checks a signature under ZIP-215.
    pub fn verify(&self, signer: &PublicKey, signature: &[u8; 64]) -> Result<(), KeyError> {
        signature::verify(signer, &self.message(), signature)
    }

    /// What is signed, for a [`signature::Batch`].
    pub fn message(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(TAG);
        self.slot.write(&mut writer);
        writer.bytes(&self.content);
        writer.finish()
    }
}

impl Slot {
    fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.kind.0).bytes(self.network.as_bytes()).bytes(&self.key);
    }
}

impl Evidence {
    /// Reads evidence; refuses every form but the one of [`Evidence::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Evidence, EvidenceError> {
        let form = |_: WireError| EvidenceError::Form(bytes.len());
        let mut reader = Reader::new(bytes);
        if reader.array::<{ EVIDENCE_TAG.len() }>().map_err(form)? != *EVIDENCE_TAG {
            return Err(EvidenceError::Form(bytes.len()));
        }
        let spki = reader.array().map_err(form)?;
        let slot = Slot {
            kind: Kind::from_bytes(reader.array().map_err(form)?)?,
            network: Fingerprint::from_bytes(reader.array().map_err(form)?),
            key: reader.array().map_err(form)?,
        };
        let mut statement = || Ok((reader.array()?, reader.array()?));
        let statements = [statement().map_err(form)?, statement().map_err(form)?];
        reader.finish().map_err(form)?;
        fingerprint_of_spki(&spki)?;
        if statements[0].0 >= statements[1].0 {
            return Err(EvidenceError::NoContradiction);
        }
        Ok(Evidence { spki, slot, statements })
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(EVIDENCE_TAG).bytes(&self.spki);
        self.slot.write(&mut writer);
        for (content, signature) in &self.statements {
            writer.bytes(content).bytes(signature);
        }
        writer.finish()
    }

    /// Makes sure that one key has signed both.
    pub fn verify(self) -> Result<VerifiedEvidence, EvidenceError> {
        let signer = PublicKey::from_spki(&self.spki)?;
        for (content, signature) in &self.statements {
            let pledge = Pledge { slot: self.slot, content: *content };
            pledge.verify(&signer, signature).map_err(|_| EvidenceError::Signature)?;
        }
        Ok(VerifiedEvidence { evidence: self, signer })
    }
}

impl VerifiedEvidence {
    /// The evidence that two signed pledges are against their signer.
    pub fn of(
        signer: &PublicKey,
        one: (&Pledge, &[u8; 64]),
        other: (&Pledge, &[u8; 64]),
    ) -> Result<VerifiedEvidence, EvidenceError> {
        if one.0.slot != other.0.slot {
            return Err(EvidenceError::DifferentSlots);
        }
        let mut statements = [one, other].map(|(pledge, signature)| (pledge.content, *signature));
        statements.sort_unstable_by_key(|(content, _)| *content);
        if statements[0].0 == statements[1].0 {
            return Err(EvidenceError::NoContradiction);
        }
        Evidence { spki: signer.spki(), slot: one.0.slot, statements }.verify()
    }

    /// Who has broken a pledge.
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// What it was about.
    pub fn slot(&self) -> &Slot {
        &self.evidence.slot
    }

    /// The evidence without the proof, for a codec or a store.
    pub fn as_evidence(&self) -> &Evidence {
        &self.evidence
    }
}

/// The word, without padding.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0).trim_end())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({} about a {})", crate::key::hash(&self.spki), self.slot.kind)
    }
}
