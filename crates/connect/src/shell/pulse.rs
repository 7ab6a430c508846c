//! Notices that nobody hears what a TCP connection says.
//!
//! A relay that is cut off, or an address that this machine has lost, ends no connection: TCP goes on trying for a
//! quarter of an hour. A peer that reads slowly looks the same from above, so it is the system that is asked: whether
//! what was sent is acknowledged, and whether the address that it was sent from is still there.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use kith_sansio::Span;
use kith_sansio::system::{instant, time};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::until;

/// A connection over a relay on which nothing is acknowledged for so long is lost: there may be another relay.
pub(super) const RELAYED_SILENCE: Span = Span::millis(1_200);
/// The same of one without a relay.
pub(super) const SILENCE: Span = Span::secs(5);
/// How often it is looked while a call waits.
const LOOK_EVERY: Span = Span::millis(300);
/// What is lost on its way now and then is acknowledged when it is sent again, so one try means nothing.
const TRIES: u8 = 2;

/// What the system knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vitals {
    /// Bytes that were written and not acknowledged, sent or not.
    unacknowledged: u32,
    /// How often in a row the same was sent again, or a full peer asked whether it has room, without an answer.
    tries: u8,
    /// Since the last acknowledgement.
    silence: Span,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Everything written has arrived.
    Quiet,
    /// Something is on its way, or waits for a peer that takes its time.
    Waits,
    /// Nobody is there.
    Lost,
}

fn look(socket: &TcpStream, patience: Span) -> Look {
    let (Ok(own), Ok(peer)) = (socket.local_addr(), socket.peer_addr()) else { return Look::Lost };
    if is_gone(own) {
        return Look::Lost;
    }
    match vitals(own, peer) {
        Some(vitals) => judge(vitals, patience),
        // There is nothing more to learn, so a call that waits for the peer alone asks no further.
        None => Look::Quiet,
    }
}

/// Whether this machine has lost an address: then nothing can be bound to it.
fn is_gone(mut own: SocketAddr) -> bool {
    own.set_port(0);
    if own.ip().to_canonical().is_ipv4() {
        own = SocketAddr::new(own.ip().to_canonical(), 0);
    }
    UdpSocket::bind(own).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn judge(vitals: Vitals, patience: Span) -> Look {
    if vitals.unacknowledged == 0 {
        Look::Quiet
    } else if vitals.tries >= TRIES && vitals.silence >= patience {
        Look::Lost
    } else {
        Look::Waits
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use linux::vitals;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn vitals(_: SocketAddr, _: SocketAddr) -> Option<Vitals> {
    None
}

/// Waits until nobody hears what `socket` says, and ends both its directions; for ever where everything arrives.
pub(super) async fn lost(socket: &TcpStream, patience: Span) {
    loop {
        until(time() + LOOK_EVERY).await;
        if look(socket, patience) == Look::Lost {
            return end(socket);
        }
    }
}

fn end(socket: &TcpStream) {
    // It may have ended by itself.
    let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Both);
}

/// The calls of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Waits for the peer's bytes.
    Read,
    /// Waits for room.
    Write,
}

/// Looks after one connection while a call waits, and costs nothing otherwise.
#[derive(Debug)]
pub(super) struct Pulse {
    socket: Arc<TcpStream>,
    patience: Span,
    /// Something was written since everything was known to have arrived.
    unsure: bool,
    waits: [Wait; 2],
}

#[derive(Debug, Default)]
struct Wait {
    is_on: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pulse {
    pub(super) fn new(socket: Arc<TcpStream>, is_relayed: bool) -> Pulse {
        let patience = if is_relayed { RELAYED_SILENCE } else { SILENCE };
        Pulse { socket, patience, unsure: false, waits: Default::default() }
    }

    /// A call has come to its end.
    pub(super) fn went_on(&mut self, call: Call) {
        self.waits[call as usize].is_on = false;
        self.unsure |= call == Call::Write;
    }

    /// A call has to wait: ready once the peer is known to be gone, which ends the connection.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>, call: Call) -> Poll<()> {
        self.unsure |= call == Call::Write;
        while self.unsure {
            let wait = &mut self.waits[call as usize];
            let sleep = wait.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY.into())));
            if !wait.is_on {
                wait.is_on = true;
                sleep.as_mut().reset(instant(time() + LOOK_EVERY).into());
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            wait.is_on = false;
            match look(&self.socket, self.patience) {
                Look::Quiet => self.unsure = call == Call::Write,
                Look::Waits => {}
                Look::Lost => {
                    // The other direction hears of it too.
                    end(&self.socket);
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_the_machine_does_not_have_is_gone() {
        // One for documentation, which no machine has.
        for (own, gone) in [
            ("127.0.0.1:9", false),
            ("[::ffff:127.0.0.1]:9", false),
            ("192.0.2.1:9", true),
            ("[2001:db8::1]:9", true),
        ] {
            assert_eq!(is_gone(own.parse().unwrap()), gone, "{own}");
        }
    }

    #[test]
    fn a_peer_that_takes_its_time_is_there_and_one_that_acknowledges_nothing_is_not() {
        let vitals =
            |unacknowledged, tries, millis| Vitals { unacknowledged, tries, silence: Span::millis(millis) };
        for (seen, expected) in [
            (vitals(0, 0, 900_000), Look::Quiet),
            // Full for an hour, and says so whenever it is asked.
            (vitals(4 << 20, 0, 60_000), Look::Waits),
            (vitals(4 << 20, 1, 60_000), Look::Waits),
            (vitals(100, 3, 1_000), Look::Waits),
            (vitals(100, 3, 1_200), Look::Lost),
        ] {
            assert_eq!(judge(seen, RELAYED_SILENCE), expected, "{seen:?}");
        }
    }
}
