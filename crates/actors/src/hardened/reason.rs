//! Why a member refuses, as it tells the one who asked.

use kith_identity::membership::NodeId;
use kith_sansio::wire::{Reader, WireError, Writer};

use super::Refusal;

/// Why a member does not do what another asked it to. **Not verified**: it says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It knows another epoch, or another region than the one of the place.
    #[error("it knows another epoch or region")]
    Elsewhere,
    /// The ticket, or the list that it asks for, is not one of this time or of this network's sizes.
    #[error("it finds the ticket expired, too lasting, or of a wrong number of actors")]
    Terms,
    /// The number of the draw was used or is beyond the quota, or the draw served a selection before.
    #[error("it finds the number of the draw used, or beyond the quota")]
    Sequence,
    /// The group is not the one that follows from the members' places.
    #[error("it finds another group nearer")]
    Group,
    /// A member that was left out answers it.
    #[error("{0:?}, which was left out, answers it")]
    LeftOut(NodeId),
    /// A signature, path or output does not verify for it, or it takes no part with the one who asked.
    #[error("it finds a signer or a proof wrong, or takes no part with one of them")]
    Signer,
    /// It has no book of this epoch, or a full one.
    #[error("it cannot take part in this epoch")]
    Book,
    /// Too few members answer it, or too much is asked of it.
    #[error("it is too busy, or too few members answer it")]
    Busy,
    /// Those whom it asked did not do their part.
    #[error("those whom it asked did not do their part")]
    Others,
}

impl Reason {
    /// What is said of a refusal.
    pub fn of(refusal: &Refusal) -> Reason {
        match refusal {
            Refusal::Region | Refusal::NoTable(_) | Refusal::Table | Refusal::Elsewhere | Refusal::Epoch => {
                Reason::Elsewhere
            }
            Refusal::Expired | Refusal::Lasting | Refusal::Actors { .. } => Reason::Terms,
            Refusal::Sequence => Reason::Sequence,
            Refusal::Group => Reason::Group,
            Refusal::LeftOut(id) => Reason::LeftOut(*id),
            Refusal::Signer | Refusal::Report => Reason::Signer,
            Refusal::Book | Refusal::Full => Reason::Book,
            Refusal::Sparse => Reason::Busy,
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Reason>, WireError> {
        Ok(Some(match reader.u8()? {
            0 => Reason::Elsewhere,
            1 => Reason::Terms,
            2 => Reason::Sequence,
            3 => Reason::Group,
            4 => Reason::LeftOut(NodeId::from_bytes(reader.array()?)),
            5 => Reason::Signer,
            6 => Reason::Book,
            7 => Reason::Busy,
            8 => Reason::Others,
            _ => return Ok(None),
        }))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Reason::Elsewhere => writer.u8(0),
            Reason::Terms => writer.u8(1),
            Reason::Sequence => writer.u8(2),
            Reason::Group => writer.u8(3),
            Reason::LeftOut(id) => writer.u8(4).bytes(id.as_bytes()),
            Reason::Signer => writer.u8(5),
            Reason::Book => writer.u8(6),
            Reason::Busy => writer.u8(7),
            Reason::Others => writer.u8(8),
        };
    }
}
