//! A node for the length of one command, so that two people who have nothing running need one command each.

use std::sync::Arc;

use kith_store::HomeError;

use super::{Context, init};
use crate::api::client::Control;
use crate::cli::Init;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::node::{LOCK_NAME, Node};

/// The node that this command runs, where it runs one.
pub(super) struct OwnNode(Option<Arc<Node>>);

impl OwnNode {
    /// Makes sure that a node runs on this home: the one that does, or one of this command's own. A home without an
    /// identity gets one.
    pub(super) async fn ensure(context: &Context) -> Result<OwnNode> {
        if Control::connect(&context.socket()).await.is_some() {
            return Ok(OwnNode(None));
        }
        if !context.home.exists() {
            init::make(context, &Init::default())?;
            context.out.aside(format!("made an identity in {}", context.home.dir().display()));
        }
        match context.home.lock("start") {
            Err(HomeError::Locked { by, .. }) if by.what.as_deref() == Some(LOCK_NAME) => {
                // A node is about to answer, and the command waits for it.
                return Ok(OwnNode(None));
            }
            // Another short command holds it, and the start waits for that; or the start says what is wrong.
            Ok(_) | Err(_) => {}
        }
        let node = Node::start(&context.home, Config::load(&context.home)?).await?;
        context.out.aside("no node is running on this home; this command runs one until it ends");
        Ok(OwnNode(Some(node)))
    }

    /// Does the command's work, then ends the node that the command has started. Whoever stops that node ends the
    /// work too.
    pub(super) async fn run<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(node) = self.0 else { return work.await };
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = node.stopping.cancelled() => Err(Failure::failed("somebody stopped this command's node")),
        };
        node.stop();
        drop(node.end().await);
        outcome
    }
}
