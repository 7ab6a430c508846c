use super::*;
use kith_sansio::{SeededRng, Timestamp};

/// A peering at a time of its own.
struct Bench {
    peering: Peering,
    now: Time,
    rng: SeededRng,
}

impl Bench {
    fn new() -> Bench {
        let now = Time(0);
        let at = Now { time: now, utc: Timestamp(0) };
        Bench { peering: Peering::new(at, Pace::default()), now, rng: SeededRng::new(1) }
    }

    fn at(&self) -> Now {
        Now { time: self.now, utc: Timestamp(0) }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.peering.handle_input(self.at(), input, &mut self.rng);
        std::iter::from_fn(|| self.peering.poll_output()).collect()
    }

    /// Runs for so long; what comes out, and after how long since the start of it.
    fn run(&mut self, span: Span) -> Vec<(Span, Output)> {
        let (begin, end) = (self.now, self.now + span);
        let mut outputs = Vec::new();
        while let Some(due) = self.peering.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.peering.handle_timeout(self.at(), &mut self.rng);
            outputs
                .extend(std::iter::from_fn(|| self.peering.poll_output()).map(|one| (self.now - begin, one)));
        }
        self.now = end;
        outputs
    }

    fn connected() -> Bench {
        let mut bench = Bench::new();
        assert_eq!(bench.run(Span::ZERO), [(Span::ZERO, Output::Connect)]);
        assert_eq!(bench.input(Input::Connected(ONE)), []);
        bench
    }
}

const ONE: Connection = Connection(1);
const TWO: Connection = Connection(2);
const THREE: Connection = Connection(3);

#[test]
fn a_better_way_is_taken_beside_the_one_that_is_there_which_ends_a_little_later() {
    let mut bench = Bench::connected();
    assert_eq!(bench.input(Input::Better), [Output::Connect]);
    assert_eq!(bench.input(Input::Better), [], "one at a time");
    assert_eq!(bench.input(Input::Connected(TWO)), []);
    assert_eq!(bench.peering.newest(), Some(TWO));
    assert_eq!(bench.run(Span::secs(6)), [(Span::secs(5), Output::Close(ONE))]);
    assert_eq!(bench.input(Input::Better), [], "not in a circle");
    bench.now = Time(0) + Span::secs(31);
    assert_eq!(bench.input(Input::Better), [Output::Connect]);
    // What is there stays where it led nowhere.
    assert_eq!(bench.input(Input::Failed), []);
    assert_eq!(bench.peering.newest(), Some(TWO));
}

fn is_ask(output: &Output, of: Connection) -> bool {
    matches!(output, Output::Ask(connection, _) if *connection == of)
}

#[test]
fn failed_attempts_come_ever_later_and_never_too_late() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(Span::secs(60)), [(Span::ZERO, Output::Connect)]);
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(bench.input(Input::Failed), []);
        let tried = bench.run(Span::secs(10));
        assert_eq!(tried.iter().map(|(_, output)| *output).collect::<Vec<_>>(), [Output::Connect]);
        waits.push(tried[0].0);
    }
    assert!(waits[0] <= Span::millis(250), "{waits:?}");
    assert!(waits[11] >= Span::secs(5) && waits[11] <= Span::secs(10), "{waits:?}");
}

#[test]
fn who_sends_and_hears_nothing_asks_three_times_and_connects_anew() {
    let mut bench = Bench::connected();
    bench.input(Input::Sent);
    let outputs = bench.run(Span::secs(6));
    assert_eq!(outputs.len(), 5, "{outputs:?}");
    assert!(outputs[..3].iter().all(|(_, output)| is_ask(output, ONE)));
    assert_eq!(outputs[0].0, Span::secs(2));
    assert_eq!(outputs[3], (Span::secs(5), Output::Close(ONE)));
    assert_eq!(outputs[4].1, Output::Connect);
    assert_eq!(bench.peering.newest(), None);
}

#[test]
fn an_answer_ends_the_doubt() {
    let mut bench = Bench::connected();
    for _ in 0..5 {
        bench.input(Input::Sent);
        assert_eq!(bench.run(Span::millis(3_500)).len(), 2);
        assert_eq!(bench.input(Input::Heard(ONE)), []);
    }
    assert_eq!(bench.peering.newest(), Some(ONE));
}

#[test]
fn a_quiet_connection_is_asked_now_and_then() {
    let mut bench = Bench::connected();
    let outputs = bench.run(Span::millis(10_500));
    assert_eq!(outputs.len(), 1);
    assert!(is_ask(&outputs[0].1, ONE) && outputs[0].0 == Span::secs(10));
    bench.input(Input::Heard(ONE));
    assert_eq!(bench.run(Span::millis(9_900)), []);
}

#[test]
fn datagrams_go_over_the_newest_and_a_third_connection_ends_the_oldest() {
    let mut bench = Bench::connected();
    assert_eq!(bench.input(Input::Connected(TWO)), []);
    assert_eq!(bench.peering.newest(), Some(TWO));
    assert_eq!(bench.input(Input::Connected(THREE)), [Output::Close(ONE)]);
    // The end of one that nothing goes over is no loss.
    assert_eq!(bench.input(Input::Ended(TWO)), []);
    assert_eq!(bench.peering.newest(), Some(THREE));
    assert_eq!(bench.input(Input::Ended(TWO)), []);
    bench.input(Input::Ended(THREE));
    assert!(matches!(bench.run(Span::secs(1))[..], [(_, Output::Connect)]));
}

#[test]
fn a_dead_connection_gives_way_to_the_one_before_it() {
    let mut bench = Bench::connected();
    bench.input(Input::Connected(TWO));
    bench.input(Input::Sent);
    let mut closed = false;
    for _ in 0..60 {
        closed |= bench.run(Span::millis(100)).iter().any(|(_, output)| *output == Output::Close(TWO));
        // Hearing the other end over another connection says nothing about this one.
        bench.input(Input::Heard(ONE));
    }
    assert!(closed);
    assert_eq!(bench.peering.newest(), Some(ONE));
}

#[test]
fn hope_cuts_the_wait_short_and_asks_where_there_is_a_connection() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.run(Span::secs(10));
        bench.input(Input::Failed);
    }
    bench.input(Input::Hope);
    assert_eq!(bench.run(Span::ZERO), [(Span::ZERO, Output::Connect)]);
    // While an attempt runs there is nothing to cut short.
    assert_eq!(bench.input(Input::Hope), []);
    let mut bench = Bench::connected();
    assert!(is_ask(&bench.input(Input::Hope)[0], ONE));
}
