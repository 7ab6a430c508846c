//! The JSON shapes of the control API about tunnels; `docs/openapi.json` describes the same.

use serde::{Deserialize, Serialize};

/// `POST /v1/tunnels`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTunnel {
    pub(crate) contact: String,
    /// Own addresses on the device, such as `10.7.0.1/24`; those that it has already where there are none.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    /// The contact's networks; those of the own addresses where there are none.
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    /// `quic`, `dtls` or `tcp`, to insist on it.
    #[serde(default)]
    pub(crate) transport: Option<String>,
    #[serde(default)]
    pub(crate) device: Option<String>,
    /// The largest packets of the device, in bytes.
    #[serde(default)]
    pub(crate) mtu: Option<u16>,
}

/// How a tunnel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The contact is connected.
    Up,
    /// It is not, and is being tried.
    Connecting,
    /// There is no device.
    Failed,
}

/// A tunnel with a contact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tunnel {
    pub(crate) contact: String,
    pub(crate) ni: String,
    pub(crate) device: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) allow: Vec<String>,
    /// The transport that is insisted on.
    pub(crate) insists: Option<String>,
    pub(crate) state: State,
    /// Why it is not up.
    pub(crate) trouble: Option<String>,
    /// The largest packets that the device takes now, in bytes.
    pub(crate) mtu: Option<u16>,
    pub(crate) transport: Option<String>,
    /// Petname or fingerprint of the relay in between.
    pub(crate) relay: Option<String>,
    pub(crate) remote: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
    /// The largest packet that goes to the contact in one datagram, in bytes.
    pub(crate) datagram_bytes: Option<usize>,
    pub(crate) sent_packets: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_packets: u64,
    pub(crate) received_bytes: u64,
    /// Packets for the contact that were not sent: no connection, or no room.
    pub(crate) unsent_packets: u64,
    /// Packets for the contact that the path does not carry; their senders were told.
    pub(crate) too_large_packets: u64,
    /// Packets of the contact from addresses that are not its.
    pub(crate) refused_sources: u64,
    /// Datagrams of the contact that hold no packet.
    pub(crate) malformed: u64,
}
