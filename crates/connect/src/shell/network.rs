//! Follows the addresses of this machine. What goes out from one that is lost is heard by nobody any more.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use kith_sansio::Span;
use kith_sansio::system::time;

use super::endpoint::Shared;
use super::until;
use crate::address::loopback_only;

/// How often it is looked where the system does not say that something has changed.
const LOOK_EVERY: Span = Span::secs(1);
/// How often it is looked where it does.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LOOK_ANYWAY: Span = Span::secs(60);

/// Acts on each change, where this machine has other addresses than those of loopback to lose.
pub(super) async fn follow(shared: Arc<Shared>) {
    let addresses = || shared.interfaces().into_iter().map(|one| one.ip).collect::<HashSet<_>>();
    if loopback_only(&shared.local) {
        return;
    }
    let mut changes = Changes::new();
    let mut before = addresses();
    loop {
        changes.next().await;
        let now = addresses();
        // One that has none at all is one that does not tell.
        if now == before || now.is_empty() {
            continue;
        }
        shared.quic.moved();
        let lost: HashSet<IpAddr> = before.difference(&now).copied().collect();
        if !lost.is_empty() {
            tracing::debug!("this machine has lost an address");
            shared.registry.lose(&lost);
            shared.losses.send_modify(|count| *count += 1);
        }
        shared.changes.send_modify(|count| *count += 1);
        before = now;
    }
}

/// Tells when it is worth to look.
struct Changes {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    news: Option<linux::News>,
}

impl Changes {
    fn new() -> Changes {
        Changes {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            news: linux::News::new().ok(),
        }
    }

    async fn next(&mut self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(news) = &self.news {
            match super::within(LOOK_ANYWAY, news.next()).await {
                Some(Err(error)) => tracing::debug!(%error, "the system tells no changes of addresses"),
                Some(Ok(())) | None => return,
            }
            self.news = None;
        }
        until(time() + LOOK_EVERY).await;
    }
}
