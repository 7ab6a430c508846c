#![doc = include_str!("../README.md")]

mod faults;
mod network;
mod seeds;
mod world;

pub use faults::Faults;
pub use network::{Counts, Network};
pub use seeds::for_seeds;
pub use world::{Effect, NotQuiet, Wiring, World};
