use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use kith_sansio::wire::{Reader, WireError, Writer};
use kith_sansio::{Rng, Timestamp};
use sha3::{Digest, Sha3_256};
use zeroize::Zeroizing;

use super::place::{NoPlaces, Places, read_authority, write_authority};
use super::{Secret, Ticket};
use crate::{Address, Authority, Fingerprint, Ni};

/// What every link starts with.
const SCHEME: &str = "kith:";
/// Longest text that is looked at, blanks included.
const MAX_LINK_CHARS: usize = 4096;
const VERSION: u8 = 1;
/// Files will be offered to whoever joins.
const OFFERS: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const CHECKSUM_CONTEXT: &[u8] = b"kithnet invitation v1";

/// Why a text is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvitationError {
    /// Something else than a link.
    #[error("an invitation starts with 'kith:'")]
    Scheme,
    /// More than any link holds.
    #[error("this is longer than any invitation")]
    TooLong,
    /// A character is not of base32, or some are missing.
    #[error("the invitation is incomplete, or holds a character that no invitation has")]
    Alphabet,
    /// The checksum says that a character is wrong.
    #[error("the invitation is not as it was written: a character is wrong or missing")]
    Checksum,
    /// Made by a newer program.
    #[error("the invitation has the form {0}, which this version does not know")]
    Version(u8),
    /// The checksum is right, the content is not.
    #[error("the invitation is malformed")]
    Form,
    /// Neither authority nor address: nobody could find the inviter.
    #[error("an invitation needs an authority or an address")]
    Nowhere,
    /// No number of an invitation.
    #[error("'{0}' is not the id of an invitation")]
    Ticket(String),
}

impl From<WireError> for InvitationError {
    fn from(_: WireError) -> Self {
        InvitationError::Form
    }
}

impl From<NoPlaces> for InvitationError {
    fn from(_: NoPlaces) -> Self {
        InvitationError::Form
    }
}

/// What an invitation says beside its secret.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Who invites, and whose directory to ask.
    pub inviter: Ni,
    /// Where the inviter listens; at most [`MAX_PLACES`](super::MAX_PLACES) places are kept.
    pub addresses: Vec<Address>,
    /// The inviter's word for its end, to the second; what counts is the inviter's clock.
    pub expires: Timestamp,
    /// Whether files will be offered to whoever joins.
    pub offers: bool,
}

/// An invitation as its link carries it. The text `kith:` ‖ base32 of the bytes, in either case:
/// `u8 1 ‖ u8 flags ‖ u32 expires ‖ 32 fingerprint ‖ 8 ticket ‖ 16 secret ‖ u8 length ‖ authority ‖ places ‖ 4 checksum`
/// (`docs/protocol-invite.md`). One text in lower case per invitation.
#[derive(Clone)]
pub struct Invitation {
    fingerprint: Fingerprint,
    authority: Option<Authority>,
    places: Places,
    expires: u32,
    offers: bool,
    ticket: Ticket,
    secret: Secret,
}

impl Invitation {
    /// A new invitation, its ticket and secret drawn from `rng`.
    pub fn new(terms: &Terms, rng: &mut dyn Rng) -> Result<Invitation, InvitationError> {
        Invitation::with(terms, Ticket::random(rng), Secret::random(rng))
    }

    /// The invitation of this ticket and secret.
    pub fn with(terms: &Terms, ticket: Ticket, secret: Secret) -> Result<Invitation, InvitationError> {
        // A name that is too long for a link is left out, as if there were none.
        let authority = terms.inviter.authority.clone().filter(|name| name.to_string().len() <= 255);
        let places = Places::of(&terms.addresses);
        if authority.is_none() && places.is_empty() {
            return Err(InvitationError::Nowhere);
        }
        Ok(Invitation {
            fingerprint: terms.inviter.fingerprint,
            authority,
            places,
            expires: u32::try_from(terms.expires.0).unwrap_or(u32::MAX),
            offers: terms.offers,
            ticket,
            secret,
        })
    }

    /// Who invites, and whose directory to ask.
    pub fn inviter(&self) -> Ni {
        Ni::new(self.fingerprint, self.authority.clone())
    }

    /// Where the inviter listens.
    pub fn addresses(&self) -> Vec<Address> {
        self.places.addresses()
    }

    /// Until when, by the inviter's clock.
    pub fn expires(&self) -> Timestamp {
        Timestamp(self.expires.into())
    }

    /// Whether files will be offered to whoever joins.
    pub fn offers(&self) -> bool {
        self.offers
    }

    /// Which invitation it is.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// What is to be proved.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The link in lower case: to be copied and pasted.
    pub fn link(&self) -> Zeroizing<String> {
        let text = Zeroizing::new(BASE32_NOPAD.encode(&self.bytes()));
        Zeroizing::new(format!("{SCHEME}{}", text.to_ascii_lowercase()))
    }

    /// The link in upper case: the same, and smaller as a QR code, whose alphanumeric mode has no lower case.
    pub fn qr_text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.link().to_ascii_uppercase())
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new();
        writer
            .u8(VERSION)
            .u8(if self.offers { OFFERS } else { 0 })
            .u32(self.expires)
            .bytes(self.fingerprint.as_bytes())
            .bytes(self.ticket.as_bytes())
            .bytes(self.secret.as_bytes());
        write_authority(&mut writer, self.authority.as_ref());
        self.places.write(&mut writer);
        let mut bytes = Zeroizing::new(writer.finish());
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash: [u8; 32] = Sha3_256::new().chain_update(CHECKSUM_CONTEXT).chain_update(bytes).finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// Blanks and line breaks are ignored wherever they stand, and letters may be of either case, as copying, wrapping and
/// scanning leave them.
impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        if text.len() > MAX_LINK_CHARS {
            return Err(InvitationError::TooLong);
        }
        let compact: Zeroizing<String> = Zeroizing::new(
            text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_uppercase()).collect(),
        );
        let body = compact.strip_prefix("KITH:").ok_or(InvitationError::Scheme)?;
        let bytes =
            Zeroizing::new(BASE32_NOPAD.decode(body.as_bytes()).map_err(|_| InvitationError::Alphabet)?);
        parse(&bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<Invitation, InvitationError> {
    let head = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(InvitationError::Alphabet)?;
    let (body, sum) = bytes.split_at(head);
    if checksum(body) != sum {
        return Err(InvitationError::Checksum);
    }
    let mut reader = Reader::new(body);
    match reader.u8()? {
        VERSION => {}
        other => return Err(InvitationError::Version(other)),
    }
    let offers = match reader.u8()? {
        0 => false,
        OFFERS => true,
        _ => return Err(InvitationError::Form),
    };
    let invitation = Invitation {
        expires: reader.u32()?,
        fingerprint: Fingerprint::from_bytes(reader.array()?),
        ticket: Ticket::from_bytes(reader.array()?),
        secret: Secret::from_bytes(reader.array()?),
        authority: read_authority(&mut reader)?,
        places: Places::read(&mut reader)?,
        offers,
    };
    reader.finish()?;
    if invitation.authority.is_none() && invitation.places.is_empty() {
        return Err(InvitationError::Nowhere);
    }
    Ok(invitation)
}
