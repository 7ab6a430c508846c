use std::fmt;
use std::str::FromStr;

/// The port of Redis and Valkey.
const PORT: u16 = 6379;
/// Longest address of a store in bytes, and most servers in it.
const MAX_URL_BYTES: usize = 4096;
const MAX_SERVERS: usize = 64;
/// Longest name of a server in bytes.
const MAX_HOST_BYTES: usize = 255;
/// Longest prefix of the keys in bytes.
const MAX_PREFIX_BYTES: usize = 300;

/// Where a Redis or Valkey store is, how to log in there, and what makes an announce durable.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The server; of a cluster some of its servers, the others are learned from them.
    pub servers: Vec<RedisServer>,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// Whether to speak TLS.
    pub tls: bool,
    /// Certificates (PEM) of the authorities that may vouch for a server; the roots of the Web PKI where this is empty.
    pub ca: Option<Vec<u8>>,
    /// Number of the database; a cluster has only 0.
    pub database: u16,
    /// User name, where the server has several.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// How many replicas must have an announce before it is acknowledged; where this is empty none, and one in a
    /// cluster.
    pub replicas: Option<u32>,
    /// What the keys begin with; zones on one store differ in it.
    pub prefix: String,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisServer {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why a text is no address of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisUrlError {
    /// It begins otherwise.
    #[error("a store's address begins with redis://, rediss://, redis-cluster:// or rediss-cluster://")]
    Scheme,
    /// A server in it cannot be read.
    #[error("'{0}' is no HOST:PORT")]
    Server(String),
    /// The number of the database cannot be read.
    #[error("'{0}' is no number of a database")]
    Database(String),
    /// A cluster has one database.
    #[error("a cluster has no database but 0")]
    ClusterDatabase,
    /// The user or the password cannot be read.
    #[error("the user or the password is not written as in a URL (%XX for special characters)")]
    Login,
    /// One server was expected.
    #[error("several servers are a cluster: write redis-cluster://HOST:PORT,HOST:PORT")]
    Several,
    /// Addresses of one cluster do not agree.
    #[error("the addresses of one cluster differ in scheme, user or password")]
    Differ,
    /// Nothing is in it.
    #[error("there is no address")]
    Empty,
    /// It is too long, or names too many servers.
    #[error("the address is too long")]
    TooLong,
}

impl RedisConfig {
    /// Reads `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]` (with TLS `rediss://`), a cluster as
    /// `redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT` or as several of the first form.
    pub fn parse<T: AsRef<str>>(urls: &[T]) -> Result<RedisConfig, RedisUrlError> {
        if urls.len() > MAX_SERVERS {
            return Err(RedisUrlError::TooLong);
        }
        let mut all = urls.iter().map(|url| parse_one(url.as_ref()));
        let mut config = all.next().ok_or(RedisUrlError::Empty)??;
        for more in all {
            let more = more?;
            config.cluster = true;
            if (more.tls, &more.user, &more.password) != (config.tls, &config.user, &config.password) {
                return Err(RedisUrlError::Differ);
            }
            config.database = config.database.max(more.database);
            config.servers.extend(more.servers);
        }
        match () {
            () if config.servers.len() > MAX_SERVERS => Err(RedisUrlError::TooLong),
            () if config.cluster && config.database != 0 => Err(RedisUrlError::ClusterDatabase),
            () if !config.cluster && config.servers.len() > 1 => Err(RedisUrlError::Several),
            () => Ok(config),
        }
    }

    /// The same store with other keys: `kith:ZONE`.
    #[must_use]
    pub fn for_zone(mut self, zone: &str) -> RedisConfig {
        // A brace would move the hash tag, and with it the keys of a set to different slots.
        let zone: String = zone.chars().filter(|c| !matches!(c, '{' | '}')).take(MAX_PREFIX_BYTES).collect();
        self.prefix = format!("kith:{}", zone.to_ascii_lowercase());
        self
    }

    /// How many replicas must have an announce.
    pub(super) fn wanted_replicas(&self) -> u32 {
        self.replicas.unwrap_or(u32::from(self.cluster))
    }
}

fn parse_one(url: &str) -> Result<RedisConfig, RedisUrlError> {
    if url.len() > MAX_URL_BYTES {
        return Err(RedisUrlError::TooLong);
    }
    let (scheme, rest) = url.split_once("://").ok_or(RedisUrlError::Scheme)?;
    let (tls, cluster) = match scheme {
        "redis" => (false, false),
        "rediss" => (true, false),
        "redis-cluster" => (false, true),
        "rediss-cluster" => (true, true),
        _ => return Err(RedisUrlError::Scheme),
    };
    let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
    let (user, password) = login.map_or(Ok((None, None)), parse_login)?;
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = match database {
        "" => 0,
        text => text.parse().map_err(|_| RedisUrlError::Database(text.to_owned()))?,
    };
    let servers = hosts.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let prefix = "kith".to_owned();
    Ok(RedisConfig { servers, cluster, tls, ca: None, database, user, password, replicas: None, prefix })
}

fn parse_login(login: &str) -> Result<(Option<String>, Option<String>), RedisUrlError> {
    let (user, password) = login.split_once(':').ok_or(RedisUrlError::Login)?;
    let some = |text: &str| -> Result<Option<String>, RedisUrlError> {
        let plain = unescape(text).ok_or(RedisUrlError::Login)?;
        Ok(Some(plain).filter(|plain| !plain.is_empty()))
    };
    Ok((some(user)?, some(password)?))
}

/// Resolves `%XX`.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

impl FromStr for RedisServer {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || RedisUrlError::Server(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
            None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if port.is_empty() => PORT,
            None => return Err(wrong()),
        };
        RedisServer::new(host, port).ok_or_else(wrong)
    }
}

impl RedisServer {
    /// A server whose name holds nothing that no name or address holds.
    pub(super) fn new(host: &str, port: u16) -> Option<RedisServer> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@,[]{}".contains(c);
        let is_name = !host.is_empty() && host.len() <= MAX_HOST_BYTES && !host.contains(odd);
        Some(RedisServer { host: host.to_owned(), port }).filter(|_| is_name && port != 0)
    }
}

impl fmt::Display for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Without user and password.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tls, cluster) = (if self.tls { "s" } else { "" }, if self.cluster { "-cluster" } else { "" });
        let servers: Vec<_> = self.servers.iter().map(ToString::to_string).collect();
        write!(f, "redis{tls}{cluster}://{}", servers.join(","))?;
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisConfig({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<RedisConfig, RedisUrlError> {
        RedisConfig::parse(&[url])
    }

    #[test]
    fn addresses_are_read() {
        let one = parse("redis://localhost").unwrap();
        assert_eq!((one.cluster, one.tls, one.database, one.wanted_replicas()), (false, false, 0, 0));
        assert_eq!(one.servers, [RedisServer { host: "localhost".to_owned(), port: 6379 }]);
        let full = parse("rediss://us%65r:p%40ss:w@[::1]:7000/3").unwrap();
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("user"), Some("p@ss:w")));
        assert_eq!((full.tls, full.database, full.servers[0].port), (true, 3, 7000));
        assert_eq!(full.to_string(), "rediss://[::1]:7000/3");
        assert!(!format!("{full:?}").contains("p@ss"));
        let only_password = parse("redis://:secret@h").unwrap();
        assert_eq!((only_password.user, only_password.password.as_deref()), (None, Some("secret")));
    }

    #[test]
    fn a_cluster_is_one_address_of_several_servers_or_several_addresses() {
        let one = parse("redis-cluster://:x@a:1,b:2,c").unwrap();
        assert_eq!((one.servers.len(), one.cluster, one.wanted_replicas()), (3, true, 1));
        let several = RedisConfig::parse(&["redis://:x@a:1", "redis://:x@b:2", "redis://:x@c"]).unwrap();
        assert_eq!(one, several);
        assert_eq!(one.for_zone("Example.org").prefix, "kith:example.org");
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for (url, error) in [
            ("localhost:6379", RedisUrlError::Scheme),
            ("http://localhost", RedisUrlError::Scheme),
            ("redis://", RedisUrlError::Server(String::new())),
            ("redis://a:x", RedisUrlError::Server("a:x".to_owned())),
            ("redis://a:0", RedisUrlError::Server("a:0".to_owned())),
            ("redis://a/x", RedisUrlError::Database("x".to_owned())),
            ("redis://a,b", RedisUrlError::Several),
            ("redis-cluster://a,b/1", RedisUrlError::ClusterDatabase),
            ("redis://word@a", RedisUrlError::Login),
            ("redis://:%zz@a", RedisUrlError::Login),
        ] {
            assert_eq!(parse(url), Err(error), "{url}");
        }
        assert_eq!(RedisConfig::parse::<&str>(&[]), Err(RedisUrlError::Empty));
        assert_eq!(RedisConfig::parse(&["redis://a", "rediss://b"]), Err(RedisUrlError::Differ));
        assert_eq!(parse(&format!("redis://{}", "a".repeat(5000))), Err(RedisUrlError::TooLong));
    }
}
