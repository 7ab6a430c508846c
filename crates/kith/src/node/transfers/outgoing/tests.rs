//! Orders between two nodes, where a command alone shows too little.

use std::path::Path;

use super::*;
use crate::node::scene;
use crate::node::transfers::MAX_RUNNING;
use crate::node::transfers::journal::Row;
use crate::node::transfers::orders::blank;
use crate::node::transfers::receivers::Wish;

/// An order of this file from `node` to its contact south.
fn order(node: &Node, file: &Path, change: impl FnOnce(&mut Row)) -> Arc<Live> {
    let peer = node.book.find("south").unwrap().ni.fingerprint;
    let (to, paths) = ("south".to_owned(), vec![file.display().to_string()]);
    let order = NewTransfer { to, paths, via: None, wait_ms: 60_000, accept_ms: None, limit: None };
    let id = TransferId([7; 16]).to_string();
    let last = blank(&id, "out", "south", State::Interrupted);
    let mut row = Row::new(&peer, Job::Out { order }, system::utc(), last);
    change(&mut row);
    let live = Live::new(id, peer, row);
    node.transfers.insert(&live).unwrap();
    live
}

fn run_of<'a>(node: &'a Arc<Node>, live: &'a Arc<Live>) -> Run<'a> {
    let Job::Out { order } = live.job() else { unreachable!("an order goes out") };
    let course = Course::new(system::time(), Span::secs(60));
    let within = ACCEPT_WITHIN;
    Run { node, live, order, via: Via::Any, accept_within: within, within, course, changes_ways: false }
}

/// Until the transfer waits for this.
async fn waits_for(live: &Live, what: &str) {
    let mut changes = live.changes();
    while live.snapshot().waiting_for.as_deref() != Some(what) {
        changes.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_accepts_pauses_no_more_though_its_turn_to_move_has_not_come() {
    let folder = tempfile::tempdir().unwrap();
    let (north, south) = scene::friends(folder.path()).await;
    let _taken: Vec<_> = (0..MAX_RUNNING).map_while(|_| north.transfers.lanes.moving_now()).collect();
    let file = folder.path().join("note");
    std::fs::write(&file, "x").unwrap();
    let live = order(&north, &file, |row| row.paused_there = true);
    let into = folder.path().join("inbox").display().to_string();
    let wish = Wish { from: None, into, yes: true, overwrite: false };
    let mut run = run_of(&north, &live);
    tokio::select! {
        _ = run.attempt() => unreachable!("it moves without a place"),
        _ = async {
            let _taken = south.transfers.receivers.take(&south.transfers, &wish).await;
            std::future::pending::<()>().await;
        } => {}
        waits = tokio::time::timeout(Duration::from_secs(60), waits_for(&live, "other transfers move first")) => {
            waits.unwrap();
        }
    }
    assert!(!live.is_paused());
    let rows = north.transfers.journal.rows().unwrap();
    assert!(!rows[0].1.paused_there, "also after a restart");
    scene::end(north).await;
    scene::end(south).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_waits_for_its_place_says_so_for_no_longer_than_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let (north, south) = scene::friends(folder.path()).await;
    let file = folder.path().join("note");
    std::fs::write(&file, "x").unwrap();
    let live = order(&north, &file, |_| {});
    let lanes = &north.transfers.lanes;
    let taken: Vec<_> = std::iter::from_fn(|| lanes.offer_now(live.peer)).collect();
    let mut run = run_of(&north, &live);
    run.course = Course::new(system::time(), Span::secs(1));
    let ended = tokio::time::timeout(Duration::from_secs(60), run.attempt()).await.unwrap();
    let Err(Ended::Expired(failure)) = ended else { unreachable!("it had no place") };
    assert!(failure.error.contains("too many other offers"), "{}", failure.error);
    // It says what it waits for, and goes out as soon as there is a place.
    let mut run = run_of(&north, &live);
    let offered = async {
        waits_for(&live, "other offers go out first").await;
        assert!(live.state() == State::Waiting && live.snapshot().until.is_some());
        drop(taken);
        let mut changes = live.changes();
        while live.state() != State::Offered {
            changes.changed().await.unwrap();
        }
    };
    tokio::select! {
        _ = run.attempt() => unreachable!("nobody answers it"),
        offered = tokio::time::timeout(Duration::from_secs(60), offered) => offered.unwrap(),
    }
    scene::end(north).await;
    scene::end(south).await;
}
