//! A node that dials: one race after another, and a model of the shell around each.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use kith_connect::address::{Origin, may_dial};
use kith_connect::defaults::STAGGER;
use kith_connect::dialer::{Attempt, Candidate, Dialer, Input, Output, Pace, Via};
use kith_connect::{Failure, Tried, Vantage};
use kith_identity::{Address, Fingerprint};
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::{Message, Node, Out, Said, Told};

/// When a call is repeated that got no answer, as TCP and QUIC do.
const AGAIN: Span = Span::millis(700);

/// Whom to reach, and when which addresses become known.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Fingerprint,
    pub(crate) via: Via,
    /// In order; `None` is the end of the search.
    pub(crate) batches: VecDeque<(Span, Option<Vec<Candidate>>)>,
}

pub(crate) struct Initiator {
    hosts: Rc<HashMap<Address, u16>>,
    race: Option<Race>,
    number: u64,
    outputs: VecDeque<Out>,
}

struct Race {
    plan: Plan,
    began: Time,
    dialer: Dialer,
    running: BTreeMap<u32, Call>,
    /// Calls that ended without an answer; one can still come.
    ended: HashSet<u32>,
    verified: HashSet<u32>,
    started: HashSet<Address>,
    known: BTreeSet<Address>,
    /// When which IP address was started last.
    last: Option<(Time, IpAddr)>,
}

struct Call {
    address: Address,
    again: Time,
}

impl Initiator {
    pub(crate) fn new(hosts: Rc<HashMap<Address, u16>>) -> Initiator {
        Initiator { hosts, race: None, number: 0, outputs: VecDeque::new() }
    }

    /// The same node after a crash.
    pub(crate) fn again(self) -> Initiator {
        Initiator { number: self.number + 1000, ..Initiator::new(self.hosts) }
    }

    pub(crate) fn is_racing(&self) -> bool {
        self.race.is_some()
    }

    pub(crate) fn begin(&mut self, now: Now, plan: Plan, rng: &mut dyn Rng) {
        assert!(self.race.is_none(), "one race at a time");
        self.number += 1;
        let dialer = Dialer::new(plan.target, now, plan.via, Vantage::default(), Pace::default());
        self.race = Some(Race {
            plan,
            began: now.time,
            dialer,
            running: BTreeMap::new(),
            ended: HashSet::new(),
            verified: HashSet::new(),
            started: HashSet::new(),
            known: BTreeSet::new(),
            last: None,
        });
        self.timeout(now, rng);
    }

    pub(crate) fn answered(
        &mut self,
        now: Now,
        (race, attempt, said): (u64, Attempt, Said),
        rng: &mut dyn Rng,
    ) {
        let Some(current) = self.race.as_mut().filter(|_| race == self.number) else { return };
        // An answer that comes at the very moment of an abort may still reach the machine.
        let late = current.ended.contains(&attempt.0) && rng.below(2) == 0;
        if !current.running.contains_key(&attempt.0) && !late {
            return;
        }
        let input = match said {
            Said::Iam(who) if who == current.plan.target => {
                if !late {
                    current.verified.insert(attempt.0);
                }
                Input::Connected(attempt)
            }
            Said::Iam(who) => Input::Failed(attempt, Failure::WrongPeer(who)),
            Said::Refused => Input::Failed(attempt, Failure::Network("refused".into())),
        };
        if matches!(input, Input::Failed(..))
            && let Some(call) = current.running.remove(&attempt.0)
        {
            let gone = Message::Gone { race, attempt };
            self.outputs.push_back(Out::Send(Node::Host(self.hosts[&call.address]), gone));
        }
        current.dialer.handle_input(now, input, rng);
        self.drain(now);
    }

    pub(crate) fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        while let Some(race) = &mut self.race
            && let Some((after, _)) = race.plan.batches.front()
            && now.time >= race.began + *after
            && let Some((_, batch)) = race.plan.batches.pop_front()
        {
            if let Some(batch) = &batch {
                race.known.extend(batch.iter().map(|one| one.address));
            }
            let input = batch.map_or(Input::NoMoreCandidates, Input::Candidates);
            race.dialer.handle_input(now, input, rng);
            self.drain(now);
        }
        let Some(race) = &mut self.race else { return };
        for (attempt, call) in race.running.iter_mut().filter(|(_, call)| call.again <= now.time) {
            call.again = now.time + AGAIN;
            let dial = Message::Dial { race: self.number, attempt: Attempt(*attempt) };
            self.outputs.push_back(Out::Send(Node::Host(self.hosts[&call.address]), dial));
        }
        race.dialer.handle_timeout(now, rng);
        self.drain(now);
    }

    fn drain(&mut self, now: Now) {
        while let Some(race) = &mut self.race
            && let Some(output) = race.dialer.poll_output()
        {
            match output {
                Output::Start(attempt, address) => {
                    assert!(race.started.insert(address), "{address} is tried once");
                    assert!(may_dial(&address, Origin::Hint, &Vantage::default()), "{address} is dialled");
                    let start = (now.time, address.socket.ip());
                    let patient = race.last.is_none_or(|last| last == start || now.time >= last.0 + STAGGER);
                    assert!(patient || race.running.is_empty(), "{address} waits its turn");
                    race.last = Some(start);
                    race.running.insert(attempt.0, Call { address, again: now.time + AGAIN });
                    let dial = Message::Dial { race: self.number, attempt };
                    self.outputs.push_back(Out::Send(Node::Host(self.hosts[&address]), dial));
                    self.outputs.push_back(Out::Tell(Told::Started(address)));
                }
                Output::Abort(attempt) => {
                    let call = race.running.remove(&attempt.0).expect("what is aborted runs");
                    race.ended.insert(attempt.0);
                    let gone = Message::Gone { race: self.number, attempt };
                    self.outputs.push_back(Out::Send(Node::Host(self.hosts[&call.address]), gone));
                }
                Output::Relay(..) => panic!("there is no relay here"),
                Output::Reached(attempt) => self.won(now, attempt),
                Output::Unreachable(tried) => self.lost(now, &tried),
            }
        }
    }

    fn won(&mut self, now: Now, attempt: Attempt) {
        let mut race = self.ended(now);
        assert!(race.verified.contains(&attempt.0), "the winner is the right peer");
        let call = race.running.remove(&attempt.0).expect("the winner runs");
        assert!(race.running.is_empty(), "all others were aborted");
        self.outputs.push_back(Out::Tell(Told::Won(race.plan.target, call.address)));
    }

    fn lost(&mut self, now: Now, tried: &[Tried]) {
        let race = self.ended(now);
        assert!(race.running.is_empty(), "all were aborted");
        assert!(race.verified.is_empty(), "who answers is not lost");
        let told: BTreeSet<Address> = tried.iter().map(super::direct).collect();
        assert_eq!(told.len(), tried.len(), "each address is told once");
        assert_eq!(told, race.known, "and all of them");
        self.outputs.push_back(Out::Tell(Told::Lost(race.plan.target, tried.to_vec())));
    }

    fn ended(&mut self, now: Now) -> Race {
        let mut race = self.race.take().expect("a race runs");
        assert_eq!(race.dialer.poll_output(), None, "nothing follows the end");
        assert_eq!(race.dialer.poll_timeout(), None);
        assert!(now.time - race.began <= Pace::default().race_timeout, "a race ends in time");
        race
    }

    pub(crate) fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let race = self.race.as_ref()?;
        let batch = race.plan.batches.front().map(|(after, _)| race.began + *after);
        let again = race.running.values().map(|call| call.again).min();
        [batch, again, race.dialer.poll_timeout()].into_iter().flatten().min()
    }
}
