//! The endpoint as the floors above see it, with real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admission;
mod datagrams;
mod delegator;
mod direct;
mod dtls;
mod exchange;
mod exporter;
mod hostile;
mod library;
mod members;
mod nats;
mod network;
mod nodes;
mod punched;
mod relayed;
mod relayed_datagrams;
mod relays;
mod secrecy;
mod subscriptions;
mod vnet;
