use std::fmt;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use kith_sansio::Span;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::carrier::Carrier;
use super::endpoint::{Party, PathInfo, Peer};
use super::flows::Channel;
use super::pulse::{Call, Pulse};
use super::quic::{Guest, Link};
use super::registry::{Ticket, Why};
use super::{DONE_CODE, within};
use crate::limits::Place;

/// Reliable, ordered bytes to and from an authenticated peer.
///
/// Writing is most efficient in slices of up to 1 MiB; what is written is on its way after `flush`. `shutdown` ends
/// this side's bytes, the other side may go on. A stream whose peer loses this node's trust fails at once with
/// [`io::ErrorKind::ConnectionAborted`].
pub struct Stream {
    carrier: Carrier,
    peer: Peer,
    path: PathInfo,
    /// The connection under it, where that may move to another path.
    link: Option<Arc<Link>>,
    ticket: Ticket,
    /// Notices that the peer is gone, where nothing else would.
    pulse: Option<Pulse>,
    _place: Place<Party>,
    sole: Option<Sole>,
    _guest: Option<Guest>,
    _strange: Option<Place<IpAddr>>,
    channel: Option<Channel>,
}

/// How a stream goes, apart from the stream.
#[derive(Clone)]
pub struct PathWatch {
    path: PathInfo,
    link: Option<Arc<Link>>,
}

impl PathWatch {
    /// How it goes now, or went last.
    pub fn now(&self) -> PathInfo {
        self.link.as_ref().and_then(|link| link.path_now()).unwrap_or(self.path)
    }
}

impl fmt::Debug for PathWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PathWatch").field(&self.now()).finish()
    }
}

/// A QUIC connection that was made for one stream, and is closed with it.
struct Sole {
    link: Arc<Link>,
    /// How long what was written last may take to arrive.
    linger: Option<Span>,
}

impl Drop for Sole {
    fn drop(&mut self) {
        let connection = self.link.connection.clone();
        match (self.linger, tokio::runtime::Handle::try_current()) {
            (Some(linger), Ok(runtime)) => {
                runtime.spawn(async move {
                    let _closed_by_the_peer = within(linger, connection.closed()).await;
                    connection.close(DONE_CODE, b"");
                });
            }
            _ => connection.close(DONE_CODE, b""),
        }
    }
}

impl Stream {
    pub(super) fn new(
        carrier: Carrier,
        peer: Peer,
        path: PathInfo,
        ticket: Ticket,
        place: Place<Party>,
    ) -> Stream {
        let pulse = carrier.socket().map(|socket| Pulse::new(socket, path.relay.is_some()));
        Stream {
            carrier,
            peer,
            path,
            link: None,
            ticket,
            pulse,
            _place: place,
            sole: None,
            _guest: None,
            _strange: None,
            channel: None,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// How the peer is reached: a QUIC connection over a relay may move to a direct path and back, everything else stays
    /// as it was when the stream was opened.
    pub fn path(&self) -> PathInfo {
        self.watch_path().now()
    }

    /// The same for whoever does not have the stream.
    pub fn watch_path(&self) -> PathWatch {
        PathWatch { path: self.path, link: self.link.clone() }
    }

    /// 32 bytes that only the two ends of this stream's TLS session know, for `label` (the exporter of RFC 8446 §7.5,
    /// without a context): whoever proves something over them proves it for this session and no other. Equal at both
    /// ends, and for all streams of one QUIC connection. A label starts with `EXPORTER-`.
    ///
    /// # Errors
    /// Where the session exports nothing, which a finished handshake does not leave behind.
    pub fn export(&self, label: &[u8]) -> io::Result<[u8; 32]> {
        self.carrier.export(label)
    }

    /// Ties a connection to this stream, so that both end together.
    pub(super) fn own(&mut self, link: Arc<Link>) {
        self.sole = Some(Sole { link, linger: None });
    }

    /// Ties a connection to this stream, and ends it when what was written last had its time to arrive.
    pub(super) fn own_and_linger(&mut self, link: Arc<Link>, linger: Span) {
        self.sole = Some(Sole { link, linger: Some(linger) });
    }

    /// Counts as a stream of the connection that the peer opened it on, or as a stranger where it has none to itself.
    pub(super) fn stay_as(&mut self, guest: Option<Guest>, strange: Option<Place<IpAddr>>) {
        (self._guest, self._strange) = (guest, strange);
    }

    /// Goes where `link` goes.
    pub(super) fn follow(&mut self, link: Option<&Arc<Link>>) {
        self.link = link.filter(|link| link.may_move()).cloned();
    }

    /// Ties a flow of datagrams to this stream.
    pub(super) fn carry(&mut self, channel: Option<Channel>) {
        self.channel = channel;
    }

    pub(super) fn take_channel(&mut self) -> Option<Channel> {
        self.channel.take()
    }

    pub(super) fn carrier(&mut self) -> &mut Carrier {
        &mut self.carrier
    }

    /// Turns the stream away before anybody used it.
    pub(super) async fn refuse(self) {
        self.carrier.refuse().await;
    }

    /// Fails where the stream has been cut.
    fn check(&mut self) -> io::Result<()> {
        let Some(why) = self.ticket.cut().why() else { return Ok(()) };
        self.carrier.abort();
        Err(match why {
            Why::Cut => io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "connection cut: closed here, or trust withdrawn",
            ),
            Why::Lost => io::Error::new(
                io::ErrorKind::TimedOut,
                "nobody hears what is sent from an address that this machine has lost",
            ),
        })
    }

    /// What a call ends with: where the stream has been cut meanwhile, that is why. A call that waits is woken by
    /// the switch, and looks once more, so that no cut goes unseen.
    fn finish<T>(
        &mut self,
        cx: &mut Context<'_>,
        call: Call,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(result) => {
                if let Some(pulse) = &mut self.pulse {
                    pulse.went_on(call);
                }
                Poll::Ready(result.map_err(|error| self.check().err().unwrap_or(error)))
            }
            Poll::Pending => {
                let cut = self.ticket.cut();
                let waker = if call == Call::Read { &cut.reader } else { &cut.writer };
                waker.register(cx.waker());
                self.check()?;
                let lost = self.pulse.as_mut().map_or(Poll::Pending, |pulse| pulse.poll_lost(cx, call));
                lost.map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "nobody hears what is sent")))
            }
        }
    }
}

impl AsyncRead for Stream {
    /// Fills `buf` as far as there are bytes: TLS by itself would yield one record a call.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        let before = buf.filled().len();
        loop {
            let filled = buf.filled().len();
            let result = Pin::new(&mut this.carrier).poll_read(cx, buf);
            let got = buf.filled().len();
            match result {
                Poll::Ready(Ok(())) if got > filled && buf.remaining() > 0 => {}
                Poll::Pending | Poll::Ready(Err(_)) if got > before => return Poll::Ready(Ok(())),
                result => return this.finish(cx, Call::Read, result),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        let result = Pin::new(&mut this.carrier).poll_write(cx, bytes);
        this.finish(cx, Call::Write, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        let result = Pin::new(&mut this.carrier).poll_write_vectored(cx, slices);
        this.finish(cx, Call::Write, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.carrier.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.carrier).poll_flush(cx);
        this.finish(cx, Call::Write, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.carrier).poll_shutdown(cx);
        this.finish(cx, Call::Write, result)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("peer", &self.peer).field("path", &self.path()).finish_non_exhaustive()
    }
}
