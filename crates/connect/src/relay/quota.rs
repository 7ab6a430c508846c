//! What each fingerprint may use of a relay, and what it has used.

use std::collections::HashMap;

use kith_identity::Fingerprint;
use kith_sansio::{Span, Time};

use super::limits::{MAX_ACCOUNTS, QUOTA_PERIOD};

/// What one fingerprint may use of a relay, as target and as initiator together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Sessions at once.
    pub sessions: u32,
    /// Bytes in a day, both directions of all sessions together; `None` for no limit.
    pub bytes_per_day: Option<u64>,
    /// Bytes a second, both directions of all sessions of one target together; `None` for no limit.
    pub bytes_per_second: Option<u64>,
}

impl Default for Quota {
    /// 64 sessions, no limit on bytes.
    fn default() -> Quota {
        Quota { sessions: 64, bytes_per_day: None, bytes_per_second: None }
    }
}

/// What each fingerprint has used.
#[derive(Debug)]
pub(super) struct Accounts {
    quota: Quota,
    accounts: HashMap<Fingerprint, Account>,
}

#[derive(Debug)]
struct Account {
    sessions: u32,
    bytes: u64,
    began: Time,
}

impl Account {
    /// The bytes of the period that `now` is in.
    fn bytes(&self, now: Time) -> u64 {
        if self.is_over(now) { 0 } else { self.bytes }
    }

    fn is_over(&self, now: Time) -> bool {
        now - self.began >= QUOTA_PERIOD
    }
}

impl Accounts {
    pub(super) fn new(quota: Quota) -> Accounts {
        Accounts { quota, accounts: HashMap::new() }
    }

    /// Whether `who` may have another session.
    pub(super) fn has_room(&self, now: Time, who: &Fingerprint) -> bool {
        match self.accounts.get(who) {
            Some(account) => account.sessions < self.quota.sessions && !self.is_spent(now, who),
            None => self.quota.sessions > 0 && self.quota.bytes_per_day != Some(0),
        }
    }

    /// Whether `who` has used up the bytes of his day.
    pub(super) fn is_spent(&self, now: Time, who: &Fingerprint) -> bool {
        let bytes = self.accounts.get(who).map_or(0, |account| account.bytes(now));
        self.quota.bytes_per_day.is_some_and(|most| bytes >= most)
    }

    pub(super) fn begin(&mut self, now: Time, who: &Fingerprint) {
        self.make_room(now);
        self.account(now, who).sessions += 1;
    }

    pub(super) fn end(&mut self, who: &Fingerprint) {
        if let Some(account) = self.accounts.get_mut(who) {
            account.sessions = account.sessions.saturating_sub(1);
            if account.sessions == 0 && account.bytes == 0 {
                self.accounts.remove(who);
            }
        }
    }

    pub(super) fn count(&mut self, now: Time, who: &Fingerprint, bytes: u64) {
        let account = self.account(now, who);
        account.bytes = account.bytes.saturating_add(bytes);
    }

    /// The account of `who`, in the period that `now` is in.
    fn account(&mut self, now: Time, who: &Fingerprint) -> &mut Account {
        let account = self.accounts.entry(*who).or_insert(Account { sessions: 0, bytes: 0, began: now });
        if account.is_over(now) {
            (account.bytes, account.began) = (0, now);
        }
        account
    }

    /// Forgets whose period is over; where that is not enough, whoever of those without a session has used least.
    fn make_room(&mut self, now: Time) {
        if self.accounts.len() < MAX_ACCOUNTS {
            return;
        }
        self.accounts.retain(|_, account| account.sessions > 0 || !account.is_over(now));
        if self.accounts.len() >= MAX_ACCOUNTS {
            let idle = self.accounts.iter().filter(|(_, account)| account.sessions == 0);
            let least = idle.min_by_key(|(_, account)| account.bytes).map(|(who, _)| *who);
            least.map(|who| self.accounts.remove(&who));
        }
    }
}

/// How many messages a peer may still send: a bucket that fills again with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: u64,
    counted: Time,
}

/// An allowance counts in millionths of a message, so that no time is lost between two messages.
const ONE: u64 = 1_000_000;

impl Allowance {
    pub(super) fn new(now: Time, most: u32) -> Allowance {
        Allowance { left: u64::from(most) * ONE, counted: now }
    }

    /// Takes one; `false` where there is none left.
    pub(super) fn take(&mut self, now: Time, most: u32, per_second: u32) -> bool {
        let Span(passed) = now - self.counted;
        self.counted = now;
        let more = passed.saturating_mul(per_second.into());
        self.left = self.left.saturating_add(more).min(u64::from(most) * ONE);
        if self.left < ONE {
            return false;
        }
        self.left -= ONE;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Fingerprint::from_bytes(bytes)
    }

    #[test]
    fn sessions_and_bytes_are_bounded_and_come_back() {
        let quota = Quota { sessions: 2, bytes_per_day: Some(100), bytes_per_second: None };
        let mut accounts = Accounts::new(quota);
        let (one, two) = (name(1), name(2));
        accounts.begin(Time(0), &one);
        accounts.begin(Time(0), &one);
        assert!(!accounts.has_room(Time(0), &one));
        assert!(accounts.has_room(Time(0), &two));
        accounts.end(&one);
        assert!(accounts.has_room(Time(0), &one));
        accounts.count(Time(0), &one, 99);
        assert!(!accounts.is_spent(Time(0), &one));
        accounts.count(Time(0), &one, 1);
        assert!(accounts.is_spent(Time(0), &one) && !accounts.has_room(Time(0), &one));
        let next_day = Time(0) + QUOTA_PERIOD;
        assert!(accounts.has_room(next_day, &one));
        accounts.count(next_day, &one, 1);
        assert!(!accounts.is_spent(next_day, &one));
    }

    #[test]
    fn accounts_are_bounded_and_those_in_use_stay() {
        let mut accounts = Accounts::new(Quota::default());
        let used = name(0);
        accounts.begin(Time(0), &used);
        for n in 1..MAX_ACCOUNTS as u64 + 100 {
            accounts.begin(Time(0), &name(n));
            accounts.count(Time(0), &name(n), n);
            accounts.end(&name(n));
        }
        assert_eq!(accounts.accounts.len(), MAX_ACCOUNTS);
        assert!(accounts.accounts.contains_key(&used));
    }

    #[test]
    fn an_allowance_is_spent_and_fills_again() {
        let mut allowance = Allowance::new(Time(0), 3);
        assert!((0..3).all(|_| allowance.take(Time(0), 3, 2)));
        assert!(!allowance.take(Time(0), 3, 2));
        assert!(!allowance.take(Time(499_999), 3, 2));
        assert!(allowance.take(Time(500_000), 3, 2));
        assert!(!allowance.take(Time(500_000), 3, 2));
        assert!((0..3).all(|_| allowance.take(Time(900_000_000), 3, 2)));
        assert!(!allowance.take(Time(900_000_000), 3, 2));
    }
}
