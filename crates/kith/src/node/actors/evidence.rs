//! Evidence on its way to the issuer of the network: kept until it is acknowledged, over restarts too.

use std::sync::Arc;

use kith_connect::membership::{Enquiry, EnquiryError, Refusal};
use kith_identity::Fingerprint;
use kith_identity::membership::pledge::VerifiedEvidence;
use kith_sansio::Span;
use kith_store::StoreError;

use super::Selections;
use super::rows::Rows;
use crate::node::Node;

/// The shortest and the longest pause until the issuer is told again.
const PAUSE: (Span, Span) = (Span::secs(2), Span::secs(300));

/// Why evidence has not arrived.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The disk does not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Work on the disk was lost.
    #[error(transparent)]
    Lost(#[from] tokio::task::JoinError),
    /// The issuer has not answered, or refuses.
    #[error(transparent)]
    Enquiry(#[from] EnquiryError),
}

impl Selections {
    /// Keeps evidence, and has the issuer told.
    pub(super) fn accuse(self: &Arc<Self>, evidence: VerifiedEvidence) {
        let selections = Arc::clone(self);
        self.tasks.spawn(async move {
            let accused = evidence.signer().fingerprint();
            match selections.on_disk(move |rows| rows.accuse(&evidence)).await {
                Ok(true) => {
                    tracing::debug!(%accused, "a member has signed two things about one; the issuer is told");
                    selections.bell.notify_one();
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "evidence against a member is not kept"),
            }
        });
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rows) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let rows = self.rows.clone();
        Ok(self.tasks.spawn_blocking(move || work(&rows)).await??)
    }
}

/// Tells the issuer whatever evidence there is, until the floor ends.
pub(super) async fn tell(node: Arc<Node>) {
    let selections = &node.selections;
    let mut pause = PAUSE.0;
    loop {
        let network = node.book.network.membership.belongs().map(|(network, _)| network);
        let told = match network {
            None => Ok(()),
            Some(network) => tokio::select! {
                told = tell_all(&node, network) => told,
                () = selections.ending.cancelled() => return,
            },
        };
        let wait = match told {
            Ok(()) => {
                pause = PAUSE.0;
                PAUSE.1
            }
            Err(error) => {
                tracing::debug!(%error, "the issuer has not acknowledged evidence");
                let now = pause;
                pause = pause.times(2).min(PAUSE.1);
                now
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait.into()) => {}
            () = selections.bell.notified() => pause = PAUSE.0,
            () = selections.ending.cancelled() => return,
        }
    }
}

/// Tells the issuer of a network all that waits; what it has answered is done with.
async fn tell_all(node: &Node, network: Fingerprint) -> Result<(), Trouble> {
    let waiting = node.selections.on_disk(move |rows| rows.evidence(&network)).await?;
    if waiting.is_empty() {
        return Ok(());
    }
    let mut enquiry = Enquiry::open(&node.endpoint, &network).await?;
    for evidence in waiting {
        match enquiry.accuse(&evidence).await {
            Ok(()) => {}
            // The accused was never a member: nobody is the worse for it.
            Err(EnquiryError::Refused(Refusal::Unsound)) => {
                tracing::debug!("the issuer knows no such member");
            }
            Err(error) => return Err(error.into()),
        }
        node.selections.on_disk(move |rows| rows.is_told(&evidence)).await?;
    }
    Ok(())
}
