//! `kith.toml`: every key has a default, an unknown key is an error that names the nearest known one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kith_connect::relay::limits::MAX_RELAYS;
use kith_directory::store::RedisConfig;
use kith_identity::contacts::Group;
use kith_identity::{Address, Authority, Ni, Relay};
use kith_sansio::Span;
use kith_store::{Home, HomeError};
use kith_transfer::Rate;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

mod network;

pub(crate) use self::network::Network;

/// Name of the file in the home folder.
pub(crate) const FILE: &str = "kith.toml";
/// A configuration larger than this is not one.
const MAX_BYTES: u64 = 256 * 1024;
/// Every key that a configuration may hold, tables by their dotted name.
const KNOWN: &[&str] = &[
    "name",
    "authorities",
    "resolvers",
    "listen",
    "ttl",
    "passphrase-file",
    "pins",
    "directory",
    "directory.authority",
    "directory.listen-https",
    "directory.listen-dns",
    "directory.certificate",
    "directory.key",
    "directory.max-blob-bytes",
    "directory.address-records",
    "directory.store",
    "directory.store-replicas",
    "directory.store-ca",
    "directory.members",
    "directory.allow",
    "directory.metrics",
    "directory.dns-sockets",
    "directory.max-connections",
    "directory.max-connections-per-network",
    "directory.announces-per-minute",
    "directory.network-announces-per-second",
    "directory.dns-answers-per-second",
    "delegator",
    "delegator.serve",
    "delegator.file",
    "delegator.lease",
    "network",
    "network.epoch",
    "network.colluding",
    "dht",
    "dht.publish",
    "transfer",
    "transfer.limit-up",
    "transfer.limit-down",
    "lan",
    "relay",
    "relay.for",
    "relay.use",
    "relay.only",
    "relay.sessions",
    "relay.bytes-per-day",
    "relay.bytes-per-second",
    "port-mapping",
    "directory.name-servers",
    "directory.secondary",
    "directory.secondary.address",
    "directory.secondary.key",
    "directory.tsig-key",
    "directory.tsig-key.name",
    "directory.tsig-key.algorithm",
    "directory.tsig-key.secret-file",
];

/// The whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// A name for this node: shown to its owner, and proposed to whom it invites or joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Directories to announce to.
    #[serde(with = "texts")]
    pub(crate) authorities: Vec<Authority>,
    /// DNS servers to ask instead of the system's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resolvers: Vec<SocketAddr>,
    /// Addresses to listen on; empty for any address, port 7117.
    #[serde(with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub(crate) listen: Vec<Address>,
    /// How long an announced record set is valid.
    #[serde(with = "text")]
    pub(crate) ttl: Span,
    /// Whether contacts find this node on local networks, and it them.
    #[serde(skip_serializing_if = "is_on")]
    pub(crate) lan: bool,
    /// Whether the router is asked for ports that lead to this node.
    #[serde(skip_serializing_if = "is_on")]
    pub(crate) port_mapping: bool,
    /// File with the passphrase of the key file, for starts without a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Fingerprints of directories that have no certificate from a public authority, by authority.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) pins: BTreeMap<String, String>,
    /// A zone that this node serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<Zone>,
    /// Whether and how this node is a delegator.
    #[serde(skip_serializing_if = "Delegator::is_default")]
    pub(crate) delegator: Delegator,
    /// How the network runs that this node issues.
    #[serde(skip_serializing_if = "Network::is_default")]
    pub(crate) network: Network,
    /// What this node publishes among the members of the network that it belongs to.
    #[serde(skip_serializing_if = "Dht::is_default")]
    pub(crate) dht: Dht,
    /// What all transfers together may use.
    #[serde(skip_serializing_if = "Bandwidth::is_default")]
    pub(crate) transfer: Bandwidth,
    /// Relaying for others, and being reached through others.
    #[serde(skip_serializing_if = "Relaying::is_default")]
    pub(crate) relay: Relaying,
}

/// Whether this node manages whom others trust, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Delegator {
    /// Serve the members of the policy.
    pub(crate) serve: bool,
    /// The policy, where it is kept in a file and not by commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// How long a list holds after the last word of this node; an hour where it is missing.
    #[serde(with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<Span>,
}

impl Delegator {
    fn is_default(&self) -> bool {
        *self == Delegator::default()
    }

    /// The file that says who may reach whom, where this node serves what it says.
    pub(crate) fn followed(&self) -> Option<&Path> {
        self.file.as_deref().filter(|_| self.serve)
    }

    /// How long a list holds after the last word of this node.
    pub(crate) fn lease(&self) -> Span {
        self.lease.unwrap_or(kith_connect::defaults::LEASE)
    }
}

/// What a node publishes among the members of the network that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Dht {
    /// For whom its record set is published there.
    pub(crate) publish: Publish,
}

impl Dht {
    fn is_default(&self) -> bool {
        *self == Dht::default()
    }
}

/// For whom a node publishes its record set in the DHT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Publish {
    /// For every member.
    #[default]
    Open,
    /// For contacts, blinded: others neither find it nor read it.
    Contacts,
    /// For nobody.
    None,
}

/// Limits of bandwidth, for all transfers of the node together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Bandwidth {
    /// Bytes a second to contacts.
    #[serde(with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub(crate) limit_up: Option<Rate>,
    /// Bytes a second from contacts.
    #[serde(with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub(crate) limit_down: Option<Rate>,
}

/// Relaying for others, and being reached through others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Relaying {
    /// Whom this node relays for: `contacts`, `group:NAME` or `anyone`; nobody where it is missing.
    #[serde(rename = "for", with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub(crate) serves: Option<Served>,
    /// Relays through which this node is to be reached, the preferred first.
    #[serde(rename = "use", with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub(crate) uses: Vec<Ni>,
    /// Whether the record set names the relays alone, and no address of this node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) only: bool,
    /// Sessions of one fingerprint at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sessions: Option<u32>,
    /// Bytes of one fingerprint in a day.
    #[serde(with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_day: Option<Size>,
    /// Bytes a second of all sessions of one fingerprint together.
    #[serde(with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_second: Option<Rate>,
}

impl Relaying {
    fn is_default(&self) -> bool {
        *self == Relaying::default()
    }

    fn check(&self) -> Result<()> {
        if self.uses.len() > MAX_RELAYS {
            let named = self.uses.len();
            return Err(Failure::failed(format!(
                "relay.use names {named} relays, {MAX_RELAYS} at most are used"
            )));
        }
        if self.only && self.uses.is_empty() {
            return Err(Failure::failed("relay.only leaves this node without any way to be reached")
                .hint("name its relays: relay.use = [\"ni:…\"]"));
        }
        Ok(())
    }

    /// The relays to use, each with its place as preference.
    pub(crate) fn used(&self) -> Vec<Relay> {
        (1..).zip(&self.uses).map(|(preference, ni)| Relay { preference, ni: ni.clone() }).collect()
    }
}

/// Whom a node relays for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// Whoever asks.
    Anyone,
    /// Contacts.
    Contacts,
    /// Contacts in this group.
    Group(Group),
}

impl FromStr for Served {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Served, String> {
        match (text, text.strip_prefix("group:")) {
            ("anyone", _) => Ok(Served::Anyone),
            ("contacts", _) => Ok(Served::Contacts),
            (_, Some(group)) => group.parse().map(Served::Group).map_err(|error| format!("{error}")),
            _ => Err(format!("'{text}' is not contacts, group:NAME or anyone")),
        }
    }
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Served::Anyone => f.write_str("anyone"),
            Served::Contacts => f.write_str("contacts"),
            Served::Group(group) => write!(f, "group:{group}"),
        }
    }
}

/// A number of bytes, such as `10GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Size, String> {
        let wrong = || format!("'{text}' is no size such as 500MiB or 10GiB");
        let split = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (number, unit) = split.ok_or_else(wrong)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        bytes.map(Size).ok_or_else(wrong)
    }
}

/// In the largest unit that leaves no remainder.
impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = UNITS.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        let (unit, bytes) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl Bandwidth {
    fn is_default(&self) -> bool {
        *self == Bandwidth::default()
    }
}

/// A zone that is served from here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Zone {
    /// The zone's authority; the first of `authorities` where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    /// HTTPS endpoints.
    pub(crate) listen_https: Vec<SocketAddr>,
    /// DNS endpoints, UDP and TCP.
    pub(crate) listen_dns: Vec<SocketAddr>,
    /// Certificate chain of the HTTPS endpoint (PEM); this identity's own where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// Private key to `certificate` (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// Largest blob accepted, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_blob_bytes: Option<usize>,
    /// Whether to answer A and AAAA for announced global addresses.
    pub(crate) address_records: bool,
    /// Address of a Redis or Valkey store, several for a cluster; a database in the home where there is none.
    #[serde(deserialize_with = "one_or_several", skip_serializing_if = "Vec::is_empty")]
    pub(crate) store: Vec<String>,
    /// How many replicas must have an announce before it is acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_replicas: Option<u32>,
    /// Certificates (PEM) of the authorities that may vouch for the store's servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store_ca: Option<PathBuf>,
    /// File with the fingerprints that may announce; with it, or with `allow`, the zone is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) members: Option<PathBuf>,
    /// Fingerprints that may announce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow: Option<Vec<String>>,
    /// Where metrics are given out: a loopback address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Sockets that receive DNS over UDP on each address; as many as there are processors where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns_sockets: Option<usize>,
    /// Connections at once, for HTTPS and for DNS over TCP each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_connections: Option<usize>,
    /// Connections at once from one source network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_connections_per_network: Option<usize>,
    /// Announces of one fingerprint; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) announces_per_minute: Option<u32>,
    /// Announces from one source network; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network_announces_per_second: Option<u32>,
    /// Answers over UDP to one source network; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns_answers_per_second: Option<u32>,
    /// Hosts that the zone is delegated to, the primary first; the authority's host where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) name_servers: Vec<String>,
    /// Servers that take over the zone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secondary: Vec<Secondary>,
    /// The keys that they sign with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tsig_key: Vec<TsigKey>,
}

/// A server that takes over the zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Secondary {
    /// Where it hears of changes.
    pub(crate) address: SocketAddr,
    /// The name of its key.
    pub(crate) key: String,
}

/// A key that two name servers share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TsigKey {
    /// Its name, the same on both sides.
    pub(crate) name: String,
    /// How it signs: hmac-sha256, hmac-sha384 or hmac-sha512.
    #[serde(default = "hmac_sha256")]
    pub(crate) algorithm: String,
    /// File with the secret in base64, for its owner alone.
    pub(crate) secret_file: PathBuf,
}

fn is_on(switch: &bool) -> bool {
    *switch
}

fn hmac_sha256() -> String {
    "hmac-sha256".to_owned()
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: None,
            authorities: Vec::new(),
            resolvers: Vec::new(),
            listen: Vec::new(),
            ttl: Span::secs(3_600),
            lan: true,
            port_mapping: true,
            passphrase_file: None,
            pins: BTreeMap::new(),
            directory: None,
            delegator: Delegator::default(),
            network: Network::default(),
            dht: Dht::default(),
            transfer: Bandwidth::default(),
            relay: Relaying::default(),
        }
    }
}

impl Config {
    /// Reads the configuration of `home`; a missing file is all defaults.
    pub(crate) fn load(home: &Home) -> Result<Config> {
        let path = home.path(FILE);
        let bytes = match home.read(FILE, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(HomeError::NotFound { .. }) => return Ok(Config::default()),
            Err(error) => return Err(Failure::failed(crate::failure::chain(&error))),
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::failed(format!("{} is not UTF-8 text", path.display())))?;
        Config::parse(&text).map_err(|mut failure| {
            failure.error = format!("{}: {}", path.display(), failure.error);
            failure
        })
    }

    /// Reads a configuration from its text.
    pub(crate) fn parse(text: &str) -> Result<Config> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::failed(one_line(&error)).hint("mend the file, or move it away to start from defaults")
        })?;
        refuse_unknown(&table, "")?;
        let config: Config = toml::from_str(text).map_err(|error| Failure::failed(one_line(&error)))?;
        let seconds = config.ttl.as_secs();
        if !(1..=86_400).contains(&seconds) {
            return Err(Failure::failed(format!("ttl is {}, it must be 1s to 1d", config.ttl)));
        }
        config.check_lease()?;
        config.network.check()?;
        config.pinned()?;
        config.relay.check()?;
        config.directory.as_ref().map_or(Ok(None), Zone::redis)?;
        Ok(config)
    }

    /// Refuses a lease that subscribers would not follow.
    pub(crate) fn check_lease(&self) -> Result<()> {
        let (shortest, longest) = kith_connect::defaults::LEASE_RANGE;
        let lease = self.delegator.lease();
        if (shortest..=longest).contains(&lease) {
            return Ok(());
        }
        Err(Failure::failed(format!("delegator.lease is {lease}, it must be {shortest} to {longest}")))
    }

    /// Writes the configuration into `home`.
    pub(crate) fn store(&self, home: &Home) -> Result<()> {
        let text = toml::to_string(self).map_err(Failure::failed)?;
        home.write_atomic(FILE, text.as_bytes(), 0o600)
            .map_err(|e| Failure::failed(crate::failure::chain(&e)))
    }

    /// The pins, parsed.
    pub(crate) fn pinned(&self) -> Result<Vec<(Authority, Ni)>> {
        self.pins
            .iter()
            .map(|(authority, ni)| {
                let wrong = |what: String| Failure::failed(format!("pins.\"{authority}\": {what}"));
                Ok((
                    authority.parse().map_err(|e| wrong(format!("{e}")))?,
                    ni.parse().map_err(|e| wrong(format!("{e}")))?,
                ))
            })
            .collect()
    }
}

impl Zone {
    /// The Redis or Valkey store, where the zone is on one.
    pub(crate) fn redis(&self) -> Result<Option<RedisConfig>> {
        if self.store.is_empty() {
            let keys =
                [("store-replicas", self.store_replicas.is_some()), ("store-ca", self.store_ca.is_some())];
            return match keys.iter().find(|(_, is_set)| *is_set) {
                None => Ok(None),
                Some((key, _)) => {
                    Err(Failure::failed(format!("directory.{key} is for a store on Redis or Valkey"))
                        .hint("name it: store = \"redis://HOST:PORT\""))
                }
            };
        }
        let mut redis = RedisConfig::parse(&self.store)
            .map_err(|error| Failure::failed(format!("directory.store: {error}")))?;
        if self.store_ca.is_some() && !redis.tls {
            return Err(Failure::failed("directory.store-ca is for a store that is reached over TLS")
                .hint("write its address as rediss://HOST:PORT"));
        }
        redis.replicas = self.store_replicas;
        Ok(Some(redis))
    }
}

/// A list, or a text alone.
fn one_or_several<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Several(Vec<String>),
    }
    Either::deserialize(from).map(|either| match either {
        Either::One(text) => vec![text],
        Either::Several(texts) => texts,
    })
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn refuse_unknown(table: &toml::Table, prefix: &str) -> Result<()> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if !KNOWN.contains(&name.as_str()) {
            let failure = Failure::failed(format!("unknown key '{name}'"));
            return Err(match nearest(&name) {
                Some(known) => failure.hint(format!("did you mean '{known}'?")),
                None => failure.hint(format!("known keys: {}", KNOWN.join(", "))),
            });
        }
        match value {
            toml::Value::Table(inner)
                if ["delegator", "directory", "network", "relay", "transfer"].contains(&name.as_str()) =>
            {
                refuse_unknown(inner, &name)?;
            }
            toml::Value::Array(entries) => {
                let mut tables = entries.iter().filter_map(toml::Value::as_table);
                tables.try_for_each(|inner| refuse_unknown(inner, &name))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn nearest(name: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        // Of two that are as near, one that was begun rightly is meant.
        .map(|known| (strsim::damerau_levenshtein(name, known), !known.starts_with(name), *known))
        .min()
        .filter(|(distance, _, known)| *distance <= known.len().div_ceil(2))
        .map(|(_, _, known)| known)
}

/// A value that has a text form.
mod text {
    use super::{Deserialize, FromStr};

    pub(super) fn serialize<T: std::fmt::Display, S: serde::Serializer>(
        value: &T,
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> std::result::Result<T, D::Error>
    where
        T: FromStr<Err: std::fmt::Display>,
        D: serde::Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A value that has a text form, or none.
mod maybe_text {
    use super::{Deserialize, FromStr};

    pub(super) fn serialize<T: std::fmt::Display, S: serde::Serializer>(
        value: &Option<T>,
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> std::result::Result<Option<T>, D::Error>
    where
        T: FromStr<Err: std::fmt::Display>,
        D: serde::Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

/// A list of values that have a text form.
mod texts {
    use super::{Deserialize, FromStr};

    pub(super) fn serialize<T: std::fmt::Display, S: serde::Serializer>(
        values: &[T],
        to: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> std::result::Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: std::fmt::Display>,
        D: serde::Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_is_read_and_names_every_key() {
        let text = include_str!("../../../docs/kith.example.toml");
        let config = Config::parse(text).unwrap();
        assert_eq!(config.authorities.len(), 1);
        for key in KNOWN.iter().filter(|key| !["delegator", "directory", "transfer"].contains(key)) {
            let last = key.rsplit('.').next().unwrap();
            assert!(text.contains(last), "the example does not show '{key}'");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let failure = Config::parse("authority = 'x'").unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("did you mean 'authorities'?"));
        let failure = Config::parse("[directory]\nlisten-htps = []").unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("did you mean 'directory.listen-https'?"));
        let failure = Config::parse("[[directory.tsig-key]]\nname = 'k'\nsecret = 'x'").unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("did you mean 'directory.tsig-key.secret-file'?"));
    }

    #[test]
    fn relays_are_read_written_back_and_refused_where_they_make_no_sense() {
        let one = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";
        let text = format!(
            "[relay]\nfor = 'group:family'\nuse = ['{one}']\nonly = true\nsessions = 3\n\
             bytes-per-day = '10GiB'\nbytes-per-second = '2MiB/s'\n"
        );
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.relay.serves, Some(Served::Group("family".parse().unwrap())));
        assert_eq!(config.relay.bytes_per_day, Some(Size(10 << 30)));
        assert_eq!(config.relay.used()[0].preference, 1);
        let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again.relay, config.relay);
        for (wrong, part) in [
            ("for = 'everybody'", "group:NAME"),
            ("for = 'group:'", "group"),
            ("only = true", "relay.only"),
            ("bytes-per-day = '10 giga'", "10GiB"),
            ("bytes-per-day = '99999999TiB'", "10GiB"),
            (&format!("use = [{}]", vec![format!("'{one}'"); 9].join(", ")), "9 relays"),
        ] {
            let failure = Config::parse(&format!("[relay]\n{wrong}")).unwrap_err();
            assert!(failure.error.contains(part), "{wrong}: {}", failure.error);
        }
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let text = "authorities = ['localhost:18443']\nttl = '10m'\nresolvers = ['127.0.0.1:53']\n";
        let config = Config::parse(text).unwrap();
        let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again.ttl, Span::secs(600));
        assert_eq!(again.authorities, config.authorities);
        assert_eq!(again.resolvers, config.resolvers);
    }

    #[test]
    fn a_store_is_one_address_or_several_and_is_written_back() {
        for (text, cluster) in [
            ("store = 'redis://:secret@a:1/2'", false),
            ("store = ['redis://a:1', 'redis://b:2']\nstore-replicas = 2", true),
        ] {
            let config = Config::parse(&format!("[directory]\n{text}")).unwrap();
            let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap().directory.unwrap();
            let redis = again.redis().unwrap().unwrap();
            assert_eq!((redis.cluster, redis.replicas), (cluster, cluster.then_some(2)));
        }
    }

    #[test]
    fn wrong_values_are_refused_with_their_reason() {
        for (text, part) in [
            ("ttl = '2d'", "1s to 1d"),
            ("ttl = 'soon'", "length of time"),
            ("[transfer]\nlimit-up = 'fast'", "no rate"),
            ("[delegator]\nlease = '5s'", "10s to 1d"),
            ("[network]\ncolluding = 0", "'0' is no number from 1 to"),
            ("[network]\ncolluding = '100%'", "nor a share from 0.1% to 99.9%"),
            ("[network]\nepoch = '5s'", "network.epoch is 5s, it must be 10s to 1d"),
            ("listen = ['udp://1.2.3.4:5']", "udp"),
            ("authorities = ['a b']", "a b"),
            ("pins = { 'x' = 'ni:nonsense' }", "pins"),
            ("ttl = ", "TOML"),
            ("[directory]\nstore = 'localhost:6379'", "redis://"),
            ("[directory]\nstore = ['redis://a', 'rediss://b']", "differ"),
            ("[directory]\nstore = 3", "store"),
            ("[directory]\nstore-replicas = 1", "store-replicas"),
            ("[directory]\nstore-ca = 'ca.pem'", "store-ca"),
            ("[directory]\nstore = 'redis://a'\nstore-ca = 'ca.pem'", "TLS"),
            ("[[directory.secondary]]\naddress = '192.0.2.1'\nkey = 'k'", "socket address"),
            ("[[directory.tsig-key]]\nname = 'k'", "secret-file"),
        ] {
            let failure = Config::parse(text).unwrap_err();
            assert!(failure.error.contains(part), "{text}: {}", failure.error);
        }
    }
}
