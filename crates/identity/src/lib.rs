//! Keys, fingerprints, signed record sets, contacts and the TLS identity of a node (SEP §5.1, §6).
//!
//! Floor 1. A peer *is* a public key, and its [`Fingerprint`] is all that is needed to recognise it. What a node
//! says about itself is a [`RecordSet`](record::RecordSet); only a
//! [`VerifiedRecordSet`](record::VerifiedRecordSet), which verification alone makes, can be used.
//!
//! Invariants: opens no socket, reads no clock, no file and no environment; time and chance are arguments.
//! Whatever comes from outside is bounded before memory is taken for it, and nothing panics on it.
//!
//! ```
//! use kith_identity::{Identity, record::{Draft, RecordSet}};
//! use kith_sansio::system;
//!
//! let me = Identity::generate(&mut system::OsRng);
//! let draft = Draft { addresses: vec!["quic://192.0.2.1:4433".parse()?], ..Draft::default() };
//! let json = draft.sign(&me, system::utc())?.to_json();
//!
//! let set = RecordSet::from_json(&json)?.verify(&me.fingerprint(), system::utc())?;
//! assert_eq!(set.addresses(), draft.addresses);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod authority;
mod blinding;
pub mod contacts;
mod fingerprint;
#[doc(hidden)]
pub mod fuzz;
mod identity;
pub mod invitation;
mod key;
pub mod membership;
mod ni;
pub mod record;
mod relay;
mod succession;
mod text;
pub mod tls;
pub mod vrf;

pub use address::{Address, AddressError, Reach, Transport};
pub use authority::{Authority, AuthorityError};
pub use blinding::{BlindedIdentity, Blinding};
pub use fingerprint::{Fingerprint, words};
pub use identity::{Identity, KeyFileError, SecretPem};
pub use key::{KeyError, PublicKey, fingerprint_of_spki};
pub use ni::{Ni, NiError, fqdn, url};
pub use relay::{Relay, RelayError};
pub use succession::{SUCCESSION_BYTES, Succession, SuccessionError, VerifiedSuccession};
