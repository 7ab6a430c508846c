use kith_sansio::{SeededRng, Span, Time};
use kith_vnet::{Counts, Faults, Network};
use proptest::prelude::*;

const MESSAGES: u64 = 20_000;
const FOREVER: Time = Time(u64::MAX);

/// Sends numbered messages, one every millisecond, and gives back what arrives when.
fn traffic(seed: u64, faults: Faults) -> (Vec<(Time, u64)>, Counts) {
    let mut rng = SeededRng::new(seed);
    let mut network = Network::new(faults);
    let mut arrived = Vec::new();
    for number in 0..MESSAGES {
        let now = Time(number * 1_000);
        drain(&mut network, now, &mut arrived);
        network.send(now, 'a', 'b', number, &mut rng);
    }
    drain(&mut network, FOREVER, &mut arrived);
    (arrived, network.counts())
}

fn drain(network: &mut Network<char, u64>, until: Time, arrived: &mut Vec<(Time, u64)>) {
    while let Some(due) = network.poll_timeout().filter(|due| *due <= until) {
        if let Some((from, to, number)) = network.receive(due) {
            assert_eq!((from, to), ('a', 'b'));
            arrived.push((due, number));
        }
    }
}

fn assert_near(found: u64, expected_permille: u32) {
    let expected = MESSAGES * u64::from(expected_permille) / 1_000;
    assert!(found.abs_diff(expected) < MESSAGES / 100, "{found} where about {expected} are expected");
}

#[test]
fn equal_seeds_give_equal_deliveries_and_others_differ() {
    assert_eq!(traffic(1, Faults::harsh()), traffic(1, Faults::harsh()));
    assert_ne!(traffic(1, Faults::harsh()).0, traffic(2, Faults::harsh()).0);
}

#[test]
fn without_faults_everything_arrives_once_in_order_and_in_time() {
    let (arrived, counts) = traffic(3, Faults::none(Span::millis(7)));
    let expected: Vec<_> = (0..MESSAGES).map(|number| (Time(number * 1_000 + 7_000), number)).collect();
    assert_eq!(arrived, expected);
    assert_eq!(counts, Counts { sent: MESSAGES, delivered: MESSAGES, ..Counts::default() });
}

#[test]
fn faults_happen_as_often_as_asked() {
    let faults =
        Faults { drop_permille: 200, duplicate_permille: 100, reorder_permille: 50, ..Faults::harsh() };
    let (arrived, counts) = traffic(4, faults);
    assert_near(counts.dropped, 200);
    assert_near(counts.duplicated, 80);
    assert_near(counts.reordered, 44);
    assert_eq!(counts.delivered, counts.sent - counts.dropped + counts.duplicated);
    assert_eq!(arrived.len() as u64, counts.delivered);
    let late = arrived.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
    assert!(late > 100, "{late}");
}

#[test]
fn delays_lie_in_their_range_and_keep_the_order_of_a_link() {
    let delay = Span::millis(20)..=Span::millis(80);
    let (arrived, _) = traffic(5, Faults { delay, ..Faults::default() });
    assert!(arrived.is_sorted_by_key(|(_, number)| *number));
    let delays: Vec<_> = arrived.iter().map(|(at, number)| at.0 - number * 1_000).collect();
    assert!(delays.iter().all(|delay| (20_000..=80_000).contains(delay)));
    assert!(delays.iter().max().unwrap() - delays.iter().min().unwrap() > 20_000);
}

#[test]
fn a_partition_cuts_both_ways_and_healing_ends_it() {
    let mut rng = SeededRng::new(6);
    let mut network = Network::new(Faults::default());
    network.partition_groups(&[1, 2], &[3]);
    for (from, to) in [(1, 3), (3, 2), (1, 2)] {
        network.send(Time(0), from, to, "first", &mut rng);
    }
    assert_eq!(network.receive(FOREVER), Some((1, 2, "first")));
    assert_eq!(network.receive(FOREVER), None);
    network.heal();
    network.send(Time(0), 1, 3, "second", &mut rng);
    network.send(Time(0), 3, 1, "third", &mut rng);
    assert_eq!(network.receive(FOREVER), Some((1, 3, "second")));
    network.cut(&3, &1);
    assert_eq!(network.receive(FOREVER), None, "what is under way is lost where the cut lasts");
    assert_eq!(network.counts().cut, 3);
}

#[test]
fn a_crashed_node_hears_and_says_nothing_but_what_it_said_before_arrives() {
    let mut rng = SeededRng::new(7);
    let mut network = Network::new(Faults::default());
    network.send(Time(0), 1, 2, "from it, before", &mut rng);
    network.send(Time(0), 2, 1, "to it, under way", &mut rng);
    network.crash(&1);
    network.send(Time(0), 1, 2, "from it", &mut rng);
    network.send(Time(0), 2, 1, "to it", &mut rng);
    network.restart(&1);
    network.send(Time(0), 2, 1, "to it, after", &mut rng);
    assert_eq!(network.receive(FOREVER), Some((1, 2, "from it, before")));
    assert_eq!(network.receive(FOREVER), Some((2, 1, "to it, after")));
    assert_eq!(network.receive(FOREVER), None);
}

#[test]
fn a_link_may_have_faults_of_its_own() {
    let mut rng = SeededRng::new(8);
    let mut network = Network::new(Faults::none(Span::millis(1)));
    network.set_link(1, 2, Faults::none(Span::secs(1)));
    network.send(Time(0), 1, 2, (), &mut rng);
    assert_eq!(network.poll_timeout(), Some(Time(1_000_000)));
    network.send(Time(0), 2, 1, (), &mut rng);
    assert_eq!(network.poll_timeout(), Some(Time(1_000)));
    assert_eq!(network.receive(Time(999)), None);
    assert_eq!(network.receive(Time(1_000)), Some((2, 1, ())));
}

proptest! {
    #[test]
    fn every_message_is_accounted_for(
        seed: u64,
        drop_permille in 0u32..=1000,
        duplicate_permille in 0u32..=1000,
        reorder_permille in 0u32..=1000,
        reorder_by in 0u64..100_000,
        (shortest, longest) in (0u64..50_000, 0u64..50_000),
        cuts: u8,
    ) {
        let delay = Span(shortest)..=Span(longest);
        let faults =
            Faults { drop_permille, duplicate_permille, reorder_permille, reorder_by: Span(reorder_by), delay };
        let mut rng = SeededRng::new(seed);
        let mut network = Network::new(faults);
        let (mut received, mut last) = (0, Time(0));
        for number in 0..200u64 {
            let (from, to) = (number % 4, (number / 4) % 4);
            match (u64::from(cuts) + number) % 50 {
                0 => network.partition(&from, &to),
                1 => network.heal(),
                2 => network.crash(&to),
                3 => network.restart(&from),
                _ => network.send(Time(number * 500), from, to, number, &mut rng),
            }
        }
        while let Some(due) = network.poll_timeout() {
            prop_assert!(due >= last);
            last = due;
            received += u64::from(network.receive(due).is_some());
        }
        let counts = network.counts();
        prop_assert_eq!(received, counts.delivered);
        prop_assert_eq!(counts.delivered + counts.dropped + counts.cut, counts.sent + counts.duplicated);
        prop_assert_eq!(network.in_flight(), 0);
    }
}
