use std::io;
use std::net::SocketAddr;

use kith_identity::record::{RecordError, VerifyError};
use kith_identity::tls::TlsError;
use kith_identity::{Authority, Fingerprint, Ni};
use kith_sansio::Span;

use super::SourceName;
use crate::cache::CacheRefusal;
use crate::lookup::Rejection;

/// Why an exchange with a directory over HTTPS failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The name of the directory has no address.
    #[error("the name {host} cannot be resolved: {error}")]
    Name {
        /// The name.
        host: String,
        /// What the system said.
        error: io::Error,
    },
    /// No address of the directory could be connected to.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The TLS handshake failed: the certificate is not trusted, or it is not the pinned key.
    #[error("the TLS handshake with {authority} failed: {error}")]
    Handshake {
        /// The directory.
        authority: Authority,
        /// What rustls said.
        error: io::Error,
    },
    /// TLS could not be set up on this side.
    #[error(transparent)]
    Tls(TlsError),
    /// It took too long.
    #[error("{authority} did not answer within {waited}")]
    TooSlow {
        /// The directory.
        authority: Authority,
        /// The time it had.
        waited: Span,
    },
    /// What came back is no HTTP, or it broke off.
    #[error("the answer of {authority} is broken: {what}")]
    Broken {
        /// The directory.
        authority: Authority,
        /// What the HTTP library said.
        what: String,
    },
    /// The answer is larger than any answer of a directory.
    #[error("the answer of {authority} is larger than {limit} bytes")]
    TooLarge {
        /// The directory.
        authority: Authority,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Why one source gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The source knows nothing of fingerprints like this.
    #[error("the source cannot be asked for {0}")]
    NotServed(Ni),
    /// The set is too large for DNS; HTTPS has it.
    #[error("the set is too large for DNS")]
    UseHttps,
    /// There is no resolver.
    #[error("no DNS resolver is known")]
    NoResolver,
    /// No resolver answered.
    #[error("no DNS resolver answered within {waited}")]
    NoResolverAnswered {
        /// The time they had.
        waited: Span,
    },
    /// A resolver failed.
    #[error("the resolver {resolver} answered with code {code}")]
    Resolver {
        /// Which.
        resolver: SocketAddr,
        /// Its code (2 SERVFAIL, 5 REFUSED).
        code: u16,
    },
    /// A resolver could not be reached.
    #[error("cannot ask the resolver {resolver}: {error}")]
    Socket {
        /// Which.
        resolver: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// HTTPS failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The directory answered with something else than a set.
    #[error("{authority} answered with status {status}")]
    Status {
        /// The directory.
        authority: Authority,
        /// The status.
        status: u16,
    },
    /// What the source gave is no record set.
    #[error("what the source gave is no record set: {0}")]
    Malformed(RecordError),
    /// Nobody on a local network answered.
    #[error("nobody with this fingerprint answered on the local network within {waited}")]
    NotNear {
        /// How long that took.
        waited: Span,
    },
    /// Another source failed in its own way.
    #[error("{0}")]
    Other(String),
}

/// One source that failed in a lookup.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub source: SourceName,
    /// How.
    pub why: LookupError,
}

/// Why nothing was discovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// Nobody can be asked: the fingerprint has no authority, or none for this kind of source.
    #[error("there is no source to ask for {0}")]
    NothingToAsk(Ni),
    /// There is no set.
    #[error("{0} has announced nothing that is valid now")]
    NotFound(Fingerprint),
    /// No source said anything in time.
    #[error("no source answered for {ni}{}", because(.failures))]
    NoAnswer {
        /// What was asked for.
        ni: Ni,
        /// What is known of why.
        failures: Vec<Failure>,
    },
    /// A source gave a set that cannot be accepted: forged, altered, expired, from the future, or replayed.
    #[error("what {from} gave for {fingerprint} was refused: {why}")]
    Refused {
        /// What was asked for.
        fingerprint: Fingerprint,
        /// Who gave it.
        from: SourceName,
        /// Why it was refused.
        why: Rejection,
    },
}

fn because(failures: &[Failure]) -> String {
    let texts: Vec<_> = failures.iter().map(|Failure { source, why }| format!("{source}: {why}")).collect();
    if texts.is_empty() { String::new() } else { format!(" ({})", texts.join("; ")) }
}

/// Why a set that was offered is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// It is not valid for the fingerprint now.
    #[error(transparent)]
    Invalid(VerifyError),
    /// It is older than what was seen, or different at the same time.
    #[error(transparent)]
    Refused(CacheRefusal),
}

/// Why an announce failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The certificate of the identity could not be made.
    #[error(transparent)]
    Certificate(TlsError),
    /// The directory was not reached, or did not answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The directory refused the set.
    #[error("{authority} refused the record set ({status}): {error}")]
    Refused {
        /// The directory.
        authority: Authority,
        /// The HTTP status.
        status: u16,
        /// What it says is wrong.
        error: String,
        /// What it says to do, or nothing.
        hint: String,
        /// How long it wants to be left alone.
        retry_after: Option<Span>,
    },
    /// The draft makes no record set.
    #[error("the record set cannot be made: {0}")]
    Draft(RecordError),
    /// The next timestamp could not be remembered, so nothing was signed.
    #[error(transparent)]
    Clock(#[from] super::ClockError),
}
