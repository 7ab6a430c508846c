//! Signatures and certificates behind a trait that counts: SEP2P measures protocols in asymmetric operations.

use sha3::{Digest, Sha3_256};

/// A hash, and what is signed: SHA3-256.
pub type Hash = [u8; 32];

/// A public key.
pub type Key = [u8; 32];

/// A signature.
pub type Signature = [u8; 64];

/// How one node signs, and checks what others signed.
pub trait Scheme {
    /// Signs with the node's own key.
    fn sign(&mut self, statement: &Hash) -> Signature;

    /// Whether `key` signed the statement.
    fn verify(&mut self, key: &Key, statement: &Hash, signature: &Signature) -> bool;

    /// Whether `certificate` says that `key` belongs to a genuine node.
    fn certifies(&mut self, key: &Key, certificate: &Signature) -> bool;
}

/// Asymmetric operations of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Signatures made.
    pub signed: u64,
    /// Signatures checked.
    pub verified: u64,
    /// Certificates checked.
    pub certificates: u64,
}

impl Operations {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.signed + self.verified + self.certificates
    }
}

/// A scheme whose operations are counted.
#[derive(Clone, Debug, Default)]
pub struct Counting<S> {
    pub(crate) scheme: S,
    /// What was done so far.
    pub operations: Operations,
}

impl<S> Counting<S> {
    /// Counts what `scheme` does from now on.
    pub fn new(scheme: S) -> Self {
        Counting { scheme, operations: Operations::default() }
    }
}

impl<S: Scheme> Scheme for Counting<S> {
    fn sign(&mut self, statement: &Hash) -> Signature {
        self.operations.signed += 1;
        self.scheme.sign(statement)
    }

    fn verify(&mut self, key: &Key, statement: &Hash, signature: &Signature) -> bool {
        self.operations.verified += 1;
        self.scheme.verify(key, statement, signature)
    }

    fn certifies(&mut self, key: &Key, certificate: &Signature) -> bool {
        self.operations.certificates += 1;
        self.scheme.certifies(key, certificate)
    }
}

/// Signatures without secrets for simulations: whoever knows a key can sign for it, and a changed statement is noticed.
#[derive(Clone, Copy, Debug)]
pub struct Pretended(pub Key);

impl Pretended {
    /// The certificate of `key`.
    pub fn certificate(key: &Key) -> Signature {
        Pretended::of(key, b"a genuine node")
    }

    fn of(key: &Key, statement: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&hash(b"pretended signature", &[key, statement]));
        signature
    }
}

impl Scheme for Pretended {
    fn sign(&mut self, statement: &Hash) -> Signature {
        Pretended::of(&self.0, statement)
    }

    fn verify(&mut self, key: &Key, statement: &Hash, signature: &Signature) -> bool {
        Pretended::of(key, statement) == *signature
    }

    fn certifies(&mut self, key: &Key, certificate: &Signature) -> bool {
        Pretended::certificate(key) == *certificate
    }
}

/// SHA3-256 of what the hash is for, and of parts each with its length before it, so that none runs into the next.
pub(crate) fn hash(domain: &[u8], parts: &[&[u8]]) -> Hash {
    let mut hash = Sha3_256::new();
    hash.update(domain);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
