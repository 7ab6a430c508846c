#![doc = include_str!("../README.md")]

mod faults;
mod needs;
mod network;
mod seeds;
mod world;

pub use faults::Faults;
pub use needs::{is_there, skipped, unable};
pub use network::{Counts, Network};
pub use seeds::for_seeds;
pub use world::{Act, Effect, NotQuiet, Peers, Wiring, World};
