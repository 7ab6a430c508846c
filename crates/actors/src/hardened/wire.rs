//! Messages as bytes: `u8 kind ‖ fields` as in `docs/actors-protocol.md`, big-endian, lists after their length as u16.

use kith_identity::membership::tree::{Leaf, MAX_RANGE, Path, TreeError};
use kith_identity::membership::{MemberLeaf, NodeId};
use kith_identity::vrf::Proof;
use kith_sansio::wire::{Reader, WireError, Writer};

use super::group::MAX_SIGNERS;
use super::list::{Endorsement, MAX_ACTORS, MAX_MOVES};
use super::stalled::{MAX_STALLED, Reminder, Stalled};
use super::{ActorList, Draw, DrawShare, Group, Job, Message, Order, Proposal, Reason, Ticket};
use crate::scheme::Signature;

/// Largest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes are too short or too long for what they say they are.
    #[error("not a message: {0}")]
    Form(#[from] WireError),
    /// A membership path in it is none.
    #[error("a membership path: {0}")]
    Path(#[from] TreeError),
    /// No message has this number.
    #[error("no message of kind {0}")]
    Kind(u8),
    /// No reason has the number in it.
    #[error("a refusal without a known reason")]
    Reason,
    /// The list in it is none.
    #[error("the list in it is none")]
    List,
    /// A list, or the whole message, is longer than any may be.
    #[error("the message is too large")]
    TooLarge,
}

type Result<T> = std::result::Result<T, MessageError>;

impl Message {
    /// The message in these bytes; refuses every form but the one of [`Message::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Message> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let message = Message::read(&mut reader)?;
        reader.finish()?;
        Ok(message)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.finish()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Message> {
        Ok(match reader.u8()? {
            1 => Message::Propose(Box::new(Proposal::read(reader)?)),
            2 => Message::Accept(reader.array()?),
            3 => Message::Accepted(read_signatures(reader)?),
            4 => Message::Reveal(Proof::from_bytes(reader.array()?)),
            5 => Message::Build(Box::new(Job::read(reader)?)),
            6 => Message::Report(read_ids(reader)?),
            7 => Message::Reports(read_list(reader, MAX_SIGNERS, read_ids)?),
            8 => Message::Signed { actors: read_leaves(reader, MAX_ACTORS)?, signature: reader.array()? },
            9 => Message::Insufficient(reader.array()?),
            10 => Message::Order(Box::new(Order::read(reader)?)),
            11 => Message::Selected(Box::new(
                ActorList::from_bytes(reader.rest()).map_err(|_| MessageError::List)?,
            )),
            12 => Message::Moved(Box::new(Order::read(reader)?)),
            13 => Message::Refused(Reason::read(reader)?.ok_or(MessageError::Reason)?),
            14 => Message::Ping,
            15 => Message::Pong,
            16 => Message::Remind(Box::new(Reminder::read(reader)?)),
            17 => {
                let from = NodeId::from_bytes(reader.array()?);
                Message::Late { from, proof: Box::new(Proof::from_bytes(reader.array()?)) }
            }
            other => return Err(MessageError::Kind(other)),
        })
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Message::Propose(proposal) => proposal.write(writer.u8(1)),
            Message::Accept(signature) => {
                writer.u8(2).bytes(signature);
            }
            Message::Accepted(signatures) => write_signatures(signatures, writer.u8(3)),
            Message::Reveal(proof) => {
                writer.u8(4).bytes(proof.as_bytes());
            }
            Message::Build(job) => job.write(writer.u8(5)),
            Message::Report(failed) => write_ids(failed, writer.u8(6)),
            Message::Reports(reports) => {
                write_list(writer.u8(7), reports, |report, writer| write_ids(report, writer));
            }
            Message::Signed { actors, signature } => {
                write_list(writer.u8(8), actors, MemberLeaf::write);
                writer.bytes(signature);
            }
            Message::Insufficient(signature) => {
                writer.u8(9).bytes(signature);
            }
            Message::Order(order) => order.write(writer.u8(10)),
            Message::Selected(list) => {
                writer.u8(11).bytes(&list.to_bytes());
            }
            Message::Moved(order) => order.write(writer.u8(12)),
            Message::Refused(reason) => reason.write(writer.u8(13)),
            Message::Ping => {
                writer.u8(14);
            }
            Message::Pong => {
                writer.u8(15);
            }
            Message::Remind(reminder) => reminder.write(writer.u8(16)),
            Message::Late { from, proof } => {
                writer.u8(17).bytes(from.as_bytes()).bytes(proof.as_bytes());
            }
        }
    }
}

impl Proposal {
    fn read(reader: &mut Reader<'_>) -> Result<Proposal> {
        Ok(Proposal {
            ticket: Ticket::read(reader)?,
            trigger: Path::read(reader)?,
            signature: reader.array()?,
            group: Group::read(reader)?,
        })
    }

    fn write(&self, writer: &mut Writer) {
        self.ticket.write(writer);
        self.trigger.write(writer);
        writer.bytes(&self.signature);
        self.group.write(writer);
    }
}

impl Reminder {
    fn read(reader: &mut Reader<'_>) -> Result<Reminder> {
        let proposal = Proposal::read(reader)?;
        let stalled = read_list(reader, MAX_STALLED, |reader| {
            let proposal = Proposal::read(reader)?;
            Ok(Stalled { proposal, signatures: read_signatures(reader)? })
        })?;
        Ok(Reminder { proposal, stalled })
    }

    fn write(&self, writer: &mut Writer) {
        self.proposal.write(writer);
        write_list(writer, &self.stalled, |draw, writer| {
            draw.proposal.write(writer);
            write_signatures(&draw.signatures, writer);
        });
    }
}

impl Order {
    fn read(reader: &mut Reader<'_>) -> Result<Order> {
        let proposal = Proposal::read(reader)?;
        let shares = read_list(reader, MAX_SIGNERS, |reader| {
            let (witness, signature) = (Path::read(reader)?, reader.array()?);
            Ok(DrawShare { witness, signature, proof: Proof::from_bytes(reader.array()?) })
        })?;
        let moves = read_list(reader, MAX_MOVES, |reader| Ok(Endorsement::read(reader)?))?;
        Ok(Order { draw: Draw { proposal, shares }, moves })
    }

    fn write(&self, writer: &mut Writer) {
        let Order { draw, moves } = self;
        draw.proposal.write(writer);
        write_list(writer, &draw.shares, |share, writer| {
            share.witness.write(writer);
            writer.bytes(&share.signature).bytes(share.proof.as_bytes());
        });
        write_list(writer, moves, Endorsement::write);
    }
}

impl Job {
    fn read(reader: &mut Reader<'_>) -> Result<Job> {
        Ok(Job { order: Order::read(reader)?, group: Group::read(reader)? })
    }

    fn write(&self, writer: &mut Writer) {
        self.order.write(writer);
        self.group.write(writer);
    }
}

impl Group {
    fn read(reader: &mut Reader<'_>) -> Result<Group> {
        let bits = reader.u8()?;
        Ok(Group { bits, members: read_leaves(reader, MAX_SIGNERS)?, skipped: read_ids(reader)? })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        write_list(writer.u8(self.bits), &self.members, MemberLeaf::write);
        write_ids(&self.skipped, writer);
    }
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    most: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = usize::from(reader.u16()?);
    if count > most {
        return Err(MessageError::TooLarge);
    }
    (0..count).map(|_| read(reader)).collect()
}

fn write_list<T>(writer: &mut Writer, items: &[T], write: impl Fn(&T, &mut Writer)) {
    writer.u16(items.len() as u16);
    items.iter().for_each(|item| write(item, writer));
}

fn read_leaves(reader: &mut Reader<'_>, most: usize) -> Result<Vec<MemberLeaf>> {
    read_list(reader, most, |reader| Ok(MemberLeaf::read(reader)?))
}

fn read_signatures(reader: &mut Reader<'_>) -> Result<Vec<Signature>> {
    read_list(reader, MAX_SIGNERS, |reader| Ok(reader.array()?))
}

fn write_signatures(signatures: &[Signature], writer: &mut Writer) {
    write_list(writer, signatures, |signature, writer| {
        writer.bytes(signature);
    });
}

fn read_ids(reader: &mut Reader<'_>) -> Result<Vec<NodeId>> {
    read_list(reader, MAX_RANGE, |reader| Ok(NodeId::from_bytes(reader.array()?)))
}

fn write_ids(ids: &[NodeId], writer: &mut Writer) {
    write_list(writer, ids, |id, writer| {
        writer.bytes(id.as_bytes());
    });
}
