use kith_sansio::Timestamp;

use super::set::arrange;
use super::{DEFAULT_TTL_SECS, Kind, Record, RecordError, RecordSet, VerifiedRecordSet};
use crate::{Address, Identity, Relay};

/// What a node wants to say about itself, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where it listens.
    pub addresses: Vec<Address>,
    /// Who relays for it.
    pub relays: Vec<Relay>,
    /// Bytes of the owner.
    pub blobs: Vec<Vec<u8>>,
    /// Records of other types, for the floors above.
    pub extra: Vec<Record>,
    /// Validity in seconds, 1 to 86 400.
    pub ttl: u32,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft { addresses: vec![], relays: vec![], blobs: vec![], extra: vec![], ttl: DEFAULT_TTL_SECS }
    }
}

impl Draft {
    /// The signed set. `timestamp` must be greater than that of any set this identity signed before; the caller
    /// remembers it.
    pub fn sign(&self, identity: &Identity, timestamp: Timestamp) -> Result<VerifiedRecordSet, RecordError> {
        let key = identity.public();
        let mut records = self.records()?;
        records.push(Record::new(Kind::TIMESTAMP, timestamp.to_string())?);
        records.push(Record::new(Kind::TTL, self.ttl.to_string())?);
        records.push(Record::new(Kind::VERSION, "1")?);
        records.push(Record::new(Kind::PUBKEY, key.spki())?);
        if self.extra.iter().any(|record| *record.kind() == Kind::SIGNATURE) {
            return Err(RecordError::Several(Kind::SIGNATURE));
        }
        let (records, signed) = arrange(records)?;
        let signature = identity.sign(&signed);
        Ok(VerifiedRecordSet::trusted(RecordSet { records, signed, signature }, key, key.fingerprint()))
    }

    fn records(&self) -> Result<Vec<Record>, RecordError> {
        let addresses = self.addresses.iter().map(|address| Record::new(Kind::ADDRESS, address.to_string()));
        let relays = self.relays.iter().map(|relay| Record::new(Kind::RELAY, relay.to_string()));
        let blobs = self.blobs.iter().map(|blob| Record::new(Kind::BLOB, &blob[..]));
        addresses.chain(relays).chain(blobs).chain(self.extra.iter().cloned().map(Ok)).collect()
    }
}
