//! `kith invite` and `kith join`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kith_sansio::Span;

use super::ViaTransport;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Invite {
    #[command(subcommand)]
    pub(crate) command: Option<Invitations>,
    #[command(flatten)]
    pub(crate) open: Open,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Invitations {
    /// List invitations: open ones, and those that ended within the last day
    List,
    /// Take an invitation back before somebody joins
    Cancel {
        /// Its id, from 'kith invite list'
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Open {
    /// Your name for whoever joins [default: the one that they propose]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) called: Option<String>,
    /// How long the invitation is good for
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub(crate) valid: Span,
    /// Do not draw the link as a QR code
    #[arg(long)]
    pub(crate) no_qr: bool,
    /// Print the link and return; the running node waits for the joiner
    #[arg(long, visible_alias = "no-wait")]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The link (kith:…), or - to read it from standard input, where other users of the machine do not see it
    #[arg(required = true, value_name = "LINK")]
    pub(crate) link: Vec<String>,
    /// Your name for the inviter [default: the one that they propose]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) called: Option<String>,
    /// Folder to receive into what the inviter sends; it is made if it does not exist [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Wait for files from the inviter, also where the link promises none
    #[arg(long, conflicts_with = "no_receive")]
    pub(crate) receive: bool,
    /// Only join: leave what the inviter sends to 'kith receive'
    #[arg(long, conflicts_with_all = ["into", "yes", "overwrite"])]
    pub(crate) no_receive: bool,
    /// Accept files without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Replace files that are there and differ
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Insist on a transport for joining
    #[arg(long, value_enum)]
    pub(crate) via: Option<ViaTransport>,
    /// How long to try to reach the inviter
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) wait: Span,
}
