//! Where a key lives: routing, region caches and values among the members of a network (SEP2P §2, PrivacyBox §5.2.5).
//!
//! Kademlia with imposed places. A [`Node`] knows some nodes at each distance and everybody in its own region
//! ([`Routes`]), searches over paths that share no node ([`Lookup`]), and keeps what proves itself ([`Store`]) on the
//! nodes nearest to its key. [`Message`] has the bytes of `dht/1`. A simulator of ten million nodes drives the same
//! lookups over tables that [`Ideal`] derives from the list of ids alone. [`shell`] runs a node over an endpoint.
//!
//! Invariants: opens no socket; reads no clock but in the shell; a node has a place in a table only where its certificate
//! was admitted by a [`Gate`] and it was heard itself; nobody loses a place because another one says so; whatever comes
//! from outside is bounded; a value counts as stored only when it is on more nodes than may be lost at a time.

mod blinded;
mod contact;
pub mod defaults;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod ideal;
mod lookup;
mod message;
mod nearest;
pub mod node;
mod routes;
pub mod shell;
mod store;
mod value;

pub use blinded::{Alias, BLINDED, CONTRIBUTION_BYTES, Day, PairSecret, SLACK_SECS};
pub use contact::{Contact, Net, Scope};
pub use defaults::Config;
pub use gate::{Gate, RECORD_SET, record_set_key};
pub use ideal::Ideal;
pub use lookup::Lookup;
pub use message::{Body, Card, Message, MessageError, Parcel};
pub use nearest::{Nearest, Placed, nearest_known};
pub use node::Node;
pub use routes::{Heard, Known, Routes};
pub use store::Store;
pub use value::{Refusal, Value};
