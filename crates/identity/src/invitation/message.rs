use kith_sansio::wire::{Reader, WireError, Writer};

use super::place::{NoPlaces, Places, read_authority, write_authority};
use super::{Proof, Ticket};
use crate::contacts::Petname;
use crate::{Address, Authority};

/// Most bytes of a message.
pub const MAX_MESSAGE_BYTES: usize = 1024;

const JOIN: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;
const STORED: u8 = 4;
const SEEN: u8 = 5;

/// Why bytes are no message of `invite/1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message has at most {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// A kind that there is not.
    #[error("there is no message of kind {0}")]
    Kind(u8),
    /// The kind is known, its content is malformed.
    #[error("the message is malformed")]
    Form,
}

impl From<WireError> for MessageError {
    fn from(_: WireError) -> Self {
        MessageError::Form
    }
}

impl From<NoPlaces> for MessageError {
    fn from(_: NoPlaces) -> Self {
        MessageError::Form
    }
}

/// What a node says of itself to somebody who becomes its contact. Claims, made over a connection whose other end has
/// proved its key: whoever takes the addresses dials them as cautiously as those of a record set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The name that it would like to be called by.
    pub name: Option<Petname>,
    /// The zone whose directory knows it.
    pub authority: Option<Authority>,
    /// Where it listens; at most [`MAX_PLACES`](super::MAX_PLACES) places are told.
    pub addresses: Vec<Address>,
}

/// What is said in `invite/1`, each message once and in this order: [`Join`](Message::Join),
/// [`Welcome`](Message::Welcome) or [`Refused`](Message::Refused), [`Stored`](Message::Stored),
/// [`Seen`](Message::Seen).
#[derive(Clone, Debug)]
pub enum Message {
    /// From the joiner: which invitation, and the proof.
    Join {
        /// Which invitation.
        ticket: Ticket,
        /// That the joiner has its secret.
        proof: Proof,
        /// Who the joiner is.
        who: Introduction,
    },
    /// From the inviter, who has stored the joiner as a contact.
    Welcome {
        /// That the inviter has the secret too.
        proof: Proof,
        /// Who the inviter is.
        who: Introduction,
    },
    /// From the inviter: used, expired, cancelled, guessed wrongly or never there.
    Refused,
    /// From the joiner, who has stored the inviter as a contact.
    Stored,
    /// From the inviter: all is known.
    Seen,
}

impl Message {
    /// `u8 kind ‖ content`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Message::Join { ticket, proof, who } => {
                writer.u8(JOIN).bytes(ticket.as_bytes()).bytes(&proof.0);
                who.write(&mut writer);
            }
            Message::Welcome { proof, who } => {
                writer.u8(WELCOME).bytes(&proof.0);
                who.write(&mut writer);
            }
            Message::Refused => drop(writer.u8(REFUSED)),
            Message::Stored => drop(writer.u8(STORED)),
            Message::Seen => drop(writer.u8(SEEN)),
        }
        writer.finish()
    }

    /// Reads a message; what follows it is an error.
    pub fn from_bytes(bytes: &[u8]) -> Result<Message, MessageError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong);
        }
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            JOIN => Message::Join {
                ticket: Ticket::from_bytes(reader.array()?),
                proof: Proof(reader.array()?),
                who: Introduction::read(&mut reader)?,
            },
            WELCOME => {
                Message::Welcome { proof: Proof(reader.array()?), who: Introduction::read(&mut reader)? }
            }
            REFUSED => Message::Refused,
            STORED => Message::Stored,
            SEEN => Message::Seen,
            other => return Err(MessageError::Kind(other)),
        };
        reader.finish()?;
        Ok(message)
    }
}

impl Introduction {
    /// `u16 length ‖ name ‖ u8 length ‖ authority ‖ places`; a length of 0 for none.
    fn write(&self, writer: &mut Writer) {
        let name = self.name.as_ref().map_or("", Petname::as_str);
        // A petname has at most 64 characters.
        writer.u16(name.len() as u16).bytes(name.as_bytes());
        write_authority(writer, self.authority.as_ref());
        Places::of(&self.addresses).write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Introduction, MessageError> {
        let length = usize::from(reader.u16()?);
        let name = match std::str::from_utf8(reader.bytes(length)?) {
            Ok("") => None,
            Ok(text) => Some(text.parse().map_err(|_| MessageError::Form)?),
            Err(_) => return Err(MessageError::Form),
        };
        let authority = read_authority(reader)?;
        Ok(Introduction { name, authority, addresses: Places::read(reader)?.addresses() })
    }
}
