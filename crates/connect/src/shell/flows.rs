//! The flows of datagrams that one QUIC connection carries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::datagrams::Queue;
use super::quic::Link;
use crate::DatagramError;
use crate::datagram::Flow;

/// Where the datagrams of each flow of a connection go; those of no flow go nowhere.
#[derive(Default)]
pub(super) struct Flows {
    open: Mutex<HashMap<Flow, Arc<Queue>>>,
    closed: Notify,
}

/// One flow of a connection, open until this is dropped.
pub(super) struct Channel {
    pub(super) link: Arc<Link>,
    pub(super) flow: Flow,
    pub(super) inbox: Arc<Queue>,
}

impl Channel {
    /// Opens the flow of a stream of `link`, of which `most_bytes` wait at most to be taken.
    pub(super) fn open(link: &Arc<Link>, stream: noq::StreamId, most_bytes: usize) -> Channel {
        let flow = Flow::of_stream(stream.index(), stream.initiator() == noq::Side::Server);
        let inbox = Queue::new(most_bytes);
        link.flows.open().insert(flow, Arc::clone(&inbox));
        Channel { link: Arc::clone(link), flow, inbox }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.link.flows.open().remove(&self.flow);
        self.link.flows.closed.notify_waiters();
        self.inbox.end(DatagramError::Ended);
    }
}

impl Flows {
    /// Puts each of `datagrams` where it belongs. Runs of one flow, the usual case, cost one lock.
    pub(super) fn deliver(&self, datagrams: &mut [Bytes]) {
        let open = self.open();
        let mut run: Option<(Flow, Vec<Bytes>)> = None;
        let put = |run: Option<(Flow, Vec<Bytes>)>| {
            if let Some((flow, datagrams)) = run
                && let Some(inbox) = open.get(&flow)
            {
                inbox.push(datagrams);
            }
        };
        for mut datagram in datagrams.iter_mut().map(std::mem::take) {
            let Some(flow) = Flow::take(&mut datagram) else { continue };
            match &mut run {
                Some((of, same)) if *of == flow => same.push(datagram),
                _ => put(run.replace((flow, vec![datagram]))),
            }
        }
        put(run);
    }

    /// Waits until no flow is open.
    pub(super) async fn none(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.open().is_empty() {
                return;
            }
            closed.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Flow, Arc<Queue>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the datagrams of a connection while nobody does, and those of a stranger always: what he sends fills no more
/// memory than his flows may hold, and none before he is admitted to anything.
pub(super) async fn drain(link: &Link) {
    loop {
        if link.is_welcome() {
            link.flows.none().await;
        }
        let mut batch = [const { Bytes::new() }; 16];
        match link.connection.read_many_datagrams(&mut batch).await {
            Ok(read) => link.flows.deliver(&mut batch[..read]),
            Err(_) => return,
        }
    }
}
