//! Inviters who are looked for before they are contacts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kith_identity::contacts::Hint;
use kith_identity::{Fingerprint, Ni};

/// Where the inviters are whose invitations are being taken up now.
#[derive(Default)]
pub(crate) struct Guests(Mutex<Whereabouts>);

/// Per inviter what each invitation says, with its number.
type Whereabouts = HashMap<Fingerprint, Vec<(u64, Ni, Vec<Hint>)>>;

/// One of them; forgotten when dropped.
pub(crate) struct Expected {
    guests: Arc<Guests>,
    who: Fingerprint,
    number: u64,
}

impl Guests {
    fn all(&self) -> MutexGuard<'_, Whereabouts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `ni` found by these hints and by its authority.
    pub(crate) fn expect(self: &Arc<Self>, ni: Ni, hints: Vec<Hint>) -> Expected {
        let who = ni.fingerprint;
        let mut all = self.all();
        let of_peer = all.entry(who).or_default();
        let number = of_peer.last().map_or(0, |(last, ..)| last + 1);
        of_peer.push((number, ni, hints));
        Expected { guests: Arc::clone(self), who, number }
    }

    /// Where to look for `who`, as far as invitations say.
    pub(crate) fn find(&self, who: &Fingerprint) -> Option<(Ni, Vec<Hint>)> {
        self.all().get(who)?.last().map(|(_, ni, hints)| (ni.clone(), hints.clone()))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut all = self.guests.all();
        if let Some(of_peer) = all.get_mut(&self.who) {
            of_peer.retain(|(number, ..)| *number != self.number);
            if of_peer.is_empty() {
                all.remove(&self.who);
            }
        }
    }
}
