//! `kith tun`: the tunnels of the node.

use hyper::Method;
use indicatif::HumanBytes;
use serde_json::Value;

use super::{Context, escape};
use crate::api::tunnels::{NewTunnel, State, Tunnel};
use crate::cli::{Tun, TunTransport, TunUp};
use crate::failure::Result;
use crate::output::printable;

pub(super) async fn tun(context: &Context, command: Tun) -> Result<()> {
    let mut node = context.node().await?;
    match command {
        Tun::Up(options) => {
            let tunnel: Tunnel = node.call(Method::POST, "/v1/tunnels", Some(&wish(options))).await?;
            context.out.result(&tunnel, || opened(&tunnel))
        }
        Tun::Down { contact } => {
            let path = format!("/v1/tunnels/{}", escape(&contact));
            let ended: Value = node.call(Method::DELETE, &path, None::<&()>).await?;
            context.out.result(&ended, || format!("the tunnel to {} is closed", printable(&contact)))
        }
        Tun::List => {
            let all: Vec<Tunnel> = node.read("/v1/tunnels").await?;
            context.out.result(&all, || {
                let lines: Vec<_> = all.iter().map(line).collect();
                if lines.is_empty() { "no tunnels".to_owned() } else { lines.join("\n") }
            })
        }
    }
}

fn wish(options: TunUp) -> NewTunnel {
    NewTunnel {
        contact: options.contact,
        addresses: options.address,
        allow: options.allow,
        transport: options.transport.map(|transport| name(transport).to_owned()),
        device: options.device,
        mtu: options.mtu,
    }
}

/// The transport's name in the control API.
fn name(transport: TunTransport) -> &'static str {
    match transport {
        TunTransport::Quic => "quic",
        TunTransport::Dtls => "dtls",
        TunTransport::Tcp => "tcp",
    }
}

fn opened(tunnel: &Tunnel) -> String {
    let contact = printable(&tunnel.contact);
    format!(
        "{} has {}; {} goes to {contact}, once 'kith tun up' was said there too",
        tunnel.device,
        tunnel.addresses.join(", "),
        tunnel.allow.join(", "),
    )
}

/// One line of a list.
fn line(tunnel: &Tunnel) -> String {
    let how = match (tunnel.state, &tunnel.transport, &tunnel.trouble) {
        (State::Up, Some(transport), _) => {
            let rtt = tunnel.rtt_ms.map_or(String::new(), |rtt| format!(" {rtt:.1} ms"));
            let relay =
                tunnel.relay.as_ref().map_or(String::new(), |relay| format!(" via {}", printable(relay)));
            format!("{transport}{relay} {}{rtt}", tunnel.remote.as_deref().unwrap_or_default())
        }
        (State::Failed, _, Some(trouble)) => format!("failed: {trouble}"),
        (_, _, Some(trouble)) => format!("connecting: {trouble}"),
        _ => "connecting".to_owned(),
    };
    let refused = match tunnel.refused_sources {
        0 => String::new(),
        many => format!("\t{many} refused"),
    };
    format!(
        "{}\t{}\t{}\t{how}\t{} out, {} in{refused}",
        printable(&tunnel.contact),
        tunnel.device,
        tunnel.allow.join(","),
        HumanBytes(tunnel.sent_bytes),
        HumanBytes(tunnel.received_bytes),
    )
}
