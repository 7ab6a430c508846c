//! The node's side of the control socket: routes and handlers.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::shapes::{Announced, Status};
use super::wish::{Asked, MAX_BODY_BYTES};
use crate::failure::{Code, Failure};
use crate::node::Node;

/// A handler's end: a document, or a failure that becomes the command's.
pub(crate) type Answer<T> = std::result::Result<Json<T>, Failure>;
/// A route: path as in the OpenAPI file, methods, handlers.
pub(crate) type Route = (&'static str, MethodRouter<Arc<Node>>);

/// The description of this API that the tests hold against it.
const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// Routes that belong to the node as a whole.
fn routes() -> Vec<Route> {
    vec![
        ("/v1/status", get(status)),
        ("/v1/shutdown", post(shutdown)),
        ("/v1/announce", post(announce)),
        ("/v1/openapi.json", get(openapi)),
    ]
}

/// Every route of the API: the node's own, then those of each floor.
pub(crate) fn all_routes() -> Vec<Route> {
    let floors = crate::floors::FLOORS.iter().flat_map(|floor| (floor.routes)());
    routes().into_iter().chain(floors).collect()
}

/// Binds the control socket, for its owner alone.
pub(crate) fn bind(socket: &Path) -> Result<UnixListener, Failure> {
    let failed =
        |error| Failure::failed(format!("cannot make the control socket {}: {error}", socket.display()));
    let listener = UnixListener::bind(socket).map_err(failed)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves the control API until the node stops.
pub(crate) async fn serve(node: Arc<Node>, listener: UnixListener) {
    let stopped = node.stopped.clone();
    let mut router = Router::new();
    for (path, methods) in all_routes() {
        router = router.route(path, methods);
    }
    let router = router
        .fallback(unknown)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES as usize))
        .with_state(node);
    let served =
        axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "the control socket stopped");
    }
}

async fn unknown() -> Failure {
    Failure::usage("this node's control API has no such call").hint("see /v1/openapi.json")
}

#[derive(Deserialize)]
struct StatusQuery {
    #[serde(default)]
    wait: bool,
}

async fn status(State(node): State<Arc<Node>>, Asked(query): Asked<StatusQuery>) -> Answer<Status> {
    if query.wait {
        node.ready().await?;
    }
    Ok(Json(node.status()))
}

async fn shutdown(State(node): State<Arc<Node>>) -> Json<Value> {
    node.stop();
    Json(json!({"stopping": true}))
}

async fn announce(State(node): State<Arc<Node>>) -> Answer<Vec<Announced>> {
    node.announce_now().await.map(Json)
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.code {
            Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::NotTrusted => StatusCode::FORBIDDEN,
            Code::Unreachable => StatusCode::BAD_GATEWAY,
        };
        (status, Json(self)).into_response()
    }
}

/// An answer of JSON lines, one per value, as they come; cut off when the node stops.
pub(crate) fn json_lines(
    node: &Node,
    values: impl Stream<Item = std::result::Result<Value, Failure>> + Send + 'static,
) -> Response {
    use futures_util::StreamExt;
    let lines = values.take_until(node.stopped.clone().cancelled_owned()).map(|value| {
        let value = value.unwrap_or_else(|failure| json!({ "failure": failure }));
        let mut line = value.to_string();
        line.push('\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}
