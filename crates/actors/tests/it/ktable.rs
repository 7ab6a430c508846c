//! k-tables against the same equations in 40 digits:
//! `python3 tests/vectors/make.py tables > tests/vectors/tables.txt`; and against what SEP2P reports.

use kith_actors::ktable::{Arc, KTable, MAX_NODES, Network, Prefix, Region, TableError};
use proptest::prelude::*;

fn exact(nodes: u64, colluding: u64, alpha: f64) -> KTable<Arc> {
    KTable::exact(Network::new(nodes, colluding, alpha).unwrap()).unwrap()
}

fn dyadic(nodes: u64, colluding: u64, alpha: f64) -> KTable<Prefix> {
    KTable::dyadic(Network::new(nodes, colluding, alpha).unwrap()).unwrap()
}

fn near(found: f64, wanted: &str) -> bool {
    (found / wanted.parse::<f64>().unwrap() - 1.0).abs() < 1e-6
}

#[test]
fn exact_tables_are_those_of_the_equations_row_by_row() {
    for block in include_str!("../vectors/tables.txt").split("table ").skip(1) {
        let (head, rows) = block.split_once('\n').unwrap();
        let [nodes, colluding, alpha] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        let table = exact(nodes.parse().unwrap(), colluding.parse().unwrap(), alpha.parse().unwrap());
        assert_eq!(table.rows().len(), rows.lines().count(), "{head}");
        for (row, line) in table.rows().iter().zip(rows.lines()) {
            let [k, rs, share] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert_eq!(row.k, k.parse::<u64>().unwrap(), "{head}");
            assert!(near(row.region.size(), rs) && near(row.share, share), "{head}: {line}: {row:?}");
        }
    }
}

#[test]
fn a_million_nodes_with_ten_thousand_colluding_need_eight_operations() {
    let table = exact(1_000_000, 10_000, 1e-6);
    assert_eq!(2 * table.mean_k().round() as u64, 8);
    let most = table.rows().iter().max_by(|a, b| a.share.total_cmp(&b.share)).unwrap();
    assert_eq!(2 * most.k, 8);
}

#[test]
fn ten_million_nodes_with_one_percent_colluding_need_the_known_numbers() {
    for (alpha, mean, largest) in [(1e-6, 3.79, 6), (1e-10, 6.26, 10), (1e-12, 7.51, 12)] {
        let table = exact(10_000_000, 100_000, alpha);
        assert!((table.mean_k() - mean).abs() < 0.005, "{alpha:e}: {}", table.mean_k());
        assert_eq!(table.k_max(), largest, "{alpha:e}");
    }
}

#[test]
fn equal_shares_of_colluding_nodes_need_equal_k_in_networks_of_any_size() {
    for alpha in [1e-6, 1e-10] {
        let (small, large) = (exact(10_000, 100, alpha), exact(10_000_000, 100_000, alpha));
        assert_eq!(small.k_max(), large.k_max());
        assert!((small.mean_k() - large.mean_k()).abs() < 0.05);
    }
}

#[test]
fn blocks_cost_little_more_than_regions_of_any_size() {
    for (colluding, largest) in [(100, 14), (1_000, 15), (10_000, 13), (100_000, 14)] {
        let table = dyadic(100 * colluding, colluding, 1e-12);
        assert!((7.98..8.5).contains(&table.mean_k()), "{colluding}: {}", table.mean_k());
        assert_eq!(table.k_max(), largest, "{colluding}");
    }
}

#[test]
fn each_block_is_the_largest_for_its_k_and_no_smaller_k_is_safe_in_it() {
    let table = dyadic(10_000_000, 100_000, 1e-12);
    let unsafe_in = |k, bits| {
        let held = kith_actors::binomial::at_least(k, 100_000, Prefix { bits }.size());
        held >= 1e-12 || held * f64::from(bits).exp2() >= 1e-6
    };
    for row in table.rows() {
        let bits = row.region.bits;
        assert!(
            !unsafe_in(row.k, bits) && unsafe_in(row.k, bits - 1) && unsafe_in(row.k - 1, bits),
            "{row:?}"
        );
    }
}

/// A place is cheap to look for: whoever checks a list has not seen the draw that names it.
#[test]
fn no_block_of_the_network_is_the_adversarys_and_nobody_signs_alone() {
    for (nodes, colluding) in [(64, 10), (10_000, 100), (10_000_000, 100_000), (1_000_000_000, 10_000_000)] {
        let table = dyadic(nodes, colluding, 1e-12);
        assert!(table.rows()[0].k > 1, "{nodes}");
        for row in table.rows() {
            let blocks = f64::from(row.region.bits).exp2();
            let held = kith_actors::binomial::at_least(row.k, colluding, row.region.size());
            assert!(blocks * held < 1e-6, "{nodes}: {row:?}");
        }
        assert!(table.any_trigger() < 1e-6 * table.rows().len() as f64, "{}", table.any_trigger());
    }
}

#[test]
fn where_no_block_is_safe_all_of_a_small_network_decides() {
    let table = dyadic(64, 10, 1e-12);
    let last = table.rows().last().unwrap();
    assert_eq!((last.k, last.region), (11, Prefix { bits: 0 }));
    assert!(last.share > 0.99);
}

#[test]
fn what_no_table_helps_against_is_refused_with_its_reason() {
    let network = |nodes, colluding, alpha| Network::new(nodes, colluding, alpha);
    assert_eq!(network(1, 1, 1e-6), Err(TableError::Nodes(1)));
    assert_eq!(network(MAX_NODES + 1, 1, 1e-6), Err(TableError::Nodes(MAX_NODES + 1)));
    for colluding in [0, 10] {
        assert_eq!(network(10, colluding, 1e-6), Err(TableError::Colluding { nodes: 10, colluding }));
    }
    for alpha in [0.0, 1.0, -1.0, 1e-61, f64::INFINITY] {
        assert_eq!(network(10, 1, alpha), Err(TableError::Alpha(alpha)));
    }
    assert!(network(10, 1, f64::NAN).is_err());
    let nearly_all = network(12, 11, 1e-6).unwrap();
    assert_eq!(KTable::dyadic(nearly_all), Err(TableError::TooFewNodes { nodes: 12, colluding: 11 }));
    let vast = network(1_000_000, 999_000, 1e-6).unwrap();
    assert_eq!(KTable::dyadic(vast), Err(TableError::TooLong));
    assert_eq!(KTable::exact(vast), Err(TableError::TooLong));
}

#[test]
fn the_first_row_that_holds_enough_is_taken() {
    let table = exact(1_000_000, 10_000, 1e-6);
    let first = |held: u64| table.first(|_| held).map(|row| row.k);
    assert_eq!((first(0), first(1), first(100)), (None, Some(1), Some(1)));
    let only_in_large = table.first(|region| if region.size() > 1e-5 { 6 } else { 0 });
    assert_eq!(only_in_large.unwrap().k, 5);
}

#[test]
fn the_canonical_form_and_its_hash_stay_what_they_are() {
    let table = dyadic(64, 10, 1e-12);
    let hex = data_encoding::HEXLOWER.encode(&table.to_bytes());
    assert_eq!(
        hex,
        concat!(
            "0000000000000040",
            "000000000000000a",
            "3d719799812dea11",
            "000a",
            "00000000000000021a",
            "000000000000000310",
            "00000000000000040c",
            "00000000000000050a",
            "000000000000000608",
            "000000000000000707",
            "000000000000000806",
            "000000000000000905",
            "000000000000000a04",
            "000000000000000b00",
        )
    );
    assert_eq!(
        data_encoding::HEXLOWER.encode(&table.hash()),
        "877b2a6a2263a0291a7ef1810d473b238617495cc2bbe24817dbbd2e60f3f526"
    );
}

#[test]
fn the_adversary_is_bounded_over_all_triggers_together() {
    let table = exact(10_000_000, 100_000, 1e-10);
    let rows = table.rows().len() as f64;
    assert!((table.any_trigger() / (rows * 1e7 * 1e-10) - 1.0).abs() < 1e-3, "{}", table.any_trigger());
    assert_eq!(exact(1_000_000, 10_000, 1e-6).any_trigger(), 1.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tables_rise_and_their_shares_leave_out_at_most_alpha(
        nodes in 2u64..2_000_000,
        part in 0.0f64..0.4,
        exponent in -14.0f64..-1.0,
    ) {
        let colluding = ((nodes as f64 * part) as u64).max(1);
        let alpha = 10f64.powf(exponent);
        let network = Network::new(nodes, colluding, alpha).unwrap();
        prop_assert!(rises(&KTable::exact(network).unwrap()));
        match KTable::dyadic(network) {
            Ok(table) => prop_assert!(rises(&table)),
            Err(error) => prop_assert_eq!(error, TableError::TooFewNodes { nodes, colluding }),
        }
    }
}

/// Whether k and size rise, and the shares fall short of all nodes by about α at most.
fn rises<R: Region>(table: &KTable<R>) -> bool {
    let short = 1.0 - table.rows().iter().map(|row| row.share).sum::<f64>();
    let alpha = table.network().alpha();
    table.rows().is_sorted_by(|a, b| a.k < b.k && a.region.size() < b.region.size())
        && (-1e-6..=alpha + 1e-6).contains(&short)
}
