//! Routing tables, lookups and whole networks of nodes in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod ideal;
mod network;
mod routes;
mod support;
