//! Membership: certificates, epochs, trees, pledges, and the issuer's book.

mod issuer;
mod members;
mod pledges;
mod signatures;
mod statements;
mod trees;

use kith_identity::membership::{
    Issuer, MemoryLedger, Request, Rolled, Terms, VerifiedMember, VerifiedRequest,
};
use kith_identity::{Fingerprint, Identity};

use crate::support::{MADE, identity};

/// Seeds of issuers are apart from those of members.
const ISSUER: u64 = 1 << 40;

fn issuer() -> Issuer<MemoryLedger> {
    Issuer::new(identity(ISSUER), Terms::default(), MemoryLedger::default())
}

fn network() -> Fingerprint {
    identity(ISSUER).fingerprint()
}

fn request(joining: &Identity) -> VerifiedRequest {
    Request::sign(joining, &network()).verify(&network()).unwrap()
}

fn admit(issuer: &mut Issuer<MemoryLedger>, seed: u64) -> VerifiedMember {
    issuer.admit(&request(&identity(seed)), MADE).unwrap()
}

fn roll(issuer: &mut Issuer<MemoryLedger>) -> Rolled {
    issuer.roll(MADE, |_, _, _| [7; 32]).unwrap()
}
