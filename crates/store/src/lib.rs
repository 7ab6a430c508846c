//! The home folder, the embedded database and atomic files.
//!
//! Floor 0. What a floor must remember goes through here: [`Home`] for small files that are replaced as a
//! whole ([`write_atomic`] for one that is elsewhere), [`Database`] for rows, [`Committer`] where many writers
//! share one durable commit.
//!
//! Invariants: knows no identity, opens no socket, reads no clock and no environment. Whatever is reported as
//! done survives a crash: file and folder are synced before a call returns. Nothing half written is ever
//! visible. The embedded engine does not appear in the interface, and damaged files are errors, not panics.

mod committer;
pub mod crash;
mod database;
mod engine;
mod error;
mod home;
mod rows;
mod temporary;
mod unix;
mod whole;

pub use committer::Committer;
pub use database::{Condition, Database};
pub use error::{Holder, HomeError, StoreError};
pub use home::{Home, HomeLock};
pub use rows::{MAX_KEY_BYTES, MAX_VALUE_BYTES, ReadRows, Table, WriteRows};
pub use whole::{refuse_unwritable, write_atomic};
