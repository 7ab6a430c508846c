use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kith_sansio::Timestamp;

use crate::announcer::next_timestamp;

/// The next timestamp could not be remembered.
#[derive(Debug, thiserror::Error)]
#[error("the time of the last announce cannot be remembered: {0}")]
pub struct ClockError(#[source] pub io::Error);

type Persist = dyn FnMut(Timestamp) -> io::Result<()> + Send;

/// Gives out the timestamps of a node's sets: strictly increasing, and remembered by the caller before they are
/// used, so that they still increase after a crash or when the system's clock is set back. A clone is the same
/// clock.
#[derive(Clone)]
pub struct Clock(Arc<Mutex<State>>);

struct State {
    last: Timestamp,
    persist: Box<Persist>,
}

impl Clock {
    /// A clock after `last`, the last timestamp that was remembered (0 for none). `persist` makes a timestamp
    /// durable.
    pub fn new(last: Timestamp, persist: impl FnMut(Timestamp) -> io::Result<()> + Send + 'static) -> Clock {
        Clock(Arc::new(Mutex::new(State { last, persist: Box::new(persist) })))
    }

    /// The next timestamp: `max(now, last + 1)`. Blocks for as long as remembering it takes.
    pub fn next(&self, now: Timestamp) -> Result<Timestamp, ClockError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next_timestamp(now, state.last);
        (state.persist)(next).map_err(ClockError)?;
        state.last = next;
        Ok(next)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_increase_strictly_and_are_remembered_before_use() {
        let remembered = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&remembered);
        let clock = Clock::new(Timestamp(100), move |at| {
            log.lock().unwrap().push(at.0);
            Ok(())
        });
        let given: Vec<_> = [50, 50, 200, 200, 10].map(|now| clock.next(Timestamp(now)).unwrap().0).into();
        assert_eq!(given, [101, 102, 200, 201, 202]);
        assert_eq!(*remembered.lock().unwrap(), given);
    }

    #[test]
    fn a_timestamp_that_cannot_be_remembered_is_not_given_out() {
        let mut full = true;
        let clock = Clock::new(Timestamp(1), move |_| {
            let result = if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
            full = false;
            result
        });
        assert!(clock.next(Timestamp(9)).is_err());
        assert_eq!(clock.next(Timestamp(9)).unwrap(), Timestamp(9));
    }
}
