//! `kith delegator`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use kith_sansio::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum Delegator {
    /// Start the node as a delegator: its members get their lists, and every change of them within a second
    Serve(ServeDelegator),
    /// Put nodes into groups; whoever is in one is a member
    #[command(subcommand)]
    Group(DelegatorGroup),
    /// Let the members of a group reach those of another
    Grant(Grant),
    /// Take away what a group may reach, or a member out of every group
    Revoke(Revoke),
    /// List rules and what is served, and the delegators that this node uses
    List,
    /// Show the list of a member, or the one that a delegator gives this node
    Show {
        /// Name or fingerprint of a member, or of a delegator in use
        name: String,
    },
    /// Show what was changed, when and how
    Log {
        /// How many of the last changes
        #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        count: u64,
    },
    /// Let a delegator manage whom this node trusts, beside its own contacts
    Use {
        /// The delegator's fingerprint (ni:…), or the name of a contact
        who: String,
        /// Your name for it [default: the contact's, or two words of the fingerprint]
        #[arg(long = "as", value_name = "NAME")]
        called: Option<String>,
        /// Where to try first: quic://host:port or tcp://host:port; may be given several times
        #[arg(long, value_name = "ADDRESS")]
        at: Vec<String>,
    },
    /// Use a delegator no longer; connections that only it allowed are cut at once
    Drop {
        /// Name or fingerprint
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServeDelegator {
    /// Listen here: quic://ip:port or tcp://ip:port; may be given several times [default: any address, port 7117]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Keep groups and rules in this file instead of by commands; it is read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How long a list holds after this node's last word, 10s to 1d [default: 1h]
    #[arg(long, value_name = "TIME")]
    pub(crate) lease: Option<Span>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DelegatorGroup {
    /// Put nodes into a group
    Add {
        /// The group
        group: String,
        /// Fingerprints (ni:…), or names of members or contacts
        #[arg(required = true)]
        members: Vec<String>,
        /// The name that the node is to have for all; for one node only [default: the contact's, or words of the fingerprint]
        #[arg(long = "as", value_name = "NAME")]
        called: Option<String>,
        /// Where the node may be reached, told to those who may reach it; for one node only; may be given several times
        #[arg(long, value_name = "ADDRESS")]
        at: Vec<String>,
    },
    /// Take members out of a group; out of its last one, a node is no member any more
    Remove {
        /// The group
        group: String,
        /// Names or fingerprints of members
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// List members with their groups, and who is connected
    List,
}

/// Who may open streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Towards {
    /// The first group may reach the second
    Out,
    /// The second may reach the first
    In,
    /// Each may reach the other
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// The first group
    pub(crate) from: String,
    /// The second group; may be the same
    pub(crate) to: String,
    /// Who may open streams
    #[arg(long, value_enum, default_value = "out")]
    pub(crate) direction: Towards,
    /// Only for this protocol, such as ping/1 or send/1; may be given several times [default: every one]
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Vec<String>,
    /// For so long only, such as 8h or 7d
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) lasting: Option<Span>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// A member by name or fingerprint; or, with TO, the first group of rules
    #[arg(value_name = "MEMBER|FROM")]
    pub(crate) from: String,
    /// The second group: no rule lets the first reach it any more, whichever way round it was granted
    pub(crate) to: Option<String>,
    /// Only rules for exactly this protocol, or for exactly these where it is given several times
    #[arg(long, value_name = "PROTOCOL", requires = "to")]
    pub(crate) protocol: Vec<String>,
}
