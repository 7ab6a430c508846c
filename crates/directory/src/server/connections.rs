use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limiter::Network;

/// Pause after a failed accept; the usual cause is that no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts open connections, all together and per source network.
pub(super) struct Connections {
    all: Arc<Semaphore>,
    most_per_network: usize,
    networks: Mutex<HashMap<Network, usize>>,
}

/// The place of one connection, free again when it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    network: Network,
    connections: Arc<Connections>,
}

impl Connections {
    pub(super) fn new(most: usize, most_per_network: usize) -> Arc<Connections> {
        let all = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Connections { all, most_per_network, networks: Mutex::default() })
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// The next connection that there is a place for. Where all are taken, new ones wait in the system's queue;
    /// one from a network that has its share is closed.
    pub(super) async fn accept(self: &Arc<Self>, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
        loop {
            let Ok(permit) = Arc::clone(&self.all).acquire_owned().await else {
                // The semaphore is never closed.
                std::future::pending::<()>().await;
                continue;
            };
            match listener.accept().await {
                Ok((stream, source)) => {
                    if let Some(place) = self.place(permit, source.ip()) {
                        return (stream, source, place);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit, source: IpAddr) -> Option<Place> {
        let network = Network::of(source);
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = networks.entry(network).or_default();
        if *count >= self.most_per_network {
            return None;
        }
        *count += 1;
        Some(Place { _permit: permit, network, connections: Arc::clone(self) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut networks = self.connections.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = networks.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                networks.remove(&self.network);
            }
        }
    }
}
