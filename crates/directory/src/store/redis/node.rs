//! One server: a queue and a connection for writing, another for reading, each sending what waits together.

use std::sync::Arc;

use redis::{Cmd, Value};
use tokio::sync::{mpsc, oneshot};

use super::error::Trouble;
use super::link::{Link, wait_command};
use super::{READING_SCRIPTS, RedisConfig, RedisError, RedisServer, SCRIPTS};
use crate::defaults::{STORE_BATCH, STORE_QUEUE};

/// What a request does. WAIT holds up its whole connection, so that readers need another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Read,
    Write,
}

/// A server of the store. Its tasks end with it.
pub(super) struct Node {
    pub(super) server: RedisServer,
    reads: mpsc::Sender<Job>,
    writes: mpsc::Sender<Job>,
}

struct Job {
    command: Cmd,
    asking: bool,
    answer: oneshot::Sender<Result<Value, Trouble>>,
}

struct Worker {
    config: Arc<RedisConfig>,
    server: RedisServer,
    lane: Lane,
    link: Option<Link>,
    is_down: bool,
}

impl Node {
    pub(super) fn start(config: &Arc<RedisConfig>, server: RedisServer) -> Arc<Node> {
        let lane = |lane| {
            let (sender, queue) = mpsc::channel(STORE_QUEUE);
            let config = Arc::clone(config);
            let worker = Worker { config, server: server.clone(), lane, link: None, is_down: false };
            tokio::spawn(worker.run(queue));
            sender
        };
        let (reads, writes) = (lane(Lane::Read), lane(Lane::Write));
        Arc::new(Node { server, reads, writes })
    }

    /// The answer to one command, after `asking` with the leave to find keys that are on their way here.
    pub(super) async fn ask(&self, lane: Lane, command: Cmd, asking: bool) -> Result<Value, Trouble> {
        let (answer, answered) = oneshot::channel();
        let queue = if lane == Lane::Read { &self.reads } else { &self.writes };
        if queue.try_send(Job { command, asking, answer }).is_err() {
            return Err(Trouble::Final(RedisError::Busy { server: self.server.clone() }));
        }
        answered.await.unwrap_or_else(|_| Err(Trouble::Again(format!("{} was left", self.server))))
    }
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, STORE_BATCH).await > 0 {
            // Nobody was told anything of those whose asker is gone.
            batch.retain(|job: &Job| !job.answer.is_closed());
            let outcome = self.exchange(&batch).await;
            self.note(outcome.as_ref().err());
            match outcome {
                Ok(answers) => {
                    for (job, answer) in batch.drain(..).zip(answers) {
                        let _ = job.answer.send(answer);
                    }
                }
                Err(trouble) => {
                    self.link = None;
                    for job in batch.drain(..) {
                        let _ = job.answer.send(Err(trouble.clone()));
                    }
                }
            }
        }
    }

    async fn exchange(&mut self, batch: &[Job]) -> Result<Vec<Result<Value, Trouble>>, Trouble> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let replicas = if self.lane == Lane::Write { self.config.wanted_replicas() } else { 0 };
        let mut commands = redis::pipe();
        for job in batch {
            if job.asking {
                commands.cmd("ASKING");
            }
            commands.add_command(job.command.clone());
        }
        if replicas > 0 {
            commands.add_command(wait_command(replicas));
        }
        let mut answers = self.link().await?.exchange(&commands).await?;
        let shortage = if replicas > 0 { self.shortage(answers.pop(), replicas) } else { None };
        let mut answers = answers.into_iter();
        let mut outcomes = Vec::with_capacity(batch.len());
        for job in batch {
            let answer = if job.asking { answers.nth(1) } else { answers.next() };
            outcomes.push(match (answer, &shortage) {
                (Some(Value::ServerError(error)), _) => Err(Trouble::answer(&self.server, &error)),
                (Some(_), Some(shortage)) => Err(shortage.clone()),
                (Some(value), None) => Ok(value),
                (None, _) => Err(Trouble::Again(format!("{} left out an answer", self.server))),
            });
        }
        if outcomes.iter().any(|outcome| matches!(outcome, Err(Trouble::Again(_)))) {
            // Scripts that are gone and masters that became replicas are met again only by a new connection.
            self.link = None;
        }
        Ok(outcomes)
    }

    /// What WAIT's answer means for all that was sent before it.
    fn shortage(&self, answer: Option<Value>, wanted: u32) -> Option<Trouble> {
        let server = self.server.clone();
        match answer {
            Some(Value::Int(got)) if got >= i64::from(wanted) => None,
            Some(Value::Int(got)) => {
                let got = u32::try_from(got).unwrap_or(0);
                Some(Trouble::NotReplicated(RedisError::NotReplicated { server, wanted, got }))
            }
            Some(Value::ServerError(error)) => Some(Trouble::answer(&server, &error)),
            _ => {
                let server = server.to_string();
                Some(Trouble::Final(RedisError::Strange { server, question: "WAIT" }))
            }
        }
    }

    async fn link(&mut self) -> Result<&mut Link, Trouble> {
        let link = match self.link.take() {
            Some(link) => link,
            None => {
                let mut link = Link::open(&self.config, &self.server).await?;
                match self.lane {
                    Lane::Read => link.load(&READING_SCRIPTS).await?,
                    Lane::Write => link.prepare(&SCRIPTS).await?,
                }
                link
            }
        };
        Ok(self.link.insert(link))
    }

    /// Tells the operator when the server goes and when it is back, once each.
    fn note(&mut self, trouble: Option<&Trouble>) {
        let server = &self.server;
        match trouble {
            Some(trouble) if !self.is_down => {
                tracing::warn!(%server, ?trouble, "the store's server is not there");
            }
            None if self.is_down => tracing::warn!(%server, "the store's server is there again"),
            _ => {}
        }
        self.is_down = trouble.is_some();
    }
}
