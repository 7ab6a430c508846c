//! Lookups.

use kith_sim::{Data, DhtParams, DhtRow, Run, SimError, dht};

const SMALL: DhtParams =
    DhtParams { nodes: 2_000, colluding: 0, parallel: 3, paths: 3, lookups: 200, seed: 1 };

fn simulated(params: DhtParams, threads: usize) -> Data<DhtRow> {
    dht(&params, &Run::new(threads)).unwrap()
}

#[test]
fn data_is_the_same_with_one_thread_and_with_two_and_another_with_another_seed() {
    let params = DhtParams { colluding: 400, ..SMALL };
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
    assert_eq!(refused(DhtParams { parallel: 0, ..SMALL }), SimError::Parallel(0));
    assert_eq!(refused(DhtParams { paths: 33, ..SMALL }), SimError::Paths(33));
}
