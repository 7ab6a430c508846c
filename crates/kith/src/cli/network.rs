//! `kith network`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Issue a network: contacts of this node may join it, and those named here
    Issue(IssueNetwork),
    /// Join the network of an issuer, and stay a member; another network that was joined before is left
    Join(JoinNetwork),
    /// Revoke a member for good from the next epoch on, or take an invitation back
    Revoke {
        /// Fingerprint (ni:…), or the name of a contact
        who: String,
    },
    /// Show the network that this node issues with its members, and the one that it has joined
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct IssueNetwork {
    /// Who is invited: fingerprints (ni:…), or names of contacts
    #[arg(value_name = "WHO")]
    pub(crate) who: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinNetwork {
    /// The issuer's fingerprint (ni:…), or the name of a contact
    pub(crate) issuer: String,
    /// Where to try first: quic://host:port or tcp://host:port; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) at: Vec<String>,
}
