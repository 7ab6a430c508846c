//! Lookups.

use kith_sansio::Span;
use kith_sim::{Data, DhtParams, DhtRow, Overlay, Run, SimError, dht};

const SMALL: DhtParams = DhtParams {
    overlay: Overlay::Kademlia,
    nodes: 2_000,
    colluding: 0,
    mtbf: None,
    parallel: 3,
    paths: 3,
    lookups: 200,
    seed: 1,
};
const HOUR: Span = Span::secs(3_600);

fn simulated(params: DhtParams, threads: usize) -> Data<DhtRow> {
    dht(&params, &Run::new(threads)).unwrap()
}

#[test]
fn data_is_the_same_with_one_thread_and_with_two_and_another_with_another_seed() {
    let params = DhtParams { colluding: 400, mtbf: Some(HOUR), ..SMALL };
    let one = simulated(params, 1);
    assert_eq!(one.csv(), simulated(params, 2).csv());
    assert_ne!(one.csv(), simulated(DhtParams { seed: 2, ..params }, 2).csv());
}

#[test]
fn lookups_take_as_few_rounds_and_requests_as_the_network_promises() {
    let params = DhtParams { nodes: 10_000, parallel: 2, paths: 1, lookups: 1_000, ..SMALL };
    let row = &simulated(params, 2).rows[0];
    assert_eq!((row.lookups, row.success), (1_000, 1.0));
    assert!(row.rounds <= 2.5 && row.requests <= 5.0 && row.rounds_p95 <= row.rounds + 1.5, "{row:?}");
}

#[test]
fn among_malicious_nodes_more_paths_find_more() {
    let success = |paths| {
        let row = simulated(DhtParams { colluding: 800, paths, ..SMALL }, 2).rows.remove(0);
        assert!(row.success_low <= row.success && row.success <= row.success_high);
        row.success
    };
    let [one, eight] = [1, 8].map(success);
    assert!(one < eight && eight > 0.9, "one path: {one}, eight: {eight}");
}

#[test]
fn where_nodes_come_and_go_some_are_asked_in_vain_and_the_nearest_is_found_all_the_same() {
    let params = DhtParams { nodes: 10_000, mtbf: Some(HOUR), ..SMALL };
    let row = &simulated(params, 2).rows[0];
    assert_eq!((row.success, row.mtbf_hours), (1.0, Some(1.0)));
    assert!(row.unanswered > 0.1 && row.unanswered < row.requests / 4.0, "{row:?}");
    let calm = &simulated(DhtParams { mtbf: Some(Span(HOUR.0 * 24)), ..params }, 2).rows[0];
    assert!(calm.unanswered < row.unanswered / 8.0, "{calm:?}");
}

#[test]
fn chord_takes_half_the_logarithm_of_the_nodes_and_every_liar_on_the_way_stops_it() {
    let params = DhtParams { overlay: Overlay::Chord, nodes: 4_096, lookups: 2_000, ..SMALL };
    let row = &simulated(params, 2).rows[0];
    assert_eq!(row.success, 1.0);
    assert!((5.4..6.3).contains(&row.rounds) && row.rounds == row.requests, "{row:?}");
    let among_liars = &simulated(DhtParams { colluding: 820, ..params }, 2).rows[0];
    // One node less than the hops may lie, and four of five do not.
    assert!((0.2..0.45).contains(&among_liars.success), "{among_liars:?}");
}

#[test]
fn a_simulation_that_is_stopped_has_no_row_or_one_that_says_of_how_many() {
    let run = Run::new(2);
    run.stop();
    let data = dht(&SMALL, &run).unwrap();
    assert_eq!((data.is_complete, data.rows.len()), (false, 0));
    assert_eq!(run.progress(), (0, 200));
}

#[test]
fn networks_that_cannot_be_are_refused() {
    let refused = |params| dht(&params, &Run::new(1)).unwrap_err();
    assert_eq!(refused(DhtParams { nodes: 1, ..SMALL }), SimError::Nodes(1));
    let none_honest = SimError::NoneHonest { nodes: 2_000, colluding: 1_999 };
    assert_eq!(refused(DhtParams { colluding: 1_999, ..SMALL }), none_honest);
    assert_eq!(refused(DhtParams { mtbf: Some(Span::ZERO), ..SMALL }), SimError::NoTime);
    let ring = DhtParams { overlay: Overlay::Chord, mtbf: Some(HOUR), ..SMALL };
    assert_eq!(refused(ring), SimError::SettledRing);
    assert_eq!(refused(DhtParams { parallel: 0, ..SMALL }), SimError::Parallel(0));
    assert_eq!(refused(DhtParams { paths: 33, ..SMALL }), SimError::Paths(33));
}
