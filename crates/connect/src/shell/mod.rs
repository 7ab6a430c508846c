//! The thin asynchronous shell: sockets, TLS, QUIC and the clock around the machines of this crate.

mod accept;
mod bind;
mod carrier;
mod connect;
mod datagrams;
mod delegator;
mod direct;
mod dtls;
mod endpoint;
mod flows;
mod mapping;
mod membership;
mod network;
mod pin;
mod pulse;
mod quic;
mod registry;
mod relay;
mod stream;
mod tcp;
mod udp;

pub use bind::interfaces;
pub use datagrams::Datagrams;
pub use delegator::{Delegator, Subscription, SubscriptionState};
pub use endpoint::{Config, Endpoint, Incoming, OwnDevice, PathInfo, Peer};
pub use mapping::{MappingConfig, PortMapping};
pub use membership::{Enquiry, EnquiryError, hear_question, say_answer, show, take_certificate};
pub use relay::{Exposing, Relaying};
pub use stream::{PathWatch, Stream};

/// The close and reset code of QUIC that says: not admitted.
const REFUSED_CODE: noq::VarInt = noq::VarInt::from_u32(1);
/// The close code of QUIC that says: done.
const DONE_CODE: noq::VarInt = noq::VarInt::from_u32(0);

/// How long a connection stays for the last bytes to arrive.
const LINGER: kith_sansio::Span = kith_sansio::Span::secs(1);

/// Runs `work`, for `span` at most.
async fn within<F: Future>(span: kith_sansio::Span, work: F) -> Option<F::Output> {
    tokio::time::timeout(span.into(), work).await.ok()
}

/// Waits until a machine wants to be woken; for ever where it does not.
async fn due(at: Option<kith_sansio::Time>) {
    match at {
        Some(at) => until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits until `at`.
async fn until(at: kith_sansio::Time) {
    tokio::time::sleep_until(kith_sansio::system::instant(at).into()).await;
}
