//! Public behaviour of the simulator, in small networks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod attack;
mod dht;
mod figures;
mod leak;
