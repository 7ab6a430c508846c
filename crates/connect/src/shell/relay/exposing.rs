use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use kith_identity::{Ni, Relay};
use kith_sansio::Machine;
use kith_sansio::system::{OsRng, now, time};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::weave::Over;
use super::{reaching, side, talk};
use crate::relay::Carriage;
use crate::relay::Message;
use crate::relay::exposure::{Exposure, Input, Link, Meeting, Output, Standing};
use crate::relay::limits::MAX_KNOCKS_OPEN;
use crate::shell::endpoint::{Endpoint, PathInfo, Shared};
use crate::shell::{accept, until};

/// What happens to a target, waiting to be looked at.
const EVENTS: usize = 256;
/// What is to be said to one relay, waiting for it to listen: an answer to all that may knock at once.
const SAYINGS: usize = 2 * MAX_KNOCKS_OPEN;

/// A node that can be reached through relays, until this is dropped.
#[derive(Debug)]
pub struct Exposing {
    wishes: mpsc::UnboundedSender<Input>,
    standings: watch::Receiver<(Vec<Relay>, Vec<Standing>)>,
    _stop: DropGuard,
}

impl Exposing {
    /// Uses these relays from now on, and no others.
    pub fn use_relays(&self, relays: Vec<Relay>) {
        // After the endpoint has closed there is nobody to use them.
        let _ = self.wishes.send(Input::Use(relays));
    }

    /// The place of this machine on the network has changed: every relay is asked at once whether it still answers.
    pub fn shaken(&self) {
        let _ = self.wishes.send(Input::Shaken);
    }

    /// The relays to name in a record set: those through which this node can be reached, or could a moment ago.
    pub fn named(&self) -> Vec<Relay> {
        self.standings.borrow().0.clone()
    }

    /// How each relay is reached, by preference.
    pub fn standings(&self) -> Vec<Standing> {
        self.standings.borrow().1.clone()
    }

    /// Waits until one of them has changed since the last time; `false` when nothing will change any more.
    pub async fn changed(&mut self) -> bool {
        self.standings.changed().await.is_ok()
    }
}

enum Event {
    /// A stream to a relay is open.
    Open(Link, PathInfo, mpsc::Sender<Message>),
    Input(Input),
}

impl Endpoint {
    /// Keeps a stream open with each of `relays`, so that this node can be reached through them by whoever it trusts.
    pub fn expose(&self, relays: Vec<Relay>) -> Exposing {
        let shared = self.shared();
        let (events, happened) = mpsc::channel(EVENTS);
        let (wishes, wished) = mpsc::unbounded_channel();
        let (standings, seen) = watch::channel(Default::default());
        let stop = CancellationToken::new();
        let driver = Driver {
            shared: Arc::clone(shared),
            exposure: Exposure::new(shared.own),
            events,
            standings,
            stop: stop.clone(),
            links: HashMap::new(),
        };
        let (stopped, closing) = (stop.clone(), shared.closing.clone());
        shared.tasks.spawn(async move {
            let driver = driver.run(happened, wished);
            let _stopped = stopped.run_until_cancelled(closing.run_until_cancelled(driver)).await;
        });
        let exposing = Exposing { wishes, standings: seen, _stop: stop.drop_guard() };
        exposing.use_relays(relays);
        exposing
    }
}

/// The task around the machine.
struct Driver {
    shared: Arc<Shared>,
    exposure: Exposure,
    events: mpsc::Sender<Event>,
    standings: watch::Sender<(Vec<Relay>, Vec<Standing>)>,
    stop: CancellationToken,
    links: HashMap<Link, Line>,
}

/// A stream to a relay, being opened or open.
struct Line {
    /// Ends it when dropped.
    _stop: DropGuard,
    open: Option<(PathInfo, mpsc::Sender<Message>)>,
}

impl Driver {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, mut wishes: mpsc::UnboundedReceiver<Input>) {
        loop {
            let deadline = self.exposure.poll_timeout();
            tokio::select! {
                Some(event) = events.recv() => self.happened(event),
                Some(wish) = wishes.recv() => self.give(wish),
                () = until(deadline.unwrap_or_else(time)), if deadline.is_some() => {
                    self.exposure.handle_timeout(now(), &mut OsRng);
                    self.drain();
                }
                else => return,
            }
            let stands = (self.exposure.named().to_vec(), self.exposure.standings());
            self.standings.send_if_modified(|before| {
                let has_changed = *before != stands;
                *before = stands;
                has_changed
            });
        }
    }

    fn give(&mut self, input: Input) {
        self.exposure.handle_input(now(), input, &mut OsRng);
        self.drain();
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Open(link, path, sayings) => {
                let Some(line) = self.links.get_mut(&link) else { return };
                line.open = Some((path, sayings));
                self.give(Input::Connected(link));
            }
            Event::Input(input) => {
                if let Input::Lost(link) = &input {
                    self.links.remove(link);
                }
                self.give(input);
            }
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.exposure.poll_output() {
            match output {
                Output::Connect(link, ni) => self.connect(link, ni),
                Output::Close(link) => drop(self.links.remove(&link)),
                Output::Send(link, message) => {
                    let open = self.links.get(&link).and_then(|line| line.open.as_ref());
                    if open.is_some_and(|(_, sayings)| sayings.try_send(message).is_err()) {
                        // It does not listen; its silence is noticed.
                        self.links.remove(&link);
                    }
                }
                Output::Judge { link, id, initiator, carriage } => {
                    let is_wanted = self.shared.wants(&initiator);
                    // Over datagrams whoever comes is served by a listener for QUIC.
                    let may_come =
                        is_wanted && (carriage == Carriage::Stream || !self.shared.quic.listeners.is_empty());
                    if !is_wanted && let Some(from) = self.remote(link) {
                        self.shared.knock(&initiator, from);
                    }
                    self.exposure.handle_input(now(), Input::Judged(link, id, may_come), &mut OsRng);
                }
                Output::Meet(meeting) => self.meet(meeting),
                Output::Observed(relay, address) => tracing::debug!(%relay, %address, "seen by a relay"),
                Output::Named(_) => {}
            }
        }
    }

    fn remote(&self, link: Link) -> Option<SocketAddr> {
        Some(self.links.get(&link)?.open.as_ref()?.0.remote)
    }

    fn connect(&mut self, link: Link, ni: Ni) {
        let stop = self.stop.child_token();
        let line = Line { _stop: stop.clone().drop_guard(), open: None };
        self.links.insert(link, line);
        let (shared, events) = (Arc::clone(&self.shared), self.events.clone());
        let work = async move {
            let talking = async {
                let stream = match reaching::to_relay(&shared, &ni, Vec::new()).await {
                    Ok((stream, _)) => stream,
                    Err(error) => return tracing::debug!(relay = %ni, %error, "a relay is not reached"),
                };
                let (sender, sayings) = mpsc::channel(SAYINGS);
                if events.send(Event::Open(link, stream.path(), sender)).await.is_err() {
                    return;
                }
                let heard = |message| Event::Input(Input::Message(link, message));
                if let Err(error) = talk::talk(stream, sayings, &events, heard).await {
                    tracing::debug!(relay = %ni, %error, "the stream to a relay broke off");
                }
            };
            if stop.run_until_cancelled(Box::pin(talking)).await.is_some() {
                let _ = events.send(Event::Input(Input::Lost(link))).await;
            }
        };
        self.shared.spawn(work);
    }

    /// Brings this node's token, and serves the initiator as if he had come by himself.
    fn meet(&mut self, meeting: Meeting) {
        let Some((path, _)) = self.links.get(&meeting.link).and_then(|line| line.open.as_ref()) else {
            return;
        };
        if meeting.carriage == Carriage::Datagrams {
            let at = SocketAddr::new(path.remote.ip(), meeting.pass.port);
            let (shared, over) =
                (Arc::clone(&self.shared), Over { relay: meeting.relay, peer: meeting.initiator, at });
            let work = async move {
                let met = side::bring_over_udp(at, &meeting.pass.token).await;
                if let Err(error) = met.and_then(|socket| shared.quic.await_over(socket, over)) {
                    tracing::debug!(%error, "nobody was met at a relay");
                }
            };
            self.shared.spawn(work);
            return;
        }
        let at = reaching::session_address(path, &meeting.pass);
        let shared = Arc::clone(&self.shared);
        let work = async move {
            match side::bring(at, &meeting.pass.token).await {
                Ok(stream) => accept::greet_relayed(shared, stream, meeting.relay, meeting.initiator).await,
                Err(error) => tracing::debug!(%error, "nobody was met at a relay"),
            }
        };
        self.shared.spawn(work);
    }
}
