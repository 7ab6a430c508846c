#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
//! Public behaviour of the crate.

mod binomial;
mod hardened;
mod ktable;
mod network;
mod nodes;
mod paper;
mod town;
mod upkeep;
mod village;
