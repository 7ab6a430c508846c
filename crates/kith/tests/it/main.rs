//! The whole program: the real binary, several nodes on loopback, real folders, real clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod actors;
mod api;
mod commands;
mod delegator;
mod dht;
mod directory;
mod doctor;
mod harness;
mod homes;
mod invitations;
mod lan;
mod mapping;
mod namespaces;
mod nat;
mod nat_more;
mod nat_tcp;
mod network;
mod orders;
mod outsiders;
mod relay_flood;
mod relayed;
mod secondary;
#[allow(dead_code, reason = "the tests of the directory use all of it")]
#[path = "../../../directory/tests/it/servers.rs"]
mod servers;
mod service;
mod session;
mod simulations;
mod succession;
mod surface;
mod transfers;
mod tree;
mod trust;
mod tunnels;
mod uplink;
mod zone_operation;
mod zone_store;
