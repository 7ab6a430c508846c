//! Congestion control of QUIC connections.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq::congestion::{Bbr3Config, Controller, ControllerFactory, ControllerMetrics};
use noq_proto::RttEstimator;

/// Packets that go out in a round trip however little went before.
const LEAST_PACKETS: u32 = 4;
/// Packets that are put together and sent at once, where the connection has sent hardly anything yet. It reserves room
/// for as many as may be, and keeps it.
const FIRST_BATCH: u64 = 2;

/// Makes controllers of BBR: a machine that is busy acknowledges late, and CUBIC takes that for loss and falls to a tenth
/// of the speed on loopback.
pub(super) struct Congestion(Arc<Bbr3Config>);

impl Congestion {
    /// Sends so many bytes before anything is known of the path.
    pub(super) fn starting_with(initial_window: u64) -> Congestion {
        let mut bbr = Bbr3Config::default();
        bbr.initial_window(initial_window);
        Congestion(Arc::new(bbr))
    }
}

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let bbr = Arc::clone(&self.0).build(now, mtu);
        Box::new(Prompt { bbr, mtu, rtt: None, sent: 0 })
    }
}

/// BBR that does not hold back who speaks little. Where an application sends a small packet now and then, BBR takes the
/// little that it sees for what the path can carry, paces by it, and a packet waits for ten milliseconds on a path of
/// which nothing is used. Its window is never under four packets, so that four packets in a round trip are no more than
/// it allows anyway.
#[derive(Debug)]
struct Prompt {
    bbr: Box<dyn Controller>,
    mtu: u16,
    rtt: Option<Duration>,
    /// Bytes sent so far.
    sent: u64,
}

/// The pace that BBR asks for, in bytes per second, but no slower than [`LEAST_PACKETS`] in a round trip.
fn no_slower(pace: u64, mtu: u16, rtt: Duration) -> u64 {
    let bytes = u128::from(mtu) * u128::from(LEAST_PACKETS);
    let least = bytes * 1_000_000_000 / rtt.as_nanos().max(1);
    pace.max(u64::try_from(least).unwrap_or(u64::MAX))
}

/// Bytes that are put together and sent at once: what BBR allows, but no more than were sent before.
fn batch(allowed: Option<u64>, mtu: u16, sent: u64) -> u64 {
    let most = sent.max(FIRST_BATCH * u64::from(mtu));
    allowed.map_or(most, |allowed| allowed.min(most))
}

impl Controller for Prompt {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest: u64) {
        self.sent = self.sent.saturating_add(bytes);
        self.bbr.on_sent(now, bytes, largest);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, number: u64) {
        self.bbr.on_packet_sent(now, bytes, number);
    }

    fn on_cwnd_limited(&mut self) {
        self.bbr.on_cwnd_limited();
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        number: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.rtt = Some(rtt.get());
        self.bbr.on_ack(now, sent, bytes, number, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.bbr.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost: u64,
    ) {
        self.bbr.on_congestion_event(now, sent, is_persistent, is_ecn, lost_bytes, largest_lost);
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, number: u64, now: Instant) {
        self.bbr.on_packet_lost(lost_bytes, number, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.bbr.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.bbr.on_mtu_update(mtu);
    }

    fn on_ack_frequency_update(&mut self, threshold: u64, max_delay: Duration) {
        self.bbr.on_ack_frequency_update(threshold, max_delay);
    }

    fn window(&self) -> u64 {
        self.bbr.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.bbr.metrics();
        if let (Some(pace), Some(rtt)) = (metrics.pacing_rate, self.rtt) {
            metrics.pacing_rate = Some(no_slower(pace, self.mtu, rtt));
        }
        metrics.send_quantum = Some(batch(metrics.send_quantum, self.mtu, self.sent));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Prompt { bbr: self.bbr.clone_box(), mtu: self.mtu, rtt: self.rtt, sent: self.sent })
    }

    fn initial_window(&self) -> u64 {
        self.bbr.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use kith_sansio::system::{instant, time};

    use super::*;

    #[test]
    fn a_slow_pace_is_four_packets_in_a_round_trip_and_a_fast_one_stays() {
        let rtt = Duration::from_millis(40);
        assert_eq!(no_slower(9_000, 1_250, rtt), 125_000);
        assert_eq!(no_slower(125_001, 1_250, rtt), 125_001);
        // No round trip is short enough for a division by nothing.
        assert!(no_slower(1, 1_250, Duration::ZERO) > 1 << 40);
    }

    #[test]
    fn a_batch_is_what_bbr_allows_and_no_more_than_was_sent_before() {
        assert_eq!(batch(Some(64_000), 1_250, 0), 2_500);
        assert_eq!(batch(Some(64_000), 1_250, 5_000), 5_000);
        assert_eq!(batch(Some(64_000), 1_250, 1 << 40), 64_000);
        assert_eq!(batch(None, 1_250, 5_000), 5_000);
        let now = instant(time());
        let mut ours = Arc::new(Congestion::starting_with(48 << 10)).build(now, 1_250);
        ours.on_sent(now, 4_000, 3);
        assert!(ours.metrics().send_quantum.is_some_and(|quantum| quantum <= 4_000));
    }

    #[test]
    fn before_the_first_answer_the_pace_is_that_of_bbr() {
        let now = instant(time());
        let bbr = Arc::new(Bbr3Config::default()).build(now, 1_250);
        let ours = Arc::new(Congestion::starting_with(bbr.initial_window())).build(now, 1_250);
        assert_eq!(ours.metrics().pacing_rate, bbr.metrics().pacing_rate);
        assert_eq!(ours.clone_box().window(), bbr.window());
    }
}
