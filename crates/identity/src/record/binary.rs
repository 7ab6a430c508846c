//! Binary: the signed bytes as they are, then the 64 bytes of the signature. One form per set.

use kith_sansio::wire::{Reader, WireError};

use super::set::TAG;
use super::{Kind, MAX_RECORDS, MAX_SIGNED_BYTES, Record, RecordError, RecordSet, VerifiedRecordSet};

/// Length of the signature in bytes.
const SIGNATURE_BYTES: usize = 64;

impl RecordSet {
    /// The set in its binary form; refuses every form but the one [`RecordSet::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<RecordSet, RecordError> {
        let limit = MAX_SIGNED_BYTES + SIGNATURE_BYTES;
        if bytes.len() > limit {
            return Err(RecordError::InputTooLarge { bytes: bytes.len(), limit });
        }
        let cut = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or(RecordError::Binary("too short"))?;
        let (signed, signature) = bytes.split_at(cut);
        let body = signed.strip_prefix(TAG).ok_or(RecordError::Binary("does not start with the tag"))?;
        let mut records = vec![Record::new(Kind::SIGNATURE, signature)?];
        let mut reader = Reader::new(body);
        while reader.left() > 0 {
            if records.len() >= MAX_RECORDS {
                return Err(RecordError::TooManyRecords);
            }
            records.push(record(&mut reader)?);
        }
        let set = RecordSet::from_records(records)?;
        if set.signed == signed { Ok(set) } else { Err(RecordError::Binary("records out of order")) }
    }

    /// The signed bytes ‖ signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.signed[..], &self.signature].concat()
    }
}

impl VerifiedRecordSet {
    /// The signed bytes ‖ signature; [`RecordSet::from_bytes`] reads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.as_record_set().to_bytes()
    }
}

fn record(reader: &mut Reader<'_>) -> Result<Record, RecordError> {
    let short = |_: WireError| RecordError::Binary("ends inside a record");
    let length = reader.u16().map_err(short)?;
    let name = reader.bytes(length.into()).map_err(short)?;
    let length = reader.u32().map_err(short)?;
    let value = reader.bytes(usize::try_from(length).unwrap_or(usize::MAX)).map_err(short)?;
    let name = std::str::from_utf8(name).map_err(|_| RecordError::Binary("a type name is no text"))?;
    let kind = Kind::new(name)?;
    if kind == Kind::SIGNATURE {
        return Err(RecordError::Several(kind));
    }
    Record::new(kind, value)
}
