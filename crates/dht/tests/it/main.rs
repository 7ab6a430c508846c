//! Routing tables, lookups and whole networks of nodes in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod blinded;
mod codec;
mod durable;
mod hostile;
mod ideal;
mod members;
mod network;
mod routes;
mod shell;
mod support;
