//! The simulator: what the floors above the connections do in networks of up to ten million nodes (SEP2P §4).
//!
//! Stands beside the floors and drives the same cores that run on the real network: lookups, witnesses, builders and
//! whoever asks them are the real machines. Everybody else exists as a place in a sorted list, from which tables and
//! caches are derived.
//!
//! Invariants: opens no socket, reads no clock; equal parameters and seeds give equal bytes, with any number of threads.

mod aims;
mod attack;
mod chart;
mod chord;
mod colluding;
mod data;
mod dht;
mod error;
mod estimate;
mod figure6;
mod figure8;
mod k_table;
mod leak;
mod members;
mod picture;
mod ring;
mod run;
mod scale;
mod selection;
mod selections;
mod sweep;
mod talk;
mod upkeep;

pub use attack::{Attack, AttackParams, AttackRow, MAX_ATTACKED, attack};
pub use chart::{Chart, ChartError, Mark, Series};
pub use colluding::Colluding;
pub use data::Data;
pub use dht::{DhtParams, DhtRow, MAX_PARALLEL, Overlay, dht};
pub use error::SimError;
pub use figure6::{Figure6Params, Figure6Row, figure6};
pub use figure8::{Figure8Params, MAX_REGION, UpkeepRow, figure8};
pub use k_table::{Line, Mode, Params, Report, k_table};
pub use kith_actors::ktable::TableError;
pub use leak::{LeakParams, LeakRow, MAX_COPIES, MAX_SHARES, Sharing, leak_index};
pub use run::Run;
pub use scale::Scale;
pub use selection::Strategy;
pub use selections::{EffectivenessRow, SetupRow, figure3, figure7, setup};
pub use sweep::SelectionParams;

/// The most nodes that are simulated.
pub const MAX_NODES: u64 = 10_000_000;

/// The most actors that are selected at a time.
pub const MAX_ACTORS: usize = 1_024;
