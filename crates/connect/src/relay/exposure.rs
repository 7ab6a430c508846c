//! The target's side: several relays kept warm at once, and who may come over them. Pure.

mod knocks;
mod post;

use std::collections::VecDeque;

use kith_identity::{Address, Fingerprint, Ni, Relay};
use kith_sansio::{Machine, Now, Rng, Span, Time};

use super::limits::{
    EXPOSE_PATIENCE, MAX_RELAYS, MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, NAMED_FOR, PING_AGAIN, PING_LEAST,
    PONG_PATIENCE,
};
use super::message::{Message, Pass};
use super::request::{Carriage, Request};
use knocks::{Knocks, Nonces};
use post::{Post, State};

/// One stream to one relay; a new one for each attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub u64);

/// What a target is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// These relays are to be used, and no others.
    Use(Vec<Relay>),
    /// The stream is open.
    Connected(Link),
    /// The stream could not be opened, or has ended.
    Lost(Link),
    /// The relay says this.
    Message(Link, Message),
    /// Whether the initiator of a knock may come.
    Judged(Link, u32, bool),
    /// This machine's place on the network has changed.
    Shaken,
}

/// What a target wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a stream of `relay/1` to this relay.
    Connect(Link, Ni),
    /// Close it; nothing of it is awaited any more.
    Close(Link),
    /// Say this over it.
    Send(Link, Message),
    /// Say whether this initiator may come.
    Judge {
        /// The stream that he knocks over.
        link: Link,
        /// The number of the knock.
        id: u32,
        /// Who has signed it.
        initiator: Fingerprint,
        /// What is to be carried.
        carriage: Carriage,
    },
    /// The relay sees this node there.
    Observed(Fingerprint, Address),
    /// Bring a token to the relay, and serve whoever comes as on a connection of his own.
    Meet(Meeting),
    /// The relays by which this node can be reached have changed; by preference.
    Named(Vec<Relay>),
}

/// Where and how an initiator is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The stream over which it was agreed.
    pub link: Link,
    /// The relay.
    pub relay: Fingerprint,
    /// Who is to come; his handshake has to prove it.
    pub initiator: Fingerprint,
    /// What is carried.
    pub carriage: Carriage,
    /// How to get into the session.
    pub pass: Pass,
}

/// How a relay is reached now, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The relay.
    pub relay: Relay,
    /// This node can be reached through it.
    pub is_warm: bool,
    /// The last ping's time there and back.
    pub rtt: Option<Span>,
}

/// A node that its relays make reachable.
#[derive(Debug)]
pub struct Exposure {
    own: Fingerprint,
    posts: Vec<Post>,
    named: Vec<Relay>,
    nonces: Nonces,
    next_link: u64,
    outputs: VecDeque<Output>,
}

impl Exposure {
    /// The node with the fingerprint `own`, which uses no relay yet.
    pub fn new(own: Fingerprint) -> Exposure {
        Exposure {
            own,
            posts: Vec::new(),
            named: Vec::new(),
            nonces: Nonces::default(),
            next_link: 0,
            outputs: VecDeque::new(),
        }
    }

    /// How each relay is reached, by preference.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |post: &Post| {
            let warm = post.warm();
            Standing {
                relay: post.relay.clone(),
                is_warm: warm.is_some(),
                rtt: warm.and_then(|warm| warm.rtt),
            }
        };
        self.posts.iter().map(standing).collect()
    }

    /// The relays that this node can be reached by, by preference.
    pub fn named(&self) -> &[Relay] {
        &self.named
    }

    /// Takes over which relays are used; those that stay keep their streams.
    fn use_relays(&mut self, now: Time, mut relays: Vec<Relay>) {
        relays.sort();
        relays.retain(|relay| relay.ni.fingerprint != self.own);
        let mut posts: Vec<Post> = Vec::new();
        for relay in relays {
            let is_new = posts.iter().all(|post| post.fingerprint() != relay.ni.fingerprint);
            if is_new && posts.len() < MAX_RELAYS {
                let at = self.posts.iter().position(|post| post.fingerprint() == relay.ni.fingerprint);
                let kept = at.map(|at| self.posts.swap_remove(at));
                posts.push(match kept {
                    Some(mut post) => {
                        post.relay = relay;
                        post
                    }
                    None => Post::new(relay, now),
                });
            }
        }
        let given_up = std::mem::replace(&mut self.posts, posts);
        self.outputs.extend(given_up.iter().filter_map(Post::link).map(Output::Close));
    }

    fn at(&self, link: Link) -> Option<usize> {
        self.posts.iter().position(|post| post.link() == Some(link))
    }

    /// Ends the stream of a relay that does not do what it should.
    fn drop_link(&mut self, now: Time, at: usize, is_at_fault: bool, rng: &mut dyn Rng) {
        let post = &mut self.posts[at];
        if let Some(link) = post.link() {
            self.outputs.push_back(Output::Close(link));
        }
        if is_at_fault { post.blame(now, rng) } else { post.lose(now, rng) }
    }

    fn message(&mut self, now: Now, at: usize, message: Message, rng: &mut dyn Rng) {
        let post = &mut self.posts[at];
        let relay = post.fingerprint();
        if !post.allowance.take(now.time, MESSAGES_AT_ONCE, MESSAGES_PER_SECOND) {
            return self.drop_link(now.time, at, true, rng);
        }
        match (&mut post.state, message) {
            (State::Exposing { link, .. }, Message::Exposed) => {
                let link = *link;
                post.take_in(now.time, link);
            }
            (State::Warm(_), Message::Pong(number)) => post.answered(now.time, number),
            (State::Warm(_), Message::Observed(address)) => {
                self.outputs.push_back(Output::Observed(relay, address));
            }
            (State::Warm(warm), Message::Knock(id, request)) => {
                let link = warm.link;
                let carriage = request.carriage;
                if let Some(initiator) = knock(self.own, now, relay, &mut warm.knocks, (id, *request)) {
                    self.outputs.push_back(Output::Judge { link, id, initiator, carriage });
                }
            }
            (State::Warm(warm), Message::Meet(id, pass)) => {
                // An id that was not admitted is nobody's.
                if let Some(request) = warm.knocks.meet(now.time, id) {
                    let (initiator, carriage) = (request.initiator(), request.request().carriage);
                    let link = warm.link;
                    let meeting = Meeting { link, relay, initiator, carriage, pass };
                    self.outputs.push_back(Output::Meet(meeting));
                }
            }
            _ => self.drop_link(now.time, at, true, rng),
        }
    }

    fn judged(&mut self, now: Now, link: Link, id: u32, may_come: bool) {
        let Some(at) = self.at(link) else { return };
        let Some(warm) = self.posts[at].warm_mut() else { return };
        let Some(request) = warm.knocks.judging(id) else { return };
        // A nonce counts when it lets somebody in, so that strangers take no memory.
        let is_new = may_come && self.nonces.remember(request, now.utc);
        let answer = if is_new { Message::Admit(id) } else { Message::Decline(id) };
        warm.knocks.judged(id, is_new);
        self.outputs.push_back(Output::Send(link, answer));
    }

    /// Looks at one relay whose time may have come.
    fn tend(&mut self, now: Time, at: usize, rng: &mut dyn Rng) {
        let post = &mut self.posts[at];
        match &mut post.state {
            State::Away { again } if *again <= now => {
                let link = Link(self.next_link);
                self.next_link += 1;
                post.begin(now, link);
                self.outputs.push_back(Output::Connect(link, post.relay.ni.clone()));
            }
            State::Exposing { deadline, .. } if *deadline <= now => self.drop_link(now, at, false, rng),
            State::Warm(warm) if warm.next_ping <= now => {
                if warm.asked.is_some_and(|asked| now - asked >= PONG_PATIENCE) {
                    // What lies between may have forgotten this connection: it is to be used more often.
                    post.ceiling = Span((warm.interval.0 / 2).max(PING_LEAST.0));
                    return self.drop_link(now, at, false, rng);
                }
                let ping = Output::Send(warm.link, Message::Ping(warm.ask(now)));
                self.outputs.push_back(ping);
            }
            _ => {}
        }
    }

    /// Says so where the relays to be named are others than before.
    fn name(&mut self, now: Time) {
        for post in &mut self.posts {
            if post.warm().is_some() {
                post.named_until = Some(now + NAMED_FOR);
            } else if post.named_until.is_some_and(|until| until <= now) {
                post.named_until = None;
            }
        }
        let named = self.posts.iter().filter(|post| post.named_until.is_some());
        let named: Vec<Relay> = named.map(|post| post.relay.clone()).collect();
        if named != self.named {
            self.named.clone_from(&named);
            self.outputs.push_back(Output::Named(named));
        }
    }
}

/// Whom a knock is from, where it is one to be judged: signed, for this node, over this relay, in time and in number.
fn knock(
    own: Fingerprint,
    now: Now,
    relay: Fingerprint,
    knocks: &mut Knocks,
    (id, request): (u32, Request),
) -> Option<Fingerprint> {
    if request.target != own {
        return None;
    }
    let request = request.verify(&relay, now.utc).ok()?;
    let initiator = request.initiator();
    knocks.take(now.time, id, request).then_some(initiator)
}

impl Machine for Exposure {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Use(relays) => self.use_relays(now.time, relays),
            Input::Connected(link) => {
                if let Some(at) = self.at(link)
                    && matches!(self.posts[at].state, State::Connecting { .. })
                {
                    let deadline = now.time + EXPOSE_PATIENCE;
                    self.posts[at].state = State::Exposing { link, deadline };
                    self.outputs.push_back(Output::Send(link, Message::Expose));
                }
            }
            Input::Lost(link) => {
                if let Some(at) = self.at(link) {
                    self.posts[at].lose(now.time, rng);
                }
            }
            Input::Message(link, message) => {
                if let Some(at) = self.at(link) {
                    self.message(now, at, message, rng);
                }
            }
            Input::Judged(link, id, may_come) => self.judged(now, link, id, may_come),
            Input::Shaken => self.posts.iter_mut().for_each(|post| post.shake(now.time)),
        }
        self.handle_timeout(now, rng);
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        for at in 0..self.posts.len() {
            self.tend(now.time, at, rng);
        }
        self.name(now.time);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.posts.iter().flat_map(|post| [post.due(), post.unnamed_at()]).flatten().min()
    }
}

#[cfg(test)]
mod tests;
