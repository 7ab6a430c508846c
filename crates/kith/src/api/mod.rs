//! The control API: HTTP/1.1 with JSON over a Unix socket in the home folder, `/v1/…`.

pub(crate) mod actors;
pub(crate) mod client;
pub(crate) mod delegator;
pub(crate) mod dht;
pub(crate) mod invitations;
pub(crate) mod network;
pub(crate) mod server;
pub(crate) mod shapes;
pub(crate) mod socket;
pub(crate) mod tunnels;
pub(crate) mod wish;
