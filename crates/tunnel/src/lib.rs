//! A layer-3 tunnel between contacts: which packet goes where, and whose it may be (SEP §7; floor 4).
//!
//! IP packets travel in the datagrams of an authenticated peer. Each peer has networks: a packet goes to the peer that has
//! the longest prefix of its destination ([`Switch::outbound`]), and comes in only where its source is, by the same
//! table, an address of the peer that sent it ([`Switch::inbound`]), so that no peer speaks in another's name.
//!
//! A datagram is one of ([`Frame`]):
//!
//! | first byte | then |
//! | --- | --- |
//! | `40` to `4f`, `60` to `6f` | the rest of an IPv4 or IPv6 packet, of which it is the first byte |
//! | `10`, `11` | `u16 id ‖ bytes`: first or second half of a packet that the path does not carry whole |
//! | `00`, `01` | `u64 number`: is somebody there, and yes |
//!
//! Whatever else is dropped. Halves exist because IPv6 asks every link for 1280 bytes, which a path may not carry at
//! first; larger packets are answered with the size that does ([`icmp::too_large`]).
//!
//! [`Hub`] is the shell: a TUN device, its peers, and the connections that a [`Peering`] keeps for each.
//!
//! Invariants: opens no socket of its own; nothing a peer sends takes more memory than [`MAX_PENDING_HALVES`] halves of
//! its packets; no packet is changed.

mod fit;
mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod icmp;
mod network;
mod packet;
mod peering;
mod shell;
mod switch;

pub use fit::{Fit, MIN_MTU, device_mtu, fit};
pub use frame::{Frame, HALF_HEADER_BYTES, Halves, MAX_PENDING_HALVES, Probe, halves};
pub use network::{Cidr, CidrError};
pub use packet::{BadPacket, Header, MAX_PACKET_BYTES};
pub use peering::{Connection, Input, Output, Pace, Peering};
pub use shell::{AddError, Device, DeviceError, Hub, HubConfig, PeerState};
/// The protocol of tunnels, over datagrams.
pub const PROTOCOL: &str = "tun/1";

pub use switch::{Dropped, MAX_NETWORKS_PER_PEER, Switch, TakenError};
