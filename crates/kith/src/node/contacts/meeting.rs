//! People who become contacts by an invitation: names that are proposed, and made unique.

use kith_identity::contacts::{Contact, Contacts, Hint, MAX_HINTS, Petname};
use kith_identity::{Ni, words};
use kith_sansio::system;

use super::Book;
use crate::failure::{Failure, Result, chain};

/// Names that are tried before there is none left.
const MAX_TRIES: u32 = 10_000;
/// Longest name in characters, as [`Petname`] has it.
const MAX_NAME_CHARS: usize = 64;

/// Somebody who proved to be there, with what is known of him.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    /// Who, and whose directory to ask.
    pub(crate) ni: Ni,
    /// Where to look first.
    pub(crate) hints: Vec<Hint>,
    /// How the person here calls him.
    pub(crate) called: Option<Petname>,
    /// How he would like to be called.
    pub(crate) proposed: Option<Petname>,
    /// Where he is found is his own word alone, and what is known of him goes first.
    pub(crate) is_own_word: bool,
}

impl Book {
    /// Makes somebody a contact, or brings a contact up to date; whether he is new. A name that another contact has
    /// gets a number.
    pub(crate) fn meet(&self, met: Met) -> Result<(Contact, bool)> {
        let fingerprint = met.ni.fingerprint;
        let mut is_new = false;
        self.change(|contacts| {
            let refused = |error| Failure::failed(chain(&error));
            match contacts.by_fingerprint(&fingerprint).cloned() {
                Some(known) => contacts.replace(renewed(contacts, known, met)).map(drop).map_err(refused),
                None => {
                    is_new = true;
                    let Met { ni, mut hints, called, proposed, .. } = met;
                    hints.truncate(MAX_HINTS);
                    let wanted = called.or(proposed).map_or_else(|| fallback(&ni), |name| name.to_string());
                    let name = unique(contacts, &wanted, &ni)?;
                    contacts.add(Contact { hints, ..Contact::new(name, ni, system::utc()) }).map_err(refused)
                }
            }
        })?;
        self.forget_request(&fingerprint)?;
        let contact = self.contact_of(&fingerprint);
        contact
            .map(|contact| (contact, is_new))
            .ok_or_else(|| Failure::failed("the contact was removed at once"))
    }
}

/// What is known of a contact, with what was learnt now: before what was known, or where it is his own word after it.
fn renewed(contacts: &Contacts, known: Contact, met: Met) -> Contact {
    let mut contact = known.clone();
    let (first, second) = if met.is_own_word { (known.hints, met.hints) } else { (met.hints, known.hints) };
    contact.hints = first;
    contact.hints.extend(second);
    let mut seen = std::collections::BTreeSet::new();
    contact.hints.retain(|hint| seen.insert(hint.clone()));
    contact.hints.truncate(MAX_HINTS);
    let has_authority = known.ni.authority.is_some();
    if met.ni.authority.is_some() && !(met.is_own_word && has_authority) {
        contact.ni = met.ni;
    }
    if let Some(called) = met.called
        && contacts.find(called.as_str()).is_none()
    {
        contact.name = called;
    }
    contact
}

/// The first two of the six words of a fingerprint.
fn fallback(ni: &Ni) -> String {
    words(&ni.fingerprint)[..2].join("-")
}

/// `wanted`, or `wanted-2` and so on where somebody else has that name.
fn unique(contacts: &Contacts, wanted: &str, ni: &Ni) -> Result<Petname> {
    let numbered = |number: u32| match number {
        1 => wanted.to_owned(),
        number => {
            let suffix = format!("-{number}");
            let head: String = wanted.chars().take(MAX_NAME_CHARS - suffix.len()).collect();
            format!("{}{suffix}", head.trim_end())
        }
    };
    let free = (1..MAX_TRIES).map(numbered).find(|name| contacts.find(name).is_none());
    let name = free.ok_or_else(|| Failure::failed(format!("every name like '{wanted}' is taken")))?;
    name.parse().map_err(|error| Failure::failed(format!("{ni}: {}", chain(&error))))
}

/// The nearest name that a contact may have to a text that may be anything; `None` where nothing is left of it.
pub(crate) fn presentable(text: &str) -> Option<Petname> {
    let seen: String = text.chars().map(|c| if c == '/' { '-' } else { c }).filter(|c| is_seen(*c)).collect();
    let start = seen.trim_start_matches(|c: char| c == '-' || c.is_whitespace());
    let start = start.strip_prefix("ni:").unwrap_or(start);
    let short: String = start.chars().take(MAX_NAME_CHARS).collect();
    short.trim().parse().ok()
}

/// Whether a name may hold this character.
fn is_seen(c: char) -> bool {
    format!("a{c}a").parse::<Petname>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_identity::Fingerprint;
    use kith_store::Database;

    fn met(byte: u8, called: Option<&str>, proposed: Option<&str>) -> Met {
        Met {
            ni: Ni::new(Fingerprint::from_bytes([byte; 32]), None),
            hints: vec![format!("tcp://192.0.2.{byte}:7117").parse().unwrap()],
            called: called.map(|name| name.parse().unwrap()),
            proposed: proposed.map(|name| name.parse().unwrap()),
            is_own_word: false,
        }
    }

    #[test]
    fn names_are_the_persons_own_then_the_proposed_then_of_the_fingerprint_and_unique() {
        let book = Book::open(Database::in_memory().unwrap()).unwrap();
        let name = |met| book.meet(met).unwrap().0.name.to_string();
        assert_eq!(name(met(1, Some("South"), Some("other"))), "South");
        assert_eq!(name(met(2, None, Some("south"))), "south-2");
        assert_eq!(name(met(3, None, Some(&"x".repeat(64)))), "x".repeat(64));
        assert_eq!(name(met(4, None, Some(&"x".repeat(64)))), format!("{}-2", "x".repeat(62)));
        assert!(name(met(5, None, None)).contains('-'));
    }

    #[test]
    fn meeting_again_keeps_the_name_and_learns_the_rest() {
        let book = Book::open(Database::in_memory().unwrap()).unwrap();
        assert!(book.meet(met(1, None, Some("south"))).unwrap().1);
        let mut again = met(1, None, Some("another"));
        again.hints = vec!["quic://192.0.2.9:1".parse().unwrap()];
        again.ni = Ni::new(again.ni.fingerprint, Some("example.org".parse().unwrap()));
        let (contact, is_new) = book.meet(again).unwrap();
        assert!(!is_new);
        assert_eq!(contact.name.as_str(), "south");
        assert_eq!(contact.ni.authority.unwrap().to_string(), "example.org");
        assert_eq!(contact.hints.len(), 2);
        assert_eq!(contact.hints[0].to_string(), "quic://192.0.2.9:1");
        assert_eq!(book.meet(met(1, Some("mine"), None)).unwrap().0.name.as_str(), "mine");
        assert_eq!(book.list().len(), 1);
    }

    #[test]
    fn what_a_contact_says_of_himself_displaces_nothing() {
        let book = Book::open(Database::in_memory().unwrap()).unwrap();
        let typed = book.meet(met(1, None, Some("south"))).unwrap().0;
        let claim = |authority: &str| Met {
            ni: Ni::new(typed.ni.fingerprint, Some(authority.parse().unwrap())),
            hints: (0..MAX_HINTS).map(|n| format!("tcp://192.0.2.9:{}", 1000 + n).parse().unwrap()).collect(),
            is_own_word: true,
            ..met(1, None, None)
        };
        let first = book.meet(claim("example.org")).unwrap().0;
        assert_eq!(first.ni.authority.as_ref().unwrap().to_string(), "example.org");
        assert_eq!((first.hints.len(), &first.hints[0]), (MAX_HINTS, &typed.hints[0]));
        let second = book.meet(claim("example.net")).unwrap().0;
        assert_eq!((second.ni, second.hints), (first.ni, first.hints));
    }

    #[test]
    fn of_too_many_addresses_the_first_are_kept() {
        let book = Book::open(Database::in_memory().unwrap()).unwrap();
        let many = |n: usize| format!("tcp://192.0.2.1:{}", 1000 + n).parse().unwrap();
        let crowded = Met { hints: (0..2 * MAX_HINTS).map(many).collect(), ..met(1, None, None) };
        for is_new in [true, false] {
            let (contact, was_new) = book.meet(crowded.clone()).unwrap();
            assert_eq!((contact.hints.as_slice(), was_new), (&crowded.hints[..MAX_HINTS], is_new));
        }
    }

    #[test]
    fn any_text_becomes_a_name_or_none() {
        let name = |text: &str| presentable(text).map(|name| name.to_string());
        assert_eq!(name("my laptop").as_deref(), Some("my laptop"));
        assert_eq!(name(" --a/b\u{202e}\n ").as_deref(), Some("a-b"));
        assert_eq!(name("ni:x").as_deref(), Some("x"));
        assert_eq!(name(&"ß".repeat(100)).as_deref(), Some("ß".repeat(64).as_str()));
        assert_eq!(name(" \u{200b}/ "), None);
    }
}
