//! Machines on a network of their own: network namespaces behind a bridge, gone with the test.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Done, Person, Running};

/// Some machines on one Ethernet, and those behind them; nothing leaves it.
pub struct Lan {
    hub: Machine,
    machines: Vec<Machine>,
    /// The first three bytes of their addresses.
    net: &'static str,
}

/// What a NAT does with UDP (RFC 4787 §4 and §5) or with TCP (RFC 5382); what else comes from outside is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// One port outside for a port inside, open for everybody.
    Open,
    /// One port outside for a port inside, open for addresses that were sent to from there.
    Restricted,
    /// One port outside for a port inside, open for ports that were sent to from there.
    PortRestricted,
    /// Another port outside for each that is sent to.
    Symmetric,
}

impl Nat {
    /// The rules of a router whose way out is `eth0`, for one machine behind it, and for `udp` or `tcp`.
    fn rules(self, inside: &str, protocol: &str) -> String {
        let lets_in = match self {
            Nat::Open => format!("iifname eth0 {protocol} dport @mapped dnat to {inside}"),
            Nat::Restricted => format!("iifname eth0 ip saddr . {protocol} dport @met dnat to {inside}"),
            Nat::PortRestricted | Nat::Symmetric => String::new(),
        };
        let ports = if self == Nat::Symmetric { "random,fully-random" } else { "" };
        // What is refused leaves no trace among the connections: it would take the port of an answer.
        format!(
            "table ip nat {{
                set mapped {{ type inet_service; flags dynamic,timeout; timeout 2m; }}
                set met {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; }}
                chain seen {{
                    type filter hook postrouting priority 90;
                    oifname eth0 ip saddr {inside} {protocol} sport > 0 update @mapped {{ {protocol} sport }} update @met {{ ip daddr . {protocol} sport }}
                }}
                chain out {{ type nat hook postrouting priority srcnat; oifname eth0 masquerade {ports}; }}
                chain in {{ type nat hook prerouting priority dstnat; {lets_in}; }}
                chain here {{ type filter hook input priority 0; iifname eth0 ct state new drop; }}
                chain through {{ type filter hook forward priority 0; iifname eth0 ct status dnat accept; iifname eth0 ct state new drop; }}
            }}"
        )
    }
}

/// A network namespace, kept by a process that sleeps in it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    /// A new namespace; where this is not root, in a user namespace, that of `within` where there is one.
    fn new(within: Option<&Machine>) -> Option<Machine> {
        let mut command = match within {
            Some(hub) => hub.enter(),
            None => Command::new("env"),
        };
        command.args(["unshare", "--net"]);
        if within.is_none() && !rustix::process::getuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-c", "echo ready; exec sleep 3600"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut machine = Machine(child);
        let mut line = String::new();
        let out = machine.0.stdout.take()?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).ok()?;
        (line == "ready\n").then_some(machine)
    }

    /// A command line whose program runs there.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string()]);
        if !rustix::process::getuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--");
        command
    }

    fn run(&self, line: &str) -> Done {
        let mut command = self.enter();
        command.args(line.split(' '));
        Running::spawn(command).finish()
    }

    /// Whether the system lets it.
    fn can(&self, line: &str) -> bool {
        self.run(line).status.success()
    }
}

impl Lan {
    /// `count` machines with the addresses 10.99.0.1 and on; `None` where the system lets nobody make them.
    pub fn new(count: usize) -> Option<Lan> {
        Lan::of("10.99.0", count)
    }

    /// As [`new`](Self::new), with the addresses 93.184.216.1 and on, which are dialled from everywhere.
    pub fn public(count: usize) -> Option<Lan> {
        Lan::of("93.184.216", count)
    }

    fn of(net: &'static str, count: usize) -> Option<Lan> {
        let hub = Machine::new(None)?;
        // Not every kernel that makes namespaces has bridges and pairs of interfaces.
        if !hub.can("ip link add bridge type bridge mcast_snooping 0") {
            return None;
        }
        hub.run("ip link set bridge up").ok();
        let mut lan = Lan { hub, machines: Vec::new(), net };
        for number in 1..=count {
            let machine = Machine::new(Some(&lan.hub))?;
            let pid = machine.0.id();
            if !lan.hub.can(&format!("ip link add port{number} type veth peer name eth0 netns {pid}")) {
                return None;
            }
            lan.hub.run(&format!("ip link set port{number} master bridge up")).ok();
            machine.run("ip link set lo up").ok();
            machine.run(&format!("ip address add {net}.{number}/24 dev eth0")).ok();
            machine.run("ip link set eth0 up").ok();
            lan.machines.push(machine);
        }
        Some(lan)
    }

    /// A machine of its own behind a router, which is NAT between it and the others from now on; its number.
    /// `None` where the system has no NAT.
    pub fn behind(&mut self, router: usize, nat: Nat) -> Option<usize> {
        self.behind_nat(router, nat, "udp")
    }

    /// As [`behind`](Self::behind), for TCP; no UDP gets through.
    pub fn behind_without_udp(&mut self, router: usize, nat: Nat) -> Option<usize> {
        let inside = self.behind_nat(router, nat, "tcp")?;
        self.block_udp(router).then_some(inside)
    }

    /// Has a router let no UDP through; whether it does.
    pub fn block_udp(&self, router: usize) -> bool {
        let rules = "table inet no_udp {
            chain through { type filter hook forward priority -10; meta l4proto udp drop; }
        }";
        self.rules(router, rules)
    }

    fn behind_nat(&mut self, router: usize, nat: Nat, protocol: &str) -> Option<usize> {
        let number = self.wired_to(router)?;
        let may_forward = self.machines[router - 1].can("sysctl -q -w net.ipv4.ip_forward=1");
        (may_forward && self.rules(router, &nat.rules(&self.inside(router), protocol))).then_some(number)
    }

    /// The address of the machine behind a router.
    pub fn inside(&self, router: usize) -> String {
        format!("192.168.{router}.2")
    }

    /// A machine that reaches the others over a router, which does nothing for it yet.
    fn wired_to(&mut self, router: usize) -> Option<usize> {
        let (net, number) = (format!("192.168.{router}"), self.machines.len() + 1);
        let machine = Machine::new(Some(&self.hub))?;
        let gate = &self.machines[router - 1];
        gate.run(&format!("ip link add eth1 type veth peer name eth0 netns {}", machine.0.id())).ok();
        gate.run(&format!("ip address add {net}.1/24 dev eth1")).ok();
        gate.run("ip link set eth1 up").ok();
        machine.run("ip link set lo up").ok();
        machine.run(&format!("ip address add {net}.2/24 dev eth0")).ok();
        machine.run("ip link set eth0 up").ok();
        machine.run(&format!("ip route add default via {net}.1")).ok();
        self.machines.push(machine);
        Some(number)
    }

    /// Gives a machine rules for nftables; whether it takes them.
    pub fn rules(&self, machine: usize, rules: &str) -> bool {
        let mut command = self.machines[machine - 1].enter();
        command.args(["nft", "-f", "-"]);
        let (running, mut input) = Running::with_input(command);
        let told = input.write_all(rules.as_bytes());
        drop(input);
        running.finish().status.success() && told.is_ok()
    }

    /// Gives each machine the address 2600:99::NUMBER too.
    pub fn with_v6(self) -> Lan {
        for (machine, number) in self.machines.iter().zip(1..) {
            machine.run(&format!("ip address add 2600:99::{number}/64 dev eth0 nodad")).ok();
        }
        self
    }

    /// A machine of its own that has the address 2600:99:ROUTER::2 alone; its router lets in over IPv6 what it has asked
    /// for. `None` where the system has no such router.
    pub fn behind_v6(&mut self, router: usize) -> Option<usize> {
        let number = self.wired_to(router)?;
        let (machine, gate) = (&self.machines[number - 1], &self.machines[router - 1]);
        let net = format!("2600:99:{router}:");
        gate.run(&format!("ip address add {net}:1/64 dev eth1 nodad")).ok();
        machine.run("ip address flush dev eth0 scope global").ok();
        machine.run(&format!("ip address add {net}:2/64 dev eth0 nodad")).ok();
        machine.run(&format!("ip route add default via {net}:1")).ok();
        for other in (1..).zip(&self.machines[..number - 1]).filter(|(other, _)| *other != router) {
            // Those that are behind routers themselves have a default route.
            other.1.can(&format!("ip route add {net}:/64 via 2600:99::{router}"));
        }
        let guarded = "table ip6 guard {
            chain through { type filter hook forward priority 0; iifname eth0 ct state new drop; }
        }";
        let may_forward = gate.can("sysctl -q -w net.ipv6.conf.all.forwarding=1");
        (may_forward && self.rules(router, guarded)).then_some(number)
    }

    /// Leaves a machine no IPv4 address.
    pub fn v6_alone(&self, machine: usize) {
        self.machines[machine - 1].run("ip -4 address flush dev eth0").ok();
    }

    /// Puts a program that hands frames on between the network and a machine on it, between two devices that it makes;
    /// `None` where the system lets nobody make such devices.
    pub fn through(&self, machine: usize, program: &str, arguments: &[&str]) -> Option<Running> {
        let mut command = self.hub.enter();
        command.arg("python3").args(["-c", program]).args(arguments).env_remove("PYTHONPATH");
        let wire = Running::spawn(command);
        if wire.line("").as_str() != "ready" {
            return None;
        }
        let own = &self.machines[machine - 1];
        self.hub.run("ip link set near master bridge up").ok();
        self.hub.run(&format!("ip link set far netns {}", own.0.id())).ok();
        own.run("ip link delete eth0").ok();
        own.run("ip link set far name eth0").ok();
        own.run(&format!("ip address add {}.{machine}/24 dev eth0", self.net)).ok();
        own.run("ip link set eth0 up").ok();
        Some(wire)
    }

    /// Lays a second way out for a machine that is behind a router, over another one, which is NAT too. It is not used before
    /// [`changes_uplink`](Self::changes_uplink). `None` where the system has no NAT.
    pub fn second_uplink(&self, machine: usize, router: usize, nat: Nat) -> Option<()> {
        let (net, gate) = (format!("192.168.{router}"), &self.machines[router - 1]);
        let pid = self.machines[machine - 1].0.id();
        gate.run(&format!("ip link add eth1 type veth peer name eth1 netns {pid}")).ok();
        gate.run(&format!("ip address add {net}.1/24 dev eth1")).ok();
        gate.run("ip link set eth1 up").ok();
        let may_forward = gate.can("sysctl -q -w net.ipv4.ip_forward=1");
        (may_forward && self.rules(router, &nat.rules(&self.inside(router), "udp"))).then_some(())
    }

    /// Takes a machine's way out and its address away, and gives it those of its second uplink.
    pub fn changes_uplink(&self, machine: usize, router: usize) {
        let net = format!("192.168.{router}");
        let script = format!(
            "ip address flush dev eth0 && ip link set eth0 down && ip address add {net}.2/24 dev eth1 && \
             ip link set eth1 up && ip route add default via {net}.1"
        );
        Running::spawn(self.on(machine, "sh", &["-c", &script])).finish().ok();
    }

    /// Has a router let nothing through that one machine of the network has to do with, until [`opens`](Self::opens).
    pub fn closes(&self, router: usize, machine: usize) {
        let other = format!("{}.{machine}", self.net);
        let rules = format!(
            "table ip closed {{
                chain out {{ type filter hook forward priority -300; ip daddr {other} drop; }}
                chain in {{ type filter hook prerouting priority -300; ip saddr {other} drop; }}
            }}"
        );
        assert!(self.rules(router, &rules));
    }

    /// Takes back what [`closes`](Self::closes) did.
    pub fn opens(&self, router: usize) {
        self.machines[router - 1].run("nft delete table ip closed").ok();
    }

    /// Has a machine hear nothing from now on, and say nothing: a host that is cut off, whose programs go on.
    pub fn falls_silent(&self, machine: usize) {
        self.machines[machine - 1].run("ip link set eth0 down").ok();
    }

    /// Takes the IPv4 addresses away and gives each machine fd99::NUMBER instead.
    pub fn with_v6_alone(self) -> Lan {
        for (machine, number) in self.machines.iter().zip(1..) {
            machine.run("ip address flush dev eth0 scope global").ok();
            machine.run(&format!("ip address add fd99::{number}/64 dev eth0 nodad")).ok();
        }
        self
    }

    /// Sends what one machine has for elsewhere over another, which is its router.
    pub fn way_out(&self, machine: usize, router: usize) {
        self.machines[machine - 1].run(&format!("ip route add default via {}.{router}", self.net)).ok();
    }

    /// Gives a machine one more address.
    pub fn second_address(&self, machine: usize, address: &str) {
        self.machines[machine - 1].run(&format!("ip address add {address}/24 dev eth0")).ok();
    }

    /// Takes the way out of a machine away.
    pub fn no_way_out(&self, machine: usize) {
        self.machines[machine - 1].run("ip route del default").ok();
    }

    /// A command line whose program runs on a machine, counted from 1.
    pub fn on(&self, machine: usize, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.machines[machine - 1].enter();
        command.arg(program).args(arguments);
        for variable in ["KITH_HOME", "KITH_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        command
    }

    /// `kith` on a machine.
    pub fn kith(&self, machine: usize, home: &Path, arguments: &[&str]) -> Running {
        let home = home.to_str().unwrap();
        let program = env!("CARGO_BIN_EXE_kith");
        Running::spawn(self.on(machine, program, &[&["--home", home], arguments].concat()))
    }

    /// Starts a person's node on a machine, listening as nodes do where nothing is said.
    pub fn up(&self, machine: usize, person: &mut Person) {
        let node = self.kith(machine, &person.home, &["up"]);
        node.line("ready");
        person.node = Some(node);
    }

    /// The six bytes by which a machine's frames are known.
    pub fn hardware_address(&self, machine: usize) -> Vec<u8> {
        let done = Running::spawn(self.on(machine, "ip", &["-brief", "link", "show", "eth0"])).finish().ok();
        let text = done.out.split_whitespace().nth(2).unwrap().to_owned();
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    /// Notes every packet of the network in `file`, from when this returns until what it returns is dropped.
    pub fn capture(&self, file: &Path) -> Capture {
        let mut command = self.hub.enter();
        command.args([
            "tcpdump",
            "-i",
            "bridge",
            "-s",
            "0",
            "-U",
            "-Z",
            "root",
            "-w",
            file.to_str().unwrap(),
        ]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
        while !line.contains("listening on") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut err, &mut line).unwrap() > 0, "tcpdump ended");
        }
        // What else it says must not stop it.
        std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
        Capture(child)
    }
}

/// A running capture.
pub struct Capture(Child);

impl Capture {
    /// Ends it, with everything written.
    pub fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a network of so many machines, or skips the test where the system does not allow it; fails instead where
/// `KITH_REQUIRE_ALL` is set.
#[macro_export]
macro_rules! lan_of {
    ($count:expr) => {
        $crate::lan_of!($count, new)
    };
    ($count:expr, $kind:ident) => {{
        kith_vnet::needs!("unshare", "nsenter", "ip");
        match $crate::namespaces::Lan::$kind($count) {
            Some(lan) => lan,
            None => return kith_vnet::skipped("network namespaces"),
        }
    }};
}
