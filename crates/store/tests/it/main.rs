#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod committer;
mod crash;
mod damage;
mod database;
mod home;
mod whole;

use kith_store::Table;

const TABLE: Table = Table("rows");
const OTHER: Table = Table("others");
const CACHE: usize = 1 << 20;
