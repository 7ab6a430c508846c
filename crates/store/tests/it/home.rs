use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use kith_store::{Home, HomeError};

/// In a process started with this variable, `the_other_process` locks the home it names, until killed.
const VARIABLE: &str = "KITH_STORE_TEST_LOCK";

fn folder() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path().join("a/b"));
    (folder, home)
}

fn created() -> (tempfile::TempDir, Home) {
    let (folder, home) = folder();
    home.create().unwrap();
    (folder, home)
}

fn mode(home: &Home, name: &str) -> u32 {
    fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_home_is_created_for_its_owner_alone_and_naming_it_touches_nothing() {
    let (_folder, home) = folder();
    assert!(!home.dir().exists() && !home.exists());
    assert!(home.dir().is_absolute());
    home.create().unwrap();
    home.create().unwrap();
    assert_eq!(fs::metadata(home.dir()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!home.exists());
    home.create_new("key.pem", b"key", 0o600).unwrap();
    assert!(home.exists());
}

#[test]
fn a_file_in_the_place_of_the_home_is_told() {
    let (folder, _) = folder();
    fs::write(folder.path().join("a"), "").unwrap();
    for home in [Home::at(folder.path().join("a")), Home::at(folder.path().join("a/b"))] {
        let error = home.create().unwrap_err();
        assert!(matches!(error, HomeError::NotAFolder { .. }), "{error}");
    }
}

#[test]
fn what_is_written_is_read_with_its_mode() {
    let (_folder, home) = created();
    home.write_atomic("kith.toml", b"one", 0o644).unwrap();
    assert_eq!(mode(&home, "kith.toml"), 0o644);
    home.write_atomic("kith.toml", b"two", 0o600).unwrap();
    assert_eq!(mode(&home, "kith.toml"), 0o600);
    assert_eq!(home.read("kith.toml", 3).unwrap(), b"two");
    assert!(matches!(home.read("kith.toml", 2), Err(HomeError::TooLarge { max_bytes: 2, .. })));
    assert_eq!(fs::read_dir(home.dir()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn what_is_missing_is_a_variant_of_its_own() {
    let (_folder, home) = folder();
    for outcome in [
        home.read("kith.toml", 10).map(drop),
        home.write_atomic("kith.toml", b"", 0o600),
        home.create_new("key.pem", b"", 0o600),
        home.lock("test").map(drop),
    ] {
        assert!(matches!(outcome, Err(HomeError::NotFound { .. })), "{outcome:?}");
    }
}

#[test]
fn an_identity_is_never_replaced_even_by_many_at_once() {
    let (_folder, home) = created();
    let barrier = std::sync::Barrier::new(8);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8u8)
            .map(|number| {
                let (home, barrier) = (&home, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    home.create_new("key.pem", &[number; 100], 0o600).map(|()| number)
                })
            })
            .collect();
        tries.into_iter().map(|try_| try_.join().unwrap()).collect()
    });
    let winners: Vec<_> = outcomes.iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(home.read("key.pem", 100).unwrap(), [*winners[0]; 100]);
    assert!(outcomes.iter().flat_map(|o| o.as_ref().err()).all(|e| matches!(e, HomeError::Exists { .. })));
    assert_eq!(fs::read_dir(home.dir()).unwrap().count(), 1);
}

#[test]
fn a_dangling_link_is_not_followed_by_creating() {
    let (folder, home) = created();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), home.path("key.pem")).unwrap();
    assert!(matches!(home.create_new("key.pem", b"key", 0o600), Err(HomeError::Exists { .. })));
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn names_stay_inside_the_home() {
    let (_folder, home) = created();
    for name in ["", "/etc/passwd", "../x", "a/../../x", ".", "x/", "a\0b"] {
        assert!(matches!(home.read(name, 1), Err(HomeError::Name { .. })), "{name:?}");
        assert!(matches!(home.write_atomic(name, b"", 0o600), Err(HomeError::Name { .. })), "{name:?}");
    }
    fs::create_dir(home.path("transfers")).unwrap();
    home.write_atomic("transfers/journal", b"x", 0o600).unwrap();
    assert_eq!(home.read("transfers/journal", 1).unwrap(), b"x");
}

#[test]
fn folders_and_pipes_under_the_name_of_a_file_are_refused_without_waiting() {
    let (_folder, home) = created();
    fs::create_dir(home.path("kith.toml")).unwrap();
    assert!(matches!(home.read("kith.toml", 1), Err(HomeError::NotAFile { .. })));
    assert!(matches!(home.write_atomic("kith.toml", b"", 0o600), Err(HomeError::NotAFile { .. })));
    rustix::fs::mkfifoat(rustix::fs::CWD, home.path("pipe"), rustix::fs::Mode::RUSR).unwrap();
    assert!(matches!(home.read("pipe", 1), Err(HomeError::NotAFile { .. })));
}

#[test]
fn a_second_lock_is_refused_and_names_the_first() {
    let (_folder, home) = created();
    let lock = home.lock("up\nnow").unwrap();
    let error = home.lock("send").unwrap_err();
    let holder = format!("process {} (up now)", std::process::id());
    assert_eq!(error.to_string(), format!("the home folder {} is in use by {holder}", home.dir().display()));
    assert!(error.hint().is_some());
    drop(lock);
    drop(home.lock("send").unwrap());
}

#[test]
fn a_lock_file_full_of_garbage_still_locks() {
    let (_folder, home) = created();
    fs::write(home.path("lock"), [0xff; 10_000]).unwrap();
    let _lock = home.lock("up").unwrap();
    assert!(matches!(home.lock("send"), Err(HomeError::Locked { .. })));
    fs::write(home.path("lock"), [0xff; 10_000]).unwrap();
    let error = home.lock("send").unwrap_err();
    assert!(error.to_string().ends_with("in use by another process"), "{error}");
}

#[test]
fn a_killed_process_frees_the_lock_and_its_leftovers_are_removed() {
    let (_folder, home) = created();
    let mut other = other_process(&home);
    let error = home.lock("send").unwrap_err();
    assert!(error.to_string().ends_with(&format!("process {} (other)", other.id())), "{error}");
    let leftover = home.path(&format!(".key.pem.{}-0.tmp", other.id()));
    fs::write(&leftover, "half a key").unwrap();
    let mine = home.path(&format!(".key.pem.{}-9999.tmp", std::process::id()));
    fs::write(&mine, "being written").unwrap();

    other.kill().unwrap();
    other.wait().unwrap();
    let _lock = home.lock("send").unwrap();
    assert!(!leftover.exists() && mine.exists());
}

fn other_process(home: &Home) -> Child {
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["home::the_other_process", "--exact", "--nocapture"])
        .env(VARIABLE, home.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("locked")), "the other process locks");
    other
}

#[test]
fn the_other_process() {
    let Some(folder) = std::env::var_os(VARIABLE) else { return };
    let _lock = Home::at(folder).lock("other").unwrap();
    println!("\nlocked");
    std::io::stdout().flush().unwrap();
    // Until killed, or until the test that started it is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
}
