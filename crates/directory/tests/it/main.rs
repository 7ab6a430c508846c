//! The public behaviour of the directory: machines in virtual time, and server and client over loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod announcer;
mod announcing;
mod clocks;
mod crash;
mod directory_lies;
mod discovering;
mod dns_answers;
mod dns_lies;
mod dns_server;
mod https_server;
mod lan;
mod library;
mod lookup;
mod properties;
mod restart;
mod servers;
mod store_history;
mod store_walk;
mod stores;
mod vnet;
mod world;
mod zone_transfer;
