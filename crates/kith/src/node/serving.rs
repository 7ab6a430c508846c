//! Streams that contacts open: each protocol names a handler, and its streams end with the node.

use std::future::Future;
use std::sync::Arc;

use kith_connect::{Admission, Peer, Protocol, Stream};
use kith_identity::Fingerprint;

use super::Node;
use crate::failure::{Failure, Result};

impl Node {
    /// Lets contacts open streams for `protocol`; each is handled in a task of its own.
    pub(crate) fn serve<F>(
        self: &Arc<Self>,
        protocol: Protocol,
        handle: impl Fn(Arc<Node>, Fingerprint, Stream) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.take_named(protocol, Admission::Contacts, handle)
    }

    /// Lets anybody open streams for `protocol` who proves a key, contact or not.
    pub(crate) fn serve_named<F>(
        self: &Arc<Self>,
        protocol: Protocol,
        handle: impl Fn(Arc<Node>, Fingerprint, Stream) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.take_named(protocol, Admission::Anyone, handle)
    }

    /// Lets anybody at all open streams for `protocol`, whoever it is.
    pub(crate) fn serve_anyone<F>(
        self: &Arc<Self>,
        protocol: Protocol,
        handle: impl Fn(Arc<Node>, Stream) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.take(protocol, Admission::Anyone, move |node, _, stream| Some(handle(node, stream)))
    }

    fn take_named<F>(
        self: &Arc<Self>,
        protocol: Protocol,
        admission: Admission,
        handle: impl Fn(Arc<Node>, Fingerprint, Stream) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.take(protocol, admission, move |node, peer, stream| match peer {
            Peer::Known(peer) => Some(handle(node, peer, stream)),
            Peer::Anonymous => None,
        })
    }

    fn take<F>(
        self: &Arc<Self>,
        protocol: Protocol,
        admission: Admission,
        handle: impl Fn(Arc<Node>, Peer, Stream) -> Option<F> + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut incoming = self.endpoint.listen(protocol, admission).map_err(Failure::failed)?;
        let node = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                let next = tokio::select! {
                    next = incoming.next() => next,
                    () = node.stopped.cancelled() => None,
                };
                let Some((peer, stream)) = next else { return };
                if let Peer::Known(peer) = &peer {
                    node.transfers.saw(peer);
                    node.tunnels.hope(peer);
                }
                let Some(handling) = handle(Arc::clone(&node), peer, stream) else { continue };
                let stopped = node.stopped.clone();
                node.tasks.spawn(async move {
                    tokio::select! {
                        () = handling => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Ok(())
    }
}
