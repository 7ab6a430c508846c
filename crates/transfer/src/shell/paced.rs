use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use kith_sansio::system;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::rate::{Bucket, Rate};

/// A limit that any number of streams share. Clones are the same limit.
#[derive(Clone, Debug, Default)]
pub struct Limit(Arc<Mutex<Bucket>>);

impl Limit {
    /// A limit; without a rate it limits nothing until it gets one.
    pub fn new(rate: Option<Rate>) -> Self {
        Limit(Arc::new(Mutex::new(Bucket::new(rate))))
    }

    /// The rate now.
    pub fn rate(&self) -> Option<Rate> {
        self.bucket().rate()
    }

    /// Changes the rate for all streams at once.
    pub fn set(&self, rate: Option<Rate>) {
        self.bucket().set_rate(system::time(), rate);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One direction of a stream.
#[derive(Default)]
struct Pace {
    limits: Vec<Limit>,
    /// Bytes that may move, once the sleep is over.
    granted: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// How many of `wanted` bytes may move now.
    fn poll(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        if self.granted == 0 {
            let turn = self.limits.iter().map(|limit| limit.bucket().turn()).min().unwrap_or(u64::MAX);
            if turn == u64::MAX {
                return Poll::Ready(wanted);
            }
            let now = system::time();
            self.granted = wanted.min(usize::try_from(turn).unwrap_or(usize::MAX));
            let bytes = self.granted as u64;
            let at = self.limits.iter().map(|limit| limit.bucket().take(now, bytes)).max().unwrap_or(now);
            self.sleep = (at > now).then(|| Box::pin(tokio::time::sleep_until(system::instant(at).into())));
        }
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(self.granted.min(wanted))
    }

    fn moved(&mut self, bytes: usize) {
        self.granted = self.granted.saturating_sub(bytes);
    }
}

/// A stream that keeps to limits in both directions.
pub struct Paced<S> {
    stream: S,
    up: Pace,
    down: Pace,
}

impl<S> Paced<S> {
    /// `stream`, writing within all limits of `up` and reading within those of `down`.
    pub fn new(stream: S, up: Vec<Limit>, down: Vec<Limit>) -> Self {
        let pace = |limits| Pace { limits, granted: 0, sleep: None };
        Paced { stream, up: pace(up), down: pace(down) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let wanted = buf.remaining();
        let most = ready!(this.down.poll(cx, wanted));
        if most >= wanted {
            let before = buf.filled().len();
            let read = Pin::new(&mut this.stream).poll_read(cx, buf);
            this.down.moved(buf.filled().len() - before);
            return read;
        }
        let mut some = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut some))?;
        let count = some.filled().len();
        buf.advance(count);
        this.down.moved(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let most = ready!(this.up.poll(cx, buf.len()));
        let wrote = Pin::new(&mut this.stream).poll_write(cx, &buf[..most]);
        if let Poll::Ready(Ok(count)) = wrote {
            this.up.moved(count);
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
