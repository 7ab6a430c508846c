//! `kith tun`.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum Tun {
    /// Open a tunnel to a contact, who does the same for this node
    ///
    /// The tunnel stays until 'kith tun down', over restarts of either node. Packets go to the contact whose network is
    /// the longest prefix of their destination, and come in from a contact only with a source out of its own networks.
    Up(TunUp),
    /// Close the tunnel to a contact; the last one of a device takes the device away
    Down {
        /// Name or fingerprint of the contact
        contact: String,
    },
    /// List tunnels: how each contact is reached, and what went through
    List,
}

/// A transport that a tunnel insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TunTransport {
    /// QUIC over UDP
    Quic,
    /// DTLS 1.3 over UDP, not post-quantum; the node takes it at its UDP port while a tunnel wants it
    Dtls,
    /// TLS 1.3 over TCP, where UDP does not get through
    Tcp,
}

#[derive(Debug, Args)]
pub(crate) struct TunUp {
    /// Name or fingerprint of a contact
    pub(crate) contact: String,
    /// This node's address in the tunnel with its network, such as 10.7.0.1/24 or fd07::1/64; one of IPv4 and several of
    /// IPv6 [default: those that the device has]
    #[arg(long, value_name = "CIDR")]
    pub(crate) address: Vec<String>,
    /// A network of the contact: what goes there goes to it, and what it sends must come from there; may be given several
    /// times [default: the networks of the addresses]
    #[arg(long, value_name = "CIDR")]
    pub(crate) allow: Vec<String>,
    /// Insist on a transport; say the same on both sides [default: QUIC, and TCP where QUIC does not get through]
    #[arg(long, value_enum)]
    pub(crate) transport: Option<TunTransport>,
    /// Name of the network device; tunnels to several contacts share one [default: kith0]
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Largest packets of the device in bytes, 1280 to 9000; smaller while a path carries less [default: 1500]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1280..=9000))]
    pub(crate) mtu: Option<u16>,
}
