//! Transfers that are interrupted, refused, cancelled, or lied about.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use kith_vnet::needs;

use crate::harness::{Person, Place, Running, Zone, eventually};
use crate::tree;

const GIB: u64 = 1 << 30;

/// A zone with two people in it who know each other, and one large file.
struct Scene {
    north: Person,
    south: Person,
    file: PathBuf,
    inbox: PathBuf,
    _zone: Zone,
    _place: Place,
}

impl Scene {
    fn set(bytes: u64) -> Scene {
        let place = Place::new();
        let zone = Zone::start(&place);
        let (mut north, mut south) = (zone.person(&place, "north"), zone.person(&place, "south"));
        north.knows("south", &south);
        south.knows("north", &north);
        north.up(&[]);
        south.up(&[]);
        let file = place.path("large");
        write_large(&file, bytes);
        let inbox = place.path("inbox");
        Scene { north, south, file, inbox, _zone: zone, _place: place }
    }

    fn send(&self) -> Running {
        self.north.command(&["send", self.file.to_str().unwrap(), "--to", "south", "--json"])
    }

    fn receive(&self) -> Running {
        let into = self.inbox.to_str().unwrap();
        self.south.command(&["receive", "--from", "north", "--into", into, "--yes", "--json"])
    }

    /// Bytes of partial files at the receiver.
    fn arrived(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.inbox) else { return 0 };
        let partial =
            entries.flatten().find(|e| e.file_name().to_string_lossy().starts_with(".kith-partial-"));
        let Some(partial) = partial else { return 0 };
        let files = fs::read_dir(partial.path()).into_iter().flatten().flatten();
        files.filter_map(|file| allocated(&file.path())).sum()
    }

    fn wait_for(&self, bytes: u64) -> u64 {
        eventually("the transfer", || Some(self.arrived()).filter(|arrived| *arrived >= bytes))
    }

    #[track_caller]
    fn assert_same(&self) {
        assert_eq!(digest(&self.file), digest(&self.inbox.join("large")));
        let left: Vec<_> = fs::read_dir(&self.inbox).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["large"]);
    }
}

/// Bytes on disk: a file may be longer than what was written to it.
fn allocated(file: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(file).ok().map(|found| found.len().min(found.blocks() * 512))
}

fn write_large(file: &Path, bytes: u64) {
    let block = tree::noise(1 << 20, 3);
    let mut out = fs::File::create(file).unwrap();
    for index in 0..bytes >> 20 {
        out.write_all(&index.to_le_bytes()).unwrap();
        out.write_all(&block[8..]).unwrap();
    }
}

fn digest(file: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(file).unwrap()).unwrap();
    hasher.finalize()
}

#[test]
fn a_transfer_survives_the_killing_of_either_node_and_sends_hardly_anything_twice() {
    let mut scene = Scene::set(GIB);
    let (receiving, sending) = (scene.receive(), scene.send());
    scene.wait_for(GIB / 4);
    scene.north.crash();
    assert_ne!(sending.finish().code(), 0);
    let kept = scene.arrived();
    scene.north.up(&[]);
    let sending = scene.send();
    eventually("the transfer to go on", || Some(scene.arrived()).filter(|arrived| *arrived > kept));
    scene.wait_for(GIB / 2);
    scene.south.crash();
    assert_ne!(receiving.finish().code(), 0);
    let kept = scene.arrived();
    scene.south.up(&[]);
    let receiving = scene.receive();
    let sent = sending.finish().ok().json();
    let received = receiving.finish().ok().json();
    scene.assert_same();
    for end in [sent, received] {
        let resumed = end["resumed_bytes"].as_u64().unwrap();
        assert!(resumed + GIB / 50 >= kept, "{resumed} of {kept} bytes were not sent again");
    }
}

#[test]
fn files_that_were_not_accepted_are_asked_for_again() {
    let mut scene = Scene::set(GIB / 4);
    fs::create_dir(scene.file.with_file_name("album")).unwrap();
    let album = scene.file.with_file_name("album");
    fs::rename(&scene.file, album.join("large")).unwrap();
    scene.file = album.clone();
    let (receiving, sending) = (scene.receive(), scene.send());
    scene.wait_for(GIB / 32);
    scene.north.crash();
    sending.finish();
    receiving.kill();
    fs::write(album.join("more"), "x").unwrap();
    scene.north.up(&[]);
    eventually("the new question", || {
        let status = scene.south.run(&["status", "--json"]).ok().json();
        let running = status["transfer"]["running"].as_array().unwrap().clone();
        running.iter().any(|transfer| transfer["state"] == "offered").then_some(())
    });
    assert!(!scene.inbox.join("album/more").exists());
}

#[test]
fn a_transfer_survives_the_killing_of_either_command() {
    let scene = Scene::set(GIB);
    let (receiving, sending) = (scene.receive(), scene.send());
    scene.wait_for(GIB / 8);
    sending.kill();
    receiving.kill();
    let (receiving, sending) = (scene.receive(), scene.send());
    let received = receiving.finish().ok().json();
    let sent = sending.finish().ok().json();
    scene.assert_same();
    assert_eq!(received["done"], true);
    // Whether the transfer was found under way or had ended: nothing of it went over twice.
    let moved = sent["bytes"].as_u64().unwrap() - sent["resumed_bytes"].as_u64().unwrap();
    assert!(moved == GIB || moved == 0, "{sent}");
}

#[test]
fn an_offer_whose_connection_died_unnoticed_is_taken_over_by_its_next() {
    let place = Place::new();
    let (mut north, south) = place.friends();
    let (file, inbox) = (place.path("note"), place.path("inbox"));
    fs::write(&file, "x").unwrap();
    let offers = || {
        let status = south.run(&["status", "--json"]).ok().json();
        status["transfer"]["running"].as_array().unwrap().len()
    };
    // A process that is killed says no goodbye over QUIC.
    let send = ["send", file.to_str().unwrap(), "--to", "south", "--via", "quic"];
    let lost = north.command(&send);
    eventually("the offer", || (offers() == 1).then_some(()));
    north.crash();
    lost.finish().fails(1, "went away");
    north.up(&[]);
    let sending = north.command(&send);
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes"]);
    sending.finish().ok();
    receiving.finish().ok();
    assert_eq!(offers(), 0);
    assert_eq!(fs::read(inbox.join("note")).unwrap(), b"x");
}

#[test]
fn a_transfer_that_never_comes_back_keeps_no_receiver_from_the_next_offer() {
    let mut scene = Scene::set(GIB / 2);
    let (receiving, sending) = (scene.receive(), scene.send());
    scene.wait_for(1 << 20);
    scene.north.crash();
    assert_ne!(sending.finish().code(), 0);
    // What was being sent is gone, so the node that starts again cannot go on with it.
    fs::remove_file(&scene.file).unwrap();
    scene.north.up(&[]);
    for (name, receiving) in [("first", receiving), ("second", scene.receive())] {
        let file = scene.file.with_file_name(name);
        fs::write(&file, name).unwrap();
        scene.north.run(&["send", file.to_str().unwrap(), "--to", "south"]).ok();
        assert_eq!(receiving.finish().ok().json()["paths"][0], name);
        assert_eq!(fs::read(scene.inbox.join(name)).unwrap(), name.as_bytes());
    }
}

#[test]
fn the_same_file_again_costs_nothing_and_another_of_its_name_is_not_overwritten() {
    let place = Place::new();
    let (north, south) = place.friends();
    let (file, inbox) = (place.path("note"), place.path("inbox"));
    let (file_name, into) = (file.to_str().unwrap(), inbox.to_str().unwrap());
    fs::write(&file, "first").unwrap();
    let exchange = |more: &[&str]| {
        let receiving = south.command(&[&["receive", "--into", into, "--yes", "--json"], more].concat());
        let sent = north.run(&["send", file_name, "--to", "south", "--json"]);
        (sent, receiving.finish())
    };
    exchange(&[]).0.ok();
    let again = exchange(&[]).0.ok().json();
    assert_eq!(again["resumed_bytes"], 5);
    fs::write(&file, "other").unwrap();
    let (sent, received) = exchange(&[]);
    sent.fails(1, "note");
    received.fails(1, "note");
    assert_eq!(fs::read(inbox.join("note")).unwrap(), b"first");
    exchange(&["--overwrite"]).0.ok();
    assert_eq!(fs::read(inbox.join("note")).unwrap(), b"other");
}

#[test]
fn a_folder_to_receive_into_that_is_none_is_told_before_anything_is_offered() {
    let place = Place::new();
    let person = place.person("south", &[]);
    let file = place.path("note");
    fs::write(&file, "x").unwrap();
    person.run(&["receive", "--into", file.to_str().unwrap(), "--yes"]).fails(1, "is no folder");
}

#[test]
fn a_symlink_in_the_target_leads_nowhere() {
    let place = Place::new();
    let (north, south) = place.friends();
    let inbox = place.path("inbox");
    fs::create_dir_all(&inbox).unwrap();
    fs::create_dir(place.path("outside")).unwrap();
    std::os::unix::fs::symlink(place.path("outside"), inbox.join("album")).unwrap();
    fs::create_dir(place.path("album")).unwrap();
    fs::write(place.path("album/picture"), "x").unwrap();
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes", "--json"]);
    let album = place.path("album");
    let sent = north.run(&["send", album.to_str().unwrap(), "--to", "south"]);
    assert_eq!(sent.code(), 1, "{sent:?}");
    assert_eq!(receiving.finish().code(), 1);
    assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 0);
}

#[test]
fn cancelling_the_offer_ends_it_on_both_sides() {
    let place = Place::new();
    let (north, south) = place.friends();
    let file = place.path("note");
    fs::write(&file, "x").unwrap();
    let sending = north.command(&["send", file.to_str().unwrap(), "--to", "south"]);
    let pending = || {
        let status = south.run(&["status", "--json"]).ok().json();
        status["transfer"]["running"].as_array().unwrap().len()
    };
    eventually("the offer", || (pending() == 1).then_some(()));
    let pid = i32::try_from(sending.child.id()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::INT)
        .unwrap();
    sending.finish().fails(1, "cancelled");
    eventually("its end at the receiver", || (pending() == 0).then_some(()));
}

#[test]
fn the_question_about_an_offer_can_be_answered_and_interrupted() {
    needs!("script");
    let place = Place::new();
    let (north, south) = place.friends();
    let (file, inbox) = (place.path("note"), place.path("inbox"));
    fs::write(&file, "x").unwrap();
    for (said, code) in [("\u{3}", 1), ("n\n", 1), ("y\n", 0)] {
        let sending = north.command(&["send", file.to_str().unwrap(), "--to", "south"]);
        let receive = format!(
            "exec '{}' --home '{}' receive --into '{}'",
            env!("CARGO_BIN_EXE_kith"),
            south.home.display(),
            inbox.display()
        );
        let mut terminal = std::process::Command::new("script");
        // Whatever shell the person has: one that stays would die of Ctrl-C itself.
        terminal.args(["-qec", &receive, "/dev/null"]).env("SHELL", "/bin/sh");
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut terminal = terminal.spawn().unwrap();
        let (mut out, mut shown) = (terminal.stdout.take().unwrap(), Vec::new());
        while !shown.ends_with(b"[y/N] ") {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            shown.push(byte[0]);
        }
        let mut keys = terminal.stdin.take().unwrap();
        keys.write_all(said.as_bytes()).unwrap();
        assert_eq!(terminal.wait().unwrap().code(), Some(code), "{said:?}");
        assert_eq!(sending.finish().code(), code, "{said:?}");
        assert_eq!(inbox.join("note").exists(), code == 0);
    }
}

#[test]
fn any_number_of_transfers_goes_over_one_after_the_other_and_at_once() {
    let place = Place::new();
    let (north, south) = place.friends();
    let inbox = place.path("inbox");
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes", "--keep"]);
    let send = |index: usize| {
        let file = place.path(&format!("note{index}"));
        fs::write(&file, "x").unwrap();
        north.command(&["send", file.to_str().unwrap(), "--to", "south"])
    };
    // More than a peer keeps connections with one contact.
    for index in 0..20 {
        send(index).finish().ok();
    }
    let together: Vec<_> = (20..28).map(send).collect();
    for sending in together {
        sending.finish().ok();
    }
    receiving.kill();
    assert_eq!(fs::read_dir(&inbox).unwrap().count(), 28);
}

#[test]
fn the_own_home_is_never_sent() {
    let place = Place::new();
    let (north, _south) = place.friends();
    let whole = place.folder.path().to_str().unwrap();
    let key = north.home.join("key.pem");
    for path in [whole, key.to_str().unwrap()] {
        north.run(&["send", path, "--to", "south"]).fails(2, "private key");
    }
}

#[test]
fn sending_says_what_is_wrong() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    north.run(&["send", "x", "--to", "south"]).fails(3, "cannot read x");
    fs::write(place.path("x"), "x").unwrap();
    let file = place.path("x");
    let file = file.to_str().unwrap();
    north.up(&[]);
    north.run(&["send", file, "--to", "south"]).fails(3, "no contact 'south'");
    north.run(&["receive", "--from", "south", "--yes"]).fails(3, "no contact 'south'");
    north.run(&["receive"]).fails(2, "--yes");
    let ni = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";
    north.run(&["contact", "add", "south", ni, "--at", "tcp://127.0.0.1:9"]).ok();
    north.run(&["send", file, "--to", "south", "--wait", "300ms"]).fails(5, "cannot reach south");
}

#[test]
fn a_receiver_that_cannot_write_says_why_and_the_sender_hears_it() {
    let place = Place::new();
    let (north, south) = place.friends();
    fs::write(place.path("note"), "x").unwrap();
    let (inbox, note) = (place.path("inbox"), place.path("note"));
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes"]);
    eventually("a receiver", || (south.status()["transfer"]["receivers"] == 1).then_some(()));
    fs::write(&inbox, "a file, no folder").unwrap();
    let sent = north.run(&["send", note.to_str().unwrap(), "--to", "south"]);
    assert_eq!(sent.code(), 1, "{sent:?}");
    receiving.finish().fails(1, "inbox");
}
