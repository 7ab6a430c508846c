//! The commands' side of the control socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kith_sansio::{Span, system};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::failure::{Failure, Result};
use crate::output::say;

/// How long a command waits for a node that is starting.
pub(crate) const STARTING: Span = Span::secs(10);
/// Largest answer that is no stream.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// One connection to the node's control socket.
pub(crate) struct Control {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Control {
    /// Connects to a node that is running; `None` where there is none.
    pub(crate) async fn connect(socket: &Path) -> Option<Control> {
        let stream = UnixStream::connect(socket).await.ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(Control { sender })
    }

    /// Connects to a node, waiting up to [`STARTING`] for one that is starting.
    pub(crate) async fn wait(socket: &Path, home: &Path) -> Result<Control> {
        let started = system::time();
        let mut told = false;
        loop {
            if let Some(control) = Control::connect(socket).await {
                return Ok(control);
            }
            let waited = system::time() - started;
            if waited >= STARTING {
                return Err(no_node(home));
            }
            if !told && waited > Span::secs(1) {
                told = true;
                let _ = say(&format!("waiting for the node of {} to start …", home.display()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One request, one JSON answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let response = self.send(method, path, body).await?;
        let bytes = collect(response).await?;
        serde_json::from_slice(if bytes.is_empty() { b"null" } else { &bytes }).map_err(unexpected)
    }

    /// `GET path`.
    pub(crate) async fn read<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// One request whose answer is a stream of JSON lines.
    pub(crate) async fn lines(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Lines> {
        let response = self.send(method, path, body).await?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new() })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>> {
        let bytes = body.map(serde_json::to_vec).transpose().map_err(Failure::failed)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kith")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes.unwrap_or_default())))
            .map_err(Failure::failed)?;
        self.sender.ready().await.map_err(gone)?;
        let response = self.sender.send_request(request).await.map_err(gone)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = collect(response).await?;
        Err(serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            Failure::failed(format!("the node answered {status}: {}", String::from_utf8_lossy(&bytes)))
        }))
    }
}

/// The JSON lines of an answer.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; `None` at the end of the stream.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return parse_line(&line).map(Some);
            }
            if self.buffer.len() > MAX_ANSWER_BYTES {
                return Err(Failure::failed("the node sent a line without an end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(gone(error)),
                None => return Ok(None),
            }
        }
    }
}

/// A line is a value or, where work failed after the answer had begun, `{"failure": …}` alone.
fn parse_line<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Broken {
        failure: Failure,
    }
    if let Ok(Broken { failure }) = serde_json::from_slice(line) {
        return Err(failure);
    }
    serde_json::from_slice(line).map_err(unexpected)
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    body.collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| Failure::failed(format!("the node's answer broke off: {error}")))
}

/// No node runs on this home.
pub(crate) fn no_node(home: &Path) -> Failure {
    Failure::failed(format!("no node is running on {}", home.display()))
        .hint(format!("start one with 'kith --home {} up'", home.display()))
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function value in map_err")]
fn gone(error: hyper::Error) -> Failure {
    Failure::failed(format!("the node went away: {error}"))
        .hint("run 'kith up' again; transfers go on where they stopped")
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function value in map_err")]
fn unexpected(error: serde_json::Error) -> Failure {
    Failure::failed(format!("the node's answer is not what this command expects: {error}"))
        .hint("node and command may be of different versions: stop the node and start it again")
}
