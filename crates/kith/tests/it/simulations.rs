//! Simulations that are stopped.

use std::fs;

use serde_json::Value;

use crate::harness::{Place, Running, eventually, kith};
use crate::invitations::interrupt;

/// Clock ticks that a process has computed for.
fn computed(running: &Running) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.child.id())).unwrap_or_default();
    // The fourteenth field; the second one, a name in parentheses, may have spaces.
    let after = stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(11);
    after.and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

#[test]
fn a_simulation_that_is_interrupted_leaves_what_it_has_whole_and_says_that_it_is_not_all() {
    let place = Place::new();
    let folder = place.path("data");
    let into = folder.to_str().unwrap();
    let endless = ["--nodes", "2K", "--colluding", "1%", "--networks", "1"];
    for (command, more) in [("figure7", ["--selections", "100M"]), ("figure8", ["--events", "100M"])] {
        let endless = if command == "figure7" { &endless[..] } else { &endless[..4] };
        let options = ["simulate", command, "--cache", "64", "--json", "--into", into];
        let arguments = [&options[..], endless, &more].concat();
        let running = Running::spawn(kith(&place.path("unused"), &arguments));
        eventually("it computes", || (computed(&running) > 40).then_some(()));
        interrupt(&running);
        let done = running.finish().fails(1, "stopped before the end");
        let data = done.json();
        assert_eq!(data["complete"], false);
        let rows = data["rows"].as_array().unwrap();
        let counted = if command == "figure7" { "selections" } else { "events" };
        assert!(!rows.is_empty() && rows[0][counted].as_u64().unwrap() > 0, "{data}");
        let read = |ending| fs::read(folder.join(command).with_extension(ending)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&read("json")).unwrap(), data);
        assert_eq!(String::from_utf8(read("csv")).unwrap().lines().count(), rows.len() + 1);
        assert!(String::from_utf8(read("svg")).unwrap().contains("</svg>"));
        assert!(read("png").ends_with(b"IEND\xae\x42\x60\x82"));
    }
}
