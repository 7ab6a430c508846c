//! Files and folders over an authenticated stream: fast, verified, resumable, confined (SEP §7).
//!
//! The protocol `send/1`. The sender offers a list of files, folders and symbolic links ([`Offer`]); the receiver
//! accepts or refuses; files then flow in groups of 1 MiB, each verified as it arrives, and a file gets its name only
//! after the hash of the whole was verified too. [`frame`] has the byte layout, [`sender`] and [`receiver`] the order
//! of messages.
//!
//! Course of a transfer, `S` the sender, `R` the receiver:
//!
//! ```text
//! S → R  Offer, Entries…, OfferEnd
//! R → S  Refuse                                   and that is the end, or
//! R → S  Have…, Resume…, Accept                   Have: what it believes to hold; Resume: files it does not want
//! S → R  Proof…                                   only where a Have was said: the sender's own values of these groups
//! R → S  Resume…, Start                           likewise: the first group wanted of each file that had a Have
//! S → R  per file in offer order: FileStart, Group…, FileEnd | FileFailed; then Done
//! R → S  Received                                 everything is on disk
//! ```
//! Either side may say Abort at any time. The stream of files has no round trips in it. A stream that opens with a Notice
//! carries no files: it tells how a transfer stands at one side, and is answered in the same form.
//!
//! Invariants: opens no socket; nothing is written outside the target folder, no symbolic link in it is followed;
//! a file under its final name has the content that was offered; memory does not grow with the size of files.

mod cancel;
mod error;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod hash;
pub mod offer;
mod progress;
pub mod rate;
pub mod receiver;
pub mod sender;
mod shell;
mod tree;

pub use cancel::{Cancel, Gate};
pub use error::{FailedFile, Fault, ReadError, ReceiveError, SendError, Summary, Violation};
pub use frame::{AbortReason, Notice, Reason, Refusal, Standing, TransferId};
pub use offer::{Entry, Kind, Offer, OfferError, answer_within};
pub use progress::Progress;
pub use rate::Rate;
pub use shell::{
    IncomingOffer, Limit, Limits, Opening, Paced, SendOptions, answer, notify, read_offer, read_opening,
    receive, refuse, send,
};
pub use tree::{LocalOffer, Skipped, Target, discard_partial, find_partial};

/// Name of the protocol.
pub const PROTOCOL: &str = "send/1";
