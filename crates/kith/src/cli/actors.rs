//! `kith actors`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kith_sansio::{Span, Timestamp, system};

#[derive(Debug, Subcommand)]
pub(crate) enum Actors {
    /// Have actors drawn among the members of the network, and print who they are with the proof
    ///
    /// Nobody chooses them: not this node, and none of those that take part. Each draw counts, whatever comes of it; a node
    /// has 24 in an epoch.
    Select(SelectActors),
    /// Check an actor list with nothing but the fingerprint of its network's issuer
    ///
    /// Needs no node and no network. The time that it takes is told beside that of as many single checks of Ed25519
    /// signatures, both as medians of several rounds.
    Verify(VerifyActors),
}

#[derive(Debug, Args)]
pub(crate) struct SelectActors {
    /// How many actors: half as many as a region holds at most
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) count: u16,
    /// What they are drawn for: SHA3-256 of its manifest, in hexadecimal
    #[arg(long = "for", value_name = "HASH")]
    pub(crate) manifest: String,
    /// What they are to do, as the manifest says: each role has other actors
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) role: u8,
    /// Until when the list is to be good: a time such as 2026-11-22T04:00:00Z, or how long from now, such as 30m
    /// [default: ten minutes after the end of the epoch, which is the latest]
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    pub(crate) expires: Option<Timestamp>,
    /// Put the list into this file, for whoever is to check it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    let wrong = |_| "a time such as 2026-11-22T04:00:00Z or 30m is wanted".to_owned();
    let lasting = || text.parse::<Span>().map(|span| system::utc().plus_secs(span.as_secs()));
    text.parse().or_else(|_| lasting()).map_err(wrong)
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
