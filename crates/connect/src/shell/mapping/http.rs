//! One request to a router over HTTP.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::mapping::upnp::{Action, MAX_BODY_BYTES, Place};

/// Largest head of an answer in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Status and body of the answer; `None` where there is none that could be understood.
pub(super) async fn ask(place: &Place, action: Option<&Action>) -> Option<(u16, String)> {
    let stream = TcpStream::connect(place.at).await.ok()?;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::builder().uri(&place.path).header("host", place.at.to_string());
    let request = match action {
        None => request.method("GET").body(Full::new(Bytes::new())),
        Some(action) => request
            .method("POST")
            .header("content-type", "text/xml; charset=\"utf-8\"")
            .header("soapaction", &action.header)
            .body(Full::new(Bytes::from(action.body.clone()))),
    };
    let answer = async {
        let response = sender.send_request(request.ok()?).await.ok()?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8(body.to_vec()).ok()?))
    };
    // The connection ends with the answer.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
