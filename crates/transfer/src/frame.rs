//! Frames and their codec.
//!
//! A frame is `u8 kind ‖ u24 length (big-endian) ‖ payload`. Kinds below `0x80` go from the sender of the files to
//! their receiver, those from `0x80` the other way, Notice and [`ABORT`] both ways:
//!
//! | kind | name | payload |
//! | --- | --- | --- |
//! | `01` | Offer | CBOR map: 0 version (1), 1 transfer id (16 bytes), 2 entries, 3 files, 4 bytes of all files, 5 seconds that the sender waits for an answer |
//! | `02` | Entries | CBOR array of entries, see [`Entry`]; as many frames as needed |
//! | `03` | OfferEnd | empty |
//! | `10` | Proof | CBOR map: 0 index of the file, 1 first group, 2 group values (32 bytes each, one byte string), 3 last of this file |
//! | `20` | FileStart | `u32 index ‖ u32 first group` |
//! | `21` | Group | 1 to 1 048 576 bytes of the file ‖ 32-byte value of the group |
//! | `22` | FileEnd | 32-byte BLAKE3 hash of the whole file |
//! | `23` | FileFailed | `u32 index ‖ u8 reason` ([`Reason`]) |
//! | `24` | Done | empty |
//! | `80` | Refuse | CBOR map: 0 reason ([`Refusal`]) |
//! | `81` | Have | CBOR array of `[index, groups, whole]` ([`Have`]) |
//! | `82` | Accept | empty; ends the list of `Have` |
//! | `83` | Resume | CBOR array of `[index, first group]` ([`Resume`]) |
//! | `84` | Start | empty; ends the list of `Resume` |
//! | `85` | Received | CBOR map: 0 files, 1 bytes, 2 resumed bytes, 3 count of failed files, 4 array of `[index, reason]` (1 000 at most) |
//! | `fe` | Notice | CBOR map: 0 version (1), 1 transfer id (16 bytes), 2 standing ([`Standing`]) |
//! | `ff` | Abort | CBOR map: 0 reason ([`AbortReason`]) |
//!
//! All integers outside CBOR are big-endian. CBOR is canonical: definite lengths, shortest forms, map keys ascending,
//! each known key exactly once. What is not byte for byte what this module would write is refused, unknown keys
//! too; the protocol grows by a new version in its name (`send/2`), never silently.

use kith_sansio::wire::{Reader, WireError, Writer};
use minicbor::{Decode, Encode};

use crate::hash::{GROUP_BYTES, Value};
use crate::offer::Entry;

/// The version in the Offer frame, equal to that in the name of the protocol.
pub const VERSION: u8 = 1;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 4;
/// Bytes of a control payload at most.
pub const MAX_CONTROL_BYTES: usize = 256 << 10;
/// Bytes of a Group payload at most: a full group and its value.
pub const MAX_GROUP_PAYLOAD_BYTES: usize = GROUP_BYTES + 32;
/// Failed files that a Received frame names at most; the count says how many there were.
pub const MAX_FAILED_LISTED: usize = 1_000;
/// Items of one Have or Resume frame at most.
pub const MAX_LISTED: usize = 8_192;
/// A sender waits for an answer for at most so many seconds: thirty days.
pub const MAX_ANSWER_SECS: u32 = 30 * 86_400;
/// Group values in one Proof frame at most.
pub const MAX_PROOF_VALUES: usize = 4_096;

const OFFER: u8 = 0x01;
const ENTRIES: u8 = 0x02;
const OFFER_END: u8 = 0x03;
const PROOF: u8 = 0x10;
const FILE_START: u8 = 0x20;
/// Kind of the frame that carries bytes of a file.
pub const GROUP: u8 = 0x21;
const FILE_END: u8 = 0x22;
const FILE_FAILED: u8 = 0x23;
const DONE: u8 = 0x24;
const REFUSE: u8 = 0x80;
const HAVE: u8 = 0x81;
const ACCEPT: u8 = 0x82;
const RESUME: u8 = 0x83;
const START: u8 = 0x84;
const RECEIVED: u8 = 0x85;
const NOTICE: u8 = 0xfe;
/// Kind of the frame that ends a transfer early, from either side.
pub const ABORT: u8 = 0xff;

/// Names one transfer: random, chosen by the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub [u8; 16]);

/// Lower-case hexadecimal.
impl std::fmt::Display for TransferId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl std::str::FromStr for TransferId {
    type Err = WireError;
    fn from_str(text: &str) -> Result<Self, WireError> {
        let short = WireError::Short { wanted: 32, left: text.len() };
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| short)?;
        bytes.try_into().map(TransferId).map_err(|_| short)
    }
}

/// Opens an offer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// [`VERSION`].
    #[n(0)]
    pub version: u8,
    /// The transfer's id.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// Entries that follow.
    #[n(2)]
    pub entries: u32,
    /// Regular files among them.
    #[n(3)]
    pub files: u32,
    /// Bytes of all files.
    #[n(4)]
    pub bytes: u64,
    /// Seconds that the sender waits for an answer, 1 to [`MAX_ANSWER_SECS`].
    #[n(5)]
    pub answer_within: u32,
}

/// Says how one side of a transfer stands while no stream carries it; the answer has the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Notice {
    /// [`VERSION`].
    #[n(0)]
    pub version: u8,
    /// The transfer's id.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// How it stands at whoever says so.
    #[n(2)]
    pub standing: Standing,
}

/// The sender's values for groups that the receiver says to hold.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Proof {
    /// Which file.
    #[n(0)]
    pub index: u32,
    /// Number of the first group.
    #[n(1)]
    pub first: u32,
    /// Values of successive groups, 32 bytes each, [`MAX_PROOF_VALUES`] at most.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub values: Vec<u8>,
    /// Whether no more follow for this file; fewer values than asked for mean that the sender cannot read its own.
    #[n(3)]
    pub last: bool,
}

/// The receiver holds the first `groups` groups of a file, or so it believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Have {
    /// Which file.
    #[n(0)]
    pub index: u32,
    /// How many groups, 1 at least.
    #[n(1)]
    pub groups: u32,
    /// Whether it is a finished file of the offered size under the offered name, not a partial one.
    #[n(2)]
    pub whole: bool,
}

/// Where to start in a file. Files that are not listed start at group 0; a file that is to start at its number of
/// groups is left out of the stream altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Resume {
    /// Which file.
    #[n(0)]
    pub index: u32,
    /// First group wanted.
    #[n(1)]
    pub first: u32,
}

/// A file that was not received, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Failed {
    /// Which entry.
    #[n(0)]
    pub index: u32,
    /// Why.
    #[n(1)]
    pub reason: Reason,
}

/// The receiver's account at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Received {
    /// Files that are now there with the offered content.
    #[n(0)]
    pub files: u32,
    /// Bytes of these files.
    #[n(1)]
    pub bytes: u64,
    /// Bytes among them that did not have to be sent in this session.
    #[n(2)]
    pub resumed: u64,
    /// Entries that failed.
    #[n(3)]
    pub failures: u32,
    /// The first [`MAX_FAILED_LISTED`] of them.
    #[n(4)]
    pub failed: Vec<Failed>,
}

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
        #[cbor(index_only)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* #[n($code)] $variant,)+ }

        impl $name {
            /// The number on the wire.
            pub fn code(self) -> u8 {
                match self { $($name::$variant => $code,)+ }
            }

            /// The meaning of a number on the wire.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $text,)+ })
            }
        }
    };
}

codes! {
    /// Why one entry failed while the others went on.
    Reason {
        /// Code 0: it changed between offer and end of reading.
        Changed = 0, "it changed while it was sent";
        /// Code 1: it was no longer there.
        Vanished = 1, "it vanished before it was sent";
        /// Code 2: the sender could not read it.
        Unreadable = 2, "the sender cannot read it";
        /// Code 3: something else has that name at the receiver.
        Exists = 3, "something else of that name exists already";
        /// Code 4: a component of its path is no folder, such as a planted symbolic link.
        Blocked = 4, "something that is no folder stands in its path";
        /// Code 5: the receiver may not write there.
        Denied = 5, "the receiver may not write it there";
        /// Code 6: the receiver's file system cannot hold such a name.
        Name = 6, "the receiver's file system refuses its name";
        /// Code 7: the receiver could not write it for another reason.
        Unwritable = 7, "the receiver could not write it";
    }
}

codes! {
    /// Why a receiver refuses an offer.
    Refusal {
        /// Code 0: it does not want it.
        Declined = 0, "declined";
        /// Code 1: it has no room for it.
        NoSpace = 1, "not enough free space";
        /// Code 2: it cannot write to the target folder.
        Storage = 2, "the target folder cannot be written";
        /// Code 3: the offer breaks a rule or a limit.
        Invalid = 3, "the offer is invalid";
        /// Code 4: nobody answered in time.
        Unanswered = 4, "nobody answered in time";
        /// Code 5: the same transfer is already running, or there is no room for another offer now.
        Busy = 5, "it is busy with this transfer, or with too many others";
        /// Code 6: it was accepted earlier, and is paused by the receiver.
        Paused = 6, "the receiver has paused it";
    }
}

codes! {
    /// How a transfer stands at one side.
    Standing {
        /// Code 0: it is to go on.
        Going = 0, "it goes on";
        /// Code 1: it is paused there.
        Paused = 1, "it is paused";
        /// Code 2: it has ended there, or is not known.
        Over = 2, "it is over";
    }
}

codes! {
    /// Why a side ends a transfer early.
    AbortReason {
        /// Code 0: its user cancelled it.
        Cancelled = 0, "cancelled";
        /// Code 1: the receiver's disk is full.
        DiskFull = 1, "the disk is full";
        /// Code 2: the other side broke the protocol.
        Protocol = 2, "the protocol was broken";
        /// Code 3: the receiver's storage failed.
        Storage = 3, "the storage failed";
        /// Code 4: the node stops.
        Stopping = 4, "the node is stopping";
        /// Code 5: its user pauses it: the same offer comes again later.
        Paused = 5, "paused";
    }
}

/// A whole frame, groups apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// Opens an offer.
    Offer(Head),
    /// Some entries.
    Entries(Vec<Entry>),
    /// All entries were sent.
    OfferEnd,
    /// Group values to compare.
    Proof(Proof),
    /// A file begins.
    FileStart {
        /// Which file.
        index: u32,
        /// First group that follows.
        first: u32,
    },
    /// A file ends.
    FileEnd {
        /// BLAKE3 of the whole file.
        root: Value,
    },
    /// A file does not come, or not to its end.
    FileFailed(Failed),
    /// All files were sent.
    Done,
    /// The offer is refused.
    Refuse(Refusal),
    /// What the receiver believes to hold.
    Have(Vec<Have>),
    /// The offer is accepted.
    Accept,
    /// Where to start in some files.
    Resume(Vec<Resume>),
    /// The stream of files may start.
    Start,
    /// Everything is stored.
    Received(Received),
    /// How a transfer stands, in a stream of its own.
    Notice(Notice),
    /// The transfer ends early.
    Abort(AbortReason),
}

/// A decoded frame; the bytes of a group stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Anything but a group.
    Control(Frame),
    /// Bytes of the current file.
    Group {
        /// The bytes, 1 to [`GROUP_BYTES`].
        bytes: &'a [u8],
        /// The value that the sender claims for them.
        value: Value,
    },
}

/// What is wrong with a frame: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A kind that this version does not know.
    #[error("unknown frame kind {0:#04x}")]
    Kind(u8),
    /// A length that this kind may not have.
    #[error("a frame of kind {kind:#04x} may not be {length} bytes long")]
    Length {
        /// Kind of the frame.
        kind: u8,
        /// Length of its payload in bytes.
        length: u32,
    },
    /// A payload that is not canonical or not of the kind's form.
    #[error("the payload of a frame of kind {0:#04x} is malformed")]
    Payload(u8),
}

/// The first four bytes of a frame, checked: a length that passed may be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Kind of the frame.
    pub kind: u8,
    /// Bytes of the payload.
    pub length: usize,
}

impl Header {
    /// Reads and checks a header.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let [kind, a, b, c] = bytes;
        let length = u32::from_be_bytes([0, a, b, c]);
        let (least, most) = match kind {
            OFFER | ENTRIES | PROOF | REFUSE | HAVE | RESUME | RECEIVED | NOTICE | ABORT => {
                (1, MAX_CONTROL_BYTES)
            }
            OFFER_END | DONE | ACCEPT | START => (0, 0),
            FILE_START => (8, 8),
            GROUP => (33, MAX_GROUP_PAYLOAD_BYTES),
            FILE_END => (32, 32),
            FILE_FAILED => (5, 5),
            _ => return Err(FrameError::Kind(kind)),
        };
        if !(least..=most).contains(&(length as usize)) {
            return Err(FrameError::Length { kind, length });
        }
        Ok(Header { kind, length: length as usize })
    }

    /// Whether it is one of the frames that make up the stream of files; all others want an answer soon.
    pub(crate) fn is_bulk(self) -> bool {
        (FILE_START..=FILE_FAILED).contains(&self.kind)
    }
}

/// Splits the first frame off `bytes`: its message and its length; `None` where it is not complete yet.
pub fn split(bytes: &[u8]) -> Result<Option<(Message<'_>, usize)>, FrameError> {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::parse(*head)?;
    let end = HEADER_BYTES + header.length;
    match bytes.get(HEADER_BYTES..end) {
        Some(payload) => Ok(Some((decode(header.kind, payload)?, end))),
        None => Ok(None),
    }
}

/// Decodes the payload of a frame of `kind`.
pub fn decode(kind: u8, payload: &[u8]) -> Result<Message<'_>, FrameError> {
    let malformed = FrameError::Payload(kind);
    let frame = match kind {
        GROUP => {
            let (bytes, value) = payload.split_last_chunk::<32>().ok_or(malformed)?;
            if bytes.is_empty() || bytes.len() > GROUP_BYTES {
                return Err(malformed);
            }
            return Ok(Message::Group { bytes, value: *value });
        }
        OFFER => Frame::Offer(canonical(kind, payload)?),
        ENTRIES => Frame::Entries(canonical(kind, payload)?),
        PROOF => Frame::Proof(canonical(kind, payload)?),
        REFUSE => Frame::Refuse(canonical::<Coded<Refusal>>(kind, payload)?.reason),
        HAVE => Frame::Have(canonical(kind, payload)?),
        RESUME => Frame::Resume(canonical(kind, payload)?),
        RECEIVED => Frame::Received(canonical(kind, payload)?),
        NOTICE => Frame::Notice(canonical(kind, payload)?),
        ABORT => Frame::Abort(canonical::<Coded<AbortReason>>(kind, payload)?.reason),
        OFFER_END | DONE | ACCEPT | START if !payload.is_empty() => return Err(malformed),
        OFFER_END => Frame::OfferEnd,
        DONE => Frame::Done,
        ACCEPT => Frame::Accept,
        START => Frame::Start,
        FILE_START | FILE_END | FILE_FAILED => {
            fixed(kind, payload).map_err(|_| malformed)?.ok_or(malformed)?
        }
        _ => return Err(FrameError::Kind(kind)),
    };
    if within_limits(&frame) { Ok(Message::Control(frame)) } else { Err(malformed) }
}

fn within_limits(frame: &Frame) -> bool {
    match frame {
        Frame::Proof(proof) => proof.values.len() % 32 == 0 && proof.values.len() / 32 <= MAX_PROOF_VALUES,
        Frame::Have(list) => list.len() <= MAX_LISTED,
        Frame::Resume(list) => list.len() <= MAX_LISTED,
        Frame::Received(received) => received.failed.len() <= MAX_FAILED_LISTED,
        Frame::Offer(head) => (1..=MAX_ANSWER_SECS).contains(&head.answer_within),
        _ => true,
    }
}

fn fixed(kind: u8, payload: &[u8]) -> Result<Option<Frame>, WireError> {
    let mut reader = Reader::new(payload);
    let frame = match kind {
        FILE_START => Some(Frame::FileStart { index: reader.u32()?, first: reader.u32()? }),
        FILE_END => Some(Frame::FileEnd { root: reader.array()? }),
        _ => {
            let index = reader.u32()?;
            Reason::from_code(reader.u8()?).map(|reason| Frame::FileFailed(Failed { index, reason }))
        }
    };
    reader.finish()?;
    Ok(frame)
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Coded<T> {
    #[n(0)]
    reason: T,
}

fn canonical<T>(kind: u8, payload: &[u8]) -> Result<T, FrameError>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let value: T = minicbor::decode(payload).map_err(|_| FrameError::Payload(kind))?;
    if cbor(&value) == payload { Ok(value) } else { Err(FrameError::Payload(kind)) }
}

fn cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing CBOR to memory cannot fail: no type of this module has an encoder that does.
    let _infallible = minicbor::encode(value, &mut bytes);
    bytes
}

/// Appends a frame.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let (kind, payload) = match frame {
        Frame::Offer(head) => (OFFER, cbor(head)),
        Frame::Entries(entries) => (ENTRIES, cbor(entries)),
        Frame::OfferEnd => (OFFER_END, Vec::new()),
        Frame::Proof(proof) => (PROOF, cbor(proof)),
        Frame::FileStart { index, first } => return start(*index, *first, out),
        Frame::FileEnd { root } => return put(FILE_END, root, out),
        Frame::FileFailed(failed) => {
            let mut writer = Writer::new();
            writer.u32(failed.index).u8(failed.reason.code());
            (FILE_FAILED, writer.finish())
        }
        Frame::Done => (DONE, Vec::new()),
        Frame::Refuse(reason) => (REFUSE, cbor(&Coded { reason: *reason })),
        Frame::Have(list) => (HAVE, cbor(list)),
        Frame::Accept => (ACCEPT, Vec::new()),
        Frame::Resume(list) => (RESUME, cbor(list)),
        Frame::Start => (START, Vec::new()),
        Frame::Received(received) => (RECEIVED, cbor(received)),
        Frame::Notice(notice) => (NOTICE, cbor(notice)),
        Frame::Abort(reason) => (ABORT, cbor(&Coded { reason: *reason })),
    };
    put(kind, &payload, out);
}

/// Header of a Group frame that carries `length` bytes of a file.
pub fn group_header(length: usize) -> [u8; HEADER_BYTES] {
    header(GROUP, length + 32)
}

fn start(index: u32, first: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(FILE_START, 8));
    out.extend_from_slice(&index.to_be_bytes());
    out.extend_from_slice(&first.to_be_bytes());
}

fn put(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(kind, payload.len()));
    out.extend_from_slice(payload);
}

fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    let [.., a, b, c] = length.to_be_bytes();
    [kind, a, b, c]
}

/// Splits entries into frames of bounded size, in order.
pub(crate) fn entries_frames(entries: &[Entry], mut each: impl FnMut(Vec<u8>)) {
    const PLENTY: usize = 128 << 10;
    let mut from = 0;
    while from < entries.len() {
        let mut size = 0;
        let mut to = from;
        while to < entries.len() && size < PLENTY {
            // Upper bound of the fixed part of an encoded entry.
            size += 48 + entries[to].name.len();
            if let crate::offer::Kind::Link(target) = &entries[to].kind {
                size += target.len();
            }
            to += 1;
        }
        let mut bytes = Vec::with_capacity(size);
        put(ENTRIES, &cbor_slice(&entries[from..to]), &mut bytes);
        each(bytes);
        from = to;
    }
}

fn cbor_slice(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    // Writing CBOR to memory cannot fail.
    let _infallible = encoder.array(entries.len() as u64);
    for entry in entries {
        let _infallible = encoder.encode(entry);
    }
    bytes
}
