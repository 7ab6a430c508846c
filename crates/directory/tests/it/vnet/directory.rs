//! The directory with its real checks and its real store, and resolvers that cannot be trusted.

use std::collections::{HashMap, VecDeque};

use kith_directory::announce::{Announce, Limits, admit};
use kith_directory::defaults::MAX_AGE_SECS;
use kith_directory::store::{RedbStore, Store, Stored};
use kith_identity::Fingerprint;
use kith_identity::record::Draft;
use kith_sansio::{Now, Rng, Span, Time, Timestamp};
use kith_store::Database;

use super::{Address, Bytes, Message, Out, Said};
use crate::world::identity;

pub(crate) struct Directory {
    database: Database,
    store: RedbStore,
    runtime: tokio::runtime::Runtime,
    /// Of ten announces so many are answered with a pause.
    pub(crate) busy: u64,
    outputs: VecDeque<Out>,
}

impl Directory {
    pub(crate) fn new() -> Directory {
        Directory::over(Database::in_memory().unwrap())
    }

    /// The same directory after a crash.
    pub(crate) fn again(self) -> Directory {
        Directory::over(self.database.clone())
    }

    fn over(database: Database) -> Directory {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = RedbStore::new(database.clone());
        Directory { database, store, runtime, busy: 0, outputs: VecDeque::new() }
    }

    pub(crate) fn message(&mut self, now: Now, from: Address, message: Message, rng: &mut dyn Rng) {
        let answer = match message {
            Message::Put { life, attempt, .. } if rng.below(10) < self.busy => {
                let pause = Some(Span::secs(rng.below(1000)));
                Message::PutAnswer { life, attempt, status: 429, pause }
            }
            Message::Put { life, attempt, key, named, body } => {
                let request = Announce { client_key: Some(*key), named: &named, body: &body.0 };
                let status = self.put(now.utc, &request);
                Message::PutAnswer { life, attempt, status, pause: None }
            }
            Message::Get { question, fingerprint } => {
                let found = self.held(now.utc, &fingerprint);
                let said = found.map_or(Said::Nothing, Said::Set);
                Message::Answer { question, fingerprint, said }
            }
            other => panic!("nobody sends {other:?} to a directory"),
        };
        self.outputs.push_back(Out::Send(from, answer));
    }

    fn put(&mut self, now: Timestamp, request: &Announce<'_>) -> u16 {
        let set = match admit(now, request, &Limits::default(), None) {
            Ok(set) => set,
            Err(refusal) => return refusal.status(),
        };
        let before = self.held(now, request.named);
        self.runtime.block_on(self.store.expire(now, 10)).unwrap();
        match self.runtime.block_on(self.store.announce(now, set)).unwrap() {
            Stored::Created => 201,
            Stored::Replaced | Stored::Repeated => 200,
            Stored::NotNewer => {
                assert_eq!(self.held(now, request.named), before, "a refused announce changes nothing");
                409
            }
        }
    }

    /// What it gives out.
    pub(crate) fn held(&self, now: Timestamp, fingerprint: &Fingerprint) -> Option<Bytes> {
        let set = self.runtime.block_on(self.store.lookup(now, fingerprint)).unwrap();
        set.map(|set| Bytes::from(set.to_json()))
    }

    pub(crate) fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }
}

/// How a resolver behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Asks the directory, and remembers what it said for a minute.
    Honest,
    /// Gives the oldest set that it ever had.
    Stale,
    /// Somebody else's set.
    Somebody,
    /// The right set with another address in it.
    Altered,
    /// What is no set at all.
    Garbage,
    /// Says that there is none.
    Denying,
    Silent,
}

pub(crate) const MODES: [Mode; 7] =
    [Mode::Honest, Mode::Stale, Mode::Somebody, Mode::Altered, Mode::Garbage, Mode::Denying, Mode::Silent];

pub(crate) struct Resolver {
    pub(crate) mode: Mode,
    first: HashMap<Fingerprint, Bytes>,
    latest: HashMap<Fingerprint, (Time, Said)>,
    asking: HashMap<u64, (Address, u64)>,
    number: u64,
    outputs: VecDeque<Out>,
}

impl Resolver {
    pub(crate) fn new(mode: Mode) -> Resolver {
        let (first, latest, asking) = (HashMap::new(), HashMap::new(), HashMap::new());
        Resolver { mode, first, latest, asking, number: 0, outputs: VecDeque::new() }
    }

    pub(crate) fn message(&mut self, now: Now, from: Address, message: Message) {
        match message {
            Message::Get { question, fingerprint } => self.asked(now, from, question, fingerprint),
            Message::Answer { question, fingerprint, said } => {
                if let Said::Set(set) = &said {
                    self.first.entry(fingerprint).or_insert_with(|| set.clone());
                }
                self.latest.insert(fingerprint, (now.time, said.clone()));
                if let Some((client, question)) = self.asking.remove(&question) {
                    self.say(client, question, fingerprint, said);
                }
            }
            other => panic!("nobody sends {other:?} to a resolver"),
        }
    }

    fn asked(&mut self, now: Now, from: Address, question: u64, fingerprint: Fingerprint) {
        let known = self.latest.get(&fingerprint);
        let fresh = known.filter(|(at, _)| now.time - *at < Span::secs(MAX_AGE_SECS)).map(|(_, said)| said);
        let said = match self.mode {
            Mode::Honest => fresh.cloned(),
            Mode::Stale => self.first.get(&fingerprint).cloned().map(Said::Set),
            Mode::Somebody => {
                Some(Said::Set(Draft::default().sign(&identity(99), now.utc).unwrap().to_json().into()))
            }
            Mode::Altered => fresh.and_then(altered),
            Mode::Garbage => Some(Said::Set(b"\x00{\"records\"".to_vec().into())),
            Mode::Denying => Some(Said::Nothing),
            Mode::Silent => return,
        };
        match said {
            Some(said) => self.say(from, question, fingerprint, said),
            None => {
                self.number += 1;
                self.asking.insert(self.number, (from, question));
                let get = Message::Get { question: self.number, fingerprint };
                self.outputs.push_back(Out::Send(Address::Directory, get));
            }
        }
    }

    fn say(&mut self, client: Address, question: u64, fingerprint: Fingerprint, said: Said) {
        self.outputs.push_back(Out::Send(client, Message::Answer { question, fingerprint, said }));
    }

    pub(crate) fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }
}

/// The set with one digit of its address changed, so that the signature is wrong.
fn altered(said: &Said) -> Option<Said> {
    let Said::Set(set) = said else { return None };
    let text = String::from_utf8(set.0.to_vec()).ok()?;
    Some(Said::Set(text.replace("192.0.2.1:", "192.0.2.9:").into_bytes().into()))
}
