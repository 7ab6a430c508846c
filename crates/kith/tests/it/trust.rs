//! Strangers, removed contacts, and somebody else's address.

use std::fs;

use crate::harness::{Place, eventually};

#[test]
fn a_stranger_opens_no_protocol_and_appears_once_in_requests() {
    let place = Place::new();
    let (mut north, mut south) = (place.person("north", &[]), place.person("south", &[]));
    south.up(&[]);
    north.up(&[]);
    north.knows("south", &south);
    fs::write(place.path("note"), "x").unwrap();
    let note = place.path("note");
    for via in ["tcp", "quic"] {
        north.run(&["ping", "south", "--via", via]).fails(4, "does not admit");
        north
            .run(&["send", note.to_str().unwrap(), "--to", "south", "--via", via])
            .fails(4, "does not admit");
    }
    let fingerprint = north.ni();
    let requests = eventually("the request", || {
        let listed = south.run(&["contact", "requests", "--json"]).ok().json();
        Some(listed).filter(|listed| !listed.as_array().unwrap().is_empty())
    });
    assert_eq!(requests.as_array().unwrap().len(), 1);
    assert_eq!(requests[0]["ni"], fingerprint);
    assert_eq!(requests[0]["times"], 1);
    south.run(&["contact", "add", "north", &fingerprint]).ok();
    assert_eq!(south.run(&["contact", "requests", "--json"]).ok().json().as_array().unwrap().len(), 0);
    north.run(&["ping", "south", "-c", "1"]).ok();
}

#[test]
fn a_contact_removed_in_the_middle_of_a_connection_is_cut_off() {
    let place = Place::new();
    let (north, south) = place.friends();
    for via in ["tcp", "quic"] {
        let pinging =
            north.command(&["ping", "south", "-c", "1000", "--interval", "20ms", "--via", via, "--json"]);
        pinging.line("rtt_ms");
        let before = kith_sansio::system::time();
        south.run(&["contact", "remove", "north"]).ok();
        let done = pinging.finish();
        assert!(matches!(done.code(), 4 | 5), "{done:?}");
        // A bound on the harm, not a measurement: removing, cutting and noticing in one.
        assert!((kith_sansio::system::time() - before).as_secs() < 10);
        south.knows("north", &north);
    }
}

#[test]
fn sending_to_a_contact_ends_with_the_contact() {
    let place = Place::new();
    let (north, south) = place.friends();
    fs::write(place.path("note"), "x").unwrap();
    let note = place.path("note");
    let sending = north.command(&["send", note.to_str().unwrap(), "--to", "south"]);
    eventually("the offer", || {
        let status = south.run(&["status", "--json"]).ok().json();
        (!status["transfer"]["running"].as_array().unwrap().is_empty()).then_some(())
    });
    north.run(&["contact", "remove", "south"]).ok();
    sending.finish().fails(4, "south is no contact any more");
}

#[test]
fn a_ping_that_waits_asks_again_whether_it_may() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    north.up(&[]);
    let ni = "ni:///sha3-256;OboJhW6BME7EP_SM7zIH6jPCJEs7Y4jkrcK2APDGkM0";
    for (change, why) in [("remove", "south is no contact any more"), ("block", "south is blocked here")] {
        // Somebody who hangs up, again and again.
        let south = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        south.set_nonblocking(true).unwrap();
        let at = format!("tcp://{}", south.local_addr().unwrap());
        north.run(&["contact", "add", "south", ni, "--at", &at]).ok();
        let pinging = north.command(&["ping", "south", "--wait", "10m"]);
        eventually("an attempt", || south.accept().ok());
        north.run(&["contact", change, "south"]).ok();
        pinging.finish().fails(4, why);
    }
}

#[test]
fn an_address_that_belongs_to_somebody_else_is_told_apart() {
    let place = Place::new();
    let (north, south) = place.friends();
    let west = place.person("west", &[]);
    let mut arguments = vec!["contact".to_owned(), "add".to_owned(), "west".to_owned(), west.ni()];
    for address in south.addresses() {
        arguments.extend(["--at".to_owned(), address]);
    }
    north.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    north.run(&["ping", "west", "--wait", "1s"]).fails(4, "cannot reach west");
    assert!(south.run(&["contact", "requests", "--json"]).ok().json().as_array().unwrap().is_empty());
}

#[test]
fn a_contact_known_by_one_transport_is_not_called_unknown_over_the_other() {
    let place = Place::new();
    let north = {
        let mut north = place.person("north", &[]);
        north.up(&[]);
        north
    };
    let ni = "ni:///sha3-256;OboJhW6BME7EP_SM7zIH6jPCJEs7Y4jkrcK2APDGkM0";
    north.run(&["contact", "add", "south", ni, "--at", "tcp://127.0.0.1:1"]).ok();
    let done = north.run(&["ping", "south", "--via", "quic", "--wait", "0s"]);
    let done = done.fails(5, "is known by tcp://127.0.0.1:1 alone");
    assert!(done.err.contains("leave --via out"), "{done:?}");
}

#[test]
fn contacts_that_met_once_find_each_other_without_hints_on_one_side() {
    let place = Place::new();
    let (mut north, mut south) = (place.person("north", &[]), place.person("south", &[]));
    north.up(&[]);
    south.up(&[]);
    north.knows("south", &south);
    // South knows the fingerprint alone: no hint, no directory.
    south.run(&["contact", "add", "north", &north.ni()]).ok();
    south.run(&["ping", "north", "-c", "1", "--wait", "0s"]).fails(5, "no address");
    let meeting = north.command(&["ping", "south", "-c", "1000", "--interval", "100ms"]);
    eventually("south to learn where north is", || {
        (south.run(&["ping", "north", "-c", "1", "--wait", "0s", "--fresh", "--via", "tcp"]).code() == 0)
            .then_some(())
    });
    meeting.kill();
}
