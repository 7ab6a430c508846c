//! The local networks as a source of sets, and as a place where the own node is found: sockets and timers around
//! [`Link`], one for each network.

mod actor;
mod network;

use std::fmt;
use std::sync::Arc;

use kith_identity::record::{RecordSet, VerifiedRecordSet};
use kith_identity::{Fingerprint, Ni};
use kith_sansio::Span;
use tokio::sync::{mpsc, oneshot, watch};

use self::actor::Actor;
use super::{LookupError, Source, SourceName};
use crate::defaults;
use crate::store::BoxFuture;

/// Commands that wait for the task behind a [`Lan`].
const QUEUE: usize = 64;

/// Which networks are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Networks {
    /// Every network of this machine that others can be on: not loopback, no tunnels.
    #[default]
    Shared,
    /// Loopback alone, for tests.
    Loopback,
}

/// Where nodes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanConfig {
    /// On which networks.
    pub networks: Networks,
    /// On which UDP port; all nodes of a network use the same.
    pub port: u16,
    /// How long a lookup waits for an answer.
    pub patience: Span,
}

impl Default for LanConfig {
    fn default() -> Self {
        LanConfig { networks: Networks::Shared, port: defaults::LAN_PORT, patience: defaults::LAN_LOOKUP }
    }
}

/// What a node says of itself when somebody asks who knows its fingerprint.
pub trait Voice: Send + Sync + 'static {
    /// The set to say now; `None` where there is none.
    fn said(&self) -> BoxFuture<'_, Option<VerifiedRecordSet>>;
}

/// The local networks. Clones are the same; when the last is dropped, its sockets close.
#[derive(Clone)]
pub struct Lan {
    commands: mpsc::Sender<Command>,
    networks: watch::Receiver<Vec<String>>,
    patience: Span,
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lan").field("networks", &*self.networks.borrow()).finish_non_exhaustive()
    }
}

/// What the task behind a [`Lan`] is told.
enum Command {
    Show(Fingerprint, Arc<dyn Voice>),
    Seek(Fingerprint, oneshot::Sender<RecordSet>),
    Leave(oneshot::Sender<()>),
}

impl Lan {
    /// Listens on the networks that there are now, and on those that come, in a task of the current runtime. Nothing
    /// is sent before somebody is looked for or the own node is [shown](Lan::show).
    #[must_use]
    pub fn start(config: LanConfig) -> Lan {
        let (commands, orders) = mpsc::channel(QUEUE);
        let (names, networks) = watch::channel(Vec::new());
        let mut actor = Actor::new(config, names);
        // Before anybody asks, so that it is known whether there is somebody to ask.
        actor.look_around();
        tokio::spawn(actor.run(orders));
        Lan { commands, networks, patience: config.patience }
    }

    /// Shows the node of `fingerprint` to those who know it, from now on.
    pub async fn show(&self, fingerprint: Fingerprint, voice: Arc<dyn Voice>) {
        let _the_task_lives_as_long_as_this = self.commands.send(Command::Show(fingerprint, voice)).await;
    }

    /// Takes leave of all networks: the node is not shown any more.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave(done)).await.is_ok() {
            let _ = left.await;
        }
    }

    /// The names of the interfaces whose networks are listened on now.
    #[must_use]
    pub fn networks(&self) -> Vec<String> {
        self.networks.borrow().clone()
    }

    async fn find(&self, target: Fingerprint) -> Result<Option<RecordSet>, LookupError> {
        let (found, finding) = oneshot::channel();
        let search = async {
            self.commands.send(Command::Seek(target, found)).await.ok()?;
            finding.await.ok()
        };
        // Silence is no word that there is no such node, so it is not told as one.
        match tokio::time::timeout(self.patience.into(), search).await {
            Ok(Some(set)) => Ok(Some(set)),
            _ => Err(LookupError::NotNear { waited: self.patience }),
        }
    }
}

impl Source for Lan {
    fn name(&self) -> SourceName {
        SourceName::Lan
    }

    /// Anybody can be on a network, where there is one.
    fn serves(&self, _: &Ni) -> bool {
        !self.networks.borrow().is_empty()
    }

    fn lookup(&self, ni: Ni) -> BoxFuture<'_, Result<Option<RecordSet>, LookupError>> {
        Box::pin(self.find(ni.fingerprint))
    }
}
