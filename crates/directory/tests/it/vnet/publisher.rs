//! A node that announces itself: the announcing machine and a model of its shell, with the clock that is remembered.

use std::collections::VecDeque;

use kith_directory::announcer::{Announcer, End, Input, Output, next_timestamp};
use kith_identity::Identity;
use kith_identity::record::{Draft, VerifiedRecordSet};
use kith_sansio::{Machine, Now, Rng, Span, Time, Timestamp};

use super::{Address, Bytes, Message, Out, Told};

pub(crate) struct Publisher {
    pub(crate) identity: Identity,
    /// What it says: the port of its one address.
    pub(crate) port: u16,
    pub(crate) ttl: u32,
    /// The last timestamp used, which survives a crash.
    last: Timestamp,
    /// Counts its starts: a connection does not outlive them.
    life: u64,
    machine: Announcer,
    /// Who is connected, and is told every new set.
    contacts: Vec<Address>,
    outputs: VecDeque<Out>,
}

impl Publisher {
    pub(crate) fn new(identity: Identity, ttl: u32, contacts: Vec<Address>) -> Publisher {
        let (last, outputs) = (Timestamp(0), VecDeque::new());
        Publisher { identity, port: 1, ttl, last, life: 1, machine: Announcer::new(), contacts, outputs }
    }

    /// The same node after a crash: what was not stored is gone.
    pub(crate) fn again(self) -> Publisher {
        let (machine, outputs) = (Announcer::new(), VecDeque::new());
        Publisher { life: self.life + 1, machine, outputs, ..self }
    }

    pub(crate) fn change(&mut self, now: Now, rng: &mut dyn Rng) {
        self.port = self.port.wrapping_add(1).max(1);
        self.feed(now, Input::Changed(self.ttl), rng);
    }

    pub(crate) fn withdraw(&mut self, now: Now, rng: &mut dyn Rng) {
        self.feed(now, Input::Withdraw, rng);
    }

    pub(crate) fn put_answer(
        &mut self,
        now: Now,
        life: u64,
        attempt: u64,
        taken: bool,
        pause: Option<Span>,
        rng: &mut dyn Rng,
    ) {
        if life == self.life {
            let end = if taken { End::Taken } else { End::Failed { pause } };
            self.feed(now, Input::Ended { attempt, end }, rng);
        }
    }

    pub(crate) fn timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        self.machine.handle_timeout(now, rng);
        self.drain(now);
    }

    fn feed(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        self.machine.handle_input(now, input, rng);
        self.drain(now);
    }

    fn drain(&mut self, now: Now) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Announce(attempt) => self.announce(now, attempt, false),
                Output::Withdraw(attempt) => self.announce(now, attempt, true),
                Output::Finished => self.outputs.push_back(Out::Tell(Told::Finished)),
            }
        }
    }

    fn announce(&mut self, now: Now, attempt: u64, withdraw: bool) {
        let set = self.sign(now, withdraw);
        let (named, key) = (set.fingerprint(), Box::new(self.identity.public()));
        let body = Bytes::from(set.to_json());
        for contact in self.contacts.clone() {
            self.outputs.push_back(Out::Send(contact, Message::Push(named, body.clone())));
        }
        let put = Message::Put { life: self.life, attempt, key, named, body };
        self.outputs.push_back(Out::Send(Address::Directory, put));
        self.outputs.push_back(Out::Tell(Told::Signed(set)));
    }

    fn sign(&mut self, now: Now, withdraw: bool) -> VerifiedRecordSet {
        self.last = next_timestamp(now.utc, self.last);
        let address = format!("quic://192.0.2.1:{}", self.port).parse().unwrap();
        let addresses = if withdraw { Vec::new() } else { vec![address] };
        Draft { addresses, ttl: self.ttl, ..Draft::default() }.sign(&self.identity, self.last).unwrap()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.machine.poll_timeout()
    }
}
