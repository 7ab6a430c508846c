use std::sync::Arc;
use std::time::Duration;

use kith_identity::tls::{Trust, directory_client};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, Value, cmd};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::error::Trouble;
use super::{RedisConfig, RedisError, RedisServer};
use crate::defaults::{STORE_CONNECT, STORE_REPLY, STORE_WAIT};

/// One connection, which never becomes another: what WAIT says of it is true of all that went over it before.
pub(super) struct Link {
    server: RedisServer,
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Link {
    /// Connects and logs in.
    pub(super) async fn open(config: &RedisConfig, server: &RedisServer) -> Result<Link, Trouble> {
        let opening = async {
            let io = |error: &dyn std::fmt::Display| Trouble::Again(format!("{server}: {error}"));
            let stream = TcpStream::connect((server.host.as_str(), server.port)).await;
            let stream = stream.map_err(|error| io(&error))?;
            // Requests are gathered before they are sent. Failing to say so harms nobody.
            let _ = stream.set_nodelay(true);
            if !config.tls {
                return Link::over(config, server, stream).await;
            }
            let trust = trust(config).map_err(Trouble::Final)?;
            let tls = directory_client(&trust, None).map_err(|error| io(&error))?;
            let name = ServerName::try_from(server.host.clone()).map_err(|error| io(&error))?;
            let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
            Link::over(config, server, stream.map_err(|error| Trouble::handshake(server, &error))?).await
        };
        let late = || Trouble::Again(format!("{server}: no connection within {STORE_CONNECT}"));
        tokio::time::timeout(STORE_CONNECT.into(), opening).await.map_err(|_| late())?
    }

    async fn over<S>(config: &RedisConfig, server: &RedisServer, stream: S) -> Result<Link, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut login = RedisConnectionInfo::default().set_db(config.database.into());
        if let Some(user) = &config.user {
            login = login.set_username(user);
        }
        if let Some(password) = &config.password {
            login = login.set_password(password);
        }
        // Every exchange has its own time here, after which the connection is given up.
        let settings = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&login, stream, settings).await;
        let (connection, driver) = opened.map_err(|error| Trouble::connection(server, &error))?;
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Link { server: server.clone(), connection, driver })
    }

    /// Sends commands together; their answers in order. After an error nothing more may be sent.
    pub(super) async fn exchange(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Trouble> {
        let count = commands.len();
        let server = &self.server;
        let asking = self.connection.send_packed_commands(commands, 0, count);
        let answers = match tokio::time::timeout(STORE_REPLY.into(), asking).await {
            Err(_) => return Err(Trouble::Again(format!("{server}: no answer within {STORE_REPLY}"))),
            Ok(answers) => answers.map_err(|error| Trouble::connection(server, &error))?,
        };
        if answers.len() == count { Ok(answers) } else { Err(self.strange("several commands")) }
    }

    /// Sends one command.
    pub(super) async fn ask(&mut self, command: Cmd) -> Result<Value, Trouble> {
        let mut commands = redis::pipe();
        commands.add_command(command);
        match self.exchange(&commands).await?.pop() {
            Some(Value::ServerError(error)) => Err(Trouble::answer(&self.server, &error)),
            Some(value) => Ok(value),
            None => Err(self.strange("a command")),
        }
    }

    /// Loads scripts.
    pub(super) async fn load(&mut self, scripts: &[&str]) -> Result<(), Trouble> {
        for script in scripts {
            self.ask(cmd("SCRIPT").arg("LOAD").arg(*script).take()).await?;
        }
        Ok(())
    }

    /// Loads scripts, and makes sure that the server keeps what it acknowledges.
    pub(super) async fn prepare(&mut self, scripts: &[&str]) -> Result<(), Trouble> {
        self.load(scripts).await?;
        for (setting, safe) in [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("maxmemory-policy", "noeviction"),
        ] {
            let value = match self.ask(cmd("CONFIG").arg("GET").arg(setting).take()).await {
                Ok(value) => second_text(&value),
                // Whoever may not ask has to be believed; the operator's page says what must be set.
                Err(Trouble::Final(RedisError::Refused { code, .. })) if code != "NOAUTH" => None,
                Err(trouble) => return Err(trouble),
            };
            let Some(value) = value else {
                let server = &self.server;
                tracing::warn!(%server, setting, wanted = safe, "the store does not say how it is set");
                continue;
            };
            if value != safe {
                let server = self.server.clone();
                return Err(Trouble::Final(RedisError::Settings { server, setting, value }));
            }
        }
        Ok(())
    }

    fn strange(&self, question: &'static str) -> Trouble {
        Trouble::Final(RedisError::Strange { server: self.server.to_string(), question })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Who may vouch for a server.
fn trust(config: &RedisConfig) -> Result<Trust, RedisError> {
    let mut roots = RootCertStore::empty();
    match &config.ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| RedisError::Authorities(error.to_string()))?;
                roots.add(certificate).map_err(|error| RedisError::Authorities(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(RedisError::Authorities("there is none".to_owned()));
            }
        }
    }
    Ok(Trust::WebPki(Arc::new(roots)))
}

/// The value in an answer of CONFIG GET.
pub(super) fn second_text(value: &Value) -> Option<String> {
    let Value::Array(parts) = value else { return None };
    match parts.get(1)? {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// Waits until `replicas` have all that this connection wrote.
pub(super) fn wait_command(replicas: u32) -> Cmd {
    cmd("WAIT").arg(replicas).arg(Duration::from(STORE_WAIT).as_millis() as u64).take()
}
