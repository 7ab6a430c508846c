//! The relay's side: who is exposed, who waits, and which two are put together. Pure.

mod sessions;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

use kith_identity::{Address, Fingerprint};
use kith_sansio::{Machine, Now, Rng, Time};

use super::limits::{
    EXPOSED_SILENCE, FIRST_MESSAGE, FIRST_MESSAGE_OF_STRANGER, MAX_ASKED, MAX_CLIENTS, MAX_EXPOSED,
    MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, REFUSED_AFTER, TOKEN_LIFE,
};
use super::message::{Message, Pass, Token};
use super::quarantine::{Inmate, Quarantine};
use super::quota::{Allowance, Quota};
use super::request::{Carriage, Request};
use sessions::Sessions;

/// One stream of `relay/1` that somebody opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(pub u64);

/// Two sides that are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// Where a token was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A TCP connection, by a number of the shell's.
    Stream(u64),
    /// The UDP address that the token came from.
    Datagrams(SocketAddr),
}

/// What a relay does for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regard {
    /// Nothing.
    Barred,
    /// He may ask for targets, as anybody may.
    Stranger,
    /// It makes him reachable, as it does for anybody.
    Served,
    /// It makes him reachable, and keeps room for him that strangers cannot take.
    Known,
}

impl Regard {
    fn is_served(self) -> bool {
        matches!(self, Regard::Served | Regard::Known)
    }
}

/// What a relay is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody opened a stream of `relay/1`.
    Arrived {
        /// A number that was not used before.
        client: Client,
        /// Who he proved to be.
        peer: Fingerprint,
        /// Where he is seen.
        from: Address,
        /// What this node does for him.
        regard: Regard,
    },
    /// He says this.
    Message(Client, Message),
    /// His stream has ended.
    Left(Client),
    /// What this node does for a peer from now on.
    Regarded(Fingerprint, Regard),
    /// Somebody shows a token.
    Presented(Token, Side),
    /// A side that was told to wait is gone.
    Withdrawn(Side),
    /// So many bytes were copied in a session since the last time.
    Moved(Session, u64),
    /// A session has ended, by one of its sides or because it was asked for.
    Ended(Session),
}

/// What a relay wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say this to a client.
    Send(Client, Message),
    /// Close his stream, after what was said has left.
    Close(Client),
    /// The other side is not there yet.
    Wait(Side),
    /// The token opens nothing.
    Reject(Side),
    /// Tell both sides, and copy between them.
    Join(Joined),
    /// The side is joined already: its datagram of before, once more.
    Again(Side),
    /// End this session.
    End(Session),
}

/// Two sides to copy between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// What to call it.
    pub session: Session,
    /// The initiator's side and the target's.
    pub sides: [Side; 2],
    /// Whose bandwidth it uses: the target's, for whom this node relays.
    pub payer: Fingerprint,
    /// Bytes a second of all sessions of the payer together.
    pub bytes_per_second: Option<u64>,
}

/// How a relay is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What each fingerprint may use.
    pub quota: Quota,
    /// Where tokens for TCP are taken; `None` where there is no such listener.
    pub stream_port: Option<u16>,
    /// Where tokens for UDP are taken.
    pub datagram_port: Option<u16>,
}

/// How busy a relay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Nodes that can be reached through it.
    pub exposed: usize,
    /// Requests that wait for their target, or whose initiators left before they could be refused.
    pub waiting: usize,
    /// Sessions, joined or about to be.
    pub sessions: usize,
}

/// The relay of one node.
#[derive(Debug)]
pub struct Relay {
    own: Fingerprint,
    settings: Settings,
    clients: HashMap<Client, Member>,
    exposed: HashMap<Fingerprint, Client>,
    quarantine: Quarantine,
    waiting: HashMap<u32, Waiting>,
    next_id: u32,
    sessions: Sessions,
    timers: BTreeSet<(Time, Timer)>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Client(Client),
    Waiting(u32),
    Session(Session),
}

/// Somebody with an open stream.
#[derive(Debug)]
struct Member {
    peer: Fingerprint,
    from: Address,
    regard: Regard,
    role: Role,
    allowance: Allowance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Has said nothing yet.
    New,
    /// Can be reached through this relay; heard last at this time.
    Exposed(Time),
    /// Wants to reach somebody.
    Waiting(u32),
}

/// A request whose initiator waits.
#[derive(Debug)]
struct Waiting {
    client: Client,
    inmate: Inmate,
    request: Box<Request>,
    asked: Asked,
    /// How often the target was asked.
    times: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// The target is not here, and is asked once it comes.
    Nobody,
    /// Its answer over this stream counts; once it comes back on another, it is asked there.
    Over(Client),
    /// It has answered, or is not to be asked.
    Done,
}

impl Relay {
    /// A relay that serves nobody yet, on the node with the fingerprint `own`.
    pub fn new(own: Fingerprint, settings: Settings) -> Relay {
        Relay {
            own,
            settings,
            clients: HashMap::new(),
            exposed: HashMap::new(),
            quarantine: Quarantine::default(),
            waiting: HashMap::new(),
            next_id: 0,
            sessions: Sessions::new(settings.quota),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        let (exposed, waiting) = (self.exposed.len(), self.waiting.len());
        Load { exposed, waiting, sessions: self.sessions.count() }
    }

    /// Who can be reached through it.
    pub fn exposed(&self) -> impl Iterator<Item = &Fingerprint> {
        self.exposed.keys()
    }

    /// Who has an open stream or a session, each once.
    pub fn users(&self) -> Vec<Fingerprint> {
        let clients = self.clients.values().map(|member| member.peer);
        let all: BTreeSet<_> = clients.chain(self.sessions.parties()).map(|peer| *peer.as_bytes()).collect();
        all.into_iter().map(Fingerprint::from_bytes).collect()
    }

    fn send(&mut self, to: Client, message: Message) {
        self.outputs.push_back(Output::Send(to, message));
    }

    /// Ends a client's stream and forgets him.
    fn close(&mut self, client: Client) {
        if self.forget(client) {
            self.outputs.push_back(Output::Close(client));
        }
    }

    fn forget(&mut self, client: Client) -> bool {
        let Some(member) = self.clients.remove(&client) else { return false };
        match member.role {
            Role::New => {}
            Role::Exposed(_) => {
                if self.exposed.get(&member.peer) == Some(&client) {
                    self.exposed.remove(&member.peer);
                }
            }
            // He keeps his place until he would have been refused: what he may ask for is a rate, not a number at once.
            Role::Waiting(id) => {
                if let Some(waiting) = self.waiting.get_mut(&id) {
                    waiting.asked = Asked::Done;
                }
            }
        }
        true
    }

    /// A request is settled.
    fn release(&mut self, id: u32) {
        if let Some(waiting) = self.waiting.remove(&id) {
            self.quarantine.leave(&waiting.inmate);
        }
    }

    fn arrived(&mut self, now: Now, client: Client, member: Member) {
        let is_full = self.clients.len() >= MAX_CLIENTS || self.clients.contains_key(&client);
        if is_full || member.regard == Regard::Barred {
            return self.outputs.push_back(Output::Close(client));
        }
        let is_known = member.regard == Regard::Known;
        let patience = if is_known { FIRST_MESSAGE } else { FIRST_MESSAGE_OF_STRANGER };
        self.clients.insert(client, member);
        self.timers.insert((now.time + patience, Timer::Client(client)));
    }

    fn message(&mut self, now: Now, client: Client, message: Message, rng: &mut dyn Rng) {
        let Some(member) = self.clients.get_mut(&client) else { return };
        if !member.allowance.take(now.time, MESSAGES_AT_ONCE, MESSAGES_PER_SECOND) {
            return self.close(client);
        }
        match (member.role, message) {
            (Role::New, Message::Expose) => self.expose(now, client),
            (Role::New, Message::Request(request)) => self.request(now, client, *request),
            (Role::Exposed(_), message) => {
                member.role = Role::Exposed(now.time);
                match message {
                    Message::Ping(number) => self.send(client, Message::Pong(number)),
                    Message::Admit(id) => self.admit(now, client, id, rng),
                    Message::Decline(id) => {
                        if let Some(waiting) = self.answer(client, id) {
                            waiting.asked = Asked::Done;
                        }
                    }
                    _ => self.close(client),
                }
            }
            _ => self.close(client),
        }
    }

    fn expose(&mut self, now: Now, client: Client) {
        let Some(member) = self.clients.get_mut(&client) else { return };
        let (peer, from) = (member.peer, member.from);
        let is_full = self.exposed.len() >= MAX_EXPOSED && !self.exposed.contains_key(&peer);
        if !member.regard.is_served() || is_full {
            self.send(client, Message::Refused);
            return self.close(client);
        }
        member.role = Role::Exposed(now.time);
        // Whoever comes back on a new connection has lost the old one.
        if let Some(before) = self.exposed.insert(peer, client) {
            self.close(before);
        }
        self.send(client, Message::Exposed);
        self.send(client, Message::Observed(from));
        // What was said on the old one it may not have heard.
        let is_for_it =
            |(_, waiting): &(&u32, &Waiting)| waiting.request.target == peer && waiting.asked != Asked::Done;
        let mut unanswered: Vec<u32> = self.waiting.iter().filter(is_for_it).map(|(id, _)| *id).collect();
        unanswered.sort_unstable();
        unanswered.into_iter().for_each(|id| self.ask(id, client));
    }

    /// Asks a target, over its stream `at`, whether it wants whoever waits for it.
    fn ask(&mut self, id: u32, at: Client) {
        let Some(waiting) = self.waiting.get_mut(&id).filter(|waiting| waiting.times < MAX_ASKED) else {
            return;
        };
        waiting.times += 1;
        waiting.asked = Asked::Over(at);
        let knock = Message::Knock(id, waiting.request.clone());
        self.send(at, knock);
    }

    /// Asks the target, and keeps the initiator waiting. What is no proper request ends his stream.
    fn request(&mut self, now: Now, client: Client, request: Request) {
        let Some(member) = self.clients.get(&client) else { return };
        let (is_known, from) = (member.regard == Regard::Known, member.from);
        let inmate = Inmate { who: member.peer, from: from.socket.ip(), is_known };
        let verified = request.verify(&self.own, now.utc).ok();
        let Some(verified) = verified.filter(|verified| verified.initiator() == inmate.who) else {
            return self.close(client);
        };
        if !self.quarantine.enter(&inmate) {
            self.send(client, Message::Refused);
            return self.close(client);
        }
        let (target, carriage) = (verified.request().target, verified.request().carriage);
        let id = self.free_id();
        let has_room = self.sessions.has_room(now.time, [&inmate.who, &target], is_known);
        let may_ask = has_room && self.port(carriage).is_some();
        let asked = if may_ask { Asked::Nobody } else { Asked::Done };
        let request = Box::new(verified.into_request());
        self.waiting.insert(id, Waiting { client, inmate, request, asked, times: 0 });
        self.timers.insert((now.time + REFUSED_AFTER, Timer::Waiting(id)));
        if let Some(member) = self.clients.get_mut(&client) {
            member.role = Role::Waiting(id);
        }
        self.send(client, Message::Observed(from));
        if let Some(at) = self.exposed.get(&target).copied().filter(|_| may_ask) {
            self.ask(id, at);
        }
    }

    fn free_id(&mut self) -> u32 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if !self.waiting.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn port(&self, carriage: Carriage) -> Option<u16> {
        match carriage {
            Carriage::Stream => self.settings.stream_port,
            Carriage::Datagrams => self.settings.datagram_port,
        }
    }

    /// The request that `client` was asked about.
    fn answer(&mut self, client: Client, id: u32) -> Option<&mut Waiting> {
        self.waiting.get_mut(&id).filter(|waiting| waiting.asked == Asked::Over(client))
    }

    fn admit(&mut self, now: Now, client: Client, id: u32, rng: &mut dyn Rng) {
        let Some(waiting) = self.answer(client, id) else { return };
        // Answered; from here on it is in a session, or waits for its refusal.
        waiting.asked = Asked::Done;
        let (initiator, carriage) = (waiting.client, waiting.request.carriage);
        let (parties, is_known) = ([waiting.inmate.who, waiting.request.target], waiting.inmate.is_known);
        let has_room = self.sessions.has_room(now.time, parties.each_ref(), is_known);
        let Some(port) = self.port(carriage).filter(|_| has_room) else { return };
        let (session, tokens) = self.sessions.open(now.time, parties, (carriage, is_known), rng);
        self.timers.insert((now.time + TOKEN_LIFE, Timer::Session(session)));
        self.release(id);
        let [his, theirs] = tokens.map(|token| Pass { token, port });
        self.send(client, Message::Meet(id, theirs));
        self.send(initiator, Message::Ack(his));
        self.close(initiator);
    }

    fn presented(&mut self, token: Token, side: Side) {
        let quota = self.settings.quota;
        let output = self.sessions.present(token, side, &quota);
        self.outputs.push_back(output);
    }

    fn regarded(&mut self, peer: Fingerprint, regard: Regard) {
        let of_peer = self.clients.iter_mut().filter(|(_, member)| member.peer == peer);
        let mut unwanted = Vec::new();
        for (client, member) in of_peer {
            member.regard = regard;
            let is_exposed = matches!(member.role, Role::Exposed(_));
            if regard == Regard::Barred || is_exposed && !regard.is_served() {
                unwanted.push(*client);
            }
        }
        unwanted.into_iter().for_each(|client| self.close(client));
        let ended = self.sessions.regarded(&peer, regard);
        self.outputs.extend(ended);
    }

    fn due(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Waiting(id) => {
                let client = self.waiting.get(&id).map(|waiting| waiting.client);
                if let Some(client) = client.filter(|client| self.clients.contains_key(client)) {
                    self.send(client, Message::Refused);
                    self.close(client);
                }
                self.release(id);
            }
            Timer::Session(session) => {
                let ended = self.sessions.expire(session);
                self.outputs.extend(ended);
            }
            Timer::Client(client) => match self.clients.get(&client).map(|member| member.role) {
                Some(Role::New) => self.close(client),
                Some(Role::Exposed(heard)) if now.time - heard >= EXPOSED_SILENCE => self.close(client),
                Some(Role::Exposed(heard)) => {
                    self.timers.insert((heard + EXPOSED_SILENCE, Timer::Client(client)));
                }
                Some(Role::Waiting(_)) | None => {}
            },
        }
    }
}

impl Machine for Relay {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        match input {
            Input::Arrived { client, peer, from, regard } => {
                let allowance = Allowance::new(now.time, MESSAGES_AT_ONCE);
                self.arrived(now, client, Member { peer, from, regard, role: Role::New, allowance });
            }
            Input::Message(client, message) => self.message(now, client, message, rng),
            Input::Left(client) => drop(self.forget(client)),
            Input::Regarded(peer, regard) => self.regarded(peer, regard),
            Input::Presented(token, side) => self.presented(token, side),
            Input::Withdrawn(side) => {
                let ended = self.sessions.withdraw(side);
                self.outputs.extend(ended);
            }
            Input::Moved(session, bytes) => {
                let ended = self.sessions.moved(now.time, session, bytes);
                self.outputs.extend(ended);
            }
            Input::Ended(session) => self.sessions.end(session),
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        while let Some((due, timer)) = self.timers.first().copied()
            && due <= now.time
        {
            self.timers.pop_first();
            self.due(now, timer);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests;
