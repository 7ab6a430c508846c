//! The program under a service manager: what it tells it, and the units.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use kith_vnet::needs;

use crate::harness::{DEADLINE, Place, Running, kith};

/// A person's folders with a `systemctl` that writes down what it is told.
pub struct Desk {
    home: PathBuf,
    config: PathBuf,
    bin: PathBuf,
}

impl Desk {
    pub fn new(place: &Place) -> Desk {
        let desk =
            Desk { home: place.path("desk home"), config: place.path("config"), bin: place.path("bin") };
        fs::create_dir_all(&desk.bin).unwrap();
        let program = desk.bin.join("systemctl");
        fs::write(&program, format!("#!/bin/sh\necho \"$@\" >>'{}'\n", desk.bin.join("told").display()))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        desk
    }

    pub fn kith(&self, arguments: &[&str]) -> Command {
        let mut command = kith(&self.home, arguments);
        command
            .env("XDG_CONFIG_HOME", &self.config)
            .env("PATH", format!("{}:/usr/bin:/bin", self.bin.display()));
        command
    }

    pub fn unit(&self) -> PathBuf {
        self.config.join("systemd/user/kith.service")
    }

    fn told(&self) -> String {
        fs::read_to_string(self.bin.join("told")).unwrap_or_default()
    }
}

#[test]
fn a_service_is_installed_started_and_removed_without_a_trace() {
    let place = Place::new();
    let desk = Desk::new(&place);
    let run = |arguments: &[&str]| Running::spawn(desk.kith(arguments)).finish();
    let printed = run(&["install-service", "--print"]).ok().out;
    assert!(!desk.unit().exists() && desk.told().is_empty());
    let done = run(&["install-service"]).ok();
    assert!(done.out.contains("enabled and started kith.service"), "{done:?}");
    let unit = fs::read_to_string(desk.unit()).unwrap();
    assert_eq!(unit.trim_end(), printed.trim_end());
    assert!(unit.contains(&format!(
        "ExecStart=\"{}\" --home \"{}\" up",
        env!("CARGO_BIN_EXE_kith"),
        desk.home.display()
    )));
    assert_eq!(desk.told(), "--user daemon-reload\n--user enable --now kith.service\n");
    run(&["install-service", "--no-start"]).ok();
    assert_eq!(fs::read_to_string(desk.unit()).unwrap(), unit);
    run(&["install-service", "--remove"]).ok();
    assert!(!desk.unit().exists());
    assert!(
        desk.told().ends_with("--user disable --now kith.service\n--user daemon-reload\n"),
        "{}",
        desk.told()
    );
    run(&["install-service", "--remove"]).fails(3, "kith.service");
}

#[test]
fn a_unit_written_by_hand_is_never_touched() {
    let place = Place::new();
    let desk = Desk::new(&place);
    fs::create_dir_all(desk.unit().parent().unwrap()).unwrap();
    fs::write(desk.unit(), "[Service]\nExecStart=/bin/true\n").unwrap();
    for arguments in [&["install-service"][..], &["install-service", "--remove"]] {
        Running::spawn(desk.kith(arguments)).finish().fails(1, "stays as it is");
    }
    assert!(fs::read_to_string(desk.unit()).unwrap().starts_with("[Service]"));
    assert!(desk.told().is_empty());
}

#[test]
fn without_a_service_manager_the_unit_is_written_and_the_rest_is_said() {
    let place = Place::new();
    let desk = Desk::new(&place);
    fs::write(desk.bin.join("systemctl"), "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
        .unwrap();
    let done = Running::spawn(desk.kith(&["install-service"])).finish().ok();
    assert!(
        done.out.contains("Failed to connect to bus") && done.out.contains("left to do: systemctl --user"),
        "{done:?}"
    );
    assert!(desk.unit().exists());
}

#[test]
fn a_key_with_a_passphrase_needs_a_passphrase_file_first() {
    let place = Place::new();
    let desk = Desk::new(&place);
    let secret = place.path("secret");
    fs::write(&secret, "correct horse\n").unwrap();
    Running::spawn(desk.kith(&["init", "--passphrase-file", secret.to_str().unwrap()])).finish().ok();
    Running::spawn(desk.kith(&["install-service"])).finish().ok();
    fs::write(desk.home.join("kith.toml"), "").unwrap();
    Running::spawn(desk.kith(&["install-service"])).finish().fails(1, "passphrase-file");
}

/// A service manager's socket, and what comes over it.
struct ServiceSocket(UnixDatagram, PathBuf);

impl ServiceSocket {
    fn new(place: &Place) -> ServiceSocket {
        let path = place.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        ServiceSocket(socket, path)
    }

    fn start(&self, mut command: Command) -> Running {
        command.env("NOTIFY_SOCKET", &self.1).env("WATCHDOG_USEC", "400000");
        Running::spawn(command)
    }

    /// Waits for a message with `part`.
    #[track_caller]
    fn hears(&self, part: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("no {part}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(part) {
                return;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_that_the_node_is_ready_lives_and_stops() {
    let place = Place::new();
    let manager = ServiceSocket::new(&place);
    let home = place.path("north");
    let node = manager.start(kith(&home, &["up", "--listen", "tcp://127.0.0.1:0"]));
    manager.hears("READY=1\nSTATUS=listening on tcp://127.0.0.1:");
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
    Running::spawn(kith(&home, &["down"])).finish().ok();
    manager.hears("STOPPING=1");
    node.finish().ok();
}

#[test]
fn the_service_manager_hears_the_same_of_a_directory() {
    let place = Place::new();
    let manager = ServiceSocket::new(&place);
    let zone = place.person("zone", &["--authority", "localhost"]);
    let options = ["directory", "serve", "--listen-https", "127.0.0.1:0", "--listen-dns", "off"];
    let directory = manager.start(kith(&zone.home, &options));
    manager.hears("READY=1\nSTATUS=serving localhost");
    manager.hears("WATCHDOG=1");
    let pid = rustix::process::Pid::from_child(&directory.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    manager.hears("STOPPING=1");
    directory.finish().ok();
}

#[test]
fn systemd_accepts_the_units() {
    needs!("systemd-analyze");
    let place = Place::new();
    let units = [
        ("kith.service", include_str!("../../../../packaging/kith.service"), &["--user"][..]),
        ("kith-directory.service", include_str!("../../../../packaging/kith-directory.service"), &[]),
    ];
    for (name, text, options) in units {
        let path = place.path(name);
        fs::write(&path, text.replace("/usr/bin/kith", env!("CARGO_BIN_EXE_kith"))).unwrap();
        let mut command = Command::new("systemd-analyze");
        command
            .env("XDG_RUNTIME_DIR", place.folder.path())
            .arg("verify")
            .args(options)
            .arg("--man=no")
            .arg(&path);
        let done = command.output().unwrap();
        assert!(
            done.status.success() && done.stderr.is_empty(),
            "{name}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}
