//! `kith dht`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Dht {
    /// Show this node's part in the DHT of its network
    Status,
    /// Look up a value among the members
    Get {
        /// A key (64 hexadecimal digits), or whose record set: a fingerprint (ni:…), or a contact's name
        #[arg(value_name = "KEY|NI")]
        key: String,
    },
    /// Publish this node's record set now, or another one
    Put {
        /// A record set as 'kith discover --json' prints it; - reads standard input
        file: Option<PathBuf>,
    },
}
