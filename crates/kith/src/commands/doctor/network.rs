//! Ports, addresses and buffers of this machine.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use kith_connect::defaults::{PORT, UDP_BUFFER_BYTES};
use kith_identity::{Address, Reach, Transport};

use super::{Patient, Report};
use crate::node::lan::is_used;

/// The ports are this node's, or free for it.
pub(super) fn listeners(report: &mut Report, patient: &Patient<'_>) {
    if let Some(status) = &patient.status {
        report.ok("ports", format!("the node listens on {}", status.listen.join(" ")));
        for note in &status.notes {
            report.warn("ports", note, "nothing, unless a firewall or a router expects the usual place");
        }
        return;
    }
    if patient.config.listen.is_empty() {
        return default_port(report);
    }
    for address in &patient.config.listen {
        match try_port(address.transport, address.socket) {
            Ok(()) => report.ok("ports", format!("{address} is free")),
            Err(error) => report.fail(
                "ports",
                format!("cannot listen on {address}: {error}"),
                "choose another address with listen in kith.toml, or with 'kith up --listen'",
            ),
        }
    }
}

fn default_port(report: &mut Report) {
    let any = |ip: &str| format!("{ip}:{PORT}").parse::<SocketAddr>();
    let both = |at: SocketAddr| try_port(Transport::Quic, at).and_then(|()| try_port(Transport::Tcp, at));
    let free = match (any("[::]"), any("0.0.0.0")) {
        (Ok(six), Ok(four)) => both(six).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            // Where there is no IPv6, IPv4 alone.
            _ => both(four),
        }),
        _ => Ok(()),
    };
    match free {
        Ok(()) => report.ok("ports", format!("port {PORT} is free for QUIC and TCP")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => report.warn(
            "ports",
            format!("port {PORT} is taken; the node will take the next free one"),
            format!("'ss -lntup sport = :{PORT}' says by whom; listen in kith.toml chooses another"),
        ),
        Err(error) => report.fail(
            "ports",
            format!("cannot listen on port {PORT}: {error}"),
            "choose an address with listen in kith.toml",
        ),
    }
}

/// Listens for a moment.
pub(super) fn try_port(transport: Transport, at: SocketAddr) -> io::Result<()> {
    match transport {
        Transport::Tcp => TcpListener::bind(at).map(|_listened| ()),
        _ => UdpSocket::bind(at).map(|_listened| ()),
    }
}

/// Others can reach the addresses of this machine.
pub(super) fn addresses(report: &mut Report, patient: &Patient<'_>) {
    let addresses: Vec<Address> = match &patient.status {
        Some(status) => status.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
        None => {
            let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, PORT));
            let listen = match patient.config.listen.as_slice() {
                [] => vec![Address::new(Transport::Quic, any), Address::new(Transport::Tcp, any)],
                named => named.iter().map(|address| some_port(*address)).collect(),
            };
            kith_connect::advertised(&listen, &kith_connect::interfaces())
        }
    };
    let is = |reach: Reach| addresses.iter().any(|address| address.reach() == reach);
    let texts = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if addresses.is_empty() {
        report.warn("addresses", "none that others could reach", "connect this machine to a network");
    } else if is(Reach::Global) {
        report.ok("addresses", format!("public: {texts}; a firewall may still be in the way"));
    } else if is(Reach::Private) {
        report.warn(
            "addresses",
            format!("private ones alone: {texts}"),
            format!(
                "contacts in the same network reach this node, others only if the router forwards UDP and TCP port {PORT} to it; this node reaches others in any case"
            ),
        );
    } else {
        report.ok("addresses", format!("loopback alone, as configured: {texts}"));
    }
}

/// Contacts on the same network find this node without a directory.
pub(super) fn lan(report: &mut Report, patient: &Patient<'_>) {
    if !patient.config.lan {
        return report.ok("lan", "switched off in kith.toml: local networks are not used to find contacts");
    }
    if !is_used(&patient.config) {
        return report.ok("lan", "not in use: the node listens on loopback alone");
    }
    let Some(status) = &patient.status else {
        return report.ok("lan", "on: contacts on local networks will be found, and will find this node");
    };
    let section = status.floors.get("lan").and_then(|lan| lan["networks"].as_array());
    let names = section.map(|names| names.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>());
    match names.as_deref() {
        None => report.ok("lan", "not in use: the node listens on loopback alone"),
        Some([]) => report.warn(
            "lan",
            "no network with multicast",
            "connect this machine to a network, or set lan = false in kith.toml",
        ),
        Some(names) => report.ok("lan", format!("found by contacts on {}", names.join(" "))),
    }
}

/// The router lets contacts elsewhere in.
pub(super) fn mapping(report: &mut Report, patient: &Patient<'_>) {
    if !patient.config.port_mapping {
        return report.ok("mapping", "switched off in kith.toml: the router is not asked for ports");
    }
    let Some(status) = &patient.status else {
        return report.ok("mapping", "on: the router will be asked for ports");
    };
    let Some(section) = status.floors.get("mapping") else {
        return report.ok("mapping", "not in use: nothing that a router could lead to");
    };
    let texts = |value: &serde_json::Value| {
        let texts = value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        texts.collect::<Vec<_>>().join(" ")
    };
    match (section["router"].as_str(), texts(&section["mapped"])) {
        (None, _) => report.ok("mapping", "no router to ask: no way out over a private IPv4 address"),
        (Some(router), mapped) if mapped.is_empty() => report.warn(
            "mapping",
            format!("the router {router} maps no port to a public address"),
            "switch on UPnP, NAT-PMP or PCP in the router, or forward the node's ports there by hand",
        ),
        (Some(router), mapped) => report.ok("mapping", format!("the router {router} leads {mapped} here")),
    }
}

/// An address whose port the system will choose, with some port: where it is reached from does not depend on it.
fn some_port(mut address: Address) -> Address {
    if address.socket.port() == 0 {
        address.socket.set_port(PORT);
    }
    address
}

/// The system gives UDP sockets the buffers that QUIC is fast with.
pub(super) fn buffers(report: &mut Report) {
    let limit = |name: &str| -> Option<usize> {
        std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok()
    };
    match (limit("rmem_max"), limit("wmem_max")) {
        (Some(receive), Some(send)) => judge_buffers(report, receive, send),
        _ => report.ok("buffers", "the system does not tell its limits"),
    }
}

fn judge_buffers(report: &mut Report, receive: usize, send: usize) {
    let least = receive.min(send);
    if least >= UDP_BUFFER_BYTES {
        return report.ok("buffers", "the system grants the UDP buffers that are asked for");
    }
    report.warn(
        "buffers",
        format!(
            "the system limits UDP buffers to {}; QUIC can be slower on fast networks",
            indicatif::BinaryBytes(least as u64)
        ),
        format!("sysctl -w net.core.rmem_max={UDP_BUFFER_BYTES} net.core.wmem_max={UDP_BUFFER_BYTES}"),
    );
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn small_buffers_are_told_with_the_command_that_enlarges_them() {
        let mut report = Report::default();
        judge_buffers(&mut report, UDP_BUFFER_BYTES, UDP_BUFFER_BYTES);
        judge_buffers(&mut report, UDP_BUFFER_BYTES, 212_992);
        assert_eq!(report.checks[0].verdict, Verdict::Ok);
        assert_eq!(report.checks[1].verdict, Verdict::Warn);
        assert!(report.checks[1].todo.as_ref().unwrap().contains("sysctl -w net.core.rmem_max=8388608"));
    }
}
