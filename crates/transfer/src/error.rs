use std::io;
use std::path::PathBuf;

use kith_sansio::Span;

use crate::frame::{AbortReason, FrameError, Reason, Refusal};
use crate::offer::OfferError;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The peer broke the protocol or lied.
    Peer,
    /// The caller asked for something that cannot be, or cancelled.
    Caller,
    /// Nobody's: connection, disk, a person who declines.
    World,
}

/// How a peer broke the protocol: always the peer's fault, and never more than noise for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A malformed frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An offer that breaks a rule.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// A version that this program does not speak.
    #[error("version {0} of the protocol is not spoken here")]
    Version(u8),
    /// A frame that may not come now.
    #[error("a frame came that may not come {0}")]
    Unexpected(&'static str),
    /// Names an entry that is none, no file, or not the next one.
    #[error("entry {0} was named out of order or is no file")]
    Index(u32),
    /// A group number that the file does not have or that was not agreed.
    #[error("file {index} was to start at another group than {group}")]
    Group {
        /// Which file.
        index: u32,
        /// The wrong group.
        group: u32,
    },
    /// A group of the wrong length, or one too many or too few.
    #[error("file {0} does not have the offered length")]
    Length(u32),
    /// Bytes that do not have the claimed value.
    #[error("group {group} of file {index} does not match its hash")]
    GroupHash {
        /// Which file.
        index: u32,
        /// Which group.
        group: u32,
    },
    /// A root that is not the one of the bytes.
    #[error("file {0} does not match its hash")]
    RootHash(u32),
    /// Done was said before all files had come.
    #[error("file {0} never came")]
    Missing(u32),
    /// Figures at the end that cannot be.
    #[error("the receiver's account is impossible")]
    Account,
}

/// Why paths cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No path at all.
    #[error("there is nothing to send")]
    NoPaths,
    /// A path that has no name of its own, such as `/`.
    #[error("{} has no name that it could be sent under", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// Two paths would have the same name at the receiver.
    #[error("{} and {} have the same name", first.display(), second.display())]
    SameName {
        /// The earlier path.
        first: PathBuf,
        /// The later path.
        second: PathBuf,
    },
    /// A path that was named is no file, folder or link to one.
    #[error("{} is no file and no folder", path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// More than an offer can hold.
    #[error(transparent)]
    Offer(#[from] OfferError),
}

/// Why sending ended without the receiver's account.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The receiver refuses.
    #[error("the offer was refused: {0}")]
    Refused(Refusal),
    /// Nobody accepted or refused.
    #[error("nobody accepted the offer within {waited}")]
    Unanswered {
        /// How long the sender waited.
        waited: Span,
    },
    /// Cancelled on this side.
    #[error("cancelled")]
    Cancelled,
    /// The receiver ended it.
    #[error("the receiver ended the transfer: {0}")]
    Aborted(AbortReason),
    /// The receiver broke the protocol.
    #[error("the receiver broke the protocol: {0}")]
    Peer(#[from] Violation),
    /// The connection ended before the transfer did; the same call over a new connection resumes it.
    #[error("the connection was lost")]
    ConnectionLost {
        /// What the stream said.
        source: io::Error,
    },
    /// A thread of this side ended unexpectedly.
    #[error("the reading of files stopped unexpectedly")]
    Worker,
}

impl SendError {
    /// Whether the connection was lost, so that trying again over a new one can help.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, SendError::ConnectionLost { .. } | SendError::Aborted(AbortReason::Stopping))
    }

    /// Whether the receiver has paused the transfer, which goes on with the same offer over a new connection.
    pub fn is_paused(&self) -> bool {
        matches!(self, SendError::Aborted(AbortReason::Paused) | SendError::Refused(Refusal::Paused))
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            SendError::Peer(_) => Fault::Peer,
            SendError::Cancelled => Fault::Caller,
            _ => Fault::World,
        }
    }
}

/// Why receiving ended early. Partial files stay in the target folder, so that the transfer can be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// Cancelled on this side.
    #[error("cancelled")]
    Cancelled,
    /// The sender ended it.
    #[error("the sender ended the transfer: {0}")]
    Aborted(AbortReason),
    /// The sender broke the protocol or lied; nothing that it lied about got a name.
    #[error("the sender broke the protocol: {0}")]
    Peer(#[from] Violation),
    /// The offer is beyond the caller's own limits.
    #[error("the offer has {entries} entries and {bytes} bytes, more than is allowed here")]
    OverLimit {
        /// Entries offered.
        entries: u64,
        /// Bytes offered.
        bytes: u64,
    },
    /// The connection ended before the transfer did; the same offer over a new connection resumes it.
    #[error("the connection was lost")]
    ConnectionLost {
        /// What the stream said.
        source: io::Error,
    },
    /// Not enough free space before the start.
    #[error("{needed} bytes are needed in {} and {available} are free", path.display())]
    NoSpace {
        /// The target folder.
        path: PathBuf,
        /// Bytes that were still to come.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The disk, or a quota on it, became full while receiving.
    #[error("the disk of {} is full", path.display())]
    DiskFull {
        /// The target folder.
        path: PathBuf,
    },
    /// The same staging folder is in use by another transfer.
    #[error("another transfer writes to {} already", path.display())]
    Busy {
        /// The staging folder.
        path: PathBuf,
    },
    /// The target folder cannot be used, or failed while in use.
    #[error("{} cannot be written", path.display())]
    Storage {
        /// The target folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A thread of this side ended unexpectedly.
    #[error("the writing of files stopped unexpectedly")]
    Worker,
}

impl ReceiveError {
    /// Whether the connection was lost, so that trying again over a new one can help.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, ReceiveError::ConnectionLost { .. } | ReceiveError::Aborted(AbortReason::Stopping))
    }

    /// Whether the sender has paused the transfer, and comes back with the same offer.
    pub fn is_paused(&self) -> bool {
        matches!(self, ReceiveError::Aborted(AbortReason::Paused))
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            ReceiveError::Peer(_) => Fault::Peer,
            ReceiveError::Cancelled | ReceiveError::OverLimit { .. } => Fault::Caller,
            _ => Fault::World,
        }
    }
}

/// An entry that did not arrive while the transfer as a whole went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedFile {
    /// Its path relative to the target folder.
    pub path: PathBuf,
    /// Why.
    pub reason: Reason,
}

/// The receiver's account of a transfer that came to its end; equal on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that are now at the receiver with the offered content.
    pub files: u32,
    /// Bytes of these files, [`resumed_bytes`](Self::resumed_bytes) included.
    pub bytes: u64,
    /// Bytes among them that were there before and did not have to be sent.
    pub resumed_bytes: u64,
    /// How many entries failed.
    pub failures: u32,
    /// The first thousand of them.
    pub failed: Vec<FailedFile>,
}
