//! The conversation with a router that speaks UPnP.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use kith_sansio::system::OsRng;
use kith_sansio::{Rng, Span};
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::super::within;
use super::http;
use crate::defaults::{MAPPING_LIFE, MAPPING_UPNP};
use crate::mapping::{Kind, Lease, Router, Wanted, upnp};

/// How often a router is searched for, and how long each time.
const SEARCHES: u32 = 3;
const SEARCH: Span = Span::secs(1);
/// How often another port is tried where the wished one is taken.
const PORTS: u32 = 4;

/// What is known of the router.
#[derive(Debug, Default)]
pub(super) struct Igd {
    service: Option<upnp::Service>,
}

impl Igd {
    /// Maps a port; `None` where that cannot be had.
    pub(super) async fn map(
        &mut self,
        router: Router,
        search: SocketAddrV4,
        wanted: Wanted,
        lease: Lease,
    ) -> Option<Lease> {
        let mapped = within(MAPPING_UPNP, async {
            let service = self.service(router, search).await?;
            let (status, body) = http::ask(&service.control, Some(&service.external_address())).await?;
            let external = upnp::answered_address(&body).filter(|_| status == 200)?;
            add(&service, router, external, wanted, lease).await
        });
        let lease = mapped.await.flatten();
        if lease.is_none() {
            // It may have been restarted and be somewhere else.
            self.service = None;
        }
        lease
    }

    /// Takes a mapping away.
    pub(super) async fn remove(&mut self, router: Router, search: SocketAddrV4, kind: Kind, external: u16) {
        if let Some(service) = self.service(router, search).await {
            let _ = http::ask(&service.control, Some(&service.delete(kind, external))).await;
        }
    }

    async fn service(&mut self, router: Router, search: SocketAddrV4) -> Option<upnp::Service> {
        if self.service.is_none() {
            let place = find(router, search).await?;
            let (status, description) = http::ask(&place, None).await?;
            self.service = upnp::service(&description, &place).filter(|_| status == 200);
        }
        self.service.clone()
    }
}

async fn add(
    service: &upnp::Service,
    router: Router,
    address: Ipv4Addr,
    wanted: Wanted,
    lease: Lease,
) -> Option<Lease> {
    let internal = SocketAddrV4::new(router.own, wanted.port);
    let mut life_secs = lease.life_secs;
    let mut port = lease.external.port();
    for _ in 0..PORTS {
        let (status, body) =
            http::ask(&service.control, Some(&service.add(wanted.kind, port, internal, life_secs))).await?;
        match (status, upnp::refused(&body)) {
            (200, _) => {
                // One without an end is looked after as if it had one.
                let life_secs = u32::try_from(MAPPING_LIFE.as_secs()).unwrap_or(u32::MAX);
                return Some(Lease { external: SocketAddrV4::new(address, port), life_secs });
            }
            (_, Some(upnp::ONLY_PERMANENT)) => life_secs = 0,
            _ => port = 32_768 + (OsRng.below(28_000) as u16),
        }
    }
    None
}

/// Where the router describes itself.
async fn find(router: Router, search: SocketAddrV4) -> Option<upnp::Place> {
    let socket = UdpSocket::bind((router.own, 0)).await.ok()?;
    SockRef::from(&socket).set_multicast_if_v4(&router.own).ok()?;
    SockRef::from(&socket).set_multicast_ttl_v4(2).ok()?;
    let mut room = vec![0; upnp::MAX_SEARCH_BYTES];
    for _ in 0..SEARCHES {
        socket.send_to(&upnp::search(), SocketAddr::V4(search)).await.ok()?;
        let heard = within(SEARCH, async {
            loop {
                let (length, from) = socket.recv_from(&mut room).await.ok()?;
                let place = upnp::location(&room[..length], router.gateway);
                if let Some(place) = place.filter(|_| from.ip() == router.gateway) {
                    return Some(place);
                }
            }
        });
        if let Some(place) = heard.await.flatten() {
            return Some(place);
        }
    }
    None
}
