//! Staying connected to one peer of a tunnel.

use std::collections::VecDeque;

use kith_sansio::{Machine, Now, Rng, Span, Time};

use crate::Probe;

/// Most connections with one peer: both sides may connect at the same moment, and each send over another one.
const MAX_CONNECTIONS: usize = 2;
/// How soon a better way is tried again.
const BETTER_AGAIN: Span = Span::secs(30);
/// How long the connection before it stays, for what is on its way.
const KEEP_WORSE: Span = Span::secs(5);

/// The shell's number of a connection with the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection(pub u64);

/// How patient a [`Peering`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The first wait between two attempts; each further one is twice as long.
    pub retry_first: Span,
    /// The longest.
    pub retry_most: Span,
    /// How long nothing may come back while something is sent, until the peer is asked.
    pub unanswered: Span,
    /// How long nothing may come at all, until the peer is asked.
    pub quiet: Span,
    /// Between questions.
    pub ask_every: Span,
    /// So many questions without an answer, and the connection is dead.
    pub questions: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            retry_first: Span::millis(250),
            retry_most: Span::secs(10),
            unanswered: Span::secs(2),
            quiet: Span::secs(10),
            ask_every: Span::secs(1),
            questions: 3,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection is there, whoever opened it.
    Connected(Connection),
    /// An attempt failed.
    Failed,
    /// A connection has ended.
    Ended(Connection),
    /// A datagram came over it.
    Heard(Connection),
    /// A datagram of somebody else than this machine was sent over the newest one.
    Sent,
    /// There is reason to try now: addresses have changed, here or there.
    Hope,
    /// There seems to be a better way than the newest connection goes.
    Better,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Try to connect; the outcome is [`Input::Connected`] or [`Input::Failed`].
    Connect,
    /// Send a question.
    Ask(Connection, Probe),
    /// End a connection; nothing more is said of it.
    Close(Connection),
}

/// Keeps one peer connected: connects, notices a connection that has died without a word, and connects again.
///
/// Datagrams go out over the newest connection, because a peer that has started anew knows of no other; they are taken
/// from any.
#[derive(Debug)]
pub struct Peering {
    pace: Pace,
    /// Newest last.
    open: Vec<Connection>,
    is_connecting: bool,
    retry_at: Option<Time>,
    retry_wait: Span,
    /// When the newest connection was last heard of.
    heard: Time,
    /// The first datagram sent since.
    unanswered: Option<Time>,
    questions: u32,
    asked: Time,
    /// It is being connected although there is a connection.
    is_bettering: bool,
    better_again: Time,
    /// When all connections but the newest end.
    drop_worse_at: Option<Time>,
    outputs: VecDeque<Output>,
}

impl Peering {
    /// Not connected, and about to be.
    pub fn new(now: Now, pace: Pace) -> Peering {
        Peering {
            pace,
            open: Vec::new(),
            is_connecting: false,
            retry_at: Some(now.time),
            retry_wait: pace.retry_first,
            heard: now.time,
            unanswered: None,
            questions: 0,
            asked: now.time,
            is_bettering: false,
            better_again: now.time,
            drop_worse_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// What datagrams go out over.
    pub fn newest(&self) -> Option<Connection> {
        self.open.last().copied()
    }

    fn connected(&mut self, now: Time, connection: Connection) {
        self.is_connecting = false;
        self.retry_at = None;
        if std::mem::take(&mut self.is_bettering) {
            self.drop_worse_at = Some(now + KEEP_WORSE);
        }
        self.open.push(connection);
        if self.open.len() > MAX_CONNECTIONS {
            self.outputs.push_back(Output::Close(self.open.remove(0)));
        }
        self.attend(now);
    }

    fn ended(&mut self, now: Time, connection: Connection, rng: &mut dyn Rng) {
        let Some(at) = self.open.iter().position(|one| *one == connection) else { return };
        let was_newest = at + 1 == self.open.len();
        self.open.remove(at);
        if was_newest {
            self.attend(now);
        }
        if self.open.is_empty() {
            self.retry(now, rng);
        }
    }

    /// Looks at the newest connection afresh.
    fn attend(&mut self, now: Time) {
        self.heard = now;
        self.unanswered = None;
        self.questions = 0;
    }

    /// Tries again after a while, each time a longer one, until something is heard. Two peers that lost each other do not
    /// try at the same moment.
    fn retry(&mut self, now: Time, rng: &mut dyn Rng) {
        if self.is_connecting {
            return;
        }
        let half = self.retry_wait.0 / 2;
        let wait = Span(half + rng.next_u64() % (half + 1));
        self.retry_at = Some(now + wait);
        self.retry_wait = self.retry_wait.times(2).min(self.pace.retry_most);
    }

    /// When the next question is due.
    fn ask_at(&self) -> Option<Time> {
        self.newest()?;
        if self.questions > 0 {
            return Some(self.asked + self.pace.ask_every);
        }
        let quiet = self.heard + self.pace.quiet;
        Some(self.unanswered.map_or(quiet, |since| (since + self.pace.unanswered).min(quiet)))
    }

    fn ask(&mut self, now: Time, rng: &mut dyn Rng) {
        let Some(newest) = self.newest() else { return };
        if self.questions == self.pace.questions {
            self.outputs.push_back(Output::Close(newest));
            self.ended(now, newest, rng);
            return;
        }
        self.questions += 1;
        self.asked = now;
        self.outputs.push_back(Output::Ask(newest, Probe(rng.next_u64())));
    }
}

impl Machine for Peering {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, rng: &mut dyn Rng) {
        let now = now.time;
        match input {
            Input::Connected(connection) => self.connected(now, connection),
            Input::Failed => {
                (self.is_connecting, self.is_bettering) = (false, false);
                if self.open.is_empty() {
                    self.retry(now, rng);
                }
            }
            Input::Ended(connection) => self.ended(now, connection, rng),
            Input::Heard(connection) if self.newest() == Some(connection) => {
                self.retry_wait = self.pace.retry_first;
                self.attend(now);
            }
            Input::Sent if self.newest().is_some() => {
                self.unanswered.get_or_insert(now);
            }
            Input::Hope => {
                self.retry_wait = self.pace.retry_first;
                if self.retry_at.is_some() {
                    self.retry_at = Some(now);
                } else if self.newest().is_some() && self.questions == 0 {
                    // What was connected may not be any more.
                    self.ask(now, rng);
                }
            }
            Input::Better if self.newest().is_some() && !self.is_connecting && now >= self.better_again => {
                self.better_again = now + BETTER_AGAIN;
                (self.is_connecting, self.is_bettering) = (true, true);
                self.outputs.push_back(Output::Connect);
            }
            Input::Heard(_) | Input::Sent | Input::Better => {}
        }
    }

    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng) {
        let now = now.time;
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.is_connecting = true;
            self.outputs.push_back(Output::Connect);
        }
        if self.drop_worse_at.is_some_and(|at| at <= now) {
            self.drop_worse_at = None;
            let worse = self.open.len().saturating_sub(1);
            self.outputs.extend(self.open.drain(..worse).map(Output::Close));
        }
        if self.ask_at().is_some_and(|at| at <= now) {
            self.ask(now, rng);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.retry_at, self.ask_at(), self.drop_worse_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
