//! Who may transfer the zone, and the tasks that tell them when it changed.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_proto::op::ResponseCode;
use kith_sansio::system::{self, OsRng};
use kith_sansio::{Machine, Span};
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shared::Shared;
use super::{ServerConfig, ServerError};
use crate::defaults::{MAX_TRANSFERS, REVISION_CHECK};
use crate::dns::Zone;
use crate::dns::notice::{acknowledged, notice};
use crate::dns::transfer::shape;
use crate::dns::tsig::{Found, Key, Signer, find};
use crate::notify::{Input, Notifier, Output};
use crate::store::{Store, StoreError};
use crate::timer::due;

/// Longest answer to a notice that is looked at.
const MAX_ANSWER_BYTES: usize = 1232;
/// Pause after a packet that could not be sent or received.
const ERROR_PAUSE: Span = Span::millis(100);

/// A server that takes over the whole zone and answers for it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secondary {
    /// Where it is told that the zone changed.
    pub address: SocketAddr,
    /// The key that it signs its requests with, and we our notices.
    pub key: String,
}

/// The secondaries of a server with their keys.
pub(super) struct Secondaries {
    keys: Vec<Arc<Key>>,
    all: Vec<(SocketAddr, Arc<Key>)>,
    /// Free places for transfers.
    pub(super) transfers: Semaphore,
    /// Whether the store knows the shape of the zone here.
    is_shaped: AtomicBool,
}

impl Secondaries {
    pub(super) fn of(config: &ServerConfig) -> Result<Secondaries, ServerError> {
        let mut names = HashSet::new();
        if let Some(twice) = config.tsig_keys.iter().find(|key| !names.insert(key.wire_name())) {
            return Err(ServerError::KeyTwice(twice.name().to_owned()));
        }
        let mut all = Vec::new();
        for Secondary { address, key } in &config.secondaries {
            let named = |known: &&Arc<Key>| known.name() == key.trim_end_matches('.').to_ascii_lowercase();
            let found = config.tsig_keys.iter().find(named);
            let unknown = || ServerError::UnknownKey { secondary: *address, key: key.clone() };
            all.push((*address, Arc::clone(found.ok_or_else(unknown)?)));
        }
        let (transfers, is_shaped) = (Semaphore::new(MAX_TRANSFERS), AtomicBool::new(false));
        Ok(Secondaries { keys: config.tsig_keys.clone(), all, transfers, is_shaped })
    }

    /// The keys that are known here.
    pub(super) fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// Whether one of the secondaries has this key.
    pub(super) fn may_transfer(&self, key: &Key) -> bool {
        self.all.iter().any(|(_, known)| std::ptr::eq(&**known, key))
    }
}

/// Asks the store for its revision, and raises the zone's serial number. Before the first time it notes the shape of the
/// zone, of which name servers and settings may have changed since the last start.
pub(super) async fn check(shared: &Shared, zone: &Zone) -> u32 {
    let secondaries = &shared.secondaries;
    if !secondaries.all.is_empty() && !secondaries.is_shaped.load(Ordering::Relaxed) {
        match shared.store.reshape(system::utc(), shape(zone)).await {
            Ok(()) => secondaries.is_shaped.store(true, Ordering::Relaxed),
            Err(error) => shared.store_failed(&error),
        }
    }
    match told(&*shared.store).await {
        Ok(told) => zone.serial.raise(told),
        Err(error) => {
            shared.store_failed(&error);
            zone.serial.get()
        }
    }
}

/// The number that may be told now, and that no later change takes.
async fn told(store: &dyn Store) -> Result<u64, StoreError> {
    let revision = store.revision().await?;
    let told = revision.told(system::utc());
    if revision.is_open(told) {
        store.seal(told).await?;
    }
    Ok(told)
}

/// Keeps the serial number, and starts to tell the secondaries about it.
pub(super) fn spawn(shared: &Arc<Shared>, stop: &CancellationToken, tasks: &TaskTracker) {
    let Some(zone) = shared.zone.clone() else { return };
    let (sender, serial) = watch::channel(zone.serial.get());
    let (following, stopped) = (Arc::clone(shared), stop.clone());
    let followed = zone.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = follow(&following, &followed, &sender) => {}
        }
    });
    for (address, key) in shared.secondaries.all.clone() {
        let from = source_for(address, &shared.config.listen_dns);
        let telling = Telling { zone: zone.clone(), address, from, key, serial: serial.clone() };
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = telling.run() => {}
            }
        });
    }
}

async fn follow(shared: &Shared, zone: &Zone, sender: &watch::Sender<u32>) {
    loop {
        let serial = check(shared, zone).await;
        sender.send_if_modified(|told| std::mem::replace(told, serial) != serial);
        tokio::time::sleep(REVISION_CHECK.into()).await;
    }
}

/// The address that notices come from: the one that DNS is served on where it is one, because secondaries know it.
fn source_for(secondary: SocketAddr, listen: &[SocketAddr]) -> SocketAddr {
    let any: IpAddr = match secondary.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let same =
        |address: &&SocketAddr| address.is_ipv4() == secondary.is_ipv4() && !address.ip().is_unspecified();
    let loopback_fits = |address: &&SocketAddr| address.ip().is_loopback() == secondary.ip().is_loopback();
    let source = listen.iter().filter(same).find(loopback_fits).map_or(any, SocketAddr::ip);
    SocketAddr::new(source, 0)
}

/// The notices for one secondary at work.
struct Telling {
    zone: Zone,
    address: SocketAddr,
    from: SocketAddr,
    key: Arc<Key>,
    serial: watch::Receiver<u32>,
}

impl Telling {
    async fn run(self) {
        let mut serial = self.serial.clone();
        let mut machine = Notifier::new();
        let mut socket = self.socket().await;
        let mut mac = Vec::new();
        let first = *serial.borrow_and_update();
        let mut input = Some(Input::Serial(first));
        loop {
            match input.take() {
                Some(input) => machine.handle_input(system::now(), input, &mut OsRng),
                None => machine.handle_timeout(system::now(), &mut OsRng),
            }
            let mut works = true;
            while let Some(output) = machine.poll_output() {
                works &= self.act(output, &socket, &mut mac).await;
            }
            if !works {
                // It keeps the address that this machine had when it was made.
                socket = self.socket().await;
            }
            tokio::select! {
                changed = serial.changed() => match changed {
                    Ok(()) => input = Some(Input::Serial(*serial.borrow_and_update())),
                    Err(_) => return,
                },
                id = self.answer(&socket, &mac) => input = Some(Input::Acknowledged(id)),
                () = due(machine.poll_timeout()) => {}
            }
        }
    }

    /// Connected, so that the system passes on what comes from the secondary and nothing else.
    async fn socket(&self) -> UdpSocket {
        loop {
            let connected = async {
                let socket = UdpSocket::bind(self.from).await?;
                socket.connect(self.address).await?;
                Ok::<_, std::io::Error>(socket)
            };
            match connected.await {
                Ok(socket) => return socket,
                Err(error) => {
                    tracing::warn!(secondary = %self.address, %error, "cannot reach a secondary");
                    tokio::time::sleep(crate::defaults::NOTIFY_BACKOFF_LAST.into()).await;
                }
            }
        }
    }

    /// Does what the machine wants; whether the socket seems to work.
    async fn act(&self, output: Output, socket: &UdpSocket, mac: &mut Vec<u8>) -> bool {
        match output {
            Output::Send { id, serial } => {
                let mut message = notice(&self.zone, id, serial);
                *mac = Signer::request(Arc::clone(&self.key)).sign(&mut message, system::utc()).to_vec();
                if let Err(error) = socket.send(&message).await {
                    tracing::debug!(secondary = %self.address, %error, "cannot send a notice");
                    return false;
                }
            }
            Output::Silent => {
                tracing::warn!(secondary = %self.address, "a secondary does not acknowledge that the zone changed");
                return false;
            }
            Output::Back => tracing::info!(secondary = %self.address, "the secondary answers again"),
        }
        true
    }

    /// The id of the next notice that the secondary acknowledges, with its signature verified.
    async fn answer(&self, socket: &UdpSocket, mac: &[u8]) -> u16 {
        let mut packet = [0; MAX_ANSWER_BYTES];
        loop {
            let length = match socket.recv(&mut packet).await {
                Ok(length) => length,
                Err(error) => {
                    tracing::trace!(%error, "cannot receive an answer");
                    tokio::time::sleep(ERROR_PAUSE.into()).await;
                    continue;
                }
            };
            let Found::Signed(signed) = find(&packet[..length]) else {
                tracing::debug!(secondary = %self.address, "an answer to a notice is not signed");
                continue;
            };
            if signed.verify(std::slice::from_ref(&self.key), system::utc(), Some(mac)).is_err() {
                tracing::debug!(secondary = %self.address, "the signature of an answer does not count");
                continue;
            }
            match acknowledged(&signed.message(), &self.zone) {
                Some((id, ResponseCode::NoError)) => return id,
                Some((_, code)) => tracing::debug!(secondary = %self.address, %code, "a notice was refused"),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_come_from_the_address_that_is_served_on() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listen = [at("[::]:53"), at("192.0.2.53:53"), at("127.0.0.1:53"), at("[2001:db8::53]:53")];
        for (secondary, source) in [
            ("198.51.100.1:53", "192.0.2.53:0"),
            ("127.0.0.1:5300", "127.0.0.1:0"),
            ("[2001:db8::1]:53", "[2001:db8::53]:0"),
        ] {
            assert_eq!(source_for(at(secondary), &listen), at(source));
        }
        assert_eq!(source_for(at("198.51.100.1:53"), &[at("0.0.0.0:53")]), at("0.0.0.0:0"));
        assert_eq!(source_for(at("[::1]:53"), &listen), at("[::]:0"));
    }
}
