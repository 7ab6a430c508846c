//! Linux says when addresses change, over a netlink socket (rtnetlink(7)). What it says is not read: whoever hears of a
//! change looks for himself.

use std::io;
use std::os::unix::net::UnixDatagram as Datagrams;

use kith_sansio::Span;
use kith_sansio::system::time;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

use crate::shell::until;

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const ADDRESSES: u32 = 0x10 | 0x100;
/// One change comes as several messages, and a new address before the route that leads out from it; so this is also how
/// often it is looked at most.
const GATHER: Span = Span::millis(100);
/// Messages taken without a pause.
const MESSAGES: usize = 256;

/// What the system says of addresses that come and go.
pub(super) struct News(UnixDatagram);

impl News {
    pub(super) fn new() -> io::Result<News> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, ADDRESSES))?;
        // All that is done with it is to receive, which is the same for every kind of datagrams.
        UnixDatagram::from_std(Datagrams::from(socket)).map(News)
    }

    /// Waits for a change; none is missed between two calls.
    pub(super) async fn next(&self) -> io::Result<()> {
        self.0.readable().await?;
        until(time() + GATHER).await;
        self.take_all()
    }

    /// Takes what has been said, or a good part of it.
    fn take_all(&self) -> io::Result<()> {
        let mut room = [0; 4096];
        for _ in 0..MESSAGES {
            match self.0.try_recv(&mut room) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // There was too much of it, so that some is gone, which changes nothing.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::shell::within;

    const NAME: &str =
        "shell::network::linux::tests::an_address_that_comes_or_goes_is_news_and_nothing_else_is";
    /// Set where this runs in a network of its own.
    const INSIDE: &str = "KITH_TEST_IN_ITS_OWN_NETWORK";

    #[test]
    fn an_address_that_comes_or_goes_is_news_and_nothing_else_is() {
        if std::env::var_os(INSIDE).is_some() {
            return inside();
        }
        kith_vnet::needs!("unshare", "ip");
        let mut command = Command::new("unshare");
        command.arg("--net");
        if !rustix::process::getuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--nocapture"]);
        let done = command.env(INSIDE, "1").output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if err.starts_with("unshare:") {
            return kith_vnet::unable("network namespaces");
        }
        assert!(done.status.success() && out.contains("1 passed"), "{out} {err}");
    }

    /// Whether all of that could be done.
    fn ip(lines: &str) -> bool {
        let mut command = Command::new("ip");
        let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        child.wait().unwrap().success()
    }

    #[tokio::main(flavor = "current_thread")]
    async fn inside() {
        let soon = |news| within(Span::secs(30), news);
        let news = News::new().unwrap();
        for change in ["add", "delete", "add"] {
            assert!(ip(&format!("address {change} 192.0.2.7/32 dev lo\n")));
            soon(news.next()).await.expect("the news").unwrap();
            // What is left of it, at most once.
            let _ = within(Span::millis(300), news.next()).await;
            assert!(within(Span::millis(300), news.next()).await.is_none(), "nothing has changed");
        }
        // Not every machine has IPv6.
        if ip("address add 2001:db8::7/128 dev lo\n") {
            soon(news.next()).await.expect("the news").unwrap();
        }
        // More than the system keeps.
        assert!(ip(&"address delete 192.0.2.7/32 dev lo\naddress add 192.0.2.7/32 dev lo\n".repeat(2_000)));
        soon(news.next()).await.expect("the news").unwrap();
        while within(Span::millis(300), news.next()).await.is_some() {}
        assert!(ip("address delete 192.0.2.7/32 dev lo\n"));
        soon(news.next()).await.expect("the news").unwrap();
    }
}
