//! Tails against sums of their terms in 40 digits: `python3 tests/vectors/make.py tails > tests/vectors/tails.txt`.

use kith_actors::binomial::{at_least, fewer_than};

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
