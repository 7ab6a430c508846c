//! Ports of the router that lead to this node: PCP, NAT-PMP and UPnP. Pure.
//!
//! [`Mapper`] is the machine: it asks the router for a port for each listener, by PCP first, then NAT-PMP, then UPnP,
//! renews what it got and follows what changes. What a router says is believed as far as it can do no harm: the address
//! that it names is announced only where it is a public one, and no more than one for each listener.

mod mapper;
pub mod pcp;
pub mod upnp;

use std::net::{Ipv4Addr, SocketAddrV4};

pub use mapper::{Input, Mapper, Output, Router, Wanted};

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// UDP, for QUIC.
    Udp,
    /// TCP.
    Tcp,
}

impl Kind {
    /// The protocol's number.
    fn number(self) -> u8 {
        match self {
            Kind::Udp => 17,
            Kind::Tcp => 6,
        }
    }

    fn of(number: u8) -> Option<Kind> {
        [Kind::Udp, Kind::Tcp].into_iter().find(|kind| kind.number() == number)
    }
}

/// A port of the router, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Where the world finds it.
    pub external: SocketAddrV4,
    /// For how many seconds.
    pub life_secs: u32,
}

impl Lease {
    /// No matter where: what is asked for first.
    fn any(port: u16, life_secs: u32) -> Lease {
        Lease { external: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port), life_secs }
    }
}
