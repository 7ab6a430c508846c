//! Orders that wait, are paused, limited and cancelled, and orders to several contacts.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use kith_vnet::needs;
use serde_json::Value;

use crate::harness::{Person, Place, eventually};
use crate::tree;

const MIB: usize = 1 << 20;

/// All transfers that a node knows.
fn all(person: &Person) -> Vec<Value> {
    person.run(&["transfer", "list", "--all", "--json"]).ok().json().as_array().unwrap().clone()
}

/// Waits until the only transfer of a node stands so.
#[track_caller]
fn wait_for(person: &Person, what: &str, stands: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || all(person).into_iter().find(&stands))
}

#[track_caller]
fn wait_for_state(person: &Person, state: &str) -> Value {
    wait_for(person, state, |transfer| transfer["state"] == state)
}

/// Two nodes, and a file that takes its time because it is sent slowly.
struct Slow {
    north: Person,
    south: Person,
    file: PathBuf,
    inbox: PathBuf,
    place: Place,
}

impl Slow {
    fn set() -> Slow {
        let place = Place::new();
        let (north, south) = place.friends();
        let (file, inbox) = (place.path("film"), place.path("inbox"));
        fs::write(&file, tree::noise(24 * MIB, 5)).unwrap();
        Slow { north, south, file, inbox, place }
    }

    /// Orders the file within a limit; the id.
    fn order(&self) -> String {
        let file = self.file.to_str().unwrap();
        let order = ["send", file, "--to", "south", "--limit", "1MiB/s", "--detach", "--json"];
        self.north.run(&order).ok().json()["id"].as_str().unwrap().to_owned()
    }

    fn accept(&self) -> crate::harness::Running {
        self.south.command(&["receive", "--into", self.inbox.to_str().unwrap(), "--yes", "--json"])
    }

    /// Until some groups are at the receiver for good.
    fn some_moved(&self) {
        wait_for(&self.south, "some bytes", |one| one["bytes"].as_u64().unwrap() > 3 * MIB as u64);
    }

    #[track_caller]
    fn assert_same(&self) {
        assert_eq!(fs::read(&self.file).unwrap(), fs::read(self.inbox.join("film")).unwrap());
    }
}

#[test]
fn a_pause_on_either_side_is_seen_on_both_survives_kills_and_loses_nothing() {
    let mut slow = Slow::set();
    let receiving = slow.accept();
    let id = slow.order();
    slow.some_moved();
    let paused = slow.north.run(&["transfer", "pause", &id[..8], "--json"]).ok().json();
    assert_eq!((&paused[0]["state"], &paused[0]["paused_by"]), (&"paused".into(), &"here".into()));
    wait_for(&slow.south, "the word of the pause", |one| one["paused_by"] == "contact");
    slow.north.crash_and_return(|| {});
    slow.south.crash_and_return(|| {});
    assert_ne!(receiving.finish().code(), 0);
    for (person, by) in [(&slow.north, "here"), (&slow.south, "contact")] {
        let one = &all(person)[0];
        assert_eq!((&one["state"], &one["paused_by"]), (&"paused".into(), &by.into()), "{one}");
    }
    // The receiver pauses it too: both have to go on.
    slow.south.run(&["transfer", "pause", "north"]).ok();
    slow.north.run(&["transfer", "resume", "south"]).ok();
    wait_for(&slow.north, "the word of the other pause", |one| one["paused_by"] == "contact");
    wait_for(&slow.south, "the word that it goes on", |one| one["paused_by"] == "here");
    slow.north.run(&["transfer", "limit", &id, "off"]).ok();
    slow.south.run(&["transfer", "resume", &id]).ok();
    let end = wait_for_state(&slow.north, "done");
    wait_for_state(&slow.south, "done");
    assert!(end["resumed_bytes"].as_u64().unwrap() >= 2 * MIB as u64, "{end}");
    slow.assert_same();
}

#[test]
fn a_pause_by_the_receiver_stops_the_sender_until_it_goes_on() {
    let slow = Slow::set();
    let receiving = slow.accept();
    let id = slow.order();
    slow.some_moved();
    slow.south.run(&["transfer", "pause", &id]).ok();
    wait_for(&slow.north, "the word of the pause", |one| {
        one["state"] == "paused" && one["paused_by"] == "contact"
    });
    let status = slow.north.run(&["status"]).ok().out;
    assert!(status.contains("paused by the contact"), "{status}");
    slow.north.run(&["transfer", "limit", &id, "off"]).ok();
    slow.south.run(&["transfer", "resume", &id]).ok();
    // The command that was waiting goes on with it.
    let end = receiving.finish().ok().json();
    assert_eq!(end["id"], id.as_str());
    slow.assert_same();
}

#[test]
fn cancelling_ends_it_on_both_sides_paused_or_not() {
    for paused in [false, true] {
        let slow = Slow::set();
        let receiving = slow.accept();
        let id = slow.order();
        slow.some_moved();
        if paused {
            slow.south.run(&["transfer", "pause", &id]).ok();
            wait_for_state(&slow.north, "paused");
        }
        slow.south.run(&["transfer", "cancel", &id[..6]]).ok();
        let end = wait_for_state(&slow.north, "failed");
        assert_eq!(end["failure"]["error"], "south cancelled it");
        wait_for_state(&slow.south, "failed");
        slow.south.run(&["transfer", "cancel", &id]).fails(1, "has ended");
        drop(receiving);
        drop(slow.place);
    }
}

#[test]
fn cancelling_reaches_the_receiver_though_the_stream_is_too_slow_to_say_so() {
    let slow = Slow::set();
    let receiving = slow.accept();
    let file = slow.file.to_str().unwrap();
    let order = ["send", file, "--to", "south", "--limit", "2KiB/s", "--detach", "--json"];
    let id = slow.north.run(&order).ok().json()["id"].as_str().unwrap().to_owned();
    wait_for_state(&slow.south, "moving");
    wait_for(&slow.north, "some bytes", |one| one["state"] == "moving" && one["bytes"].as_u64().unwrap() > 0);
    slow.north.run(&["transfer", "cancel", &id]).ok();
    let end = wait_for_state(&slow.south, "failed");
    assert!(end["failure"]["error"].as_str().unwrap().contains("cancelled"), "{end}");
    drop(receiving);
}

#[test]
fn cancelling_reaches_a_receiver_that_was_away_though_the_sender_started_again() {
    let mut slow = Slow::set();
    let receiving = slow.accept();
    let id = slow.order();
    slow.some_moved();
    slow.south.crash_and_return(|| {
        slow.north.run(&["transfer", "cancel", &id]).ok();
        wait_for_state(&slow.north, "failed");
        slow.north.crash();
        slow.north.up(&[]);
    });
    drop(receiving);
    let end = wait_for_state(&slow.south, "failed");
    assert!(end["failure"]["error"].as_str().unwrap().contains("north cancelled it"), "{end}");
}

#[test]
fn cancelling_reaches_a_receiver_that_the_sender_has_not_met_again_since_it_started() {
    let mut slow = Slow::set();
    let receiving = slow.accept();
    let id = slow.order();
    slow.some_moved();
    slow.north.crash();
    slow.south.crash_and_return(|| {
        slow.north.up(&[]);
        wait_for_state(&slow.north, "waiting");
        slow.north.run(&["transfer", "cancel", &id]).ok();
    });
    drop(receiving);
    let end = wait_for_state(&slow.south, "failed");
    assert!(end["failure"]["error"].as_str().unwrap().contains("north cancelled it"), "{end}");
}

#[test]
fn an_offer_is_over_when_its_sender_says_so_though_its_stream_is_dead() {
    use rustix::process::{Pid, Signal, kill_process};

    let mut slow = Slow::set();
    let file = slow.file.to_str().unwrap();
    // A process that is killed says no goodbye over QUIC.
    let order = ["send", file, "--to", "south", "--via", "quic", "--detach", "--json"];
    let id = slow.north.run(&order).ok().json()["id"].as_str().unwrap().to_owned();
    wait_for_state(&slow.south, "offered");
    wait_for_state(&slow.north, "offered");
    let watching = format!("GET /v1/transfers/{id}/events HTTP/1.0\r\nhost: kith\r\n\r\n");
    let mut watcher = std::os::unix::net::UnixStream::connect(slow.south.home.join("control.sock")).unwrap();
    watcher.set_read_timeout(Some(std::time::Duration::from_secs(90))).unwrap();
    watcher.write_all(watching.as_bytes()).unwrap();
    slow.north.crash();
    // South cannot be reached for a moment, so that the cancelled order is not offered again.
    let south = Pid::from_raw(slow.south.node.as_ref().unwrap().child.id().try_into().unwrap()).unwrap();
    kill_process(south, Signal::STOP).unwrap();
    slow.north.up(&[]);
    slow.north.run(&["transfer", "cancel", &id]).ok();
    wait_for_state(&slow.north, "failed");
    kill_process(south, Signal::CONT).unwrap();
    let mut events = String::new();
    watcher.read_to_string(&mut events).unwrap();
    let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(last["failure"]["error"], "the sender took its offer back", "{events}");
    assert!(all(&slow.south).is_empty());
}

#[test]
fn unanswered_offers_keep_no_other_order_from_starting() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    north.up(&[]);
    // Each of them holds as many offers of one contact as it takes, and answers none: as many as may move at once.
    let silent: Vec<_> = (0..8)
        .map(|n| {
            let mut person = place.person(&format!("silent{n}"), &[]);
            person.up(&[]);
            north.knows(&format!("silent{n}"), &person);
            person.knows("north", &north);
            north.run(&["contact", "group", "add", "silent", &format!("silent{n}")]).ok();
            person
        })
        .collect();
    for n in 0..8 {
        let file = place.path(&format!("note{n}"));
        fs::write(&file, "x").unwrap();
        north.run(&["send", file.to_str().unwrap(), "--to", "@silent", "--detach"]).ok();
    }
    let offered = |person: &Person| all(person).iter().filter(|one| one["state"] == "offered").count();
    eventually("all offers", || (offered(&north) == 64).then_some(()));
    assert!(silent.iter().all(|person| offered(person) == 8));
    let mut south = place.person("south", &[]);
    south.up(&[]);
    north.knows("south", &south);
    south.knows("north", &north);
    let (file, inbox) = (place.path("note0"), place.path("inbox"));
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes"]);
    north.run(&["send", file.to_str().unwrap(), "--to", "south"]).ok();
    receiving.finish().ok();
}

#[test]
fn a_large_offer_waits_ten_minutes_and_both_sides_know() {
    let place = Place::new();
    let (north, south) = place.friends();
    let album = place.path("album");
    fs::create_dir(&album).unwrap();
    for n in 0..10_001 {
        fs::write(album.join(n.to_string()), "").unwrap();
    }
    let send = ["send", album.to_str().unwrap(), "--to", "south", "--accept-within", "30d", "--detach"];
    north.run(&send).ok();
    let soon = kith_sansio::system::utc().plus_secs(1_200).to_string();
    for person in [&south, &north] {
        let offered = wait_for_state(person, "offered");
        assert!(offered["until"].as_str().unwrap() < soon.as_str(), "{offered}");
    }
}

#[test]
fn an_offer_can_be_paused_by_its_sender_alone() {
    let mut slow = Slow::set();
    let id = slow.order();
    wait_for_state(&slow.south, "offered");
    slow.south.run(&["transfer", "pause", &id]).fails(1, "not accepted yet");
    slow.south.run(&["transfer", "limit", &id, "2MiB/s"]).ok();
    slow.north.run(&["transfer", "pause", &id]).ok();
    eventually("the end of the offer", || all(&slow.south).is_empty().then_some(()));
    // Nor does it come back by itself.
    slow.south.crash_and_return(|| {});
    assert!(all(&slow.south).is_empty());
    slow.north.run(&["transfer", "resume", &id]).ok();
    wait_for_state(&slow.south, "offered");
}

#[test]
fn limits_are_accepted_and_shown() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    let config = north.home.join("kith.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[transfer]\nlimit-up = '3MiB/s'\nlimit-down = '2MiB/s'\n")).unwrap();
    north.up(&[]);
    let status = north.run(&["status", "--json"]).ok().json();
    assert_eq!(status["transfer"]["limit_up"], 3 << 20);
    assert_eq!(status["transfer"]["limit_down"], 2 << 20);
    let (ni, file) = ("ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY", place.path("note"));
    fs::write(&file, "x").unwrap();
    north.run(&["contact", "add", "south", ni, "--at", "tcp://127.0.0.1:9"]).ok();
    let file = file.to_str().unwrap();
    north.run(&["send", file, "--to", "south", "--limit", "fast"]).fails(2, "fast");
    north.run(&["send", file, "--to", "south", "--wait", "1d", "--limit", "2MiB/s", "--detach"]).ok();
    let listed = north.run(&["transfer", "list"]).ok().out;
    assert!(listed.contains("at most 2MiB/s") && listed.contains("note"), "{listed}");
    let id = all(&north)[0]["id"].as_str().unwrap().to_owned();
    north.run(&["transfer", "limit", &id, "1B/s"]).fails(2, "no rate");
    assert_eq!(north.run(&["transfer", "limit", &id, "off", "--json"]).ok().json()[0]["limit"], Value::Null);
}

#[test]
fn an_order_waits_in_the_node_until_the_contact_is_there_though_the_node_was_killed() {
    let place = Place::new();
    let (mut north, mut south) = place.friends();
    let (file, inbox) = (place.path("note"), place.path("inbox"));
    fs::write(&file, "first").unwrap();
    let send = ["send", file.to_str().unwrap(), "--to", "south", "--wait", "2d"];
    let mut id = Value::Null;
    south.crash_and_return(|| {
        let detached = north.run(&[&send[..], &["--detach", "--json"]].concat()).ok().json();
        let waiting = wait_for_state(&north, "waiting");
        assert_eq!(waiting["id"], detached["id"]);
        assert!(waiting["until"].is_string() && waiting["waiting_for"].is_string(), "{waiting}");
        let again = north.run(&[&send[..], &["--detach", "--json"]].concat()).ok().json();
        assert_eq!((&again["id"], &again["attached"]), (&detached["id"], &true.into()));
        north.crash();
        // What is sent is what is there when the contact is.
        fs::write(&file, "second, and longer").unwrap();
        north.up(&[]);
        id = detached["id"].clone();
    });
    // Without a command the offer waits there in its turn.
    let offered = wait_for_state(&south, "offered");
    assert!(offered["until"].is_string(), "{offered}");
    let received = south.run(&["receive", "--into", inbox.to_str().unwrap(), "--yes", "--json"]).ok().json();
    assert_eq!(received["id"], id);
    wait_for_state(&north, "done");
    assert_eq!(fs::read(inbox.join("note")).unwrap(), b"second, and longer");
}

#[test]
fn orders_whose_time_is_over_expire_and_say_so() {
    let place = Place::new();
    let (north, mut south) = place.friends();
    let file = place.path("note");
    fs::write(&file, "x").unwrap();
    let send = ["send", file.to_str().unwrap(), "--to", "south"];
    north.run(&[&send[..], &["--accept-within", "1s"]].concat()).fails(1, "within 1s");
    north.run(&[&send[..], &["--accept-within", "1ms"]].concat()).fails(2, "1s to 30d");
    south.crash();
    north.run(&[&send[..], &["--wait", "1s"]].concat()).fails(5, "cannot reach south");
    let states: Vec<_> = all(&north).iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["expired", "expired"]);
}

#[test]
fn several_recipients_get_the_same_and_each_failure_is_named() {
    let place = Place::new();
    let (north, south) = place.friends();
    let mut east = place.person("east", &[]);
    east.up(&[]);
    north.knows("east", &east);
    east.knows("north", &north);
    let file = place.path("note");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    north.run(&["contact", "group", "add", "friends", "south", "east"]).ok();
    let inboxes = [place.path("inbox-south"), place.path("inbox-east")];
    let receive = |person: &Person, inbox: &PathBuf| {
        person.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes"])
    };
    let receiving = [receive(&south, &inboxes[0]), receive(&east, &inboxes[1])];
    // A contact that is named twice gets it once.
    let sent = north.run(&["send", file, "--to", "south", "--to", "@friends", "--json"]).ok();
    assert_eq!(sent.out.lines().count(), 3, "{sent:?}");
    let summary = sent.json();
    assert_eq!(
        (&summary["done"], &summary["recipients"], &summary["succeeded"]),
        (&true.into(), &2.into(), &2.into())
    );
    for one in receiving {
        one.finish().ok();
    }
    for inbox in &inboxes {
        assert_eq!(fs::read(inbox.join("note")).unwrap(), b"x");
    }
    let ni = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";
    north.run(&["contact", "add", "gone", ni, "--at", "tcp://127.0.0.1:9"]).ok();
    let receiving = receive(&south, &inboxes[0]);
    let sent = north.run(&["send", file, "--to", "gone", "--to", "south", "--wait", "1s", "--json"]);
    let sent = sent.fails(5, "gone: cannot reach gone");
    assert_eq!(sent.out.lines().count(), 3, "{sent:?}");
    assert_eq!(
        (&sent.json()["done"], &sent.json()["failures"][0]["contact"]),
        (&false.into(), &"gone".into())
    );
    receiving.finish().ok();
    let left = north.run(&["send", file, "--to", "@friends", "--detach"]).ok().out;
    assert_eq!(left.lines().count(), 2, "{left}");
    north.run(&["send", file, "--to", "@nobody"]).fails(3, "nobody in a group 'nobody'");
    north.run(&["send", file, "--to", "south", "--to", "nobody"]).fails(3, "no contact 'nobody'");
}

#[test]
fn more_offers_than_a_contact_takes_at_once_wait_for_their_turn() {
    let place = Place::new();
    let (north, south) = place.friends();
    for index in 0..12 {
        let file = place.path(&format!("note{index}"));
        fs::write(&file, "x").unwrap();
        north.run(&["send", file.to_str().unwrap(), "--to", "south", "--detach"]).ok();
    }
    wait_for(&north, "a busy contact", |one| {
        one["state"] == "waiting" && one["waiting_for"] == "the contact is busy"
    });
    let inbox = place.path("inbox");
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes", "--keep"]);
    eventually("all of them", || all(&north).iter().all(|one| one["state"] == "done").then_some(()));
    receiving.kill();
    assert_eq!(fs::read_dir(&inbox).unwrap().count(), 12);
}

#[test]
fn what_cannot_be_read_is_named_and_no_success() {
    let place = Place::new();
    let as_root = rustix::process::getuid().is_root();
    if as_root {
        needs!("setpriv");
    }
    let mut north = place.person("north", &[]);
    let mut south = place.person("south", &[]);
    if as_root {
        // Root may read everything, unless it lets go of that.
        north.up_without("dac_override,-dac_read_search");
    } else {
        north.up(&[]);
    }
    south.up(&[]);
    north.knows("south", &south);
    south.knows("north", &north);
    let (album, inbox) = (place.path("album"), place.path("inbox"));
    fs::create_dir_all(album.join("secret")).unwrap();
    fs::write(album.join("picture"), "x").unwrap();
    let secret = album.join("secret");
    let mode =
        |mode| fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0);
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes", "--keep"]);
    let send = ["send", album.to_str().unwrap(), "--to", "south"];
    let sent = north.run(&send).fails(1, "secret");
    assert!(sent.err.contains("--skip-unreadable"), "{sent:?}");
    let sent = north.run(&[&send[..], &["--skip-unreadable"]].concat()).ok();
    assert!(sent.err.contains("secret"), "{sent:?}");
    mode(0o700);
    assert_eq!(fs::read(inbox.join("album/picture")).unwrap(), b"x");
    receiving.kill();
}

#[test]
fn a_link_that_leads_nowhere_goes_over_as_a_link() {
    let place = Place::new();
    let (north, south) = place.friends();
    let (link, inbox) = (place.path("link"), place.path("inbox"));
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let receiving = south.command(&["receive", "--into", inbox.to_str().unwrap(), "--yes"]);
    north.run(&["send", link.to_str().unwrap(), "--to", "south"]).ok();
    receiving.finish().ok();
    assert_eq!(fs::read_link(inbox.join("link")).unwrap(), PathBuf::from("nowhere"));
}
