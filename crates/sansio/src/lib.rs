//! Time, chance, wire primitives and the contract of a sans-IO machine.
//!
//! Floor 0. Everything above is handed its clock and its randomness through the types of this crate; only
//! [`system`] knows the real ones, and only shells use it.
//!
//! Invariants: opens no socket, starts no thread, reads no clock outside [`system`].

mod chance;
#[doc(hidden)]
pub mod fuzz;
mod machine;
pub mod system;
mod time;
pub mod wire;

pub use chance::{Rng, SeededRng};
pub use machine::Machine;
pub use time::{Now, Span, Time, TimeError, Timestamp};
