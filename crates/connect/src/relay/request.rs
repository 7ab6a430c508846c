//! What an initiator asks of a relay, signed.

use kith_identity::{Fingerprint, Identity, PublicKey};
use kith_sansio::{Rng, Timestamp};

use super::limits::{CLOCK_SKEW_SECS, MAX_HOPS, REQUEST_SECS};

/// What is put in front of a request before it is signed.
const LABEL: &[u8] = b"kithnet relay request v1";

/// What a session carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carriage {
    /// The bytes of a TCP connection of each side.
    Stream,
    /// The datagrams of a UDP socket of each side.
    Datagrams,
}

/// A number that one initiator uses once.
pub type Nonce = [u8; 16];

/// A wish to be put through to a target; nothing of it is proved.
///
/// Signed is, after the label `kithnet relay request v1`: `relay [32] ‖ target [32] ‖ initiator SPKI [44] ‖ nonce [16]
/// ‖ u8 carriage ‖ u8 number of hops ‖ hops [32 each] ‖ u64 expires`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The relay that is asked.
    pub relay: Fingerprint,
    /// Who is to be reached.
    pub target: Fingerprint,
    /// Who asks.
    pub initiator: PublicKey,
    /// Never used before by this initiator.
    pub nonce: Nonce,
    /// What is to be carried.
    pub carriage: Carriage,
    /// The relays between the initiator and this one, the initiator's first.
    pub hops: Vec<Fingerprint>,
    /// From when on it means nothing, [`REQUEST_SECS`] ahead at most.
    pub expires: Timestamp,
    /// By the initiator's key.
    pub signature: [u8; 64],
}

/// A request whose initiator has signed it, for the relay and the time it was verified for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRequest {
    request: Request,
    initiator: Fingerprint,
}

/// Why a request is not one to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It names another relay.
    #[error("the request is for another relay")]
    OtherRelay,
    /// Its time is over.
    #[error("the request has expired")]
    Expired,
    /// It would be valid for longer than allowed.
    #[error("the request is valid for more than {REQUEST_SECS} seconds")]
    TooLong,
    /// Its way is too long, goes through a node twice, or through one of its ends.
    #[error("the way of the request is none")]
    Way,
    /// The signature is not by the initiator over this.
    #[error("the request is not signed by its initiator")]
    Signature,
}

impl Request {
    /// Asks `relay` for `target` at `now`, having come by `hops`.
    pub fn sign(
        identity: &Identity,
        relay: Fingerprint,
        target: Fingerprint,
        (carriage, hops): (Carriage, Vec<Fingerprint>),
        now: Timestamp,
        rng: &mut dyn Rng,
    ) -> Request {
        let mut nonce = [0; 16];
        rng.fill(&mut nonce);
        let initiator = identity.public();
        let expires = now.plus_secs(REQUEST_SECS);
        let mut request =
            Request { relay, target, initiator, nonce, carriage, hops, expires, signature: [0; 64] };
        request.signature = identity.sign(&request.signed());
        request
    }

    /// What the signature is over.
    fn signed(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LABEL.len() + 134 + 32 * self.hops.len());
        bytes.extend_from_slice(LABEL);
        bytes.extend_from_slice(self.relay.as_bytes());
        bytes.extend_from_slice(self.target.as_bytes());
        bytes.extend_from_slice(&self.initiator.spki());
        bytes.extend_from_slice(&self.nonce);
        bytes.push(self.carriage.code());
        bytes.push(u8::try_from(self.hops.len()).unwrap_or(u8::MAX));
        self.hops.iter().for_each(|hop| bytes.extend_from_slice(hop.as_bytes()));
        bytes.extend_from_slice(&self.expires.0.to_be_bytes());
        bytes
    }

    /// Whether this may be followed at `relay`. The signature comes last, because it costs most.
    pub fn verify(self, relay: &Fingerprint, now: Timestamp) -> Result<VerifiedRequest, RequestError> {
        if self.relay != *relay {
            return Err(RequestError::OtherRelay);
        }
        if now.0 >= self.expires.0.saturating_add(CLOCK_SKEW_SECS) {
            return Err(RequestError::Expired);
        }
        if self.expires > now.plus_secs(REQUEST_SECS + CLOCK_SKEW_SECS) {
            return Err(RequestError::TooLong);
        }
        let initiator = self.initiator.fingerprint();
        if !is_way(&initiator, &self.hops, &self.relay, &self.target) {
            return Err(RequestError::Way);
        }
        let proved = self.initiator.verify(&self.signed(), &self.signature);
        proved.map_err(|_| RequestError::Signature)?;
        Ok(VerifiedRequest { request: self, initiator })
    }
}

impl VerifiedRequest {
    /// Who asks.
    pub fn initiator(&self) -> Fingerprint {
        self.initiator
    }

    /// What was signed.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What was signed, to be handed on.
    pub fn into_request(self) -> Request {
        self.request
    }
}

impl Carriage {
    /// The number on the wire.
    pub(crate) fn code(self) -> u8 {
        match self {
            Carriage::Stream => 0,
            Carriage::Datagrams => 1,
        }
    }

    /// What a number on the wire means.
    pub(crate) fn from_code(code: u8) -> Option<Carriage> {
        [Carriage::Stream, Carriage::Datagrams].into_iter().find(|one| one.code() == code)
    }
}

/// Whether a way from `initiator` by `hops` and `relay` to `target` meets everybody once and is short enough.
pub fn is_way(
    initiator: &Fingerprint,
    hops: &[Fingerprint],
    relay: &Fingerprint,
    target: &Fingerprint,
) -> bool {
    let mut all = vec![initiator, relay, target];
    all.extend(hops);
    hops.len() < MAX_HOPS && all.iter().enumerate().all(|(at, one)| !all[..at].contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_sansio::SeededRng;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn name(n: u8) -> Fingerprint {
        Fingerprint::from_bytes([n; 32])
    }

    fn signed(hops: Vec<Fingerprint>) -> Request {
        let rng = &mut SeededRng::new(1);
        let identity = Identity::generate(rng);
        Request::sign(&identity, name(1), name(2), (Carriage::Stream, hops), NOW, rng)
    }

    #[test]
    fn a_signed_request_verifies_at_its_relay_until_it_expires() {
        let request = signed(vec![name(7), name(8)]);
        let initiator = request.initiator.fingerprint();
        let verified = request.clone().verify(&name(1), NOW).unwrap();
        assert_eq!((verified.initiator(), verified.request()), (initiator, &request));
        let last = NOW.plus_secs(REQUEST_SECS + CLOCK_SKEW_SECS - 1);
        assert!(request.clone().verify(&name(1), last).is_ok());
        assert!(request.clone().verify(&name(1), NOW.minus_secs(CLOCK_SKEW_SECS)).is_ok());
        for (relay, now, why) in [
            (name(3), NOW, RequestError::OtherRelay),
            (name(1), last.plus_secs(1), RequestError::Expired),
            (name(1), NOW.minus_secs(CLOCK_SKEW_SECS + 1), RequestError::TooLong),
        ] {
            assert_eq!(request.clone().verify(&relay, now), Err(why));
        }
    }

    #[test]
    fn whatever_is_changed_in_a_request_breaks_its_signature() {
        let request = signed(vec![name(7)]);
        let other = Identity::generate(&mut SeededRng::new(2)).public();
        let changed = [
            Request { target: name(9), ..request.clone() },
            Request { initiator: other, ..request.clone() },
            Request { nonce: [9; 16], ..request.clone() },
            Request { carriage: Carriage::Datagrams, ..request.clone() },
            Request { hops: vec![name(8)], ..request.clone() },
            Request { hops: vec![], ..request.clone() },
            Request { expires: NOW.plus_secs(REQUEST_SECS - 1), ..request.clone() },
            Request { signature: [0; 64], ..request.clone() },
        ];
        for changed in changed {
            assert_eq!(changed.verify(&name(1), NOW), Err(RequestError::Signature));
        }
        let moved = Request { relay: name(3), ..request };
        assert_eq!(moved.verify(&name(3), NOW), Err(RequestError::Signature));
    }

    #[test]
    fn a_way_is_short_and_meets_nobody_twice() {
        for hops in [
            vec![name(1)],
            vec![name(2)],
            vec![name(7), name(7)],
            vec![name(7), name(8), name(9)],
            vec![signed(vec![]).initiator.fingerprint()],
        ] {
            assert_eq!(signed(hops).verify(&name(1), NOW), Err(RequestError::Way));
        }
        assert!(!is_way(&name(1), &[], &name(2), &name(2)));
        assert!(!is_way(&name(1), &[], &name(2), &name(1)));
        assert!(is_way(&name(1), &[name(3), name(4)], &name(2), &name(5)));
    }
}
