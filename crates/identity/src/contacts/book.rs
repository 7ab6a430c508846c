use std::collections::{BTreeMap, BTreeSet, HashMap};

use kith_sansio::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::fold;
use super::{Group, Hint, Petname};
use crate::{Fingerprint, Ni};

/// Most contacts in a book.
pub const MAX_CONTACTS: usize = 100_000;
/// Most hints of a contact.
pub const MAX_HINTS: usize = 16;
/// Most groups of a contact.
pub const MAX_GROUPS: usize = 64;

/// Why a book stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// The name is another contact's.
    #[error("the name '{name}' belongs to {holder}")]
    NameTaken {
        /// The name as it stands in the book.
        name: Petname,
        /// Who has it.
        holder: Fingerprint,
    },
    /// The fingerprint is in the book under another name.
    #[error("{fingerprint} is a contact already, named '{name}'")]
    Known {
        /// Who.
        fingerprint: Fingerprint,
        /// Under which name.
        name: Petname,
    },
    /// No contact of this name or fingerprint.
    #[error("there is no contact '{0}'")]
    Unknown(String),
    /// More hints than [`MAX_HINTS`].
    #[error("more than {MAX_HINTS} address hints")]
    TooManyHints,
    /// More groups than [`MAX_GROUPS`].
    #[error("more than {MAX_GROUPS} groups")]
    TooManyGroups,
    /// More contacts than [`MAX_CONTACTS`].
    #[error("the book holds {MAX_CONTACTS} contacts and no more")]
    Full,
}

/// Somebody whose fingerprint a person trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The person's own name for them.
    pub name: Petname,
    /// Who they are, and whose directory to ask.
    pub ni: Ni,
    /// Where they can perhaps be reached.
    #[serde(default)]
    pub hints: Vec<Hint>,
    /// The groups they are in.
    #[serde(default)]
    pub groups: BTreeSet<Group>,
    /// When they were added; RFC 3339 when serialised.
    #[serde(with = "rfc3339")]
    pub added: Timestamp,
}

impl Contact {
    /// A contact without hints and groups.
    pub fn new(name: Petname, ni: Ni, added: Timestamp) -> Contact {
        Contact { name, ni, hints: Vec::new(), groups: BTreeSet::new(), added }
    }

    fn check(&self) -> Result<(), ContactError> {
        match self {
            _ if self.hints.len() > MAX_HINTS => Err(ContactError::TooManyHints),
            _ if self.groups.len() > MAX_GROUPS => Err(ContactError::TooManyGroups),
            _ => Ok(()),
        }
    }
}

/// A book of contacts: no two with one name (whatever the case of its letters), no two with one fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contacts {
    by_name: BTreeMap<String, Contact>,
    names: HashMap<Fingerprint, String>,
}

impl Contacts {
    /// An empty book.
    pub fn new() -> Contacts {
        Contacts::default()
    }

    /// The book of these rows; refuses clashes among them.
    pub fn from_rows(rows: impl IntoIterator<Item = Contact>) -> Result<Contacts, ContactError> {
        let mut book = Contacts::new();
        rows.into_iter().try_for_each(|contact| book.add(contact))?;
        Ok(book)
    }

    /// Adds a contact whose name and fingerprint are both new.
    pub fn add(&mut self, contact: Contact) -> Result<(), ContactError> {
        contact.check()?;
        self.check_name(&contact.name, None)?;
        if let Some(known) = self.by_fingerprint(&contact.ni.fingerprint) {
            return Err(ContactError::Known { fingerprint: known.ni.fingerprint, name: known.name.clone() });
        }
        if self.len() >= MAX_CONTACTS {
            return Err(ContactError::Full);
        }
        self.insert(contact);
        Ok(())
    }

    /// Puts `contact` in the place of the one with the same fingerprint: new name, authority, hints, groups.
    pub fn replace(&mut self, contact: Contact) -> Result<Contact, ContactError> {
        contact.check()?;
        let fingerprint = contact.ni.fingerprint;
        let old = self.names.get(&fingerprint).cloned();
        let old = old.ok_or_else(|| ContactError::Unknown(contact.ni.to_string()))?;
        self.check_name(&contact.name, Some(&fingerprint))?;
        let replaced = self.by_name.remove(&old).unwrap_or_else(|| contact.clone());
        self.insert(contact);
        Ok(replaced)
    }

    /// Gives the contact `who` (a name or an `ni:` name) another name.
    pub fn rename(&mut self, who: &str, name: Petname) -> Result<(), ContactError> {
        let contact = self.known(who)?.clone();
        self.replace(Contact { name, ..contact }).map(drop)
    }

    /// Moves the contact `who` (a name or an `ni:` name) to the key `new`, which is trusted from now on instead of the
    /// one so far; name, authority, hints and groups stay.
    pub fn succeed(&mut self, who: &str, new: Fingerprint) -> Result<Contact, ContactError> {
        let contact = self.known(who)?.clone();
        if let Some(known) = self.by_fingerprint(&new) {
            return Err(ContactError::Known { fingerprint: new, name: known.name.clone() });
        }
        self.names.remove(&contact.ni.fingerprint);
        let moved = Contact { ni: Ni::new(new, contact.ni.authority.clone()), ..contact };
        self.insert(moved.clone());
        Ok(moved)
    }

    /// Takes the contact `who` (a name or an `ni:` name) out of the book.
    pub fn remove(&mut self, who: &str) -> Result<Contact, ContactError> {
        let contact = self.known(who)?.clone();
        self.names.remove(&contact.ni.fingerprint);
        self.by_name.remove(&contact.name.folded());
        Ok(contact)
    }

    /// The contact of this name (case does not matter) or `ni:` name.
    pub fn find(&self, who: &str) -> Option<&Contact> {
        match who.parse::<Ni>() {
            Ok(ni) => self.by_fingerprint(&ni.fingerprint),
            Err(_) => self.by_name.get(&fold(who)),
        }
    }

    /// The contact with this fingerprint.
    pub fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<&Contact> {
        self.by_name.get(self.names.get(fingerprint)?)
    }

    /// Whether the fingerprint is a contact's.
    pub fn trusts(&self, fingerprint: &Fingerprint) -> bool {
        self.names.contains_key(fingerprint)
    }

    /// All contacts, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.by_name.values()
    }

    /// All groups that somebody is in, each with its contacts by name.
    pub fn groups(&self) -> BTreeMap<&Group, Vec<&Contact>> {
        let mut groups: BTreeMap<&Group, Vec<&Contact>> = BTreeMap::new();
        for contact in self.iter() {
            contact.groups.iter().for_each(|group| groups.entry(group).or_default().push(contact));
        }
        groups
    }

    /// The contacts in `group`, by name.
    pub fn members(&self, group: &Group) -> impl Iterator<Item = &Contact> {
        self.iter().filter(move |contact| contact.groups.contains(group))
    }

    /// How many contacts there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    fn known(&self, who: &str) -> Result<&Contact, ContactError> {
        self.find(who).ok_or_else(|| ContactError::Unknown(crate::text::quote(who)))
    }

    fn check_name(&self, name: &Petname, except: Option<&Fingerprint>) -> Result<(), ContactError> {
        match self.by_name.get(&name.folded()) {
            Some(holder) if Some(&holder.ni.fingerprint) != except => {
                Err(ContactError::NameTaken { name: holder.name.clone(), holder: holder.ni.fingerprint })
            }
            _ => Ok(()),
        }
    }

    fn insert(&mut self, contact: Contact) {
        let name = contact.name.folded();
        self.names.insert(contact.ni.fingerprint, name.clone());
        self.by_name.insert(name, contact);
    }
}

mod rfc3339 {
    use kith_sansio::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
