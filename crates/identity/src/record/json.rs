//! JSON: an object whose keys are the type names, `addresses` for `address`. Types that stand once are plain values,
//! all others arrays; `version` and `ttl` are numbers, other text types strings, the rest strings of base64.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use data_encoding::BASE64;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Kind, MAX_JSON_BYTES, MAX_RECORDS, Record, RecordError, RecordSet, VerifiedRecordSet};

const ADDRESSES: &str = "addresses";

impl RecordSet {
    /// The set in a JSON document of at most [`MAX_JSON_BYTES`]. Refuses duplicate keys, base64 that is not
    /// canonical, and numbers with a sign, a fraction or an exponent.
    pub fn from_json(json: &[u8]) -> Result<RecordSet, RecordError> {
        if json.len() > MAX_JSON_BYTES {
            return Err(RecordError::InputTooLarge { bytes: json.len(), limit: MAX_JSON_BYTES });
        }
        let mut seed = Object::default();
        let mut document = serde_json::Deserializer::from_slice(json);
        let read = seed.read(&mut document).and_then(|()| document.end());
        match (read, seed.refused) {
            (_, Some(refused)) => Err(refused),
            (Err(error), None) => Err(RecordError::Json(error.to_string())),
            (Ok(()), None) => RecordSet::from_records(seed.records),
        }
    }

    /// The set as a JSON document.
    pub fn to_json(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "strings and numbers always have a JSON form")]
        serde_json::to_vec(&Document(self)).expect("a record set has a JSON form")
    }
}

impl VerifiedRecordSet {
    /// The set as a JSON document.
    pub fn to_json(&self) -> Vec<u8> {
        self.as_record_set().to_json()
    }
}

/// Gathers the records of a document; `refused` holds the error that serde can only carry as text.
#[derive(Default)]
struct Object {
    records: Vec<Record>,
    keys: BTreeSet<String>,
    refused: Option<RecordError>,
}

impl Object {
    fn read<'de, D: Deserializer<'de>>(&mut self, document: D) -> Result<(), D::Error> {
        document.deserialize_map(self)
    }

    fn kind(&self, key: &str) -> Result<Kind, RecordError> {
        let kind = match key {
            ADDRESSES => Kind::ADDRESS,
            "address" => return Err(RecordError::Json("the key of the addresses is 'addresses'".into())),
            other => Kind::new(other)?,
        };
        if self.keys.contains(key) {
            return Err(RecordError::Json(format!("the key '{key}' stands twice")));
        }
        if self.keys.len() >= MAX_RECORDS {
            return Err(RecordError::TooManyRecords);
        }
        Ok(kind)
    }

    /// Remembers the error whole and hands serde its text.
    fn refuse<E: serde::de::Error>(&mut self, error: RecordError) -> E {
        let text = E::custom(&error);
        self.refused = Some(error);
        text
    }

    fn add<E: serde::de::Error>(&mut self, kind: &Kind, text: &str) -> Result<(), E> {
        if self.records.len() >= MAX_RECORDS {
            return Err(self.refuse(RecordError::TooManyRecords));
        }
        match from_text(kind, text.as_bytes()) {
            Ok(record) => self.records.push(record),
            Err(error) => return Err(self.refuse(error)),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for &mut Object {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let kind = match self.kind(&key) {
                Ok(kind) => kind,
                Err(error) => return Err(self.refuse(error)),
            };
            self.keys.insert(key);
            map.next_value_seed(Field { object: self, kind, inside: false })?;
        }
        Ok(())
    }
}

/// Reads the value of one key, or one element of its array.
struct Field<'a> {
    object: &'a mut Object,
    kind: Kind,
    inside: bool,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self.kind.as_str() {
            "version" | "ttl" => value.deserialize_u64(self),
            _ if self.inside || self.kind.is_once() => value.deserialize_str(self),
            _ => value.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind.as_str() {
            "version" | "ttl" => "a number without sign, fraction or exponent",
            _ if self.inside || self.kind.is_once() => "a string",
            _ => "an array of strings",
        };
        write!(f, "{what} for '{}'", self.kind)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        match self.kind.as_str() {
            "version" | "ttl" => self.object.add(&self.kind, &number.to_string()),
            _ => Err(E::invalid_type(serde::de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match self.kind.as_str() {
            "version" | "ttl" => Err(E::invalid_type(serde::de::Unexpected::Other("a string"), &self)),
            _ => self.object.add(&self.kind, text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.inside || self.kind.is_once() {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        let Field { object, kind, .. } = self;
        while elements.next_element_seed(Field { object, kind: kind.clone(), inside: true })?.is_some() {}
        Ok(())
    }
}

struct Document<'a>(&'a RecordSet);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for record in &self.0.records {
            groups.entry(record.kind().as_str()).or_default().push(to_text(record.kind(), record.value()));
        }
        let once = |name: &str| groups.get(name).and_then(|values| values.first()).map_or("", String::as_str);
        let number = |name: &str| once(name).parse::<u64>().unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &number("version"))?;
        for first in ["address", "relay", "blob"] {
            if let Some(values) = groups.get(first) {
                map.serialize_entry(if first == "address" { ADDRESSES } else { first }, values)?;
            }
        }
        let last = ["version", "address", "relay", "blob", "timestamp", "ttl", "pubkey"];
        for (name, values) in groups.iter().filter(|(name, _)| !last.contains(name)) {
            map.serialize_entry(name, values)?;
        }
        map.serialize_entry("timestamp", once("timestamp"))?;
        map.serialize_entry("ttl", &number("ttl"))?;
        map.serialize_entry("pubkey", once("pubkey"))?;
        map.serialize_entry("signature", &BASE64.encode(&self.0.signature))?;
        map.end()
    }
}

/// A value as it stands in JSON and TXT: text as it is, everything else in standard base64 with padding.
pub(super) fn to_text(kind: &Kind, value: &[u8]) -> String {
    if kind.is_text() { String::from_utf8_lossy(value).into_owned() } else { BASE64.encode(value) }
}

/// The record whose value stands like this in JSON and TXT.
pub(super) fn from_text(kind: &Kind, text: &[u8]) -> Result<Record, RecordError> {
    let value = match kind.is_text() {
        true => text.to_vec(),
        // This codec refuses missing padding, unused bits that are not zero, and white space.
        false => BASE64.decode(text).map_err(|_| RecordError::Base64(kind.clone()))?,
    };
    Record::new(kind.clone(), value)
}
