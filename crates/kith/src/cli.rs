//! The commands and their options.

mod actors;
mod delegator;
mod dht;
mod invitations;
mod network;
mod simulate;
mod tunnels;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kith_sansio::Span;
use kith_transfer::Rate;

pub(crate) use self::actors::{Actors, SelectActors, VerifyActors};
pub(crate) use self::delegator::{Delegator, DelegatorGroup, Grant, Revoke, ServeDelegator, Towards};
pub(crate) use self::dht::Dht;
pub(crate) use self::invitations::{Invitations, Invite, Join, Open};
pub(crate) use self::network::Network;
pub(crate) use self::simulate::{
    AttackArgs, AttackMode, AttackName, Caches, Degrees, KTable, Leak, Sampling, Selections, SimDht, SimMode,
    SimOverlay, Simulate, Simulation, Upkeep,
};
pub(crate) use self::tunnels::{Tun, TunTransport, TunUp};
use crate::config::Served;

/// Find people by their key's fingerprint and send them files, with nobody's cloud between.
#[derive(Debug, Parser)]
#[command(name = "kith", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Home folder of the identity [default: $KITH_HOME, else ~/.local/share/kith]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Print one JSON document (or JSON lines) on standard output, and nothing else
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say less
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log more to standard error (-v info, -vv debug, -vvv trace)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an identity and a configuration in the home folder
    Init(Init),
    /// Print this identity's fingerprint, or that of a key file
    Id(Id),
    /// Start the node: listen, announce, answer commands
    Up(Up),
    /// Stop the running node and wait until it has stopped
    Down,
    /// Show what the running node does
    Status(Status),
    /// Keep the list of people whose fingerprint you trust
    #[command(subcommand)]
    Contact(Contact),
    /// Invite somebody by a link: whoever joins with it becomes a contact
    Invite(Invite),
    /// Join with somebody's link: both become contacts
    Join(Join),
    /// Look up the signed record set of a fingerprint
    Discover(Discover),
    /// Announce this node's record set to its directories now
    Announce,
    /// Connect to a contact and measure the way there and back
    Ping(Ping),
    /// Send files and folders to a contact
    Send(Send),
    /// Receive what a contact sends
    Receive(Receive),
    /// List, pause, resume, limit and cancel transfers, of either direction
    #[command(subcommand)]
    Transfer(Transfer),
    /// Tunnel IP packets to contacts
    #[command(subcommand)]
    Tun(Tun),
    /// Publish or fetch a small signed value through a directory, without a connection
    #[command(subcommand)]
    Blob(Blob),
    /// Run a directory for a zone
    #[command(subcommand)]
    Directory(Directory),
    /// Relay for others, and see the relays of this node
    #[command(subcommand)]
    Relay(Relay),
    /// Manage whom others trust, or let a delegator manage whom this node trusts
    #[command(subcommand)]
    Delegator(Delegator),
    /// Issue a network, or join one: members know each other by certificate, contacts or not
    #[command(subcommand)]
    Network(Network),
    /// Find what the members of this node's network keep for each other, and publish there
    #[command(subcommand)]
    Dht(Dht),
    /// Check lists of actors that were drawn in a network
    #[command(subcommand)]
    Actors(Actors),
    /// Compute what holds in networks of up to ten million nodes, by the code that runs on the real one
    #[command(subcommand)]
    Simulate(Simulate),
    /// Check everything that a node needs, and say what to do; changes nothing
    Doctor,
    /// Let your own systemd run the node, from now on and after each login
    InstallService(InstallService),
    /// Print a script that completes commands and options in a shell
    Completions(Completions),
    /// Print the man page of a command, or write all of them
    Man(Man),
}

#[derive(Debug, Default, Args)]
pub(crate) struct Init {
    /// Directory to announce to, as host or host:port; may be given several times
    #[arg(long, value_name = "AUTHORITY")]
    pub(crate) authority: Vec<String>,
    /// A name for this node, shown to its owner and proposed to whom it invites or joins
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Fingerprint of the directory, for a zone without a certificate from a public authority
    #[arg(long, value_name = "NI")]
    pub(crate) pin: Option<String>,
    /// DNS server to ask instead of the system's, as ip:port; may be given several times
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) resolver: Vec<SocketAddr>,
    /// Protect the key file with a passphrase, asked for on the terminal
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(crate) passphrase: bool,
    /// Protect the key file with the passphrase in this file; it is read again at each start
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Id {
    #[command(subcommand)]
    pub(crate) command: Option<IdCommand>,
    /// Show the fingerprint as a QR code
    #[arg(long, conflicts_with = "words")]
    pub(crate) qr: bool,
    /// Show six words that two people can compare by voice
    #[arg(long)]
    pub(crate) words: bool,
    /// Another fingerprint (ni:…), or a PEM file with a public key, certificate or unprotected private key
    #[arg(long, value_name = "NI|FILE")]
    pub(crate) of: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdCommand {
    /// Give this home a new key that follows the one it has; contacts are told and confirm it
    ///
    /// Contacts, configuration and passphrase stay. The old key is kept: for 180 days the node announces, under the
    /// old fingerprint, which key follows it. There can be only one successor to a key.
    Succeed(Succeed),
}

#[derive(Debug, Args)]
pub(crate) struct Succeed {
    /// PEM file with the new private key (PKCS#8, Ed25519) [default: a fresh one]
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Listen here: quic://ip:port or tcp://ip:port; may be given several times [default: any address, port 7117]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Return once the node is ready and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Return when the node is ready: listening, and announced to its directories
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Contact {
    /// Trust a fingerprint under a name of your own
    Add {
        /// Your name for the contact
        name: String,
        /// The contact's fingerprint (ni:…)
        ni: String,
        /// Where to try first: quic://host:port or tcp://host:port; may be given several times
        #[arg(long, value_name = "ADDRESS")]
        at: Vec<String>,
    },
    /// List all contacts
    List,
    /// Show one contact
    Show {
        /// Name or fingerprint
        name: String,
    },
    /// Change a contact's name
    Rename {
        /// The name so far
        name: String,
        /// The new name
        new_name: String,
    },
    /// Trust a contact no longer; open connections are cut at once
    Remove {
        /// Name or fingerprint
        name: String,
    },
    /// Trust a node for nothing, whatever contacts and delegators say; open connections are cut at once
    Block {
        /// Name or fingerprint
        who: String,
    },
    /// Take a block back
    Unblock {
        /// Fingerprint, or the name under which it was blocked
        who: String,
    },
    /// List who is blocked
    Blocked,
    /// List strangers who tried to connect
    Requests {
        /// Forget them
        #[arg(long)]
        clear: bool,
    },
    /// Put contacts into groups
    #[command(subcommand)]
    Group(Group),
    /// Decide whether to follow a contact to a new key
    #[command(subcommand)]
    Succession(Succession),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Succession {
    /// List which keys claim to follow those of contacts, and what you decided
    List,
    /// Trust the new key from now on instead of the old one; open connections are cut at once
    Confirm {
        /// Name or fingerprint of the contact
        name: String,
        /// The new fingerprint (ni:…); needed where different keys claim to follow
        ni: Option<String>,
    },
    /// Stay with the key that the contact has
    Reject {
        /// Name or fingerprint of the contact
        name: String,
        /// Reject only this new fingerprint (ni:…) [default: every one that is undecided]
        ni: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Put contacts into a group
    Add {
        /// The group
        group: String,
        /// Names of contacts
        #[arg(required = true)]
        contacts: Vec<String>,
    },
    /// Take contacts out of a group
    Remove {
        /// The group
        group: String,
        /// Names of contacts
        #[arg(required = true)]
        contacts: Vec<String>,
    },
    /// List groups and who is in them
    List,
}

/// A source of record sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ViaSource {
    /// The zone's DNS
    Dns,
    /// The directory's HTTPS endpoint
    Https,
    /// The networks that this machine is on
    Lan,
    /// The members of this node's network
    Dht,
}

#[derive(Debug, Args)]
pub(crate) struct Discover {
    /// Fingerprint (ni:…) or a contact's name
    pub(crate) ni: String,
    /// Ask this source alone
    #[arg(long, value_enum)]
    pub(crate) via: Option<ViaSource>,
}

/// A transport that a command insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ViaTransport {
    /// TLS 1.3 over TCP
    Tcp,
    /// QUIC over UDP
    Quic,
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// Name or fingerprint of a contact
    pub(crate) contact: String,
    /// How many times
    #[arg(long, short = 'c', default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) count: u32,
    /// Pause between two pings
    #[arg(long, default_value = "1s")]
    pub(crate) interval: Span,
    /// Make a new connection, with its handshake, for each ping
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Insist on a transport
    #[arg(long, value_enum)]
    pub(crate) via: Option<ViaTransport>,
    /// How long to try to reach the contact
    #[arg(long, default_value = "10s")]
    pub(crate) wait: Span,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Name or fingerprint of a contact, or a group of contacts with @ before it; may be given several times
    #[arg(long, required_unless_present = "invite", value_name = "CONTACT|@GROUP")]
    pub(crate) to: Vec<String>,
    /// Send to whoever joins: print a link, wait for 'kith join LINK' on the other side, then send
    #[arg(long, conflicts_with = "to")]
    pub(crate) invite: bool,
    /// With --invite: your name for whoever joins [default: the one that they propose]
    #[arg(long = "as", value_name = "NAME", requires = "invite")]
    pub(crate) called: Option<String>,
    /// With --invite: how long the invitation is good for
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub(crate) valid: Span,
    /// With --invite: do not draw the link as a QR code
    #[arg(long, requires = "invite")]
    pub(crate) no_qr: bool,
    /// Insist on a transport
    #[arg(long, value_enum)]
    pub(crate) via: Option<ViaTransport>,
    /// How long the node tries to reach the contact, such as 60s or 2d; it does so without this command too
    #[arg(long, default_value = "60s")]
    pub(crate) wait: Span,
    /// How long the contact may take to accept, once the offer has arrived; 1s to 30d
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(crate) accept_within: Span,
    /// Send at most so much a second to each, such as 500KiB/s or 2MiB/s
    #[arg(long, value_name = "RATE")]
    pub(crate) limit: Option<Rate>,
    /// Return at once and leave the transfer to the node
    #[arg(long, conflicts_with = "invite")]
    pub(crate) detach: bool,
    /// Leave out what cannot be read, without a failure
    #[arg(long)]
    pub(crate) skip_unreadable: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Transfer {
    /// List transfers that are under way, wait or are paused
    List {
        /// Those that have ended too
        #[arg(long)]
        all: bool,
    },
    /// Show one transfer
    Show {
        /// The transfer's id, or the beginning of it
        id: String,
    },
    /// Pause transfers; they stay paused until they are resumed, also when the node starts again
    Pause {
        /// Ids, beginnings of ids, or contacts, of which all transfers are meant
        #[arg(required = true, value_name = "ID|CONTACT")]
        which: Vec<String>,
    },
    /// Go on with paused transfers
    Resume {
        /// Ids, beginnings of ids, or contacts, of which all transfers are meant
        #[arg(required = true, value_name = "ID|CONTACT")]
        which: Vec<String>,
    },
    /// Limit the bandwidth of a transfer
    Limit {
        /// The transfer's id, or the beginning of it
        id: String,
        /// Such as 500KiB/s or 2MiB/s, or "off"
        rate: String,
    },
    /// End transfers; an offer that waits here is declined
    Cancel {
        /// Ids, or beginnings of ids
        #[arg(required = true, value_name = "ID")]
        which: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// Only from this contact
    #[arg(long, value_name = "CONTACT")]
    pub(crate) from: Option<String>,
    /// Folder to receive into; it is made if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) into: PathBuf,
    /// Accept without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Replace files that are there and differ
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Go on receiving after the first transfer
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Blob {
    /// Publish a file's bytes (at most 4 KiB by default) in this node's record set
    Put {
        /// The file, or - for standard input
        file: PathBuf,
    },
    /// Fetch what a fingerprint published and write it to standard output
    Get {
        /// Fingerprint (ni:…) or a contact's name
        ni: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Directory {
    /// Serve the zone named by the authority in the configuration
    Serve(Serve),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Listen for HTTPS here [default: any address, port 443]; "off" for none
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen_https: Vec<String>,
    /// Listen for DNS over UDP and TCP here [default: any address, port 53]; "off" for none
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen_dns: Vec<String>,
    /// The zone's authority, where it is not the first of the configuration
    #[arg(long)]
    pub(crate) authority: Option<String>,
    /// Certificate chain (PEM) of the HTTPS endpoint, instead of this identity's own
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key (PEM) to --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Keep the zone on Redis or Valkey instead of in the home: redis://HOST:PORT, or several times for a cluster;
    /// an address with a password belongs into kith.toml, where no other user can read it
    #[arg(long, value_name = "URL")]
    pub(crate) store: Vec<String>,
    /// Acknowledge an announce when this many replicas of the store have it [default: 0, for a cluster 1]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) store_replicas: Option<u32>,
    /// Certificates (PEM) of the authorities that vouch for the servers of a rediss:// store, instead of the public ones
    #[arg(long, value_name = "FILE")]
    pub(crate) store_ca: Option<PathBuf>,
    /// Take announces only of the fingerprints in this file, one ni: name a line
    #[arg(long, value_name = "FILE")]
    pub(crate) members: Option<PathBuf>,
    /// Give out metrics for Prometheus here, on a loopback address
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Run the node as 'kith up' does, and relay for others
    ///
    /// The settings of relays in kith.toml hold, but for whom is relayed where --for says it.
    Serve(RelayServe),
    /// List the relays through which this node is to be reached, and what it does for others
    List,
}

#[derive(Debug, Args)]
pub(crate) struct RelayServe {
    /// Whom to relay for: contacts, group:NAME or anyone [default: what kith.toml says, else contacts]
    #[arg(long = "for", value_name = "WHOM")]
    pub(crate) serves: Option<Served>,
    /// Listen here: quic://ip:port or tcp://ip:port; may be given several times [default: any address, port 7117]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InstallService {
    /// Print the unit and change nothing
    #[arg(long, conflicts_with_all = ["remove", "no_start"])]
    pub(crate) print: bool,
    /// Stop the service and remove its unit
    #[arg(long, conflicts_with = "no_start")]
    pub(crate) remove: bool,
    /// Write the unit alone
    #[arg(long)]
    pub(crate) no_start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command, word by word; the program's own page where it is left out
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands
    #[arg(long, requires = "into", conflicts_with = "command")]
    pub(crate) all: bool,
    /// Folder for the pages; it is made if it does not exist
    #[arg(long, value_name = "DIR", requires = "all")]
    pub(crate) into: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        crate::help::command().debug_assert();
    }
}
