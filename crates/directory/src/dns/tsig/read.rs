use kith_sansio::wire::Reader;

use super::{CLASS_ANY, TYPE_TSIG};

/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Whether a message is signed.
pub(crate) enum Found {
    /// There is no signature.
    Nothing,
    /// There is one where none may be, or it cannot be read, or the message cannot.
    Malformed,
    /// The last record is one.
    Signed(Box<Signed>),
}

/// A signed message, taken apart. Nothing is verified yet.
pub(crate) struct Signed {
    /// The message as it was when it was signed: without the signature, with its first id.
    pub(super) message: Vec<u8>,
    /// Id of the message as it came.
    id: [u8; 2],
    /// Where the question ends.
    question_end: usize,
    /// The key's name in canonical form.
    pub(super) name: Vec<u8>,
    /// The algorithm's name in canonical form.
    pub(super) algorithm: Vec<u8>,
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: Vec<u8>,
    pub(super) error: u16,
    pub(super) other: Vec<u8>,
}

impl Signed {
    /// The message without its signature, with the id under which it came.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut message = self.message.clone();
        message[..2].copy_from_slice(&self.id);
        message
    }

    /// The name of the key, for the log.
    pub(crate) fn key_name(&self) -> String {
        let mut labels = Vec::new();
        let mut rest = self.name.as_slice();
        while let Some((length, tail)) = rest.split_first().filter(|(length, _)| **length > 0) {
            let (label, tail) = tail.split_at(usize::from(*length).min(tail.len()));
            labels.push(label.escape_ascii().to_string());
            rest = tail;
        }
        labels.join(".")
    }

    pub(super) fn header(&self) -> [u8; 4] {
        [self.id[0], self.id[1], self.message[2], self.message[3]]
    }

    pub(super) fn question(&self) -> &[u8] {
        &self.message[12..self.question_end]
    }
}

/// Looks for the signature of a message, which is its last record or not there (RFC 8945 §5.1).
pub(crate) fn find(message: &[u8]) -> Found {
    let count = |at: usize| message.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    // Records are only in the additional section, and it is short, in nearly all queries.
    if count(10) == 0 {
        return Found::Nothing;
    }
    look(message, count).unwrap_or(Found::Malformed)
}

fn look(message: &[u8], count: impl Fn(usize) -> u16) -> Option<Found> {
    let mut at = 12;
    // One question, so that a refusal can repeat it.
    if count(4) != 1 {
        return Some(Found::Nothing);
    }
    skip_name(message, &mut at)?;
    at += 4;
    let question_end = at;
    let records = u32::from(count(6)) + u32::from(count(8)) + u32::from(count(10));
    // Each record takes eleven bytes at least, so this ends with the message whatever was promised.
    for number in 1..=records {
        let start = at;
        skip_name(message, &mut at)?;
        let fixed = message.get(at..at + 10)?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = at + 10..at + 10 + length;
        message.get(data.clone())?;
        if u16::from_be_bytes([fixed[0], fixed[1]]) == TYPE_TSIG {
            let last = number == records && data.end == message.len();
            let class = u16::from_be_bytes([fixed[2], fixed[3]]);
            if !last || class != CLASS_ANY || fixed[4..8] != [0; 4] {
                return Some(Found::Malformed);
            }
            return read(message, start, data, question_end);
        }
        at = data.end;
    }
    Some(Found::Nothing)
}

fn read(message: &[u8], start: usize, data: std::ops::Range<usize>, question_end: usize) -> Option<Found> {
    let name = name(message, start)?;
    let mut at = data.start;
    let algorithm = self::name(message, at)?;
    skip_name(message, &mut at)?;
    let mut rest = Reader::new(message.get(at..data.end)?);
    let mut long = [0; 8];
    long[2..].copy_from_slice(rest.bytes(6).ok()?);
    let fudge = rest.u16().ok()?;
    let mac_bytes = rest.u16().ok()?;
    let mac = rest.bytes(mac_bytes.into()).ok()?.to_vec();
    let (original_id, error) = (rest.u16().ok()?, rest.u16().ok()?);
    let other_bytes = rest.u16().ok()?;
    let other = rest.bytes(other_bytes.into()).ok()?.to_vec();
    rest.finish().ok()?;
    let mut stripped = message.get(..start)?.to_vec();
    let id = [stripped[0], stripped[1]];
    stripped[..2].copy_from_slice(&original_id.to_be_bytes());
    let additional = u16::from_be_bytes([stripped[10], stripped[11]]).checked_sub(1)?;
    stripped[10..12].copy_from_slice(&additional.to_be_bytes());
    Some(Found::Signed(Box::new(Signed {
        message: stripped,
        id,
        question_end,
        name,
        algorithm,
        time: u64::from_be_bytes(long),
        fudge,
        mac,
        error,
        other,
    })))
}

/// Moves `at` behind the name that begins there.
fn skip_name(message: &[u8], at: &mut usize) -> Option<()> {
    loop {
        let length = usize::from(*message.get(*at)?);
        match length {
            0 => *at += 1,
            1..=63 => {
                *at += 1 + length;
                continue;
            }
            0xc0.. => *at += 2,
            _ => return None,
        }
        return (*at <= message.len()).then_some(());
    }
}

/// The name that begins at `at`, in small letters and without pointers. Pointers only go back, so they end.
fn name(message: &[u8], mut at: usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut earliest = at;
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => {
                name.push(0);
                return (name.len() <= MAX_NAME_BYTES).then_some(name);
            }
            1..=63 => {
                name.extend(message.get(at..=at + length)?.iter().map(u8::to_ascii_lowercase));
                at += 1 + length;
            }
            0xc0.. => {
                at = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                if at >= earliest {
                    return None;
                }
                earliest = at;
            }
            _ => return None,
        }
        if name.len() > MAX_NAME_BYTES {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\xfc\x00\x01";

    fn with(record: &[u8]) -> Found {
        find(&[QUERY, record].concat())
    }

    #[test]
    fn names_with_pointers_are_read_and_loops_end() {
        let message = b"\x01A\x02bc\x00\x03xyz\xc0\x02\xc0\x0c";
        assert_eq!(name(message, 0).unwrap(), b"\x01a\x02bc\0");
        assert_eq!(name(message, 6).unwrap(), b"\x03xyz\x02bc\0");
        assert_eq!(name(message, 12), None, "a pointer to itself");
        assert_eq!(name(b"\x01a", 0), None);
        assert_eq!(name(b"\x41a\0", 0), None);
    }

    #[test]
    fn a_signature_anywhere_but_at_the_end_is_malformed() {
        let signature =
            b"\x01k\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x13\x01h\x00\x00\x00\x00\x00\x00\x07\x01\x2c\
            \x00\x00\x12\x34\x00\x00\x00\x00";
        assert!(matches!(with(signature), Found::Signed(_)));
        assert!(matches!(with(&[signature, &b"\0"[..]].concat()), Found::Malformed));
        let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert!(matches!(with(opt), Found::Nothing));
        let mut both = [QUERY, signature, &opt[..]].concat();
        both[11] = 2;
        assert!(matches!(find(&both), Found::Malformed));
        for cut in 1..signature.len() {
            assert!(matches!(with(&signature[..cut]), Found::Malformed), "{cut} bytes");
        }
        assert!(matches!(find(QUERY), Found::Malformed), "a record was promised");
        assert!(matches!(find(b"too short"), Found::Nothing));
    }
}
