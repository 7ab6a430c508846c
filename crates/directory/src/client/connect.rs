use std::io;
use std::net::SocketAddr;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kith_identity::Authority;
use kith_sansio::Span;
use tokio::net::TcpStream;

use super::ExchangeError;

/// The port of HTTPS.
const PORT: u16 = 443;
/// Time that an address has before the next one is tried beside it (RFC 8305 §5).
const STAGGER: Span = Span::millis(250);
/// Most addresses that are tried.
const MAX_ADDRESSES: usize = 8;

/// Connects to the first address of `authority` that answers.
pub(super) async fn connect(authority: &Authority) -> Result<TcpStream, ExchangeError> {
    let (host, port) = (authority.host(), authority.port().unwrap_or(PORT));
    let name_error = |error| ExchangeError::Name { host: host.to_owned(), error };
    let found = tokio::net::lookup_host((host, port)).await.map_err(name_error)?;
    let mut addresses = found.take(MAX_ADDRESSES);
    let mut trying = FuturesUnordered::new();
    let mut last = name_error(io::ErrorKind::NotFound.into());
    loop {
        let next = addresses.next();
        let more = next.is_some();
        trying.extend(next.map(attempt));
        if trying.is_empty() {
            return Err(last);
        }
        let wait = async {
            if more { tokio::time::sleep(STAGGER.into()).await } else { std::future::pending().await }
        };
        tokio::select! {
            Some((address, result)) = trying.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => last = ExchangeError::Connect { address, error },
            },
            () = wait => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    (address, TcpStream::connect(address).await)
}
