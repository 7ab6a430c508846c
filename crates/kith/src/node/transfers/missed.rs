//! Why the contact of a transfer was not reached.

use std::sync::Arc;

use kith_connect::ConnectError;

use super::live::Live;
use crate::failure::Failure;
use crate::node::{Node, connect};

/// Why an attempt came to nothing.
pub(super) enum Missed {
    /// No delegator has said yet, since this node started, that the contact may be reached.
    Unlisted,
    /// This went wrong.
    Unreached(ConnectError),
}

impl Missed {
    /// Whether waiting may help.
    pub(super) fn may_pass(&self, node: &Node, live: &Live) -> bool {
        match self {
            Missed::Unlisted => true,
            // What a delegator allows both sides hear by themselves, the other one perhaps a moment later.
            Missed::Unreached(ConnectError::Refused { .. }) => node.book.contact_of(&live.peer).is_none(),
            Missed::Unreached(error) => connect::may_pass(error),
        }
    }

    /// What is known at once.
    pub(super) fn failure(&self, node: &Node, live: &Live) -> Failure {
        match self {
            Missed::Unlisted => {
                let contact = live.snapshot().contact;
                Failure::unreachable(format!("no delegator has said yet that {contact} may be reached"))
                    .hint("'kith delegator list' shows how each of them is reached")
            }
            Missed::Unreached(error) => connect::explain(&node.book.name_of(&live.peer), error),
        }
    }

    /// What is found out where it is worth the time.
    pub(super) async fn explain(&self, node: &Arc<Node>, live: &Live) -> Failure {
        match self {
            Missed::Unlisted => self.failure(node, live),
            Missed::Unreached(error) => node.explain(&live.peer, error).await,
        }
    }
}
