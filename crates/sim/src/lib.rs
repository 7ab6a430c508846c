//! The simulator: what the floors above the connections do in networks of up to ten million nodes (SEP2P §4).
//!
//! Stands beside the floors and drives the same cores that run on the real network.
//!
//! Invariants: opens no socket, reads no clock; equal parameters and seeds give equal bytes.

mod k_table;

pub use k_table::{Line, Mode, Params, Report, k_table};
pub use kith_actors::ktable::TableError;
