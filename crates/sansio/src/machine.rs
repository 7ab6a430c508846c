use crate::{Now, Rng, Time};

/// The contract of every protocol machine of the house.
///
/// A machine owns no socket, clock, thread, lock or random source. Its shell feeds it with
/// [`handle_input`](Machine::handle_input) and [`handle_timeout`](Machine::handle_timeout), and after each of
/// them drains [`poll_output`](Machine::poll_output); then it sleeps until
/// [`poll_timeout`](Machine::poll_timeout) or the next input.
pub trait Machine {
    /// What the outside tells the machine: whole decoded messages, results of work, a person's wishes.
    type Input;
    /// What the machine wants done.
    type Output;

    /// Takes in one event.
    fn handle_input(&mut self, now: Now, input: Self::Input, rng: &mut dyn Rng);

    /// Lets timers fire that are due at `now`; calling it early is harmless.
    fn handle_timeout(&mut self, now: Now, rng: &mut dyn Rng);

    /// The next thing to do; `None` when there is nothing until the next input or timeout.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When [`handle_timeout`](Machine::handle_timeout) wants to be called; `None` for no timer.
    fn poll_timeout(&self) -> Option<Time>;
}
