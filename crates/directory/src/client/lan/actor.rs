//! The task that owns the sockets and drives the machines.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use kith_identity::Fingerprint;
use kith_identity::record::RecordSet;
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Time};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::network::{Network, Port, networks};
use super::{Command, LanConfig, Voice};
use crate::defaults::LAN_NETWORKS_EVERY;
use crate::lan::{Input, Link, MAX_PACKET_BYTES, Message, Output};
use crate::timer::due;

/// Packets that wait to be looked at; what comes beyond them is lost, and whoever sent it asks again.
const PACKETS: usize = 256;
/// One byte more than the longest packet that is looked at.
const PACKET_BYTES: usize = MAX_PACKET_BYTES + 1;
/// Pause after an error of a socket, so that one which stays does not keep a processor busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest time in which the floors above say what to answer; whoever asked has asked again by then.
const SAYING: Duration = Duration::from_secs(5);

/// A packet, and the network that it came over.
type Packet = (u64, Vec<u8>);
/// The set that a question of a network is answered with.
type Said = (u64, u64, Option<Vec<u8>>);

pub(super) struct Actor {
    config: LanConfig,
    members: Vec<Member>,
    names: watch::Sender<Vec<String>>,
    voice: Option<(Fingerprint, Arc<dyn Voice>)>,
    searches: HashMap<u64, (Fingerprint, oneshot::Sender<RecordSet>)>,
    saying: FuturesUnordered<BoxFuture<'static, Said>>,
    next_id: u64,
    arrivals: mpsc::Sender<Packet>,
    packets: mpsc::Receiver<Packet>,
}

/// A network with its machine and sockets.
struct Member {
    id: u64,
    network: Network,
    link: Link,
    ports: Vec<Arc<Port>>,
    /// End with it.
    _readers: JoinSet<()>,
}

impl Actor {
    pub(super) fn new(config: LanConfig, names: watch::Sender<Vec<String>>) -> Actor {
        let (arrivals, packets) = mpsc::channel(PACKETS);
        Actor {
            config,
            members: Vec::new(),
            names,
            voice: None,
            searches: HashMap::new(),
            saying: FuturesUnordered::new(),
            next_id: 0,
            arrivals,
            packets,
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Command>) {
        let mut look_again = tokio::time::interval(LAN_NETWORKS_EVERY.into());
        look_again.reset();
        loop {
            self.drain();
            let timer = due(self.wake());
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some((id, packet)) = self.packets.recv() => {
                    if let Some(message) = Message::read(&packet) {
                        self.tell(id, Input::Heard(message));
                    }
                }
                Some((id, question, set)) = self.saying.next(), if !self.saying.is_empty() => {
                    self.tell(id, Input::Said { question, set });
                }
                _ = look_again.tick() => self.look_around(),
                () = timer => self.timers(),
            }
        }
    }

    fn obey(&mut self, order: Command) {
        match order {
            Command::Show(fingerprint, voice) => {
                self.voice = Some((fingerprint, voice));
                self.tell_all(|| Input::Show(fingerprint));
            }
            Command::Seek(target, found) => {
                self.forget_the_closed();
                let search = self.id();
                self.searches.insert(search, (target, found));
                self.tell_all(|| Input::Seek { search, target });
            }
            Command::Leave(done) => {
                self.voice = None;
                self.tell_all(|| Input::Leave);
                self.drain();
                let _ = done.send(());
            }
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes up networks that have come, lets go of those that have gone.
    pub(super) fn look_around(&mut self) {
        let now = match networks(self.config.networks) {
            Ok(now) => now,
            // Nothing is known of them, not that there are none.
            Err(error) => return tracing::debug!(%error, "cannot list the networks of this machine"),
        };
        self.members.retain(|member| now.contains(&member.network));
        for network in now {
            if !self.members.iter().any(|member| member.network == network) {
                self.join(network);
            }
        }
        let names: Vec<_> = self.members.iter().map(|member| member.network.name.clone()).collect();
        self.names.send_if_modified(|known| {
            let changed = *known != names;
            *known = names;
            changed
        });
    }

    fn join(&mut self, network: Network) {
        let ports: Vec<_> = network.sockets(self.config.port).into_iter().map(Arc::new).collect();
        if ports.is_empty() {
            return;
        }
        let id = self.id();
        let mut readers = JoinSet::new();
        for port in &ports {
            readers.spawn(read(id, Arc::clone(port), self.arrivals.clone()));
        }
        let mut link = Link::new();
        let now = system::now();
        if let Some((fingerprint, _)) = &self.voice {
            link.handle_input(now, Input::Show(*fingerprint), &mut OsRng);
        }
        for (search, (target, _)) in &self.searches {
            link.handle_input(now, Input::Seek { search: *search, target: *target }, &mut OsRng);
        }
        self.members.push(Member { id, network, link, ports, _readers: readers });
    }

    fn tell(&mut self, id: u64, input: Input) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            member.link.handle_input(system::now(), input, &mut OsRng);
        }
    }

    fn tell_all(&mut self, input: impl Fn() -> Input) {
        for member in &mut self.members {
            member.link.handle_input(system::now(), input(), &mut OsRng);
        }
    }

    fn timers(&mut self) {
        self.forget_the_closed();
        for member in &mut self.members {
            member.link.handle_timeout(system::now(), &mut OsRng);
        }
    }

    /// Whoever does not wait any more has dropped the other end.
    fn forget_the_closed(&mut self) {
        let over: Vec<u64> =
            self.searches.extract_if(|_, (_, found)| found.is_closed()).map(|(id, _)| id).collect();
        for search in over {
            self.tell_all(|| Input::Forget(search));
        }
    }

    fn wake(&self) -> Option<Time> {
        self.members.iter().filter_map(|member| member.link.poll_timeout()).min()
    }

    /// Does what the machines want, until they want nothing more.
    fn drain(&mut self) {
        loop {
            let found = self.drain_once();
            if found.is_empty() {
                return;
            }
            for (search, set) in found {
                if let Some((_, waiting)) = self.searches.remove(&search) {
                    let _ = waiting.send(set);
                }
                self.tell_all(|| Input::Forget(search));
            }
        }
    }

    /// Searches that have found a set are handed back.
    fn drain_once(&mut self) -> Vec<(u64, RecordSet)> {
        let mut found = Vec::new();
        for member in &mut self.members {
            while let Some(output) = member.link.poll_output() {
                match output {
                    Output::Send(packet) => member.ports.iter().for_each(|port| port.send(&packet)),
                    Output::Say(question) => {
                        let voice = self.voice.as_ref().map(|(_, voice)| Arc::clone(voice));
                        self.saying.push(say(member.id, question, voice));
                    }
                    Output::Found { search, set } => found.push((search, set)),
                }
            }
        }
        found
    }
}

/// Asks the floors above what to say.
fn say(id: u64, question: u64, voice: Option<Arc<dyn Voice>>) -> BoxFuture<'static, Said> {
    Box::pin(async move {
        let set = match voice {
            Some(voice) => tokio::time::timeout(SAYING, voice.said()).await.ok().flatten(),
            None => None,
        };
        (id, question, set.map(|set| set.to_bytes()))
    })
}

/// Hands on what comes over one socket.
async fn read(id: u64, port: Arc<Port>, arrivals: mpsc::Sender<Packet>) {
    let mut room = vec![0; PACKET_BYTES];
    loop {
        match port.receive(&mut room).await {
            // Where too many wait, this one is lost.
            Ok(length) => drop(arrivals.try_send((id, room[..length].to_vec()))),
            Err(error) => {
                tracing::trace!(%error, "cannot receive a packet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
