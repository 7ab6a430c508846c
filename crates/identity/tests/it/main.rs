#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
//! The public behaviour of `kith-identity`.

mod blinding;
mod codecs;
mod contacts;
mod invitations;
mod keys;
mod leaf;
mod membership;
mod names;
mod sets;
mod succession;
mod support;
mod tls;
mod verification;
mod vrf;
