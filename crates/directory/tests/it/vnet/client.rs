//! A node that looks others up: lookup machines, cache and replay memory, put together as the client's shell does.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kith_directory::cache::{Cache, CacheRefusal};
use kith_directory::lookup::{Answer, Found, Input, Lookup, NotFound, Output, Pace, Rejection};
use kith_directory::replay::{MemoryReplay, ReplayMemory, Seen, Verdict};
use kith_identity::Fingerprint;
use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_sansio::{Machine, Now, Rng, Time, Timestamp};

use super::{Address, Bytes, Message, Out, Said, Told};

pub(crate) struct Client {
    sources: Vec<Address>,
    memory: MemoryReplay,
    cache: Cache,
    lookups: BTreeMap<u64, Running>,
    number: u64,
    /// The newest time of each node that was ever given out or cached; the model's own memory.
    newest: HashMap<Fingerprint, Timestamp>,
    outputs: VecDeque<Out>,
}

struct Running {
    fingerprint: Fingerprint,
    began: Time,
    seen: Option<Seen>,
    machine: Lookup,
}

impl Client {
    pub(crate) fn new(sources: Vec<Address>) -> Client {
        Client {
            sources,
            memory: MemoryReplay::new(100),
            cache: Cache::new(100),
            lookups: BTreeMap::new(),
            number: 0,
            newest: HashMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The same node after a crash: only its replay memory was stored.
    pub(crate) fn again(self) -> Client {
        let number = self.number + 1000;
        Client { memory: self.memory, newest: self.newest, number, ..Client::new(self.sources) }
    }

    pub(crate) fn look_up(&mut self, now: Now, fingerprint: Fingerprint) {
        let seen = self.memory.highest(&fingerprint);
        self.number += 1;
        let machine = Lookup::new(now, fingerprint, self.sources.len(), seen, Pace::default());
        self.lookups.insert(self.number, Running { fingerprint, began: now.time, seen, machine });
        self.drain(now, self.number);
    }

    pub(crate) fn message(&mut self, now: Now, from: &Address, message: Message, rng: &mut dyn Rng) {
        match message {
            Message::Push(fingerprint, set) => self.pushed(now, &fingerprint, &set),
            Message::Answer { question, said, .. } => {
                let source = self.sources.iter().position(|source| source == from).expect("a source");
                let Some(running) = self.lookups.get_mut(&question) else { return };
                let answer = match said {
                    Said::Nothing => Answer::Nothing,
                    Said::Set(set) => RecordSet::from_json(&set.0).map_or(Answer::Failed, Answer::Set),
                };
                running.machine.handle_input(now, Input { source, answer }, rng);
                self.drain(now, question);
            }
            other => panic!("nobody sends {other:?} to a client"),
        }
    }

    pub(crate) fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        for number in self.lookups.keys().copied().collect::<Vec<_>>() {
            if let Some(running) = self.lookups.get_mut(&number) {
                running.machine.handle_timeout(now, rng);
            }
            self.drain(now, number);
        }
    }

    fn drain(&mut self, now: Now, number: u64) {
        while let Some(running) = self.lookups.get_mut(&number)
            && let Some(output) = running.machine.poll_output()
        {
            match output {
                Output::Ask(source) => {
                    let get = Message::Get { question: number, fingerprint: running.fingerprint };
                    self.outputs.push_back(Out::Send(self.sources[source], get));
                }
                Output::Finished(result) => {
                    let running = self.lookups.remove(&number).expect("it ran a moment ago");
                    assert!(now.time - running.began <= Pace::default().deadline, "a lookup ends in time");
                    self.finished(now, &running, result);
                }
            }
        }
    }

    fn finished(&mut self, now: Now, running: &Running, result: Result<Found, NotFound>) {
        let fingerprint = running.fingerprint;
        let found = match result {
            Ok(Found { set, .. }) => {
                let again = set.as_record_set().clone().verify(&fingerprint, now.utc);
                assert_eq!(again.as_ref(), Ok(&set), "what a lookup yields passes verification");
                assert!(running.seen.is_none_or(|seen| seen.timestamp <= set.timestamp()), "nothing older");
                match self.remember(now, &set) {
                    Ok(()) => Some(set),
                    // Overtaken by a newer one while it was under way.
                    Err(CacheRefusal::Older) => self.cache.valid(&fingerprint, now.utc).cloned(),
                    Err(CacheRefusal::Different) => None,
                    Err(refusal) => panic!("{refusal}"),
                }
            }
            Err(NotFound::Refused { why: Rejection::Older, .. }) => {
                self.cache.valid(&fingerprint, now.utc).cloned()
            }
            Err(_) => None,
        };
        if let Some(set) = &found {
            assert!(self.newest[&fingerprint] <= set.timestamp(), "a person is never given an older set");
        }
        self.outputs.push_back(Out::Tell(Told::Looked(fingerprint, found)));
    }

    fn pushed(&mut self, now: Now, fingerprint: &Fingerprint, set: &Bytes) {
        let verified = RecordSet::from_json(&set.0).unwrap().verify(fingerprint, now.utc);
        if let Ok(set) = verified {
            // Pushes come late and twice.
            let _older_ones_are_refused = self.remember(now, &set);
        }
    }

    fn remember(&mut self, now: Now, set: &VerifiedRecordSet) -> Result<(), CacheRefusal> {
        let fingerprint = set.fingerprint();
        let before = self.cache.last(&fingerprint).map(VerifiedRecordSet::timestamp);
        let result = self.cache.offer(now.utc, set, self.memory.highest(&fingerprint));
        if result == Ok(Verdict::Newer) {
            self.memory.remember(&fingerprint, Seen::of(set));
        }
        let after = self.cache.last(&fingerprint).map(VerifiedRecordSet::timestamp);
        assert!(before <= after, "the cache never goes backwards");
        let newest = self.newest.entry(fingerprint).or_insert(set.timestamp());
        match result {
            Ok(_) => {
                assert!(*newest <= set.timestamp(), "nothing older than what was seen comes into the cache");
                *newest = set.timestamp();
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.lookups.values().filter_map(|running| running.machine.poll_timeout()).min()
    }
}
