//! The machine of the side that has the files.
//!
//! It sees whole control frames and says what to do; reading and hashing files are [`Job`]s of its shell.

use std::collections::VecDeque;
use std::io;

use kith_sansio::{Machine, Now, Rng, Span, Time};

use crate::error::{FailedFile, SendError, Summary, Violation};
use crate::frame::{AbortReason, Frame, Have, MAX_FAILED_LISTED, Received, Refusal, Resume};
use crate::offer::Offer;

/// Work of the shell: frames to make from the file system, in order, and to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Send Offer, Entries and OfferEnd.
    Offer,
    /// Send Proof frames for these files and groups.
    Prove(Vec<Have>),
    /// Send the stream of files, up to and without Done; the list is sorted by index.
    Stream(Vec<Resume>),
}

/// What the outside tells the machine.
#[derive(Debug)]
pub enum Input {
    /// A frame came from the receiver.
    Frame(Frame),
    /// A group came, or a frame that cannot be read.
    Bad(Violation),
    /// All frames of the current job were handed to the stream.
    JobDone,
    /// The stream ended or failed.
    Lost(io::Error),
    /// The user cancels.
    Cancel(AbortReason),
}

/// What the machine wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this frame, after everything that was handed out before.
    Send(Frame),
    /// Start this job; one runs at a time.
    Run(Job),
    /// Stop reading files: what is queued need not be sent any more.
    Halt,
    /// The end; nothing follows.
    Finished(Result<Summary, SendError>),
}

#[derive(Debug)]
enum State {
    Idle,
    /// The answer may come before the shell tells that the offer is out, and waits for that.
    Offering {
        accepted: bool,
    },
    Waiting {
        since: Time,
    },
    Proving {
        started: bool,
    },
    Starting,
    Streaming,
    Ending,
    Finished,
}

/// The sending side of one transfer.
#[derive(Debug)]
pub struct Sender {
    offer: Offer,
    accept_within: Span,
    state: State,
    haves: Vec<Have>,
    resumes: Vec<Resume>,
    resumed: u64,
    outputs: VecDeque<Output>,
}

impl Sender {
    /// A transfer that starts with the first call of `handle_timeout`, and gives up where nobody accepts within
    /// `accept_within` of the offer's last byte.
    pub fn new(offer: Offer, accept_within: Span) -> Self {
        Sender {
            offer,
            accept_within,
            state: State::Idle,
            haves: Vec::new(),
            resumes: Vec::new(),
            resumed: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Bytes that need not be sent; known once the stream of files starts.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed
    }

    fn frame(&mut self, frame: Frame) -> Result<(), SendError> {
        use State::{Offering, Proving, Starting, Waiting};
        match (&mut self.state, frame) {
            (_, Frame::Abort(reason)) => return Err(SendError::Aborted(reason)),
            (Waiting { .. } | Offering { accepted: false }, Frame::Refuse(reason)) => {
                return Err(SendError::Refused(reason));
            }
            (Waiting { .. } | Offering { accepted: false }, Frame::Have(list)) => self.have(&list)?,
            (
                Waiting { .. } | Offering { accepted: false } | Starting | Proving { started: false },
                Frame::Resume(list),
            ) => self.resume(&list)?,
            (Offering { accepted: answered @ false }, Frame::Accept)
            | (Proving { started: answered @ false }, Frame::Start) => *answered = true,
            (Waiting { .. }, Frame::Accept) => self.accepted()?,
            (Starting, Frame::Start) => self.stream()?,
            (State::Ending, Frame::Received(received)) => {
                let summary = self.account(&received)?;
                self.finish(Ok(summary));
            }
            _ => return Err(Violation::Unexpected("at this point").into()),
        }
        Ok(())
    }

    fn have(&mut self, list: &[Have]) -> Result<(), Violation> {
        for have in list {
            let groups = self.offer.groups(have.index).ok_or(Violation::Index(have.index))?;
            if self.haves.last().is_some_and(|last| last.index >= have.index) {
                return Err(Violation::Index(have.index));
            }
            if have.groups == 0 || have.groups > groups {
                return Err(Violation::Group { index: have.index, group: have.groups });
            }
            self.haves.push(*have);
        }
        Ok(())
    }

    fn accepted(&mut self) -> Result<(), Violation> {
        if self.haves.is_empty() {
            return self.stream();
        }
        self.state = State::Proving { started: false };
        self.outputs.push_back(Output::Run(Job::Prove(std::mem::take(&mut self.haves))));
        Ok(())
    }

    fn resume(&mut self, list: &[Resume]) -> Result<(), Violation> {
        for resume in list {
            let groups = self.offer.groups(resume.index).ok_or(Violation::Index(resume.index))?;
            if resume.first > groups {
                return Err(Violation::Group { index: resume.index, group: resume.first });
            }
            if self.resumes.len() >= self.offer.files() as usize {
                return Err(Violation::Index(resume.index));
            }
            self.resumes.push(*resume);
        }
        Ok(())
    }

    fn stream(&mut self) -> Result<(), Violation> {
        let mut resumes = std::mem::take(&mut self.resumes);
        resumes.sort_unstable_by_key(|resume| resume.index);
        if let Some(pair) = resumes.windows(2).find(|pair| pair[0].index == pair[1].index) {
            return Err(Violation::Index(pair[0].index));
        }
        let present = |resume: &Resume| {
            let start = u64::from(resume.first) * crate::hash::GROUP_BYTES as u64;
            self.offer.size(resume.index).unwrap_or(0).min(start)
        };
        self.resumed = resumes.iter().map(present).sum();
        self.state = State::Streaming;
        self.outputs.push_back(Output::Run(Job::Stream(resumes)));
        Ok(())
    }

    fn account(&self, received: &Received) -> Result<Summary, Violation> {
        let listed = (received.failures as usize).min(MAX_FAILED_LISTED);
        let possible = received.files <= self.offer.files()
            && received.bytes <= self.offer.bytes()
            && received.resumed <= received.bytes
            && received.failures as usize <= self.offer.entries().len()
            && received.failed.len() == listed
            && received.failed.iter().all(|failed| self.offer.entry(failed.index).is_some());
        if possible { Ok(summary(&self.offer, received)) } else { Err(Violation::Account) }
    }

    fn finish(&mut self, result: Result<Summary, SendError>) {
        if matches!(self.state, State::Finished) {
            return;
        }
        self.state = State::Finished;
        self.outputs.clear();
        if let Err(error) = &result {
            self.outputs.push_back(Output::Halt);
            let farewell = match error {
                SendError::Peer(_) => Some(AbortReason::Protocol),
                SendError::Cancelled | SendError::Unanswered { .. } => Some(AbortReason::Cancelled),
                _ => None,
            };
            self.outputs.extend(farewell.map(|reason| Output::Send(Frame::Abort(reason))));
        }
        self.outputs.push_back(Output::Finished(result));
    }

    fn job_done(&mut self, now: Now) -> Result<(), Violation> {
        match self.state {
            State::Offering { accepted: true } => self.accepted()?,
            State::Offering { accepted: false } => self.state = State::Waiting { since: now.time },
            State::Proving { started: true } => self.stream()?,
            State::Proving { started: false } => self.state = State::Starting,
            State::Streaming => {
                self.state = State::Ending;
                self.outputs.push_back(Output::Send(Frame::Done));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Machine for Sender {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Now, input: Input, _rng: &mut dyn Rng) {
        if matches!(self.state, State::Finished) {
            return;
        }
        match input {
            Input::Frame(frame) => {
                if let Err(error) = self.frame(frame) {
                    self.finish(Err(error));
                }
            }
            Input::Bad(violation) => self.finish(Err(violation.into())),
            Input::JobDone => {
                if let Err(violation) = self.job_done(now) {
                    self.finish(Err(violation.into()));
                }
            }
            Input::Lost(source) => self.finish(Err(SendError::ConnectionLost { source })),
            Input::Cancel(reason) => {
                self.finish(Err(SendError::Cancelled));
                // The reason is the caller's: a node that stops, or a user who pauses, is another thing to the peer than
                // a user who cancels.
                for output in &mut self.outputs {
                    if let Output::Send(Frame::Abort(said)) = output {
                        *said = reason;
                    }
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Now, _rng: &mut dyn Rng) {
        match self.state {
            State::Idle => {
                self.state = State::Offering { accepted: false };
                self.outputs.push_back(Output::Run(Job::Offer));
            }
            State::Waiting { since } if now.time >= since + self.accept_within => {
                self.finish(Err(SendError::Unanswered { waited: now.time - since }));
            }
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Idle => Some(Time(0)),
            State::Waiting { since } => Some(since + self.accept_within),
            _ => None,
        }
    }
}

/// The account in terms of paths.
pub(crate) fn summary(offer: &Offer, received: &Received) -> Summary {
    let named =
        |failed: &crate::frame::Failed| FailedFile { path: offer.path(failed.index), reason: failed.reason };
    Summary {
        files: received.files,
        bytes: received.bytes,
        resumed_bytes: received.resumed,
        failures: received.failures,
        failed: received.failed.iter().map(named).collect(),
    }
}

/// What a receiver answers where its own side fails before it could accept.
pub(crate) fn refusal_of(error: &crate::error::ReceiveError) -> Refusal {
    use crate::error::ReceiveError as E;
    match error {
        E::NoSpace { .. } | E::DiskFull { .. } => Refusal::NoSpace,
        E::Busy { .. } => Refusal::Busy,
        E::Peer(_) | E::OverLimit { .. } => Refusal::Invalid,
        E::Cancelled => Refusal::Declined,
        _ => Refusal::Storage,
    }
}
