//! `kith actors`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Actors {
    /// Check an actor list with nothing but the fingerprint of its network's issuer
    ///
    /// Needs no node and no network. The time that it takes is told beside that of as many single checks of Ed25519
    /// signatures, both as medians of several rounds.
    Verify(VerifyActors),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyActors {
    /// The file with the list
    pub(crate) file: PathBuf,
    /// Fingerprint (ni:…) of the issuer of the network
    #[arg(long, value_name = "NI")]
    pub(crate) issuer: String,
    /// Accept a list whose time is over as well
    #[arg(long)]
    pub(crate) expired: bool,
}
