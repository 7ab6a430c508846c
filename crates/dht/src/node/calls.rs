use std::collections::BTreeMap;
use std::net::SocketAddr;

use kith_identity::membership::NodeId;
use kith_sansio::Time;

use crate::contact::Contact;
use crate::defaults::REQUEST;

/// Questions that are out. Each may take as long as any other, so they end in the order in which they were asked.
#[derive(Debug, Default)]
pub(super) struct Calls {
    next: u64,
    out: BTreeMap<u64, Call>,
    /// Who is being asked whether it is there, and where, with the number of such questions.
    probed: BTreeMap<(NodeId, SocketAddr), usize>,
    probes: usize,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) to: Contact,
    pub(super) deadline: Time,
    pub(super) why: Why,
}

/// What a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The lookup of a task.
    Task(u64),
    /// A copy of the value that a task stores.
    Copy(u64),
    /// A copy of the value at this key, for a node that became one of its nearest.
    Repair(NodeId),
    /// Whether a node is there.
    Probe(Probe),
    /// Who is in the own region.
    Page,
}

/// Why somebody wants to know whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It was heard of, or somebody missed it.
    Rumour,
    /// This node watches it, and tells the others.
    Watch,
}

impl Calls {
    /// Registers a question; its id.
    pub(super) fn open(&mut self, to: Contact, now: Time, why: Why) -> u64 {
        self.next += 1;
        if why.is_probe() {
            self.probes += 1;
            *self.probed.entry((to.id, to.address)).or_default() += 1;
        }
        self.out.insert(self.next, Call { to, deadline: now + REQUEST, why });
        self.next
    }

    /// The question that this node answers with this id.
    pub(super) fn answered(&mut self, id: u64, by: &NodeId) -> Option<Call> {
        self.out.get(&id).filter(|call| call.to.id == *by)?;
        self.close(id)
    }

    /// The next question whose time is over.
    pub(super) fn expired(&mut self, now: Time) -> Option<Call> {
        let (id, call) = self.out.first_key_value()?;
        let id = (call.deadline <= now).then_some(*id)?;
        self.close(id)
    }

    /// One of the questions to a node.
    pub(super) fn any_to(&mut self, node: &NodeId) -> Option<Call> {
        let id = self.out.iter().find(|(_, call)| call.to.id == *node).map(|(id, _)| *id)?;
        self.close(id)
    }

    /// Whether a node is being asked at this address whether it is there.
    pub(super) fn is_probed(&self, contact: &Contact) -> bool {
        self.probed.contains_key(&(contact.id, contact.address))
    }

    /// How many probes are out.
    pub(super) fn probes(&self) -> usize {
        self.probes
    }

    /// When the time of the next one is over.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.out.first_key_value().map(|(_, call)| call.deadline)
    }

    fn close(&mut self, id: u64) -> Option<Call> {
        let call = self.out.remove(&id)?;
        if call.why.is_probe() {
            self.probes -= 1;
            let place = (call.to.id, call.to.address);
            if let Some(count) = self.probed.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    self.probed.remove(&place);
                }
            }
        }
        Some(call)
    }
}

impl Why {
    fn is_probe(self) -> bool {
        matches!(self, Why::Probe(_))
    }
}
