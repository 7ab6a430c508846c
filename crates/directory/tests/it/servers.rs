//! Redis servers of a test: one, or a cluster; each in a folder of its own, stopped by process id with the test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Servers are there, and clusters agree, within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that is free at this moment, as is the next request for one.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks `check` again and again until it has an answer.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let (_keep, never) = mpsc::channel::<()>();
    let step = Duration::from_millis(30);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if let Some(found) = check() {
            return found;
        }
        let _ = never.recv_timeout(step);
    }
    panic!("{what} did not happen within {PATIENCE:?}");
}

/// A server that syncs before it answers.
pub(crate) struct Server {
    pub(crate) port: u16,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start(more: &[&str]) -> Server {
        let (port, bus) = (free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
        let mut arguments: Vec<String> = fixed.into_iter().map(str::to_owned).collect();
        let with_tls = more.contains(&"--tls-cert-file");
        arguments.extend([if with_tls { "--tls-port" } else { "--port" }.to_owned(), port.to_string()]);
        if with_tls {
            arguments.extend(["--port", "0"].map(str::to_owned));
        }
        if more.contains(&"--cluster-enabled") {
            arguments.extend(["--cluster-port".to_owned(), bus.to_string()]);
        }
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        let mut server = Server { port, arguments, folder, child: None };
        // Another process may have taken a port in the meantime.
        if !server.spawn() {
            return Server::start(more);
        }
        server
    }

    /// Starts it, also after it was killed; whether it listens.
    fn spawn(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(&self.arguments).arg("--dir").arg(self.folder.path());
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept"));
        // What it says later has to go somewhere.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.child = Some(child);
        ready
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(self.spawn(), "the server does not come back");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it without ending it (`STOP`), or lets it go on (`CONT`).
    pub(crate) fn signal(&self, name: &str) {
        let (signal, pid) = (format!("-{name}"), self.pid().to_string());
        assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
    }

    /// What the server answers to a command.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Three masters, and a replica of each.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

impl Cluster {
    pub(crate) fn start() -> Cluster {
        Cluster::patient(1000)
    }

    /// A cluster that takes a server for dead after so many milliseconds.
    pub(crate) fn patient(timeout: u32) -> Cluster {
        let start = move || {
            let options = [
                ["--cluster-enabled", "yes"],
                ["--cluster-config-file", "nodes.conf"],
                ["--cluster-node-timeout", &timeout.to_string()],
                ["--repl-diskless-sync-delay", "0"],
            ];
            Server::start(options.as_flattened())
        };
        let starting: Vec<_> = (0..6).map(|_| std::thread::spawn(start)).collect();
        let servers: Vec<_> = starting.into_iter().map(|server| server.join().unwrap()).collect();
        let cluster = Cluster { servers };
        for (n, master) in (0..3).zip(&cluster.servers) {
            let (first, last) = (SLOTS / 3 * n, if n == 2 { SLOTS - 1 } else { SLOTS / 3 * (n + 1) - 1 });
            let slots = [first.to_string(), last.to_string()];
            assert_eq!(master.cli(&["cluster", "addslotsrange", &slots[0], &slots[1]]), "OK");
            assert_eq!(master.cli(&["cluster", "set-config-epoch", &(n + 1).to_string()]), "OK");
        }
        for server in &cluster.servers[1..] {
            let (port, bus) = (server.port.to_string(), server.bus().to_string());
            assert_eq!(cluster.servers[0].cli(&["cluster", "meet", "127.0.0.1", &port, &bus]), "OK");
        }
        for server in &cluster.servers {
            server.info("cluster", "cluster_known_nodes:6");
        }
        for (master, replica) in cluster.servers.iter().zip(&cluster.servers[3..]) {
            let id = master.cli(&["cluster", "myid"]);
            wait_for("a replica", || (replica.cli(&["cluster", "replicate", &id]) == "OK").then_some(()));
        }
        for (master, replica) in cluster.servers.iter().zip(&cluster.servers[3..]) {
            replica.info("replication", "master_link_status:up");
            master.info("replication", "state=online");
        }
        for server in &cluster.servers {
            server.info("cluster", "cluster_state:ok");
            wait_for("three shards with two servers each", || {
                let slots = server.cli(&["cluster", "slots"]);
                (slots.matches("127.0.0.1").count() == 6).then_some(())
            });
        }
        cluster
    }

    /// The addresses of the masters.
    pub(crate) fn url(&self) -> String {
        let servers: Vec<_> = self.servers[..3].iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis-cluster://{}", servers.join(","))
    }
}

impl Server {
    fn bus(&self) -> u16 {
        let at = self.arguments.iter().position(|text| text == "--cluster-port").unwrap();
        self.arguments[at + 1].parse().unwrap()
    }

    /// Waits until the server says so about itself.
    #[track_caller]
    pub(crate) fn info(&self, section: &str, part: &str) {
        let command: &[&str] = if section == "cluster" { &["cluster", "info"] } else { &["info", section] };
        wait_for(part, || self.cli(command).contains(part).then_some(()));
    }
}
