//! The book of an issuer in `node.redb`: what it says is durable before it is signed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use kith_identity::Fingerprint;
use kith_identity::membership::{Counters, Enrolment, Ledger, StatementError};
use kith_sansio::Timestamp;
use kith_sansio::wire::{Reader, WireError, Writer};
use kith_store::{Database, StoreError, Table};

/// What is kept of each member, by fingerprint.
const MEMBERS: Table = Table("network_members");
/// Since when who is invited, by fingerprint.
const INVITED: Table = Table("network_invited");
/// Rows of one: [`ISSUER`] and [`COUNTERS`].
const ISSUED: Table = Table("network_issued");
/// The fingerprint of the key that issues.
const ISSUER: &[u8] = b"issuer";
/// The numbers given out last: `u64 serial ‖ u64 epoch`.
const COUNTERS: &[u8] = b"counters";

/// The rows of an issuer.
#[derive(Clone)]
pub(super) struct Rows(pub(super) Database);

/// Why the book cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    /// The database does not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What stands there is no certificate.
    #[error("a row of a member: {0}")]
    Enrolment(#[from] StatementError),
    /// What stands there are no numbers.
    #[error("a row of the issuer: {0}")]
    Row(#[from] WireError),
}

impl Ledger for Rows {
    type Error = LedgerError;

    fn enrolment(&self, member: &Fingerprint) -> Result<Option<Enrolment>, LedgerError> {
        let row = self.0.read(|tables| tables.row(MEMBERS, member.as_bytes()))?;
        Ok(row.map(|row| Enrolment::from_bytes(&row)).transpose()?)
    }

    fn enrolments(&self) -> Result<Vec<Enrolment>, LedgerError> {
        let mut all = Vec::new();
        self.0.read(|tables| {
            tables.scan(MEMBERS, &[], |_, row| {
                all.push(Enrolment::from_bytes(row));
                ControlFlow::Continue(())
            })
        })?;
        Ok(all.into_iter().collect::<Result<_, StatementError>>()?)
    }

    fn counters(&self) -> Result<Counters, LedgerError> {
        let Some(row) = self.0.read(|tables| tables.row(ISSUED, COUNTERS))? else {
            return Ok(Counters::default());
        };
        let mut reader = Reader::new(&row);
        let counters = Counters { serial: reader.u64()?, epoch: reader.u64()? };
        reader.finish()?;
        Ok(counters)
    }

    fn write(&mut self, counters: Counters, enrolment: Option<&Enrolment>) -> Result<(), LedgerError> {
        let mut writer = Writer::new();
        writer.u64(counters.serial).u64(counters.epoch);
        let numbers = writer.finish();
        Ok(self.0.write(|tables| {
            tables.put(ISSUED, COUNTERS, &numbers)?;
            enrolment.map_or(Ok::<_, StoreError>(()), |enrolment| {
                tables.put(MEMBERS, enrolment.member.claimed().as_bytes(), &enrolment.to_bytes())
            })
        })?)
    }
}

impl Rows {
    /// Whose network this home issues, where it does.
    pub(super) fn issuer(&self) -> Result<Option<Fingerprint>, LedgerError> {
        let row = self.0.read(|tables| tables.row(ISSUED, ISSUER))?;
        Ok(row.map(|row| Reader::new(&row).array().map(Fingerprint::from_bytes)).transpose()?)
    }

    /// Makes this home the issuer of the network of this key.
    pub(super) fn set_issuer(&self, issuer: &Fingerprint) -> Result<(), LedgerError> {
        Ok(self.0.write(|tables| tables.put(ISSUED, ISSUER, issuer.as_bytes()))?)
    }

    /// Who is invited.
    pub(super) fn invited(&self) -> Result<BTreeSet<Fingerprint>, LedgerError> {
        let mut invited = BTreeSet::new();
        self.0.read(|tables| {
            tables.scan(INVITED, &[], |key, _| {
                invited.extend(key.try_into().map(Fingerprint::from_bytes));
                ControlFlow::Continue(())
            })
        })?;
        Ok(invited)
    }

    /// Invites nodes, all or none.
    pub(super) fn invite(&self, who: &[Fingerprint], now: Timestamp) -> Result<(), LedgerError> {
        let since = now.0.to_be_bytes();
        Ok(self
            .0
            .write(|tables| who.iter().try_for_each(|who| tables.put(INVITED, who.as_bytes(), &since)))?)
    }

    /// Takes an invitation back; false where there was none.
    pub(super) fn uninvite(&self, who: &Fingerprint) -> Result<bool, LedgerError> {
        Ok(self.0.write(|tables| tables.remove(INVITED, who.as_bytes()))?)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kith_identity::Identity;
    use kith_identity::membership::{Issuer, Request, Terms, VerifiedMember};
    use kith_sansio::SeededRng;
    use kith_store::crash::Backend;

    use super::*;

    const NOW: Timestamp = Timestamp(1_769_860_800);

    fn identity(seed: u64) -> Identity {
        Identity::generate(&mut SeededRng::new(seed))
    }

    fn issuer(database: &Database) -> Issuer<Rows> {
        Issuer::new(identity(9), Terms::default(), Rows(database.clone()))
    }

    fn admit(issuer: &mut Issuer<Rows>, seed: u64, now: Timestamp) -> VerifiedMember {
        let network = issuer.network().id();
        let request = Request::sign(&identity(seed), &network).verify(&network).unwrap();
        issuer.admit(&request, now).unwrap()
    }

    #[test]
    fn an_issuer_that_starts_again_knows_its_members_and_gives_no_number_twice() {
        let database = Database::in_memory().unwrap();
        let mut before = issuer(&database);
        let (one, two) = (admit(&mut before, 1, NOW), admit(&mut before, 2, NOW));
        before.revoke(&two.fingerprint(), NOW).unwrap();
        let epoch = before.roll(NOW, |_, _, _| [0; 32]).unwrap().epoch;
        drop(before);
        let mut after = issuer(&database);
        assert_eq!(admit(&mut after, 1, NOW), one);
        let renewed = admit(&mut after, 1, NOW.plus_secs(80 * 86_400));
        assert_eq!((renewed.serial(), renewed.nonce(), renewed.id()), (3, one.nonce(), one.id()));
        let next = after.roll(NOW, |_, _, _| [0; 32]).unwrap();
        assert_eq!((epoch.facts().epoch, next.epoch.facts().epoch), (1, 2));
        assert_eq!((next.members.leaves().len(), next.revoked.leaves().len()), (1, 1));
    }

    #[test]
    fn what_was_given_out_is_in_the_book_whenever_the_power_goes() {
        let disk = Backend::new();
        let (made, mut given) = (Cell::new(0), Vec::new());
        {
            let mut issuer = issuer(&Database::open_backend(&disk, 1 << 20).unwrap());
            made.set(disk.events());
            for seed in 1..=4 {
                given.push((admit(&mut issuer, seed, NOW), disk.events()));
            }
        }
        let mut rng = SeededRng::new(1);
        for events in made.get()..=disk.events() {
            let image = Backend::with_image(disk.image_at(events, &mut rng));
            let rows = Rows(Database::open_backend(&image, 1 << 20).unwrap());
            let (kept, numbers) = (rows.enrolments().unwrap(), rows.counters().unwrap());
            for (member, _) in given.iter().filter(|(_, done)| *done <= events) {
                let enrolment = rows.enrolment(&member.fingerprint()).unwrap().unwrap();
                assert_eq!(&enrolment.member, member.as_member());
                assert!(numbers.serial >= member.serial());
            }
            assert_eq!(numbers.serial, kept.len() as u64, "a number and its certificate go together");
        }
    }

    #[test]
    fn invitations_are_kept_until_they_are_taken_back() {
        let rows = Rows(Database::in_memory().unwrap());
        let [one, two] = [1, 2].map(|seed| identity(seed).fingerprint());
        rows.invite(&[one, two], NOW).unwrap();
        assert!(rows.uninvite(&one).unwrap() && !rows.uninvite(&one).unwrap());
        assert_eq!(rows.invited().unwrap(), BTreeSet::from([two]));
        assert_eq!(rows.issuer().unwrap(), None);
        rows.set_issuer(&one).unwrap();
        assert_eq!(rows.issuer().unwrap(), Some(one));
    }
}
