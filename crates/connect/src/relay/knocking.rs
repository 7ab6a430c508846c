//! The initiator's side: asks one relay for one target. Pure.

use std::collections::VecDeque;

use kith_identity::Address;
use kith_sansio::{Machine, Now, Rng, Time};

use super::limits::ANSWER_PATIENCE;
use super::message::{Message, Pass};
use super::request::Request;

/// What a knocking initiator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The relay says this.
    Message(Message),
    /// The stream to the relay has ended.
    Lost,
}

/// What it wants done, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say this to the relay.
    Send(Message),
    /// The relay sees this node there.
    Observed(Address),
    /// It is over; the stream may be closed.
    Done(Outcome),
}

/// How a knock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target waits at the relay.
    Admitted(Pass),
    /// The relay does not know the target, or the target does not want this node, or says nothing: there is no telling.
    Refused,
    /// The relay does not answer.
    Silent,
    /// The relay broke off, or says what makes no sense.
    Broken,
}

/// One request to one relay.
#[derive(Debug)]
pub struct Knocking {
    outputs: VecDeque<Output>,
    deadline: Time,
    is_over: bool,
    observed: bool,
}

impl Knocking {
    /// Sends `request` at once.
    pub fn new(now: Now, request: Request) -> Knocking {
        let outputs = VecDeque::from([Output::Send(Message::Request(Box::new(request)))]);
        Knocking { outputs, deadline: now.time + ANSWER_PATIENCE, is_over: false, observed: false }
    }

    fn end(&mut self, outcome: Outcome) {
        self.is_over = true;
        self.outputs.push_back(Output::Done(outcome));
    }
}

impl Machine for Knocking {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, _: Now, input: Input, _: &mut dyn Rng) {
        if self.is_over {
            return;
        }
        match input {
            Input::Message(Message::Observed(address)) if !self.observed => {
                self.observed = true;
                self.outputs.push_back(Output::Observed(address));
            }
            Input::Message(Message::Ack(pass)) => self.end(Outcome::Admitted(pass)),
            Input::Message(Message::Refused) => self.end(Outcome::Refused),
            Input::Message(_) | Input::Lost => self.end(Outcome::Broken),
        }
    }

    fn handle_timeout(&mut self, now: Now, _: &mut dyn Rng) {
        if !self.is_over && now.time >= self.deadline {
            self.end(Outcome::Silent);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Time> {
        (!self.is_over).then_some(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::{Carriage, Token};
    use kith_identity::{Fingerprint, Identity};
    use kith_sansio::{SeededRng, Span, Timestamp};

    fn at(span: Span) -> Now {
        Now { time: Time(0) + span, utc: Timestamp(1_800_000_000) }
    }

    fn knock() -> Knocking {
        let rng = &mut SeededRng::new(1);
        let [relay, target] = [1, 2].map(|n| Fingerprint::from_bytes([n; 32]));
        let now = at(Span::ZERO);
        let identity = Identity::generate(rng);
        let request = Request::sign(&identity, relay, target, (Carriage::Stream, vec![]), now.utc, rng);
        let mut knocking = Knocking::new(now, request.clone());
        assert_eq!(knocking.poll_output(), Some(Output::Send(Message::Request(Box::new(request)))));
        assert_eq!(knocking.poll_output(), None);
        knocking
    }

    fn told(knocking: &mut Knocking, inputs: &[Input]) -> Vec<Output> {
        let rng = &mut SeededRng::new(1);
        inputs.iter().for_each(|input| knocking.handle_input(at(Span::millis(9)), input.clone(), rng));
        std::iter::from_fn(|| knocking.poll_output()).collect()
    }

    #[test]
    fn an_answer_ends_it_once() {
        let pass = Pass { token: Token::from_bytes([1; 16]), port: 7 };
        let seen: Address = "tcp://192.0.2.1:5".parse().unwrap();
        let say = Input::Message;
        for (inputs, outputs) in [
            (vec![say(Message::Ack(pass))], vec![Output::Done(Outcome::Admitted(pass))]),
            (
                vec![say(Message::Observed(seen)), say(Message::Refused), say(Message::Ack(pass))],
                vec![Output::Observed(seen), Output::Done(Outcome::Refused)],
            ),
            (vec![Input::Lost, say(Message::Ack(pass))], vec![Output::Done(Outcome::Broken)]),
            (vec![say(Message::Pong(1))], vec![Output::Done(Outcome::Broken)]),
            (
                vec![say(Message::Observed(seen)), say(Message::Observed(seen))],
                vec![Output::Observed(seen), Output::Done(Outcome::Broken)],
            ),
        ] {
            let mut knocking = knock();
            assert_eq!(told(&mut knocking, &inputs), outputs);
            assert_eq!(knocking.poll_timeout(), None);
        }
    }

    #[test]
    fn a_silent_relay_is_given_up() {
        let (mut knocking, rng) = (knock(), &mut SeededRng::new(1));
        assert_eq!(knocking.poll_timeout(), Some(Time(0) + ANSWER_PATIENCE));
        knocking.handle_timeout(at(Span(ANSWER_PATIENCE.0 - 1)), rng);
        assert_eq!(knocking.poll_output(), None);
        knocking.handle_timeout(at(ANSWER_PATIENCE), rng);
        assert_eq!(knocking.poll_output(), Some(Output::Done(Outcome::Silent)));
        assert_eq!((knocking.poll_output(), knocking.poll_timeout()), (None, None));
    }
}
