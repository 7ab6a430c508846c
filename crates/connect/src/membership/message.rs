//! The messages of `network/1`: each is `u24 length ‖ u8 kind ‖ body`, numbers big-endian.
//!
//! | from | kind | body |
//! | --- | --- | --- |
//! | member | 0 | a request to join, 187 bytes |
//! | member | 1 | nothing: asks for the newest epoch |
//! | member | 2 | `u64 epoch ‖ u8 bits ‖ 32 first id`: asks for the members of this block |
//! | member | 3 | the same: asks for the revocations of this block |
//! | member | 4 | evidence, 335 bytes |
//! | member | 5 | `u16 port`: asks whom of the other members it may call, and says where it is called itself |
//! | issuer | 0 | a certificate, 337 bytes, and the statement of the epoch, 296 |
//! | issuer | 1 | the statement of the epoch |
//! | issuer | 2 | a range of members |
//! | issuer | 3 | a range of revocations |
//! | issuer | 4 | nothing: the evidence was taken |
//! | issuer | 5 | `u8`: why not ([`Refusal`]) |
//! | issuer | 6 | `u8 count ‖ (a certificate, 337 bytes ‖ address) …`: members and where they are called, 20 at most |
//!
//! An address is `4 ‖ ip [4] ‖ port u16` or `6 ‖ ip [16] ‖ port u16`.

use std::net::{IpAddr, SocketAddr};

use kith_identity::membership::pledge::Evidence;
use kith_identity::membership::tree::{Leaf, Range};
use kith_identity::membership::{
    Block, EPOCH_BYTES, Epoch, MEMBER_BYTES, Member, MemberLeaf, NodeId, Request, RevokedLeaf,
};
use kith_sansio::wire::{Reader, WireError, Writer};

/// Longest question in bytes, without its length: evidence is the longest.
pub const MAX_QUESTION_BYTES: usize = 336;
/// Longest answer in bytes, without its length: a range of 4096 members with 255 siblings fits.
pub const MAX_ANSWER_BYTES: usize = 402 << 10;

/// Most members that one answer says where to call.
pub const MAX_MET: usize = 20;

/// What is wrong with a message: the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A length of 0, or beyond what such a message may have.
    #[error("a message may not be {0} bytes long")]
    Length(usize),
    /// Not of any message's form.
    #[error("a message is malformed")]
    Malformed,
}

/// What a member asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// To become a member, or to have its certificate renewed.
    Join(Request),
    /// For the newest epoch.
    Newest,
    /// For all members of a block, as of this epoch.
    Members(u64, Block),
    /// For all revoked fingerprints of a block, as of this epoch.
    Revoked(u64, Block),
    /// To revoke a member that has broken a pledge.
    Accuse(Evidence),
    /// For members that it may call, being called itself over QUIC at this port of the address that it comes from; 0
    /// where it cannot be called.
    Meet(u16),
}

/// What the issuer answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The asking node is a member, by this certificate; and the newest epoch.
    Admitted(Box<Member>, Box<Epoch>),
    /// The newest epoch.
    Newest(Box<Epoch>),
    /// All members of the block.
    Members(Range<MemberLeaf>),
    /// All revoked fingerprints of the block.
    Revoked(Range<RevokedLeaf>),
    /// The evidence holds; the next epoch tells it.
    Taken,
    /// It does not do what it was asked.
    Refused(Refusal),
    /// Members that asked not long ago, and where they are called over QUIC, as they say.
    Met(Vec<(Member, SocketAddr)>),
}

/// Why the issuer does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum Refusal {
    /// The node has not been invited.
    #[error("this node has not been invited")]
    Uninvited = 0,
    /// The node was a member and has been revoked, which is for good.
    #[error("this node has been revoked")]
    Revoked = 1,
    /// The node has joined with another key of its random function.
    #[error("this node has joined with another key of its random function")]
    OtherVrf = 2,
    /// Only members ask for this.
    #[error("this node is no member")]
    NoMember = 3,
    /// Another epoch has begun.
    #[error("another epoch has begun")]
    OtherEpoch = 4,
    /// More leaves than a range may have: ask for its halves.
    #[error("there is too much in this block")]
    TooLarge = 5,
    /// The request or the evidence does not hold.
    #[error("what was sent does not hold")]
    Unsound = 6,
    /// The issuer cannot answer at the moment.
    #[error("the issuer cannot answer now")]
    Trouble = 7,
}

/// Reads and checks the length of a question.
pub fn question_length(bytes: [u8; 3]) -> Result<usize, MessageError> {
    length(bytes, MAX_QUESTION_BYTES)
}

/// Reads and checks the length of an answer.
pub fn answer_length(bytes: [u8; 3]) -> Result<usize, MessageError> {
    length(bytes, MAX_ANSWER_BYTES)
}

fn length([a, b, c]: [u8; 3], most: usize) -> Result<usize, MessageError> {
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if (1..=most).contains(&length) { Ok(length) } else { Err(MessageError::Length(length)) }
}

impl From<WireError> for MessageError {
    fn from(_: WireError) -> Self {
        MessageError::Malformed
    }
}

impl Question {
    /// The message with its length before it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Question::Join(request) => writer.u8(0).bytes(&request.to_bytes()),
            Question::Newest => writer.u8(1),
            Question::Members(epoch, block) => write_block(writer.u8(2), *epoch, block),
            Question::Revoked(epoch, block) => write_block(writer.u8(3), *epoch, block),
            Question::Accuse(evidence) => writer.u8(4).bytes(&evidence.to_bytes()),
            Question::Meet(port) => writer.u8(5).u16(*port),
        };
        framed(&writer.finish())
    }

    /// Reads a message without its length; refuses every form but the one of [`Question::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Question, MessageError> {
        let mut reader = Reader::new(bytes);
        let question = match reader.u8()? {
            0 => Question::Join(Request::from_bytes(reader.rest()).map_err(malformed)?),
            1 => Question::Newest,
            2 => read_block(&mut reader).map(|(epoch, block)| Question::Members(epoch, block))?,
            3 => read_block(&mut reader).map(|(epoch, block)| Question::Revoked(epoch, block))?,
            4 => Question::Accuse(Evidence::from_bytes(reader.rest()).map_err(malformed)?),
            5 => Question::Meet(reader.u16()?),
            _ => return Err(MessageError::Malformed),
        };
        reader.finish()?;
        Ok(question)
    }
}

impl Answer {
    /// The message with its length before it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Answer::Admitted(member, epoch) => {
                writer.u8(0).bytes(&member.to_bytes()).bytes(&epoch.to_bytes());
            }
            Answer::Newest(epoch) => {
                writer.u8(1).bytes(&epoch.to_bytes());
            }
            Answer::Members(range) => range.write(writer.u8(2)),
            Answer::Revoked(range) => range.write(writer.u8(3)),
            Answer::Taken => {
                writer.u8(4);
            }
            Answer::Refused(refusal) => {
                writer.u8(5).u8(*refusal as u8);
            }
            Answer::Met(members) => {
                let members = &members[..members.len().min(MAX_MET)];
                writer.u8(6).u8(members.len() as u8);
                members.iter().for_each(|one| write_met(&mut writer, one));
            }
        }
        framed(&writer.finish())
    }

    /// Reads a message without its length; refuses every form but the one of [`Answer::to_bytes`]. Nothing in it is
    /// verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<Answer, MessageError> {
        let mut reader = Reader::new(bytes);
        let answer = match reader.u8()? {
            0 => Answer::Admitted(
                Member::from_bytes(reader.bytes(MEMBER_BYTES)?).map(Box::new).map_err(malformed)?,
                read_epoch(&mut reader)?,
            ),
            1 => Answer::Newest(read_epoch(&mut reader)?),
            2 => Answer::Members(read_range(&mut reader)?),
            3 => Answer::Revoked(read_range(&mut reader)?),
            4 => Answer::Taken,
            5 => Answer::Refused(Refusal::from_code(reader.u8()?)?),
            6 => Answer::Met(read_all_met(&mut reader)?),
            _ => return Err(MessageError::Malformed),
        };
        reader.finish()?;
        Ok(answer)
    }
}

impl Refusal {
    fn from_code(code: u8) -> Result<Refusal, MessageError> {
        use Refusal as R;
        let all = [
            R::Uninvited,
            R::Revoked,
            R::OtherVrf,
            R::NoMember,
            R::OtherEpoch,
            R::TooLarge,
            R::Unsound,
            R::Trouble,
        ];
        all.into_iter().find(|one| *one as u8 == code).ok_or(MessageError::Malformed)
    }
}

fn malformed<E>(_: E) -> MessageError {
    MessageError::Malformed
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u24(message.len() as u32).bytes(message);
    writer.finish()
}

fn write_block<'a>(writer: &'a mut Writer, epoch: u64, block: &Block) -> &'a mut Writer {
    writer.u64(epoch).u8(block.bits()).bytes(block.first().as_bytes())
}

fn read_block(reader: &mut Reader<'_>) -> Result<(u64, Block), MessageError> {
    let (epoch, bits, first) = (reader.u64()?, reader.u8()?, NodeId::from_bytes(reader.array()?));
    let block = Block::around(&first, bits);
    if block.first() == first { Ok((epoch, block)) } else { Err(MessageError::Malformed) }
}

fn read_epoch(reader: &mut Reader<'_>) -> Result<Box<Epoch>, MessageError> {
    Epoch::from_bytes(reader.bytes(EPOCH_BYTES)?).map(Box::new).map_err(malformed)
}

fn write_met(writer: &mut Writer, (member, address): &(Member, SocketAddr)) {
    writer.bytes(&member.to_bytes());
    match address.ip() {
        IpAddr::V4(ip) => writer.u8(4).bytes(&ip.octets()),
        IpAddr::V6(ip) => writer.u8(6).bytes(&ip.octets()),
    };
    writer.u16(address.port());
}

fn read_all_met(reader: &mut Reader<'_>) -> Result<Vec<(Member, SocketAddr)>, MessageError> {
    let count = usize::from(reader.u8()?);
    if count > MAX_MET {
        return Err(MessageError::Malformed);
    }
    (0..count).map(|_| read_met(reader)).collect()
}

fn read_met(reader: &mut Reader<'_>) -> Result<(Member, SocketAddr), MessageError> {
    let member = Member::from_bytes(reader.bytes(MEMBER_BYTES)?).map_err(malformed)?;
    let ip = match reader.u8()? {
        4 => IpAddr::from(reader.array::<4>()?),
        6 => IpAddr::from(reader.array::<16>()?),
        _ => return Err(MessageError::Malformed),
    };
    Ok((member, SocketAddr::new(ip, reader.u16()?)))
}

fn read_range<L: Leaf>(reader: &mut Reader<'_>) -> Result<Range<L>, MessageError> {
    Range::read(reader).map_err(malformed)
}
