//! The machine of one network: shows the own node to those who know it, and looks for others.

use std::collections::{BTreeMap, VecDeque};

use kith_identity::Fingerprint;
use kith_identity::record::RecordSet;
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::message::{self, Message, Response, Seen};
use super::name::{Instance, Salt};
use super::presence::Presence;
use super::search::Search;
use crate::defaults::{LAN_ASK_AGAIN, LAN_BROWSE_EVERY, LAN_BROWSE_LAST, LAN_NEIGHBOURS, MAX_LOOKUPS};

/// What happens on a network.
#[derive(Debug)]
pub enum Input {
    /// Somebody said this.
    Heard(Message),
    /// This node is to show itself from now on, under names of this fingerprint.
    Show(Fingerprint),
    /// The set that was asked for with [`Output::Say`], in its binary form; `None` where there is none.
    Said {
        /// The number of the question.
        question: u64,
        /// What to say.
        set: Option<Vec<u8>>,
    },
    /// Look for a node.
    Seek {
        /// Names the search; the caller's choice.
        search: u64,
        /// Who is looked for.
        target: Fingerprint,
    },
    /// Nobody waits for this search any more.
    Forget(u64),
    /// Take leave: this node goes.
    Leave,
}

/// What the machine of a network wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Multicast this packet.
    Send(Vec<u8>),
    /// Somebody who knows the fingerprint asks for the set: come back with [`Input::Said`].
    Say(u64),
    /// A search ended: this set is valid for its target now. Whether a newer one was seen is for the caller to judge.
    Found {
        /// Which search.
        search: u64,
        /// The set.
        set: RecordSet,
    },
}

/// The machine of one network.
#[derive(Debug, Default)]
pub struct Link {
    presence: Option<Presence>,
    neighbours: BTreeMap<Instance, Neighbour>,
    searches: BTreeMap<u64, Search>,
    browsing: Browsing,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    salt: Salt,
    until: Time,
}

/// When it is asked who is there.
#[derive(Debug, Default)]
struct Browsing {
    /// Next, where somebody waits.
    at: Option<Time>,
    /// The pause after that.
    pause: Span,
    /// Not before this.
    not_before: Time,
}

impl Link {
    /// A network on which nothing is shown and nobody looked for yet.
    #[must_use]
    pub fn new() -> Link {
        Link::default()
    }

    /// The name under which the own node is there now.
    #[must_use]
    pub fn instance(&self) -> Option<Instance> {
        self.presence.as_ref().map(Presence::instance)
    }

    fn send(&mut self, packets: impl IntoIterator<Item = Vec<u8>>) {
        self.outputs.extend(packets.into_iter().map(Output::Send));
    }

    fn seek(&mut self, now: Time, search: u64, target: Fingerprint, rng: &mut dyn Rng) {
        if self.searches.len() >= MAX_LOOKUPS {
            return;
        }
        self.neighbours.retain(|_, neighbour| now < neighbour.until);
        let mut seeking = Search::new(target);
        let known = self.neighbours.iter().find(|(instance, near)| seeking.recognises(instance, &near.salt));
        let known = known.map(|(instance, near)| Seen { instance: *instance, salt: near.salt, ttl_secs: 0 });
        let mut browse_at = now;
        if let Some(ask) = known.and_then(|seen| seeking.meets(now, &seen, rng)) {
            self.send([message::ask(&ask)]);
            // It may be gone, or have another name by now.
            browse_at = now + LAN_ASK_AGAIN;
        }
        self.searches.insert(search, seeking);
        let at = browse_at.max(self.browsing.not_before);
        self.browsing.at = Some(self.browsing.at.map_or(at, |planned| planned.min(at)));
        self.browsing.pause = LAN_BROWSE_EVERY;
    }

    fn hear(&mut self, now: Now, response: &Response, rng: &mut dyn Rng) {
        for gone in &response.gone {
            self.neighbours.remove(gone);
        }
        for seen in &response.seen {
            self.learn(now.time, seen);
            let asks: Vec<_> =
                self.searches.values_mut().filter_map(|search| search.meets(now.time, seen, rng)).collect();
            self.send(asks.iter().map(message::ask));
        }
        for (ask, piece) in &response.pieces {
            for (search, seeking) in &mut self.searches {
                if let Some(set) = seeking.hears(now.utc, ask, piece) {
                    self.outputs.push_back(Output::Found { search: *search, set });
                }
            }
        }
    }

    fn learn(&mut self, now: Time, seen: &Seen) {
        if !self.neighbours.contains_key(&seen.instance) && self.neighbours.len() >= LAN_NEIGHBOURS {
            let first = self.neighbours.iter().min_by_key(|(_, near)| near.until).map(|(name, _)| *name);
            first.map(|name| self.neighbours.remove(&name));
        }
        let until = now + Span::secs(seen.ttl_secs.into());
        self.neighbours.insert(seen.instance, Neighbour { salt: seen.salt, until });
    }

    fn go_on(&mut self, now: Now, rng: &mut dyn Rng) {
        if let Some(presence) = &mut self.presence {
            let packets = presence.due(now, rng);
            self.send(packets);
        }
        let again: Vec<_> =
            self.searches.values_mut().filter_map(|search| search.due(now.time, rng)).collect();
        self.send(again.iter().map(message::ask));
        if !self.searches.values().any(Search::is_open) {
            self.browsing.at = None;
        } else if self.browsing.at.is_some_and(|at| now.time >= at) {
            self.send([message::browse()]);
            self.browsing.not_before = now.time + LAN_BROWSE_EVERY;
            self.browsing.at = Some(now.time + self.browsing.pause);
            self.browsing.pause = Span(self.browsing.pause.times(2).0.min(LAN_BROWSE_LAST.0));
        }
    }
}

impl Machine for Link {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Heard(Message::Query(query)) => {
                let questions = self.presence.as_mut().map(|own| own.asked(now, &query, rng));
                self.outputs.extend(questions.unwrap_or_default().into_iter().map(Output::Say));
            }
            Input::Heard(Message::Response(response)) => self.hear(now, &response, rng),
            Input::Show(fingerprint) => self.presence = Some(Presence::new(fingerprint, now, rng)),
            Input::Said { question, set } => {
                let packets = self.presence.as_mut().map(|own| own.answer(question, set.as_deref(), rng));
                self.send(packets.unwrap_or_default());
            }
            Input::Seek { search, target } => self.seek(now.time, search, target, rng),
            Input::Forget(search) => {
                self.searches.remove(&search);
            }
            Input::Leave => {
                let goodbye = self.presence.take().map(|own| own.goodbye());
                self.send(goodbye);
            }
        }
        self.go_on(now, rng);
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        self.go_on(now, rng);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        let presence = self.presence.as_ref().map(Presence::wake);
        let searches = self.searches.values().filter_map(Search::wake);
        searches.chain(presence).chain(self.browsing.at).min()
    }
}
