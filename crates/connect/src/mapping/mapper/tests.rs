use super::*;
use kith_sansio::{SeededRng, Timestamp};

const HOME: Router = Router { gateway: Ipv4Addr::new(192, 168, 1, 1), own: Ipv4Addr::new(192, 168, 1, 5) };
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);

const WANTED: [Wanted; 2] = [Wanted { kind: Kind::Udp, port: 7117 }, Wanted { kind: Kind::Tcp, port: 7117 }];

/// What a router speaks.
#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Pcp,
    NatPmp,
    Upnp,
    Nothing,
}

/// A router and a mapper, in a time of their own.
struct Scene {
    mapper: Mapper,
    rng: SeededRng,
    now: Time,
    speaks: Speaks,
    public: Ipv4Addr,
    /// Ports that the router gives, whatever is wished for.
    shift: u16,
    epoch: u32,
    sent: Vec<Output>,
    changes: usize,
}

impl Scene {
    fn new(speaks: Speaks) -> Scene {
        let mut rng = SeededRng::new(1);
        let mapper = Mapper::new(WANTED, &mut rng);
        let mut scene = Scene {
            mapper,
            rng,
            now: Time(0),
            speaks,
            public: PUBLIC,
            shift: 0,
            epoch: 100,
            sent: Vec::new(),
            changes: 0,
        };
        scene.tell(Input::Router(Some(HOME)));
        scene
    }

    fn tell(&mut self, input: Input) {
        let now = Now { time: self.now, utc: Timestamp(0) };
        self.mapper.handle_input(now, input, &mut self.rng);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.mapper.poll_output() {
            self.sent.push(output.clone());
            let now = Now { time: self.now, utc: Timestamp(0) };
            for input in self.answer(output) {
                self.mapper.handle_input(now, input, &mut self.rng);
            }
        }
    }

    fn answer(&mut self, output: Output) -> Vec<Input> {
        match output {
            Output::Send(packet) => self.packet(&packet).into_iter().map(Input::Heard).collect(),
            Output::Upnp { wish, wanted, lease } => {
                let external = SocketAddrV4::new(self.public, wanted.port + self.shift);
                let lease = (self.speaks == Speaks::Upnp).then_some(Lease { external, ..lease });
                vec![Input::Upnp { wish, lease }]
            }
            Output::UpnpRemove { .. } | Output::UpnpReturn { .. } => Vec::new(),
            Output::Changed => {
                self.changes += 1;
                Vec::new()
            }
        }
    }

    fn packet(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let epoch = self.epoch.to_be_bytes();
        match (self.speaks, packet[0]) {
            (Speaks::Pcp, 2) => {
                let mut answer = packet.to_vec();
                answer[1] |= 0x80;
                answer[8..12].copy_from_slice(&epoch);
                let port = u16::from_be_bytes([packet[40], packet[41]]) + self.shift;
                answer[42..44].copy_from_slice(&port.to_be_bytes());
                answer[44..60].copy_from_slice(&self.public.to_ipv6_mapped().octets());
                Some(answer)
            }
            (Speaks::NatPmp, 2) => Some([&[0, 0x81, 0, 1][..], &epoch].concat()),
            (Speaks::NatPmp, 0) if packet[1] == 0 => {
                Some([&[0, 0x80, 0, 0][..], &epoch, &self.public.octets()].concat())
            }
            (Speaks::NatPmp, 0) => {
                let port = u16::from_be_bytes([packet[4], packet[5]]) + self.shift;
                let head = [0, packet[1] | 0x80, 0, 0];
                Some([&head[..], &epoch, &packet[4..6], &port.to_be_bytes(), &packet[8..12]].concat())
            }
            _ => None,
        }
    }

    /// Lets so much time pass.
    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(next) = self.mapper.poll_timeout().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.mapper.handle_timeout(Now { time: self.now, utc: Timestamp(0) }, &mut self.rng);
            self.drain();
        }
        self.now = end;
    }

    fn mapped(&self) -> Vec<String> {
        self.mapper.mapped().iter().map(ToString::to_string).collect()
    }
}

const BOTH: [&str; 2] = ["quic://93.184.216.34:7117", "tcp://93.184.216.34:7117"];

#[test]
fn every_protocol_gives_both_ports_and_a_router_without_any_gives_none() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp, Speaks::Upnp] {
        let mut scene = Scene::new(speaks);
        scene.pass(Span::secs(10));
        assert_eq!(scene.mapped(), BOTH);
    }
    let mut scene = Scene::new(Speaks::Nothing);
    scene.pass(Span::secs(3600));
    assert!(scene.mapped().is_empty());
    let asked = scene.sent.len();
    scene.pass(Span::secs(86_400));
    assert!(
        scene.sent.len() - asked < 24 * 2 * 12,
        "a router that maps nothing is left alone for longer and longer"
    );
}

#[test]
fn a_router_that_says_it_knows_no_pcp_is_believed_at_once() {
    let scene = Scene::new(Speaks::NatPmp);
    assert_eq!(scene.mapped(), BOTH);
}

#[test]
fn another_port_or_address_of_the_router_is_followed() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp, Speaks::Upnp] {
        let mut scene = Scene::new(speaks);
        scene.pass(Span::secs(10));
        let changes = scene.changes;
        scene.pass(Span::secs(3600));
        assert_eq!(scene.changes, changes, "nothing has changed");
        (scene.public, scene.shift) = (Ipv4Addr::new(93, 184, 216, 35), 1);
        scene.pass(MAPPING_RENEW);
        assert_eq!(scene.mapped(), ["quic://93.184.216.35:7118", "tcp://93.184.216.35:7118"]);
        assert!(scene.changes > changes);
    }
}

#[test]
fn a_router_that_falls_silent_keeps_its_word_until_its_end_and_is_asked_again() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp, Speaks::Upnp] {
        let mut scene = Scene::new(speaks);
        scene.pass(Span::secs(10));
        scene.speaks = Speaks::Nothing;
        scene.pass(Span::secs(1800));
        assert_eq!(scene.mapped(), BOTH);
        scene.pass(MAPPING_LIFE);
        assert!(scene.mapped().is_empty());
        // It may speak something else when it is back.
        scene.speaks = Speaks::Pcp;
        scene.pass(MAPPING_BACKOFF_LAST);
        assert_eq!(scene.mapped(), BOTH);
    }
}

#[test]
fn a_router_that_counts_anew_is_asked_for_everything_at_once() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp] {
        let mut scene = Scene::new(speaks);
        scene.pass(Span::secs(100));
        let second = scene.mapper.entries[1].step;
        // The first to be renewed hears the new count; the other is not due yet.
        scene.mapper.entries[0].step = Step::Due(scene.now);
        scene.epoch = 1;
        let sent = scene.sent.len();
        scene.pass(Span::secs(1));
        let requests =
            scene.sent[sent..].iter().filter(|one| matches!(one, Output::Send(bytes) if bytes.len() > 2));
        assert!(requests.count() >= 2, "{second:?}");
    }
}

#[test]
fn another_network_is_another_router() {
    let mut scene = Scene::new(Speaks::Pcp);
    assert_eq!(scene.mapped(), BOTH);
    scene.tell(Input::Router(None));
    assert!(scene.mapped().is_empty());
    assert_eq!(scene.mapper.poll_timeout(), None);
    scene.tell(Input::Router(Some(Router { own: Ipv4Addr::new(192, 168, 1, 6), ..HOME })));
    assert_eq!(scene.mapped(), BOTH);
}

#[test]
fn addresses_that_the_world_cannot_dial_are_told_to_nobody() {
    let mut scene = Scene::new(Speaks::Nothing);
    (scene.speaks, scene.public) = (Speaks::Pcp, Ipv4Addr::new(100, 64, 0, 7));
    scene.pass(Span::secs(3600));
    assert!(scene.mapped().is_empty(), "behind a second translator");
    scene.public = PUBLIC;
    scene.pass(MAPPING_BACKOFF_LAST);
    assert_eq!(scene.mapped(), BOTH);
}

#[test]
fn mappings_are_given_back_at_the_end() {
    for (speaks, count) in [(Speaks::Pcp, 2), (Speaks::NatPmp, 2), (Speaks::Upnp, 2), (Speaks::Nothing, 0)] {
        let mut scene = Scene::new(speaks);
        scene.pass(Span::secs(10));
        scene.sent.clear();
        scene.tell(Input::Release);
        let removals = scene.sent.iter().filter(|output| match output {
            Output::Send(bytes) if bytes[0] == 2 => bytes[4..8] == [0; 4],
            Output::Send(bytes) => bytes[8..12] == [0; 4],
            Output::UpnpRemove { external, .. } => *external == 7117,
            _ => false,
        });
        assert_eq!(removals.count(), count);
        assert!(scene.mapped().is_empty());
        scene.sent.clear();
        scene.pass(Span::secs(86_400));
        assert!(scene.sent.is_empty(), "it is over");
    }
}

#[test]
fn what_nobody_asked_for_maps_nothing() {
    let mut scene = Scene::new(Speaks::Nothing);
    let unasked = [vec![0, 0x81, 0, 0, 0, 0, 0, 1, 0x1b, 0xcd, 0x1b, 0xcd, 0, 0, 0xff, 0xff], {
        let mut answer = pcp::pcp_map(HOME.own, &[0; 12], Kind::Udp, 7117, &Lease::any(7117, 60));
        answer[1] |= 0x80;
        answer[44..60].copy_from_slice(&PUBLIC.to_ipv6_mapped().octets());
        answer
    }];
    for packet in unasked {
        scene.tell(Input::Heard(packet));
    }
    scene.tell(Input::Upnp { wish: 77, lease: Some(Lease::any(1, 60)) });
    assert!(scene.mapped().is_empty());
}

/// A mapper that has just asked for its ports over UPnP, and the wishes.
fn asking() -> (Mapper, Vec<(u64, Wanted)>) {
    let mut mapper = Mapper::new(WANTED, &mut SeededRng::new(1));
    let mut rng = SeededRng::new(2);
    let at = |time| Now { time, utc: Timestamp(1_800_000_000) };
    mapper.handle_input(at(Time(0)), Input::Router(Some(HOME)), &mut rng);
    let mut wishes = Vec::new();
    while wishes.len() < WANTED.len() {
        while let Some(output) = mapper.poll_output() {
            if let Output::Upnp { wish, wanted, .. } = output {
                wishes.push((wish, wanted));
            }
        }
        if wishes.len() < WANTED.len() {
            let due = mapper.poll_timeout().expect("it goes on");
            mapper.handle_timeout(at(due), &mut rng);
        }
    }
    (mapper, wishes)
}

#[test]
fn what_upnp_maps_too_late_is_used_here_and_given_back_elsewhere() {
    let now = Now { time: Time(3_600_000_000), utc: Timestamp(1_800_000_000) };
    let rng = &mut SeededRng::new(3);
    let lease = |wanted: Wanted| Lease { external: SocketAddrV4::new(PUBLIC, wanted.port), life_secs: 3_600 };
    let tell = |mapper: &mut Mapper, (wish, wanted): (u64, Wanted), rng: &mut SeededRng| {
        mapper.handle_input(now, Input::Upnp { wish, lease: Some(lease(wanted)) }, rng);
        let outputs = std::iter::from_fn(|| mapper.poll_output()).collect::<Vec<_>>();
        outputs.contains(&Output::UpnpReturn { wish })
    };
    // Its time is over, and nothing else is held.
    let (mut mapper, wishes) = asking();
    mapper.handle_timeout(now, rng);
    for wish in &wishes {
        assert!(!tell(&mut mapper, *wish, rng));
    }
    assert_eq!(mapper.mapped().len(), WANTED.len());
    // Another router, or none.
    for router in [Some(Router { gateway: Ipv4Addr::new(10, 1, 1, 1), ..HOME }), None] {
        let (mut mapper, wishes) = asking();
        mapper.handle_input(now, Input::Router(router), rng);
        for wish in &wishes {
            assert!(tell(&mut mapper, *wish, rng));
            assert!(!tell(&mut mapper, *wish, rng), "once");
        }
        assert!(mapper.mapped().is_empty());
    }
    // The end.
    let (mut mapper, wishes) = asking();
    mapper.handle_input(now, Input::Release, rng);
    for wish in &wishes {
        assert!(tell(&mut mapper, *wish, rng));
    }
}
