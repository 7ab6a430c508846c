//! A link between two transfers that can be cut, and trees to send over it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use kith_transfer::{
    Limits, LocalOffer, Offer, Progress, ReceiveError, SendError, SendOptions, Summary, Target, TransferId,
    read_offer, receive, send,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// One end of a link; writing fails once `left` bytes were written, or stands still.
pub(crate) struct Cut {
    pub(crate) stream: DuplexStream,
    pub(crate) left: Option<u64>,
    pub(crate) stalls: bool,
    pub(crate) written: Arc<AtomicU64>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == Some(0) {
            return if self.stalls { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let most = self.left.unwrap_or(u64::MAX).min(buf.len() as u64) as usize;
        if most == 0 && self.stalls {
            return Poll::Pending;
        }
        if most == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let wrote = Pin::new(&mut self.stream).poll_write(cx, &buf[..most]);
        if let Poll::Ready(Ok(count)) = wrote {
            self.written.fetch_add(count as u64, Relaxed);
            self.left = self.left.map(|left| left - count as u64);
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

pub(crate) fn link(cut: Option<u64>) -> (Cut, DuplexStream, Arc<AtomicU64>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let written = Arc::new(AtomicU64::new(0));
    (Cut { stream: near, left: cut, stalls: false, written: Arc::clone(&written) }, far, written)
}

pub(crate) type Outcome = (Result<Summary, SendError>, Result<Summary, ReceiveError>, u64);

/// One transfer over a link that is cut after `cut` bytes of the sender's.
pub(crate) fn transfer(paths: &[PathBuf], target: &Target, id: u8, cut: Option<u64>) -> Outcome {
    let offer = Offer::from_paths(paths).unwrap();
    run(transfer_offer(&offer, target, id, cut))
}

pub(crate) async fn transfer_offer(offer: &LocalOffer, target: &Target, id: u8, cut: Option<u64>) -> Outcome {
    let (near, mut far, written) = link(cut);
    let options = SendOptions::new(TransferId([id; 16]));
    let sending = send(near, offer, options, Arc::new(Progress::new()), kith_transfer::Cancel::new());
    let receiving = async {
        let incoming = read_offer(&mut far, &Limits::default()).await?;
        receive(far, incoming, target.clone(), Arc::new(Progress::new()), kith_transfer::Cancel::new()).await
    };
    let both = async { tokio::join!(sending, receiving) };
    let (sent, received) = tokio::time::timeout(Duration::from_secs(120), both).await.expect("it ends");
    (sent, received, written.load(Relaxed))
}

pub(crate) fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn into(dir: &Path) -> Target {
    Target { dir: dir.to_owned(), ..Target::default() }
}

/// All that is to be identical, by path: kind, mode, time, content or target.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, (char, u32, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let (kind, content) = if meta.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ('d', Vec::new())
        } else if meta.is_symlink() {
            ('l', std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else {
            ('f', std::fs::read(&path).unwrap())
        };
        let name = path.strip_prefix(root).unwrap().to_owned();
        let mode = if kind == 'l' { 0 } else { meta.permissions().mode() & 0o1777 };
        all.insert(name, (kind, mode, meta.mtime(), meta.mtime_nsec(), content));
    }
    all
}

/// The names in a folder.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    use kith_sansio::{Rng, SeededRng};
    let mut bytes = vec![0; length];
    SeededRng::new(seed).fill(&mut bytes);
    bytes
}

pub(crate) fn set_time(path: &Path, seconds: i64, nanos: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A folder with one of everything.
pub(crate) fn holiday(root: &Path) -> PathBuf {
    let top = root.join("holiday");
    std::fs::create_dir_all(top.join("deep/er/est")).unwrap();
    std::fs::create_dir(top.join("empty")).unwrap();
    std::fs::write(top.join("big"), bytes(3 * 1024 * 1024 + 4321, 1)).unwrap();
    std::fs::write(top.join("group"), bytes(1024 * 1024, 2)).unwrap();
    std::fs::write(top.join("two-groups"), bytes(2 * 1024 * 1024, 2)).unwrap();
    std::fs::write(top.join("none"), b"").unwrap();
    std::fs::write(top.join("deep/er/est/note"), b"hello").unwrap();
    std::fs::write(top.join(OsStr::from_bytes(b"caf\xe9 \xff\n")), b"latin").unwrap();
    std::fs::write(top.join("x".repeat(255)), b"long name").unwrap();
    for number in 0..50 {
        std::fs::write(top.join(format!("deep/{number}.txt")), bytes(number * 97, number as u64)).unwrap();
    }
    std::os::unix::fs::symlink("../deep/er", top.join("deep/inside")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", top.join("dangling")).unwrap();
    std::os::unix::fs::symlink("/etc", top.join("outside")).unwrap();
    chmod(&top.join("group"), 0o400);
    chmod(&top.join("none"), 0o4755);
    chmod(&top.join("deep/er/est"), 0o1777);
    set_time(&top.join("big"), 1_000_000_000, 123_456_789);
    set_time(&top.join("none"), -5, 999_999_999);
    set_time(&top.join("dangling"), 77, 1);
    set_time(&top.join("deep/er"), 1_500_000_000, 7);
    set_time(&top, 1_600_000_000, 42);
    chmod(&top.join("deep/er"), 0o555);
    top
}
