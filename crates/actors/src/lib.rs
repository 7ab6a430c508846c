//! Draws actors, the nodes that process other people's data, verifiably at random (SEP2P §3).
//!
//! Floor 5. [`ktable`] says how many nodes of how small a region have to sign so that an adversary practically never
//! holds all of them. [`hardened`] is what Kithnet runs, [`paper`] is SEP2P to
//! the letter, for simulations.
//!
//! [`seat`] is all that a member does in selections, as one machine; [`shell`] runs it over an endpoint.
//!
//! Invariants: nothing but [`shell`] opens a stream, reads a clock or draws a random number of its own.

pub mod binomial;
#[doc(hidden)]
pub mod fuzz;
mod gather;
pub mod hardened;
pub mod ktable;
pub mod paper;
pub mod scheme;
pub mod seat;
pub mod shell;
