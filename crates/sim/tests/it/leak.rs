//! What an adversary reads of the concept index.

use kith_sim::{Colluding, LeakParams, LeakRow, Run, Sharing, SimError, leak_index};

fn params() -> LeakParams {
    LeakParams {
        nodes: 2_000,
        colluding: vec![Colluding::Percent(1.0), Colluding::Percent(10.0)],
        sharing: [(1, 1), (1, 2), (2, 3), (3, 5)].map(|(needed, shares)| Sharing { needed, shares }).to_vec(),
        copies: 1,
        entries: 20_500,
        seed: 1,
    }
}

#[test]
fn what_is_read_is_what_the_formula_gives_and_the_same_with_any_number_of_threads() {
    let leak = |threads| leak_index(&params(), &Run::new(threads)).unwrap();
    let data = leak(2);
    assert_eq!((data.csv(), data.rows.len()), (leak(1).csv(), 8));
    for row in &data.rows {
        // Nodes keep shares of the space that differ, and there are but 21 adversaries.
        let slack = 0.1 * row.formula;
        let interval = row.disclosed_low - slack..=row.disclosed_high + slack;
        assert!(row.entries == 20_500 && interval.contains(&row.formula), "{row:?}");
    }
    let of = |needed, shares| {
        let is_it = |row: &&LeakRow| (row.needed, row.shares, row.colluding) == (needed, shares, 200);
        data.rows.iter().find(is_it).unwrap()
    };
    assert!((of(1, 1).formula - 0.1).abs() < 1e-9 && (of(1, 2).formula - 0.19).abs() < 1e-9);
    assert!((of(2, 3).formula - 0.028).abs() < 1e-9 && (of(3, 5).formula - 0.00856).abs() < 1e-9);
    assert!(of(3, 5).disclosed < of(2, 3).disclosed && of(2, 3).disclosed < of(1, 1).disclosed);
}

#[test]
fn more_copies_disclose_more() {
    let params = LeakParams { copies: 20, ..params() };
    let rows = leak_index(&params, &Run::new(2)).unwrap().rows;
    // One share whole, one node in ten: 1 - 0.9^20, a little more as keepers are not drawn twice.
    assert!((rows[1].formula - 0.8794).abs() < 1e-3 && (rows[1].disclosed - 0.88).abs() < 0.06, "{rows:?}");
}

#[test]
fn an_index_that_cannot_be_is_refused() {
    let refused = |params| leak_index(&params, &Run::new(1)).unwrap_err();
    for (needed, shares) in [(0, 3), (4, 3), (1, 0), (1, 256)] {
        let params = LeakParams { sharing: vec![Sharing { needed, shares }], ..params() };
        assert_eq!(refused(params), SimError::Sharing { needed, shares });
    }
    assert_eq!(refused(LeakParams { copies: 0, ..params() }), SimError::Copies(0));
    assert_eq!(refused(LeakParams { nodes: 1, ..params() }), SimError::Nodes(1));
    let all = LeakParams { colluding: vec![Colluding::Percent(100.0)], ..params() };
    assert_eq!(refused(all), SimError::NoneHonest { nodes: 2_000, colluding: 2_000 });
}
