//! One address of the network and who sits there.

use std::collections::BTreeSet;
use std::collections::VecDeque;

use kith_connect::dialer::Attempt;
use kith_identity::Fingerprint;
use kith_sansio::{Now, Span, Time};

use super::{Message, Node, Said};

/// What an address does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// This peer answers, after so long.
    Answers(Fingerprint, Span),
    Refuses,
    Silent,
}

pub(crate) struct Host {
    pub(crate) behaviour: Behaviour,
    /// Connections that were accepted and not closed.
    pub(crate) open: BTreeSet<(u8, u64, u32)>,
    pending: VecDeque<(Time, u8, u64, Attempt, Said)>,
    outputs: VecDeque<(Node, Message)>,
}

impl Host {
    pub(crate) fn new(behaviour: Behaviour) -> Host {
        Host { behaviour, open: BTreeSet::new(), pending: VecDeque::new(), outputs: VecDeque::new() }
    }

    pub(crate) fn message(&mut self, now: Now, from: u8, message: &Message) {
        match *message {
            Message::Dial { race, attempt } => {
                let (after, said) = match self.behaviour {
                    Behaviour::Answers(who, after) => (after, Said::Iam(who)),
                    Behaviour::Refuses => (Span::ZERO, Said::Refused),
                    Behaviour::Silent => return,
                };
                self.pending.push_back((now.time + after, from, race, attempt, said));
                if said != Said::Refused {
                    self.open.insert((from, race, attempt.0));
                }
                self.timeout(now);
            }
            Message::Gone { race, attempt } => drop(self.open.remove(&(from, race, attempt.0))),
            Message::Answer { .. } => panic!("nobody answers a host"),
        }
    }

    pub(crate) fn timeout(&mut self, now: Now) {
        for (due, from, race, attempt, said) in std::mem::take(&mut self.pending) {
            if due <= now.time {
                self.outputs.push_back((Node::Initiator(from), Message::Answer { race, attempt, said }));
            } else {
                self.pending.push_back((due, from, race, attempt, said));
            }
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<(Node, Message)> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.pending.iter().map(|(due, ..)| *due).min()
    }
}
