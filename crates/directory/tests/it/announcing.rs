//! The announcer at work: several directories, one of them down; changes; the end.

use std::sync::{Arc, Mutex};

use kith_directory::client::{Announcer, Clock, Directory, MemoryReplay, SourceName};
use kith_identity::record::Draft;
use kith_sansio::Timestamp;

use crate::world::{Zone, identity, in_time, utc};

fn draft(port: u16) -> Draft {
    Draft { addresses: vec![format!("tcp://127.0.0.1:{port}").parse().unwrap()], ..Draft::default() }
}

#[tokio::test]
async fn a_node_is_announced_everywhere_follows_changes_and_withdraws() {
    let (here, there) = (Zone::start(|_| {}).await, Zone::start(|_| {}).await);
    let gone = Zone::start(|_| {}).await;
    let authorities = vec![here.authority(), there.authority(), gone.authority()];
    gone.stop().await;
    let mut config = here.client_config();
    config.pins.insert(there.authority(), there.identity.fingerprint());
    let directory = Directory::new(config, Vec::new(), Arc::new(MemoryReplay::default()));
    let given = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&given);
    let clock = Clock::new(Timestamp(0), move |at| {
        log.lock().unwrap().push(at);
        Ok(())
    });
    let alice = Arc::new(identity(1));
    let announcer = Announcer::start(directory, Arc::clone(&alice), authorities, clock).unwrap();
    for port in [1, 2] {
        announcer.update(draft(port));
        in_time(announcer.settled()).await;
        let statuses = announcer.statuses();
        assert!(
            statuses[..2].iter().all(|status| status.current && status.until > Some(utc())),
            "{statuses:?}"
        );
        assert!(statuses[2].error.is_some() && !statuses[2].current);
        let mut held = Vec::new();
        for zone in [&here, &there] {
            let found = zone.client().discover_via(&zone.ni(&alice), SourceName::Https).await.unwrap();
            assert_eq!(found.set.addresses(), draft(port).addresses);
            held.push(found.set);
        }
        assert_eq!(held[0], held[1], "nobody who saw one may take the other for a replay");
    }
    assert_eq!(announcer.newest().unwrap().addresses(), draft(2).addresses);
    in_time(announcer.withdraw()).await;
    for zone in [&here, &there] {
        let found = zone.client().discover_via(&zone.ni(&alice), SourceName::Https).await.unwrap();
        assert_eq!(found.set.addresses(), []);
    }
    {
        let given = given.lock().unwrap();
        assert!(given.len() >= 3 && given.windows(2).all(|pair| pair[0] < pair[1]), "strictly increasing");
    }
    here.stop().await;
    there.stop().await;
}
