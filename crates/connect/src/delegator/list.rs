use std::collections::BTreeMap;
use std::sync::Arc;

use kith_identity::contacts::{Hint, Petname};
use kith_identity::{Authority, Fingerprint, Ni};

use super::{MAX_HINTS, MAX_LIST_BYTES, MAX_MEMBERS, Rights, message};

/// What a delegator says of a member to those who may have to do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// How the delegator calls it.
    pub name: Petname,
    /// Whose directory to ask for it.
    pub authority: Option<Authority>,
    /// Where it may be reached, as the delegator was told; at most [`MAX_HINTS`].
    pub hints: Vec<Hint>,
}

/// One node of a list: who it is, where it may be found, and what the list's owner and it may do with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub peer: Fingerprint,
    /// What is known of it.
    pub card: Card,
    /// What is allowed.
    pub rights: Rights,
}

impl Entry {
    /// Its fingerprint with its authority.
    pub fn ni(&self) -> Ni {
        Ni::new(self.peer, self.card.authority.clone())
    }
}

/// A node's list of trusted fingerprints, as its delegator has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    entries: BTreeMap<Fingerprint, Arc<Entry>>,
    bytes: usize,
}

/// What turns one list into the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Entries that are new, or other than before; one of many lists is there once.
    pub put: Vec<Arc<Entry>>,
    /// Who is on the list no more.
    pub gone: Vec<Fingerprint>,
}

/// Why a change cannot be applied to a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Somebody is taken off who is not on it.
    #[error("{0} is taken off the list and is not on it")]
    Absent(Fingerprint),
    /// More entries, or more bytes, than a list may have.
    #[error("the list is larger than {MAX_MEMBERS} entries or {MAX_LIST_BYTES} bytes")]
    TooLarge,
    /// More hints than [`MAX_HINTS`].
    #[error("an entry has more than {MAX_HINTS} address hints")]
    TooManyHints,
}

impl List {
    /// The entry of a fingerprint.
    pub fn find(&self, peer: &Fingerprint) -> Option<&Entry> {
        self.entries.get(peer).map(|entry| &**entry)
    }

    /// All entries, by fingerprint.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.values().map(|entry| &**entry)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts an entry in the place of the one that is there, and hands that one out.
    pub fn put(&mut self, entry: Arc<Entry>) -> Result<Option<Arc<Entry>>, EntryError> {
        if entry.card.hints.len() > MAX_HINTS {
            return Err(EntryError::TooManyHints);
        }
        let peer = entry.peer;
        let before = self.find(&peer).map_or(0, message::entry_bytes);
        let bytes = self.bytes - before + message::entry_bytes(&entry);
        if bytes > MAX_LIST_BYTES || before == 0 && self.entries.len() >= MAX_MEMBERS {
            return Err(EntryError::TooLarge);
        }
        self.bytes = bytes;
        Ok(self.entries.insert(peer, entry))
    }

    /// Takes an entry off.
    pub fn remove(&mut self, peer: &Fingerprint) -> Result<Arc<Entry>, EntryError> {
        let entry = self.entries.remove(peer).ok_or(EntryError::Absent(*peer))?;
        self.bytes -= message::entry_bytes(&entry);
        Ok(entry)
    }

    /// Takes a change, as a whole or not at all: first who is gone, then what is put. Whether the list is another one now.
    pub fn apply(&mut self, delta: Delta) -> Result<bool, EntryError> {
        let bytes = self.bytes;
        let mut before = Vec::new();
        let gone = delta.gone.into_iter().map(|peer| (peer, None));
        for (peer, put) in gone.chain(delta.put.into_iter().map(|entry| (entry.peer, Some(entry)))) {
            let was = match put {
                Some(entry) => self.put(entry),
                None => self.remove(&peer).map(Some),
            };
            match was {
                Ok(was) => before.push((peer, was)),
                Err(error) => {
                    self.take_back(before, bytes);
                    return Err(error);
                }
            }
        }
        Ok(before.iter().any(|(peer, was)| self.entries.get(peer) != was.as_ref()))
    }

    /// Undoes steps, the last one first.
    fn take_back(&mut self, steps: Vec<(Fingerprint, Option<Arc<Entry>>)>, bytes: usize) {
        for (peer, was) in steps.into_iter().rev() {
            match was {
                Some(entry) => self.entries.insert(peer, entry),
                None => self.entries.remove(&peer),
            };
        }
        self.bytes = bytes;
    }

    /// What turns this list into `next`.
    pub fn delta(&self, next: &List) -> Delta {
        let put =
            next.entries.values().filter(|entry| self.entries.get(&entry.peer) != Some(*entry)).cloned();
        let gone = self.entries.keys().filter(|peer| next.find(peer).is_none()).copied();
        Delta { put: put.collect(), gone: gone.collect() }
    }
}

impl Delta {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.gone.is_empty()
    }

    /// The same for somebody who is not on its own list.
    pub(super) fn without(&self, who: &Fingerprint) -> Delta {
        Delta {
            put: self.put.iter().filter(|entry| entry.peer != *who).cloned().collect(),
            gone: self.gone.iter().filter(|peer| *peer != who).copied().collect(),
        }
    }
}
