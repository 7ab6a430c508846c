//! TXT: one resource record per data record, `type=value`, in any order. Splitting into character strings of at most
//! 255 bytes, and joining them, is the business of whoever speaks DNS.

use super::json::{from_text, to_text};
use super::{Kind, MAX_JSON_BYTES, MAX_RECORDS, Record, RecordError, RecordSet, VerifiedRecordSet};
use crate::text::quote;

impl RecordSet {
    /// The set in TXT records, each given as its character strings joined.
    pub fn from_txt<T: AsRef<[u8]>>(txt: impl IntoIterator<Item = T>) -> Result<RecordSet, RecordError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for (index, text) in txt.into_iter().enumerate() {
            bytes += text.as_ref().len();
            if index >= MAX_RECORDS {
                return Err(RecordError::TooManyRecords);
            }
            if bytes > MAX_JSON_BYTES {
                return Err(RecordError::InputTooLarge { bytes, limit: MAX_JSON_BYTES });
            }
            records.push(record_of_txt(index, text.as_ref())?);
        }
        RecordSet::from_records(records)
    }

    /// One `type=value` per record, the signature last; unsplit.
    pub fn to_txt(&self) -> Vec<Vec<u8>> {
        let line = |kind: &Kind, value: &[u8]| format!("{kind}={}", to_text(kind, value)).into_bytes();
        let records = self.records.iter().map(|record| line(record.kind(), record.value()));
        records.chain([line(&Kind::SIGNATURE, &self.signature)]).collect()
    }
}

impl VerifiedRecordSet {
    /// One `type=value` per record, the signature last; unsplit.
    pub fn to_txt(&self) -> Vec<Vec<u8>> {
        self.as_record_set().to_txt()
    }
}

fn record_of_txt(index: usize, text: &[u8]) -> Result<Record, RecordError> {
    let equals = text.iter().position(|byte| *byte == b'=').ok_or(RecordError::Txt(index))?;
    let name = std::str::from_utf8(&text[..equals])
        .map_err(|_| RecordError::Kind(quote(&String::from_utf8_lossy(&text[..equals]))))?;
    from_text(&Kind::new(name)?, &text[equals + 1..])
}
