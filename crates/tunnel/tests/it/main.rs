//! Two ends of a tunnel in the virtual network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod ends;
