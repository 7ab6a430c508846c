//! Relays with sockets: serving as one, being exposed at some, and reaching a peer over one.

mod datagrams;
mod exposing;
mod mending;
mod reaching;
mod serving;
mod session;
mod side;
mod talk;
mod weave;

pub use exposing::Exposing;
pub use serving::Relaying;

pub(super) use mending::tend;
pub(super) use reaching::over;
pub(super) use serving::Hook;
pub(super) use side::{Ahead, is_ahead, reflect, take};
pub(super) use weave::{OpenPath, Over, Paths, Woven};
