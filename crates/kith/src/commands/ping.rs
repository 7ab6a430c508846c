//! `kith ping`.

use hyper::Method;

use super::Context;
use crate::api::shapes::{NewPing, Pong};
use crate::cli::{Ping, ViaTransport};
use crate::failure::Result;
use crate::output::{printable, way};

/// The transport's name in the control API.
pub(super) fn via(transport: Option<ViaTransport>) -> Option<String> {
    transport.map(|via| match via {
        ViaTransport::Tcp => "tcp".to_owned(),
        ViaTransport::Quic => "quic".to_owned(),
    })
}

pub(super) async fn ping(context: &Context, options: &Ping) -> Result<()> {
    let request = NewPing {
        contact: options.contact.clone(),
        count: options.count,
        interval_ms: options.interval.as_millis(),
        fresh: options.fresh,
        via: via(options.via),
        wait_ms: options.wait.as_millis(),
    };
    let mut node = context.node().await?;
    let mut pongs = node.lines(Method::POST, "/v1/ping", Some(&request)).await?;
    let mut times = Vec::new();
    while let Some(pong) = pongs.next::<Pong>().await? {
        times.push(pong.rtt_ms);
        if !context.out.item(&pong, || line(&options.contact, &pong))? {
            return Ok(());
        }
    }
    if times.len() > 1 && !context.out.is_json() {
        times.sort_by(f64::total_cmp);
        context.out.note(format!(
            "{} answers, round trip min {:.3} median {:.3} max {:.3} ms",
            times.len(),
            times[0],
            times[times.len() / 2],
            times[times.len() - 1]
        ));
    }
    Ok(())
}

fn line(contact: &str, pong: &Pong) -> String {
    let connect = pong.connect_ms.map_or(String::new(), |ms| format!(", connected in {ms:.2} ms"));
    format!(
        "{}: {} bytes, {:.3} ms, {} over {} to {}{connect}",
        printable(contact),
        pong.bytes,
        pong.rtt_ms,
        way(&pong.path, pong.relay.as_deref()),
        pong.transport,
        pong.remote
    )
}
