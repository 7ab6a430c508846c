//! Announce and discover record sets over HTTPS and DNS (SEP §5.2, §6), and on local networks.
//!
//! Floor 2. A directory keeps one signed record set per fingerprint and gives it to anybody who asks for that
//! fingerprint; it never lists any. It is not trusted: whoever discovers a set verifies it. The pure parts come
//! first ([`announce`], [`dns`], [`limiter`], [`replay`], [`cache`], [`lookup`], [`announcer`], [`lan`]);
//! [`server`] and [`client`] are the shells that own sockets.
//!
//! Invariants: only [`server`] and [`client`] open sockets; a set that is not valid for its fingerprint now, or
//! older than one that was seen, comes neither into the store nor into the cache nor out of a lookup.
//!
//! ```no_run
//! # use kith_directory::client::{ClientConfig, Directory};
//! # use kith_identity::{Identity, Ni};
//! # use kith_sansio::system::OsRng;
//! # async fn blobs() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = Directory::open(ClientConfig::default());
//! let me = Identity::generate(&mut OsRng);
//! directory.put_blob(&"example.org".parse()?, &me, "hello").await?;
//!
//! let ni = Ni::new(me.fingerprint(), Some("example.org".parse()?));
//! assert_eq!(directory.fetch_blob(&ni).await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```

pub mod announce;
pub mod announcer;
pub mod cache;
pub mod client;
pub mod defaults;
pub mod dns;
#[doc(hidden)]
pub mod fuzz;
mod generations;
mod label;
pub mod lan;
pub mod limiter;
pub mod lookup;
pub mod members;
pub mod notify;
pub mod replay;
pub mod server;
pub mod store;
#[cfg(test)]
mod testing;
mod timer;
