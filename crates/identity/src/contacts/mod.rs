//! Contacts: the people and devices whose fingerprints a person trusts, under names of their own choosing.
//!
//! [`Contacts`] is a book in memory; the caller keeps it on disk, one serialised [`Contact`] per row.

mod book;
mod hint;
mod name;

pub use book::{Contact, ContactError, Contacts, MAX_CONTACTS, MAX_GROUPS, MAX_HINTS};
pub use hint::{Hint, HintError};
pub use name::{Group, NameError, Petname};
