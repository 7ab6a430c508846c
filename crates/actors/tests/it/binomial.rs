//! Tails against sums of their terms in 40 digits: `python3 tests/vectors/make.py tails > tests/vectors/tails.txt`.

use kith_actors::binomial::{at_least, best_of, fewer_than};

#[test]
fn both_tails_are_those_of_the_summed_terms() {
    for line in include_str!("../vectors/tails.txt").lines() {
        let [k, n, rs, high, low] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (k, n, rs): (u64, u64, f64) = (k.parse().unwrap(), n.parse().unwrap(), rs.parse().unwrap());
        let bound = if n > 10_000_000 { 1e-5 } else { 1e-6 };
        for (found, wanted) in [(at_least(k, n, rs), high), (fewer_than(k, n, rs), low)] {
            let wanted: f64 = wanted.parse().unwrap();
            assert!((found / wanted - 1.0).abs() < bound, "{line}: {found:e}");
        }
    }
}

#[test]
fn the_ends_are_certain() {
    for (k, n, rs, high) in [(0, 5, 0.3, 1.0), (6, 5, 0.3, 0.0), (5, 5, 1.0, 1.0), (1, 5, 0.0, 0.0)] {
        assert_eq!(at_least(k, n, rs), high);
        assert_eq!(fewer_than(k, n, rs), 1.0 - high);
    }
}

#[test]
fn the_best_of_several_draws_is_that_of_the_distribution() {
    assert!((best_of(1, 32, 0.01) - 0.32).abs() < 1e-12);
    // Two coins, the better of two throws: 2 with 7/16, 1 with 8/16.
    assert!((best_of(2, 2, 0.5) - (2.0 * 7.0 + 8.0) / 16.0).abs() < 1e-12);
    assert!(best_of(1_000_000, 4, 0.5) > 3.999);
    // The table of docs/actors-protocol.md.
    for (colluding, wanted) in [(100, 3.54), (1_000, 4.34), (10_000, 5.15), (100_000, 5.89)] {
        assert!((best_of(24 * colluding, 32, 0.01) - wanted).abs() < 0.005);
    }
}
