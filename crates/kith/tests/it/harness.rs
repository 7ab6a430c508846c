//! Homes, commands and nodes of a test; everything started is stopped, by process id.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// No command of these tests may take longer.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// The lines of a configuration that keep a node off the machine's real networks.
const APART: &str = "lan = false\nport-mapping = false\n";

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The last line of standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("no JSON ({error}) in {self:?}"))
    }

    #[track_caller]
    pub fn ok(self) -> Done {
        assert!(self.status.success(), "{self:?}");
        self
    }

    #[track_caller]
    pub fn fails(self, code: i32, part: &str) -> Done {
        assert_eq!(self.code(), code, "{self:?}");
        assert!(self.err.contains(part), "'{part}' is not in {self:?}");
        self
    }
}

/// A child that is killed with the test, and whose output is collected.
pub struct Running {
    pub child: Child,
    lines: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Running {
    pub fn spawn(mut command: Command) -> Running {
        command.stdin(Stdio::null());
        Running::start(command)
    }

    /// A child that is told more while it runs.
    pub fn with_input(mut command: Command) -> (Running, std::process::ChildStdin) {
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        let input = running.child.stdin.take().unwrap();
        (running, input)
    }

    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let (sender, err) = mpsc::channel();
        let mut pipe = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            let _ = sender.send(text);
        });
        Running { child, lines, err }
    }

    /// Waits for a line that holds `part`.
    #[track_caller]
    pub fn line(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE);
            let line =
                line.unwrap_or_else(|_| panic!("no line with '{part}' came: {:?}", self.err.try_recv()));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Done {
        let mut out = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => out.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the command did not end; it printed {out:?}"),
            }
        }
        let err = self.err.recv_timeout(DEADLINE).unwrap_or_default();
        Done { status: self.child.wait().unwrap(), out: out.join("\n"), err }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command line of the program under test.
pub fn kith(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    command.arg("--home").arg(home).args(arguments);
    for variable in ["KITH_HOME", "KITH_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    command
}

/// Switches off in a home what would speak to the machine's real networks.
pub fn stay_apart(home: &Path) {
    let file = home.join("kith.toml");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, format!("{APART}{text}")).unwrap();
}

/// A folder that holds the homes and files of one test.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A home with an identity.
    #[track_caller]
    pub fn person(&self, name: &str, options: &[&str]) -> Person {
        let person = Person { home: self.path(name), node: None };
        person.run(&[&["init"], options].concat()).ok();
        stay_apart(&person.home);
        person
    }

    /// Two nodes that know each other by address hints, and no directory.
    #[track_caller]
    pub fn friends(&self) -> (Person, Person) {
        let mut north = self.person("north", &[]);
        let mut south = self.person("south", &[]);
        north.up(&[]);
        south.up(&[]);
        north.knows("south", &south);
        south.knows("north", &north);
        (north, south)
    }
}

/// A home and, where it runs, its node.
pub struct Person {
    pub home: PathBuf,
    pub node: Option<Running>,
}

impl Person {
    pub fn command(&self, arguments: &[&str]) -> Running {
        Running::spawn(kith(&self.home, arguments))
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Done {
        self.command(arguments).finish()
    }

    #[track_caller]
    pub fn ni(&self) -> String {
        self.run(&["id"]).ok().out
    }

    /// Starts the node on loopback and waits until it listens; `more` are further arguments.
    #[track_caller]
    pub fn up(&mut self, more: &[&str]) {
        let listen = ["up", "--listen", "quic://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"];
        self.up_with(&[&listen, more].concat());
    }

    #[track_caller]
    pub fn up_with(&mut self, arguments: &[&str]) {
        let node = self.command(arguments);
        node.line("ready");
        self.node = Some(node);
    }

    /// Starts the node without some of root's capabilities, as `setpriv` names them.
    #[track_caller]
    pub fn up_without(&mut self, capabilities: &str) {
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set=-{capabilities}")).arg(env!("CARGO_BIN_EXE_kith"));
        command.arg("--home").arg(&self.home).arg("up");
        command.args(["--listen", "quic://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"]);
        command.env_remove("KITH_HOME").env_remove("KITH_LOG");
        let node = Running::spawn(command);
        node.line("ready");
        self.node = Some(node);
    }

    /// `kill -9` on the node, then starts it again where it listened, so that its contacts find it.
    #[track_caller]
    pub fn crash_and_return(&mut self, meanwhile: impl FnOnce()) {
        let at = self.addresses();
        self.crash();
        meanwhile();
        let listen = at.iter().flat_map(|at| ["--listen", at.as_str()]);
        self.up_with(&["up"].into_iter().chain(listen).collect::<Vec<_>>());
    }

    /// `kill -9` on the node.
    pub fn crash(&mut self) {
        self.node.take().unwrap().kill();
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.run(&["status", "--wait", "--json"]).ok().json()
    }

    /// Where the node listens now.
    #[track_caller]
    pub fn addresses(&self) -> Vec<String> {
        let status = self.status();
        status["listen"].as_array().unwrap().iter().map(|at| at.as_str().unwrap().to_owned()).collect()
    }

    /// Adds `other` as a contact with hints to where it listens now.
    #[track_caller]
    pub fn knows(&self, name: &str, other: &Person) {
        let ni = other.ni();
        let mut arguments = vec!["contact".to_owned(), "add".to_owned(), name.to_owned(), ni];
        if other.node.is_some() {
            for address in other.addresses() {
                arguments.extend(["--at".to_owned(), address]);
            }
        }
        self.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    }
}

/// A directory of its own on free ports, for `localhost`.
pub struct Zone {
    pub person: Person,
    pub authority: String,
    pub https: String,
    pub dns: String,
}

impl Zone {
    /// Starts the directory; the ports are free ones that the system chose a moment before.
    #[track_caller]
    pub fn start(place: &Place) -> Zone {
        let (https, dns) = (free_port(), free_port());
        let authority = format!("localhost:{https}");
        let person = place.person("zone", &["--authority", &authority]);
        let mut zone =
            Zone { person, authority, https: format!("127.0.0.1:{https}"), dns: format!("127.0.0.1:{dns}") };
        zone.serve();
        zone
    }

    #[track_caller]
    pub fn serve(&mut self) {
        let arguments = ["directory", "serve", "--listen-https", &self.https, "--listen-dns", &self.dns];
        self.person.up_with(&arguments);
    }

    /// A home that announces to this zone.
    #[track_caller]
    pub fn person(&self, place: &Place, name: &str) -> Person {
        let pin = self.person.ni();
        place.person(name, &["--authority", &self.authority, "--pin", &pin, "--resolver", &self.dns])
    }
}

/// A port that is free for TCP and UDP at this moment.
pub fn free_port() -> u16 {
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `check` holds, for a minute at most; between two looks it yields to the system for a moment.
#[track_caller]
pub fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    within_minutes(1, what, check)
}

/// As [`eventually`], for so many minutes.
#[track_caller]
pub fn within_minutes<T>(minutes: u32, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let (sender, ticks) = mpsc::channel();
    std::thread::spawn(move || {
        let (_keep, never) = mpsc::channel::<()>();
        for _ in 0..1200 * minutes {
            let _ = never.recv_timeout(Duration::from_millis(50));
            if sender.send(()).is_err() {
                return;
            }
        }
    });
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(ticks.recv().is_ok(), "{what} did not happen within {minutes} min");
    }
}
