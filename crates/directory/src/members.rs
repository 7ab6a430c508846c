//! The members of a closed zone: who may announce.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use kith_identity::{Fingerprint, Ni, NiError};

use crate::announce::AllowList;
use crate::defaults::{MAX_MEMBERS, MAX_MEMBERS_BYTES};

/// Fingerprints, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(HashSet<Fingerprint>);

/// Why a list of members cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// A line holds no fingerprint.
    #[error("line {line}: '{text}' is no fingerprint: {error}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What stands there, shortened.
        text: String,
        /// What is wrong with it.
        error: NiError,
    },
    /// It is no text.
    #[error("line {line} is no UTF-8 text")]
    NoText {
        /// The line, counted from 1.
        line: usize,
    },
    /// There are too many.
    #[error("line {line}: there are more than {MAX_MEMBERS} members")]
    TooMany {
        /// The line, counted from 1.
        line: usize,
    },
    /// The whole is too long.
    #[error("the list is longer than {MAX_MEMBERS_BYTES} bytes")]
    TooLong,
}

impl Members {
    /// Reads a list: one `ni:` name a line. What follows a `#` is a comment, and empty lines are nothing.
    pub fn parse(list: &[u8]) -> Result<Members, MembersError> {
        if list.len() > MAX_MEMBERS_BYTES {
            return Err(MembersError::TooLong);
        }
        let mut members = HashSet::new();
        for (at, line) in list.split(|byte| *byte == b'\n').enumerate() {
            let line = Line { number: at + 1, bytes: line };
            let Some(fingerprint) = line.fingerprint()? else { continue };
            if members.len() >= MAX_MEMBERS && !members.contains(&fingerprint) {
                return Err(MembersError::TooMany { line: line.number });
            }
            members.insert(fingerprint);
        }
        Ok(Members(members))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none: then nobody may announce.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds somebody.
    pub fn insert(&mut self, fingerprint: Fingerprint) {
        self.0.insert(fingerprint);
    }
}

struct Line<'a> {
    number: usize,
    bytes: &'a [u8],
}

impl Line<'_> {
    fn fingerprint(&self) -> Result<Option<Fingerprint>, MembersError> {
        let line = self.number;
        let text = std::str::from_utf8(self.bytes).map_err(|_| MembersError::NoText { line })?;
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = |error| MembersError::Line { line, text: shortened(text), error };
        Ok(Some(text.parse::<Ni>().map_err(wrong)?.fingerprint))
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
    if text.chars().count() > 40 {
        short.push('…');
    }
    short
}

/// An [`AllowList`] whose members can be exchanged while a directory runs. A clone is the same list.
#[derive(Clone, Default)]
pub struct MemberList(Arc<RwLock<Members>>);

impl MemberList {
    /// A list of these members.
    #[must_use]
    pub fn new(members: Members) -> MemberList {
        MemberList(Arc::new(RwLock::new(members)))
    }

    /// Takes other members from the next announce on. Sets that were announced stay until they are over.
    pub fn replace(&self, members: Members) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = members;
    }
}

impl AllowList for MemberList {
    fn allows(&self, fingerprint: &Fingerprint) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.contains(fingerprint)
    }
}

impl fmt::Debug for MemberList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_tuple("MemberList").field(&members.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;

    #[test]
    fn a_list_has_names_comments_and_empty_lines() {
        let (alice, bob) = (identity(1).fingerprint(), identity(2).fingerprint());
        let list = format!(
            "# the family\n\nni:///sha3-256;{alice}   # Alice\r\n\tni://example.org/sha3-256;{bob}\nni:///sha3-256;{bob}"
        );
        let members = Members::parse(list.as_bytes()).unwrap();
        assert_eq!(members.len(), 2);
        let list = MemberList::new(members);
        assert!(list.allows(&alice) && list.allows(&bob) && !list.allows(&identity(3).fingerprint()));
        list.replace(Members::default());
        assert!(!list.allows(&alice), "an empty list lets nobody in");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let alice = identity(1).fingerprint();
        let wrong = format!("ni:///sha3-256;{alice}\n# fine\nalice\n");
        let error = Members::parse(wrong.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 3: 'alice' is no fingerprint"), "{error}");
        assert_eq!(Members::parse(b"#\n\xff"), Err(MembersError::NoText { line: 2 }));
        assert_eq!(Members::parse(&vec![b'\n'; MAX_MEMBERS_BYTES + 1]), Err(MembersError::TooLong));
    }
}
