use kith_sansio::wire::Writer;

use super::{Kind, MAX_ADDRESSES, MAX_RECORDS, MAX_SIGNED_BYTES, Record, RecordError};

/// What the signed bytes start with.
pub(super) const TAG: &[u8] = b"kithnet record set v1";

/// A well-formed set of records: within all bounds, every value fits its type, nothing double, nothing missing.
/// **Not verified**: anybody can have made it. [`RecordSet::verify`] is the way on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSet {
    /// All but the signature, sorted by their encoding.
    pub(super) records: Vec<Record>,
    pub(super) signed: Vec<u8>,
    pub(super) signature: [u8; 64],
}

impl RecordSet {
    /// The set of these records, in any order; refuses what is not well-formed.
    pub fn from_records(records: Vec<Record>) -> Result<RecordSet, RecordError> {
        if records.len() > MAX_RECORDS {
            return Err(RecordError::TooManyRecords);
        }
        let (mut signatures, records): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| *record.kind() == Kind::SIGNATURE);
        let signature = signatures.pop().ok_or(RecordError::Missing(Kind::SIGNATURE))?;
        if !signatures.is_empty() {
            return Err(RecordError::Several(Kind::SIGNATURE));
        }
        let wrong = |_| RecordError::Value { kind: Kind::SIGNATURE, why: "not 64 bytes".into() };
        let signature = signature.value().try_into().map_err(wrong)?;
        let (records, signed) = arrange(records)?;
        Ok(RecordSet { records, signed, signature })
    }

    /// The values of the records of one type, in no order that means anything. Unverified.
    pub fn records(&self, kind: &Kind) -> impl Iterator<Item = &[u8]> {
        values(&self.records, kind)
    }

    /// The one record of a type that every set holds exactly once; `arrange` has seen to it.
    pub(super) fn once(&self, kind: &Kind) -> &[u8] {
        self.records(kind).next().unwrap_or_default()
    }
}

pub(super) fn values<'a>(records: &'a [Record], kind: &Kind) -> impl Iterator<Item = &'a [u8]> {
    records.iter().filter(move |record| record.kind() == kind).map(Record::value)
}

/// Sorts the records other than the signature, checks everything that concerns them together, and encodes them.
pub(super) fn arrange(records: Vec<Record>) -> Result<(Vec<Record>, Vec<u8>), RecordError> {
    // The signature is one of the records that are counted.
    if records.len() >= MAX_RECORDS {
        return Err(RecordError::TooManyRecords);
    }
    let bytes = TAG.len() + records.iter().map(Record::encoded_bytes).sum::<usize>();
    if bytes > MAX_SIGNED_BYTES {
        return Err(RecordError::TooLarge(bytes));
    }
    if values(&records, &Kind::ADDRESS).count() > MAX_ADDRESSES {
        return Err(RecordError::TooManyAddresses);
    }
    for kind in [Kind::TIMESTAMP, Kind::TTL, Kind::VERSION, Kind::PUBKEY] {
        match values(&records, &kind).count() {
            0 => return Err(RecordError::Missing(kind)),
            1 => {}
            _ => return Err(RecordError::Several(kind)),
        }
    }
    let mut encoded: Vec<(Vec<u8>, Record)> =
        records.into_iter().map(|record| (encode(&record), record)).collect();
    encoded.sort_by(|(left, _), (right, _)| left.cmp(right));
    if let Some(twice) = encoded.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(RecordError::Duplicate(twice[0].1.kind().clone()));
    }
    let mut signed = Vec::with_capacity(bytes);
    signed.extend_from_slice(TAG);
    encoded.iter().for_each(|(bytes, _)| signed.extend_from_slice(bytes));
    Ok((encoded.into_iter().map(|(_, record)| record).collect(), signed))
}

/// u16 length of type ‖ type ‖ u32 length of value ‖ value. Lengths fit: types have at most 32 characters, values
/// at most [`MAX_SIGNED_BYTES`].
fn encode(record: &Record) -> Vec<u8> {
    let name = record.kind().as_str().as_bytes();
    let mut writer = Writer::new();
    writer.u16(name.len() as u16).bytes(name);
    writer.u32(record.value().len() as u32).bytes(record.value());
    writer.finish()
}
