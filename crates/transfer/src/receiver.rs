//! The machine of the side that gets the files.
//!
//! It trusts nothing: neither what an earlier attempt left behind nor what the sender claims. What its shell holds is
//! compared with the sender's proof; every group is compared with its value, every file with its root, the order of
//! files with the offer.

use std::collections::{HashMap, VecDeque};
use std::io;

use kith_sansio::{Machine, Now, Rng, Time};

use crate::error::{ReceiveError, Summary, Violation};
use crate::frame::{
    AbortReason, Failed, Frame, Have, MAX_FAILED_LISTED, MAX_LISTED, Proof, Reason, Received, Refusal, Resume,
};
use crate::hash::{GROUP_BYTES, Root, Value, group_length};
use crate::offer::Offer;

/// What the target folder holds before anything is sent.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Files and parts of files to be compared with the sender's, ascending.
    pub haves: Vec<Have>,
    /// Empty files that are there already, ascending.
    pub already: Vec<u32>,
    /// Entries that cannot be received, ascending; files among them are not asked for.
    pub failed: Vec<Failed>,
}

/// What the outside tells the machine.
#[derive(Debug)]
pub enum Input {
    /// The target folder was looked at: the first input, or `Failed`.
    Prepared(Present),
    /// A frame came from the sender.
    Frame(Frame),
    /// A group came: its length in bytes, the value that the sender claims, the value that the shell computed for
    /// the place that [`Receiver::place`] told.
    Group {
        /// Bytes in it.
        length: usize,
        /// The sender's value.
        claimed: Value,
        /// Our value.
        computed: Value,
    },
    /// Values of own groups that [`Output::Hash`] asked for; fewer where they cannot be read.
    Hashed(Vec<Value>),
    /// The current file cannot be written, for a reason of its own.
    FileFailed(Reason),
    /// A file that was committed, or another entry, could not get its name after all.
    EntryFailed(Failed),
    /// Everything is stored.
    Settled,
    /// The storage as a whole failed.
    Failed(ReceiveError),
    /// A frame that cannot be read.
    Bad(Violation),
    /// The stream ended or failed.
    Lost(io::Error),
    /// The user cancels.
    Cancel(AbortReason),
}

/// What the machine wants done, at once and in order.
#[derive(Debug)]
pub enum Output {
    /// Send this frame.
    Send(Frame),
    /// Hash own groups of a file and answer with `Hashed`.
    Hash {
        /// Which file.
        index: u32,
        /// From which group.
        first: u32,
        /// How many groups.
        count: u32,
        /// Whether of the finished file, not of the partial one.
        whole: bool,
    },
    /// The existing file has the offered content.
    Keep {
        /// Which file.
        index: u32,
    },
    /// Open the partial file; what lies beyond group `first` is to be cut off.
    Open {
        /// Which file.
        index: u32,
        /// First group that follows.
        first: u32,
    },
    /// Write the bytes of the group that just came at this offset in bytes.
    Write {
        /// Where.
        offset: u64,
    },
    /// The current file is verified: give it its mode, time and name.
    Commit {
        /// Which file.
        index: u32,
    },
    /// The current file does not come: forget its part.
    Drop {
        /// Which file.
        index: u32,
    },
    /// All files were dealt with: sync, make links, restore folders, and answer with `Settled`.
    Settle,
    /// The end; nothing follows.
    Finished(Result<Summary, ReceiveError>),
}

/// Where the next group belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which file.
    pub index: u32,
    /// Which group of it.
    pub group: u32,
    /// How many groups the file has.
    pub groups: u32,
}

#[derive(Debug)]
enum State {
    Preparing,
    Proving { have: usize, checked: u32, equal: bool, root: Root, asked: Option<Proof> },
    Files,
    Settling,
    Finished,
}

/// A file of which less than all groups are to come.
#[derive(Debug)]
struct Start {
    first: u32,
    root: Root,
}

#[derive(Debug)]
struct Current {
    index: u32,
    size: u64,
    groups: u32,
    next: u32,
    /// Bytes that were there before.
    present: u64,
    root: Root,
    /// It failed on this side; the sender does not know and goes on.
    failed: bool,
}

/// The receiving side of one transfer, from its acceptance on.
#[derive(Debug)]
pub struct Receiver {
    offer: Offer,
    overwrite: bool,
    state: State,
    haves: Vec<Have>,
    starts: HashMap<u32, Start>,
    /// First entry that was not dealt with yet.
    cursor: u32,
    current: Option<Current>,
    received: Received,
    /// Bytes that the sender was told it need not send.
    resumed: u64,
    outputs: VecDeque<Output>,
}

impl Receiver {
    /// A transfer that waits for [`Input::Prepared`]. With `overwrite`, an existing file that differs is replaced
    /// once the new one is verified; without, it fails.
    pub fn new(offer: Offer, overwrite: bool) -> Self {
        Receiver {
            offer,
            overwrite,
            state: State::Preparing,
            haves: Vec::new(),
            starts: HashMap::new(),
            cursor: 0,
            current: None,
            received: Received::default(),
            resumed: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Where the group that comes next belongs; `None` where none may come.
    pub fn place(&self) -> Option<Place> {
        let current = self.current.as_ref().filter(|_| matches!(self.state, State::Files))?;
        Some(Place { index: current.index, group: current.next, groups: current.groups })
    }

    /// Bytes that need not be sent.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed
    }

    /// Files dealt with.
    pub fn files_done(&self) -> u32 {
        self.received.files.saturating_add(self.received.failures)
    }

    fn prepared(&mut self, present: Present) {
        let mut skipped = Vec::new();
        for failed in present.failed {
            if let Some(groups) = self.offer.groups(failed.index) {
                skipped.push(Resume { index: failed.index, first: groups });
                self.skip(failed.index);
            }
            self.fail(failed);
        }
        for index in present.already {
            skipped.push(Resume { index, first: 0 });
            self.skip(index);
            self.received.files += 1;
        }
        self.haves = present.haves;
        for list in self.haves.chunks(MAX_LISTED) {
            self.outputs.push_back(Output::Send(Frame::Have(list.to_vec())));
        }
        self.send_resumes(&skipped);
        self.outputs.push_back(Output::Send(Frame::Accept));
        self.next_proof(0);
    }

    fn send_resumes(&mut self, resumes: &[Resume]) {
        for list in resumes.chunks(MAX_LISTED) {
            self.outputs.push_back(Output::Send(Frame::Resume(list.to_vec())));
        }
    }

    fn skip(&mut self, index: u32) {
        let first = self.offer.groups(index).unwrap_or(0);
        self.starts.insert(index, Start { first, root: Root::default() });
    }

    fn fail(&mut self, failed: Failed) {
        self.received.failures = self.received.failures.saturating_add(1);
        if self.received.failed.len() < MAX_FAILED_LISTED {
            self.received.failed.push(failed);
        }
    }

    fn next_proof(&mut self, have: usize) {
        if have < self.haves.len() {
            self.state = State::Proving { have, checked: 0, equal: true, root: Root::default(), asked: None };
            return;
        }
        self.state = State::Files;
        if !self.haves.is_empty() {
            let first = |have: &Have| {
                let start = self.starts.get(&have.index).map_or(0, |start| start.first);
                Resume { index: have.index, first: start }
            };
            let resumes: Vec<Resume> = self.haves.iter().map(first).collect();
            self.send_resumes(&resumes);
            self.outputs.push_back(Output::Send(Frame::Start));
        }
    }

    /// The sender's values came: ask for ours, unless the file is known to differ.
    fn proof(&mut self, proof: Proof) -> Result<(), Violation> {
        let State::Proving { have, checked, equal, asked, .. } = &mut self.state else {
            return Err(Violation::Unexpected("at this point"));
        };
        if asked.is_some() {
            return Err(Violation::Unexpected("while another is compared"));
        }
        let have = self.haves[*have];
        let count = (proof.values.len() / 32) as u32;
        if proof.index != have.index {
            return Err(Violation::Index(proof.index));
        }
        if proof.first != *checked || count > have.groups - *checked || (count == 0 && !proof.last) {
            return Err(Violation::Group { index: have.index, group: proof.first });
        }
        if *equal && count > 0 {
            let first = proof.first;
            *asked = Some(proof);
            self.outputs.push_back(Output::Hash { index: have.index, first, count, whole: have.whole });
        } else {
            *checked += count;
            if proof.last {
                self.proved();
            }
        }
        Ok(())
    }

    /// Our values came: how far do they agree?
    fn hashed(&mut self, own: &[Value]) {
        let State::Proving { checked, equal, root, asked, .. } = &mut self.state else { return };
        let Some(proof) = asked.take() else { return };
        let claimed = proof.values.chunks_exact(32);
        let count = claimed.len();
        let agreeing = claimed.zip(own).take_while(|(claimed, own)| claimed == own).count();
        own[..agreeing].iter().for_each(|value| root.push(*value));
        *checked += count as u32;
        *equal = agreeing == count;
        if proof.last {
            self.proved();
        }
    }

    /// All that the sender has to say about one file was said.
    fn proved(&mut self) {
        let State::Proving { have: number, root, .. } = &mut self.state else { return };
        let (number, root) = (*number, std::mem::take(root));
        let have = self.haves[number];
        let index = have.index;
        let groups = self.offer.groups(index).unwrap_or(0);
        let size = self.offer.size(index).unwrap_or(0);
        if root.groups() == groups {
            self.skip(index);
            self.received.files += 1;
            self.received.bytes += size;
            self.received.resumed += size;
            self.resumed += size;
            self.outputs.push_back(if have.whole {
                Output::Keep { index }
            } else {
                Output::Commit { index }
            });
        } else if !have.whole {
            let first = root.groups();
            self.resumed += u64::from(first) * GROUP_BYTES as u64;
            self.starts.insert(index, Start { first, root });
        } else if !self.overwrite {
            self.skip(index);
            self.fail(Failed { index, reason: Reason::Exists });
        }
        self.next_proof(number + 1);
    }

    /// The next file that has to come, and where it starts.
    fn expected(&mut self) -> Option<u32> {
        while let Some(entry) = self.offer.entry(self.cursor) {
            let index = self.cursor;
            let wanted = entry.size().is_some()
                && self.starts.get(&index).is_none_or(|start| Some(start.first) != self.offer.groups(index));
            if wanted {
                return Some(index);
            }
            self.cursor += 1;
        }
        None
    }

    fn frame(&mut self, frame: Frame) -> Result<(), ReceiveError> {
        match (&self.state, frame) {
            (_, Frame::Abort(reason)) => return Err(ReceiveError::Aborted(reason)),
            (State::Proving { .. }, Frame::Proof(proof)) => self.proof(proof)?,
            (State::Files, Frame::FileStart { index, first }) => self.start(index, first)?,
            (State::Files, Frame::FileEnd { root }) => self.end(root)?,
            (State::Files, Frame::FileFailed(failed)) => self.sender_failed(failed)?,
            (State::Files, Frame::Done) => {
                if self.current.is_some() {
                    return Err(Violation::Unexpected("inside a file").into());
                }
                if let Some(missing) = self.expected() {
                    return Err(Violation::Missing(missing).into());
                }
                self.state = State::Settling;
                self.outputs.push_back(Output::Settle);
            }
            _ => return Err(Violation::Unexpected("at this point").into()),
        }
        Ok(())
    }

    fn start(&mut self, index: u32, first: u32) -> Result<(), Violation> {
        if self.current.is_some() {
            return Err(Violation::Unexpected("inside a file"));
        }
        if self.expected() != Some(index) {
            return Err(Violation::Index(index));
        }
        let start = self.starts.remove(&index).unwrap_or(Start { first: 0, root: Root::default() });
        if start.first != first {
            return Err(Violation::Group { index, group: first });
        }
        let size = self.offer.size(index).unwrap_or(0);
        let groups = self.offer.groups(index).unwrap_or(0);
        self.cursor = index + 1;
        let present = size.min(u64::from(first) * GROUP_BYTES as u64);
        self.current =
            Some(Current { index, size, groups, next: first, present, root: start.root, failed: false });
        self.outputs.push_back(Output::Open { index, first });
        Ok(())
    }

    fn group(&mut self, length: usize, claimed: Value, computed: Value) -> Result<(), Violation> {
        let current = self.current.as_mut().filter(|_| matches!(self.state, State::Files));
        let Some(current) = current else { return Err(Violation::Unexpected("outside a file")) };
        if current.next >= current.groups || length != group_length(current.size, current.next) {
            return Err(Violation::Length(current.index));
        }
        if claimed != computed {
            return Err(Violation::GroupHash { index: current.index, group: current.next });
        }
        current.root.push(computed);
        let offset = u64::from(current.next) * GROUP_BYTES as u64;
        current.next += 1;
        if !current.failed {
            self.outputs.push_back(Output::Write { offset });
        }
        Ok(())
    }

    fn end(&mut self, root: Value) -> Result<(), Violation> {
        let Some(mut current) = self.current.take() else {
            return Err(Violation::Unexpected("outside a file"));
        };
        if current.next != current.groups {
            return Err(Violation::Length(current.index));
        }
        if std::mem::take(&mut current.root).finish() != root {
            return Err(Violation::RootHash(current.index));
        }
        if !current.failed {
            self.received.files += 1;
            self.received.bytes += current.size;
            self.received.resumed += current.present;
            self.outputs.push_back(Output::Commit { index: current.index });
        }
        Ok(())
    }

    fn sender_failed(&mut self, failed: Failed) -> Result<(), Violation> {
        match self.current.take() {
            Some(current) if current.index == failed.index => {
                self.outputs.push_back(Output::Drop { index: current.index });
                if !current.failed {
                    self.fail(failed);
                }
            }
            Some(_) => return Err(Violation::Index(failed.index)),
            None if self.expected() == Some(failed.index) => {
                self.cursor = failed.index + 1;
                self.fail(failed);
            }
            None => return Err(Violation::Index(failed.index)),
        }
        Ok(())
    }

    fn entry_failed(&mut self, failed: Failed) {
        if let Some(size) = self.offer.size(failed.index) {
            self.received.files = self.received.files.saturating_sub(1);
            self.received.bytes = self.received.bytes.saturating_sub(size);
            self.received.resumed = self.received.resumed.min(self.received.bytes);
        }
        self.fail(failed);
    }

    fn file_failed(&mut self, reason: Reason) {
        if let Some(current) = self.current.as_mut().filter(|current| !current.failed) {
            current.failed = true;
            let index = current.index;
            self.fail(Failed { index, reason });
        }
    }

    fn finish(&mut self, result: Result<Summary, ReceiveError>) {
        let preparing = matches!(self.state, State::Preparing);
        self.state = State::Finished;
        self.outputs.clear();
        if let Err(error) = &result {
            let farewell = match error {
                ReceiveError::Aborted(_) | ReceiveError::ConnectionLost { .. } => None,
                error if preparing => Some(Frame::Refuse(crate::sender::refusal_of(error))),
                ReceiveError::Peer(_) => Some(Frame::Abort(AbortReason::Protocol)),
                ReceiveError::DiskFull { .. } | ReceiveError::NoSpace { .. } => {
                    Some(Frame::Abort(AbortReason::DiskFull))
                }
                ReceiveError::Cancelled => Some(Frame::Abort(AbortReason::Cancelled)),
                _ => Some(Frame::Abort(AbortReason::Storage)),
            };
            self.outputs.extend(farewell.map(Output::Send));
        }
        self.outputs.push_back(Output::Finished(result));
    }

    fn cancel(&mut self, reason: AbortReason) {
        self.finish(Err(ReceiveError::Cancelled));
        // A transfer that was accepted and is not given up is no refused one.
        for output in &mut self.outputs {
            match output {
                Output::Send(Frame::Abort(said)) => *said = reason,
                Output::Send(said @ Frame::Refuse(_)) => {
                    *said = match reason {
                        AbortReason::Cancelled => continue,
                        AbortReason::Paused => Frame::Refuse(Refusal::Paused),
                        other => Frame::Abort(other),
                    };
                }
                _ => {}
            }
        }
    }

    fn settled(&mut self) {
        if matches!(self.state, State::Settling) {
            let summary = crate::sender::summary(&self.offer, &self.received);
            self.finish(Ok(summary));
            self.outputs.push_front(Output::Send(Frame::Received(self.received.clone())));
        }
    }
}

impl Machine for Receiver {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, _now: Now, input: Input, _rng: &mut dyn Rng) {
        if matches!(self.state, State::Finished) {
            return;
        }
        let outcome = match input {
            Input::Prepared(present) if matches!(self.state, State::Preparing) => {
                self.prepared(present);
                Ok(())
            }
            Input::Prepared(_) => Ok(()),
            Input::Frame(frame) => self.frame(frame),
            Input::Group { length, claimed, computed } => {
                self.group(length, claimed, computed).map_err(ReceiveError::from)
            }
            Input::Hashed(values) => {
                self.hashed(&values);
                Ok(())
            }
            Input::FileFailed(reason) => {
                self.file_failed(reason);
                Ok(())
            }
            Input::EntryFailed(failed) => {
                self.entry_failed(failed);
                Ok(())
            }
            Input::Settled => {
                self.settled();
                Ok(())
            }
            Input::Failed(error) => Err(error),
            Input::Bad(violation) => Err(violation.into()),
            Input::Lost(source) => Err(ReceiveError::ConnectionLost { source }),
            Input::Cancel(reason) => return self.cancel(reason),
        };
        if let Err(error) = outcome {
            self.finish(Err(error));
        }
    }

    fn handle_timeout(&mut self, _now: Now, _rng: &mut dyn Rng) {}

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        None
    }
}
