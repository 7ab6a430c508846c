#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod codec;
mod liars;
mod machines;
mod support;
mod transfers;
mod vnet;
