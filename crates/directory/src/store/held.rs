use bytes::Bytes;
use data_encoding::BASE64;
use kith_identity::Fingerprint;
use kith_identity::record::{CLOCK_SKEW_SECS, MAX_TTL_SECS, RecordSet, VerifiedRecordSet};
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError};

use super::StoreError;
use crate::replay::Seen;

/// What the signed bytes of every set begin with.
const TAG: &[u8] = b"kithnet record set v1";
/// Bytes of the signature, behind the signed bytes.
const SIGNATURE_BYTES: usize = 64;

/// A set as a store keeps it, to be handed on to somebody who verifies it.
///
/// It was verified when it was announced. The signature is not looked at again, since that would cost more than all
/// the rest of an answer, so this is not a [`VerifiedRecordSet`]: nothing in the program may believe what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    bytes: Bytes,
    timestamp: Timestamp,
    expires: Timestamp,
}

impl Held {
    /// The set in its binary form. `None` for what is none, which is damage of the store.
    #[must_use]
    pub fn from_bytes(fingerprint: &Fingerprint, bytes: impl Into<Bytes>) -> Option<Held> {
        let bytes = bytes.into();
        let mut set = Held { bytes, timestamp: Timestamp(0), expires: Timestamp(0) };
        let (mut timestamp, mut ttl, mut owner) = (None, None, None);
        let mut records = set.records()?;
        while let Some(Text { kind, value }) = records.next().ok()? {
            let text = || std::str::from_utf8(value).ok();
            match kind {
                b"timestamp" => timestamp = text()?.parse::<Timestamp>().ok(),
                b"ttl" => ttl = text()?.parse::<u32>().ok().filter(|ttl| *ttl <= MAX_TTL_SECS),
                b"pubkey" => owner = kith_identity::fingerprint_of_spki(value).ok(),
                _ => {}
            }
        }
        owner.filter(|owner| owner == fingerprint)?;
        set.timestamp = timestamp?;
        set.expires = set.timestamp.plus_secs(ttl?.into());
        Some(set)
    }

    /// The set in a row of a store's history, which is empty where there was none.
    pub(super) fn of_row(
        fingerprint: &Fingerprint,
        bytes: impl Into<Bytes>,
    ) -> Result<Option<Held>, StoreError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Ok(None);
        }
        Held::from_bytes(fingerprint, bytes).map(Some).ok_or(StoreError::Damaged(*fingerprint))
    }

    /// The set that a store kept in `bytes`, if it is valid at `now`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for what is no set of `fingerprint`, [`StoreError::ClockBehind`] for one from the
    /// future, which was taken before the clock was set back.
    pub fn stored(
        now: Timestamp,
        fingerprint: &Fingerprint,
        bytes: impl Into<Bytes>,
    ) -> Result<Option<Held>, StoreError> {
        let set = Held::from_bytes(fingerprint, bytes).ok_or(StoreError::Damaged(*fingerprint))?;
        if set.timestamp > now.plus_secs(CLOCK_SKEW_SECS) {
            return Err(StoreError::ClockBehind { fingerprint: *fingerprint, timestamp: set.timestamp, now });
        }
        Ok(Some(set).filter(|set| set.is_valid_at(now)))
    }

    /// The form in which a store holds `set`.
    #[must_use]
    pub fn of(set: &VerifiedRecordSet) -> Held {
        Held { bytes: set.to_bytes().into(), timestamp: set.timestamp(), expires: set.expires() }
    }

    /// The first second in which it is not valid any more.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// For how long it was made, in seconds.
    pub(crate) fn ttl_secs(&self) -> u64 {
        self.expires.secs_since(self.timestamp)
    }

    /// What the replay rule remembers of it.
    pub(crate) fn seen(&self) -> Seen {
        Seen { timestamp: self.timestamp, digest: self.digest() }
    }

    /// Whether its time is now.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.timestamp <= now.plus_secs(CLOCK_SKEW_SECS) && now < self.expires
    }

    /// The records; not even their syntax is believed. `None` where the store is damaged.
    pub(crate) fn to_record_set(&self) -> Option<RecordSet> {
        RecordSet::from_bytes(&self.bytes).ok()
    }

    /// The digest of [`Seen`], which tells one set of a node from another.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let (signed, signature) = self.parts();
        Seen::digest_of(signed, signature)
    }

    /// Calls `take` with the name, the text and the signs of each TXT record, the signature last, as
    /// [`RecordSet::to_txt`] would give them. `false` where the store is damaged.
    pub(crate) fn each_text(&self, mut take: impl FnMut(Text<'_>)) -> bool {
        let Some(mut records) = self.records() else { return false };
        loop {
            match records.next() {
                Ok(Some(text)) => take(text),
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        take(Text { kind: b"signature", value: self.parts().1 });
        true
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.bytes.len().saturating_sub(SIGNATURE_BYTES))
    }

    fn records(&self) -> Option<Records<'_>> {
        self.parts().0.strip_prefix(TAG).map(|body| Records(Reader::new(body)))
    }
}

/// Walks over signed bytes: u16 length of type ‖ type ‖ u32 length of value ‖ value.
struct Records<'a>(Reader<'a>);

impl<'a> Records<'a> {
    fn next(&mut self) -> Result<Option<Text<'a>>, WireError> {
        if self.0.left() == 0 {
            return Ok(None);
        }
        let length = self.0.u16()?;
        let kind = self.0.bytes(length.into())?;
        let length = self.0.u32()?;
        let value = self.0.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(Some(Text { kind, value }))
    }
}

/// One record as the text `type=value`.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    kind: &'a [u8],
    value: &'a [u8],
}

impl Text<'_> {
    fn is_plain(&self) -> bool {
        matches!(self.kind, b"address" | b"relay" | b"timestamp" | b"ttl" | b"version")
    }

    /// Length of the text in bytes.
    pub(crate) fn len(&self) -> usize {
        let value = if self.is_plain() { self.value.len() } else { BASE64.encode_len(self.value.len()) };
        self.kind.len() + 1 + value
    }

    /// Adds the text to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.kind);
        out.push(b'=');
        if self.is_plain() {
            return out.extend_from_slice(self.value);
        }
        let begin = out.len();
        out.resize(begin + BASE64.encode_len(self.value.len()), 0);
        BASE64.encode_mut(self.value, &mut out[begin..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, set, set_with_blob};

    const NOW: Timestamp = Timestamp(1_800_000_000);

    #[test]
    fn a_held_set_says_what_the_verified_one_says() {
        let alice = identity(1);
        for set in [set(&alice, NOW, 60), set_with_blob(&alice, NOW, 1000)] {
            let held = Held::from_bytes(&alice.fingerprint(), set.to_bytes()).unwrap();
            assert_eq!(held, Held::of(&set));
            assert_eq!(held.digest(), Seen::of(&set).digest);
            assert_eq!(held.to_record_set().as_ref(), Some(set.as_record_set()));
            let mut texts = Vec::new();
            assert!(held.each_text(|text| {
                let mut bytes = Vec::new();
                text.write(&mut bytes);
                assert_eq!(bytes.len(), text.len());
                texts.push(bytes);
            }));
            assert_eq!(texts, set.to_txt());
            for now in [NOW.minus_secs(61), NOW.minus_secs(60), NOW, NOW.plus_secs(59), NOW.plus_secs(60)] {
                assert_eq!(held.is_valid_at(now), set.is_valid_at(now), "{now}");
            }
        }
    }

    #[test]
    fn a_set_from_the_future_says_that_the_clock_is_behind() {
        let alice = identity(1);
        let bytes = set(&alice, NOW, 60).to_bytes();
        let at = |now| Held::stored(now, &alice.fingerprint(), bytes.clone());
        assert!(at(NOW.minus_secs(60)).unwrap().is_some());
        assert!(matches!(at(NOW.minus_secs(61)), Err(StoreError::ClockBehind { .. })));
        assert!(at(NOW.plus_secs(60)).unwrap().is_none());
    }

    #[test]
    fn what_is_cut_or_somebody_elses_is_damage() {
        let alice = identity(1);
        let bytes = set(&alice, NOW, 60).to_bytes();
        assert!(Held::from_bytes(&identity(2).fingerprint(), bytes.clone()).is_none());
        for length in 0..bytes.len() {
            assert!(Held::from_bytes(&alice.fingerprint(), bytes[..length].to_vec()).is_none(), "{length}");
        }
    }
}
