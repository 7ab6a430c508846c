use kith_sansio::Span;
use redis::{ErrorKind, ServerError, ServerErrorKind};

use super::RedisServer;

/// What a Redis or Valkey store did not do, and on which server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// No server did it in time.
    #[error("the store did not do it within {waited}: {last}")]
    NoAnswer {
        /// How long it was tried.
        waited: Span,
        /// What happened last.
        last: String,
    },
    /// Too few replicas have it; it must be announced again.
    #[error("{got} of {wanted} replicas of {server} confirmed the announce")]
    NotReplicated {
        /// The master.
        server: RedisServer,
        /// How many had to.
        wanted: u32,
        /// How many did.
        got: u32,
    },
    /// The queue is full.
    #[error("too many requests wait for {server}")]
    Busy {
        /// The server.
        server: RedisServer,
    },
    /// The server refuses, and will refuse again.
    #[error("{server} refuses: {code} {answer}")]
    Refused {
        /// The server.
        server: RedisServer,
        /// The first word of its answer, such as NOAUTH.
        code: String,
        /// The rest.
        answer: String,
    },
    /// The server would lose what it acknowledged.
    #[error("{server} runs with {setting} = {value}, so that it can lose what it acknowledged")]
    Settings {
        /// The server.
        server: RedisServer,
        /// Its setting.
        setting: &'static str,
        /// What it is set to.
        value: String,
    },
    /// No authority that counts vouches for the server under its name.
    #[error("the certificate of {server} is not trusted: {reason}")]
    NotTrusted {
        /// The server.
        server: RedisServer,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// The certificates of the authorities cannot be used.
    #[error("the certificates of the store's authorities cannot be used: {0}")]
    Authorities(String),
    /// The answer makes no sense.
    #[error("{server} gave an answer that is none to {question}")]
    Strange {
        /// The server.
        server: String,
        /// What was asked.
        question: &'static str,
    },
}

impl RedisError {
    /// What the operator of the directory can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            RedisError::NoAnswer { .. } => "check that the store's servers run and can be reached from here",
            RedisError::NotReplicated { .. } => {
                "check the replicas of the store, or ask for fewer with store-replicas"
            }
            RedisError::Busy { .. } => "try again in a moment",
            RedisError::Refused { code, .. } => refusal_hint(code),
            RedisError::Settings { setting: "maxmemory-policy", .. } => "set maxmemory-policy noeviction",
            RedisError::Settings { .. } => {
                "set appendonly yes, appendfsync always and no-appendfsync-on-rewrite no"
            }
            RedisError::NotTrusted { .. } => {
                "name the authority that made it with store-ca, and the server as the certificate names it"
            }
            RedisError::Authorities(_) => "store-ca is a file of certificates in PEM form",
            RedisError::Strange { .. } => "is it Redis 6.2, Valkey 7.2 or newer?",
        }
    }

    /// Whether the same request may succeed in a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            RedisError::NoAnswer { .. } | RedisError::NotReplicated { .. } | RedisError::Busy { .. }
        )
    }
}

fn refusal_hint(code: &str) -> &'static str {
    match code {
        "NOAUTH" | "WRONGPASS" => "write user and password into the address: redis://USER:PASSWORD@HOST",
        "NOPERM" => "give the user every command on its own keys: ACL SETUSER NAME ~kith:* +@all",
        "OOM" => "give the store more memory (maxmemory)",
        "MISCONF" => "look at the store's log: it cannot write to its disk",
        "NOREPLICAS" => "check the replicas of the store (min-replicas-to-write)",
        "CROSSSLOT" | "CLUSTER" => "write the address of a cluster as redis-cluster://HOST:PORT,HOST:PORT",
        _ => "look at the store's log",
    }
}

/// How one try went wrong.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// It may go better in a moment, perhaps elsewhere.
    Again(String),
    /// Enough replicas did not confirm.
    NotReplicated(RedisError),
    /// The keys are at another server now.
    Moved,
    /// The keys are on their way to this server.
    Ask(RedisServer),
    /// It will go wrong again.
    Final(RedisError),
}

impl Trouble {
    /// What an answer says that is an error.
    pub(super) fn answer(server: &RedisServer, error: &ServerError) -> Trouble {
        let details = error.details().unwrap_or_default();
        match error.kind() {
            Some(ServerErrorKind::Moved) => Trouble::Moved,
            Some(ServerErrorKind::Ask) => match details.rsplit(' ').next().map(str::parse) {
                Some(Ok(to)) => Trouble::Ask(to),
                _ => Trouble::Moved,
            },
            Some(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::NoScript,
            ) => Trouble::Again(format!("{server} says {} {details}", error.code())),
            // A master that became a replica, too few replicas, a script that runs long: these pass.
            _ if matches!(error.code(), "UNBLOCKED" | "NOREPLICAS" | "BUSY") => {
                Trouble::Again(format!("{server} says {} {details}", error.code()))
            }
            _ => Trouble::Final(RedisError::Refused {
                server: server.clone(),
                code: error.code().to_owned(),
                answer: details.chars().take(200).collect(),
            }),
        }
    }

    /// What went wrong in a TLS handshake.
    pub(super) fn handshake(server: &RedisServer, error: &std::io::Error) -> Trouble {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                let (server, reason) = (server.clone(), reason.to_string());
                Trouble::Final(RedisError::NotTrusted { server, reason })
            }
            _ => Trouble::Again(format!("{server}: {error}")),
        }
    }

    /// What went wrong on the way to an answer.
    pub(super) fn connection(server: &RedisServer, error: &redis::RedisError) -> Trouble {
        match error.kind() {
            ErrorKind::Io => Trouble::Again(format!("{server}: {error}")),
            ErrorKind::AuthenticationFailed | ErrorKind::Extension | ErrorKind::Server(_)
                if !matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN")) =>
            {
                Trouble::Final(RedisError::Refused {
                    server: server.clone(),
                    code: error.code().unwrap_or("WRONGPASS").to_owned(),
                    answer: error.detail().unwrap_or(error.category()).chars().take(200).collect(),
                })
            }
            _ => Trouble::Again(format!("{server}: {error}")),
        }
    }
}
