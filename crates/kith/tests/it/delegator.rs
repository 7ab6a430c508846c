//! A delegator with real nodes that use it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Person, Place, Running, eventually, kith};
use crate::surface::Ledger;

const LISTEN: [&str; 4] = ["--listen", "quic://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"];
/// A fingerprint that nobody has a key to.
const ZERO: &str = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";

/// A delegator, and two nodes that are to use it and know nothing else: `roof`, a sensor, and `office`, a hub.
struct Community {
    warden: Person,
    roof: Person,
    office: Person,
}

impl Community {
    /// `more` are further arguments of `delegator serve`.
    #[track_caller]
    fn gather(place: &Place, more: &[&str]) -> Community {
        let mut warden = place.person("warden", &[]);
        let (mut roof, mut office) = (place.person("roof", &[]), place.person("office", &[]));
        roof.up(&[]);
        office.up(&[]);
        warden.up_with(&[&["delegator", "serve"], &LISTEN[..], more].concat());
        Community { warden, roof, office }
    }

    /// Both are members, and sensors may reach hubs for `protocols`.
    #[track_caller]
    fn admit(&self, protocols: &[&str]) {
        admits(&self.warden, "sensors", "roof", &self.roof);
        admits(&self.warden, "hubs", "office", &self.office);
        let each = protocols.iter().flat_map(|protocol| ["--protocol", protocol]);
        let grant: Vec<_> = ["delegator", "grant", "sensors", "hubs"].into_iter().chain(each).collect();
        self.warden.run(&grant).ok();
        self.begin();
        self.office_knows_roof(true);
        eventually("the sensor's list", || (entries(&self.roof).len() == 1).then_some(()));
    }

    /// Both use the delegator from now on; where they do already, they look for it at once.
    #[track_caller]
    fn begin(&self) {
        uses(&self.roof, &self.warden);
        uses(&self.office, &self.warden);
    }

    #[track_caller]
    fn office_knows_roof(&self, known: bool) {
        eventually("the hub's list", || (entries(&self.office).is_empty() != known).then_some(()));
    }
}

/// `node` uses `warden` as its delegator.
#[track_caller]
fn uses(node: &Person, warden: &Person) {
    let (ni, at) = (warden.ni(), warden.addresses());
    let at = at.iter().flat_map(|at| ["--at", at.as_str()]);
    let arguments = ["delegator", "use", &ni, "--as", "warden"].into_iter().chain(at);
    node.run(&arguments.collect::<Vec<_>>()).ok();
}

#[track_caller]
fn admits(warden: &Person, group: &str, name: &str, node: &Person) {
    let (ni, at) = (node.ni(), node.addresses());
    let at = at.iter().flat_map(|at| ["--at", at.as_str()]);
    let arguments = ["delegator", "group", "add", group, &ni, "--as", name].into_iter().chain(at);
    warden.run(&arguments.collect::<Vec<_>>()).ok();
}

/// What the delegator's list says at a node now.
#[track_caller]
fn entries(node: &Person) -> Vec<Value> {
    let shown = node.run(&["delegator", "show", "warden", "--json"]).ok().json();
    shown["entries"].as_array().unwrap().clone()
}

#[test]
fn nodes_reach_each_other_as_their_delegator_allows_and_no_further() {
    let place = Place::new();
    let community = Community::gather(&place, &[]);
    let Community { warden, roof, office } = &community;
    roof.run(&["ping", "office", "-c", "1"]).fails(3, "no contact 'office'");
    community.admit(&["ping/1"]);
    for via in ["tcp", "quic"] {
        roof.run(&["ping", "office", "-c", "1", "--via", via, "--fresh"]).ok();
    }
    office.run(&["ping", "roof", "-c", "1"]).fails(4, "no delegator lets this node reach roof for ping/1");
    let note = place.path("note");
    fs::write(&note, "x").unwrap();
    let note = note.to_str().unwrap();
    roof.run(&["send", note, "--to", "office"])
        .fails(4, "no delegator lets this node reach office for send/1");
    // Whoever takes the right upon himself is refused at the other end.
    roof.knows("hand-made", office);
    roof.run(&["send", note, "--to", "hand-made"]).fails(4, "does not admit");
    roof.run(&["contact", "remove", "hand-made"]).ok();
    roof.run(&["contact", "block", &warden.ni()]).fails(2, "manages whom this node trusts");
    let shown = roof.run(&["contact", "show", "office", "--json"]).ok().json();
    assert_eq!((&shown["delegator"], &shown["ni"]), (&json!("warden"), &json!(office.ni())));
    warden.run(&["delegator", "grant", "sensors", "hubs"]).ok();
    eventually("the wider right", || {
        let sending = roof.command(&["send", note, "--to", "office", "--detach"]);
        (sending.finish().code() == 0).then_some(())
    });
    let inbox = place.path("inbox");
    office.run(&["receive", "--yes", "--from", "roof", "--into", inbox.to_str().unwrap()]).ok();
    assert_eq!(fs::read(inbox.join("note")).unwrap(), b"x");
    let overview = warden.run(&["delegator", "list", "--json"]).ok().json();
    assert_eq!((&overview["serving"], &overview["members"]), (&json!(true), &json!(2)));
}

#[test]
fn a_node_that_is_removed_is_cut_off_and_gets_nowhere() {
    let place = Place::new();
    let community = Community::gather(&place, &[]);
    let Community { warden, roof, office } = &community;
    for via in ["tcp", "quic"] {
        community.admit(&[]);
        let pinging = ["ping", "office", "-c", "1000", "--interval", "20ms", "--via", via, "--json"];
        let pinging = roof.command(&pinging);
        pinging.line("rtt_ms");
        let before = kith_sansio::system::time();
        warden.run(&["delegator", "revoke", "roof"]).ok();
        let done = pinging.finish();
        assert!(matches!(done.code(), 4 | 5), "{done:?}");
        // A bound on the harm, not a measurement: changing, telling, cutting and noticing in one.
        assert!((kith_sansio::system::time() - before).as_secs() < 10);
        community.office_knows_roof(false);
        eventually("nothing is left of its own list", || entries(roof).is_empty().then_some(()));
        roof.run(&["ping", "office", "-c", "1"]).fails(3, "no contact 'office'");
        roof.knows("hand-made", office);
        roof.run(&["ping", "hand-made", "-c", "1"]).fails(4, "does not admit");
        roof.run(&["contact", "remove", "hand-made"]).ok();
    }
    let log = warden.run(&["delegator", "log", "--json"]).ok().json();
    let kinds: Vec<_> = log.as_array().unwrap().iter().map(|line| line["change"].as_str().unwrap()).collect();
    assert!(kinds.ends_with(&["left", "expelled"]), "{kinds:?}");
}

#[test]
fn a_rule_ends_at_its_time_with_the_connections_that_it_allowed() {
    let place = Place::new();
    // Begins first, so that it has looked at its rules as often.
    let file = place.path("policy.toml");
    fs::write(&file, "[[rule]]\nfrom = 'a'\nto = 'b'\nuntil = '2020-01-01T00:00:00Z'\n").unwrap();
    let mut filed = place.person("filed", &[]);
    filed.up_with(&[&["delegator", "serve", "--file", file.to_str().unwrap()], &LISTEN[..]].concat());
    let community = Community::gather(&place, &[]);
    let Community { warden, roof, .. } = &community;
    community.admit(&["ping/1"]);
    let pinging = roof.command(&["ping", "office", "-c", "1000", "--interval", "20ms", "--json"]);
    pinging.line("rtt_ms");
    // The same rule with an end.
    warden.run(&["delegator", "grant", "sensors", "hubs", "--protocol", "ping/1", "--for", "2s"]).ok();
    let done = pinging.finish();
    assert!(matches!(done.code(), 4 | 5), "{done:?}");
    assert!(entries(roof).is_empty());
    let line = eventually("the rule is taken away", || {
        let log = warden.run(&["delegator", "log", "-n", "1", "--json"]).ok().json();
        (log[0]["by"] == "time").then(|| log[0].clone())
    });
    assert_eq!(line["change"], "revoked");
    let rules = warden.run(&["delegator", "list", "--json"]).ok().json()["rules"].clone();
    assert_eq!(rules, json!([]));
    let log = filed.run(&["delegator", "log", "--json"]).ok().json();
    assert_eq!(log.as_array().unwrap().len(), 1, "what a file says is granted once and stays: {log}");
}

#[test]
fn a_lost_delegator_leaves_its_list_in_force_until_the_lease_is_over_and_is_taken_up_again() {
    let place = Place::new();
    let mut community = Community::gather(&place, &["--lease", "20s"]);
    community.admit(&[]);
    let at = community.warden.addresses();
    community.warden.crash();
    community.roof.run(&["ping", "office", "-c", "1"]).ok();
    eventually("the end of the lease", || {
        let done = community.roof.run(&["ping", "office", "-c", "1"]);
        (done.code() == 3).then_some(())
    });
    eventually("the end at the other node", || entries(&community.office).is_empty().then_some(()));
    let listen = at.iter().flat_map(|at| ["--listen", at.as_str()]);
    let again: Vec<_> = ["delegator", "serve", "--lease", "20s"].into_iter().chain(listen).collect();
    community.warden.up_with(&again);
    eventually("the delegator is back", || {
        (community.roof.run(&["ping", "office", "-c", "1"]).code() == 0).then_some(())
    });
}

#[test]
fn a_local_block_goes_before_what_the_delegator_says() {
    let place = Place::new();
    let community = Community::gather(&place, &[]);
    let Community { roof, office, .. } = &community;
    community.admit(&[]);
    let pinging = roof.command(&["ping", "office", "-c", "1000", "--interval", "20ms", "--json"]);
    pinging.line("rtt_ms");
    office.run(&["contact", "block", "roof"]).ok();
    let done = pinging.finish();
    assert!(matches!(done.code(), 4 | 5), "{done:?}");
    roof.run(&["ping", "office", "-c", "1"]).fails(4, "does not admit");
    assert_eq!(entries(office)[0]["blocked"], true);
    office.run(&["contact", "unblock", "roof"]).ok();
    roof.run(&["ping", "office", "-c", "1"]).ok();
    // And before contacts.
    office.run(&["contact", "add", "friend", &roof.ni()]).ok();
    office.run(&["contact", "block", "friend"]).ok();
    roof.run(&["ping", "office", "-c", "1"]).fails(4, "does not admit");
    office.run(&["ping", "friend", "-c", "1"]).fails(4, "is blocked here");
}

#[test]
fn a_transfer_that_waits_is_not_sent_to_whoever_is_blocked_meanwhile() {
    let place = Place::new();
    let (mut roof, office) = (place.person("roof", &[]), place.person("office", &[]));
    roof.up(&[]);
    roof.knows("office", &office);
    // Whose list is never heard, so that it might allow anything.
    roof.run(&["delegator", "use", ZERO, "--as", "warden"]).ok();
    let note = place.path("note");
    fs::write(&note, "x").unwrap();
    let sending = roof.command(&["send", note.to_str().unwrap(), "--to", "office"]);
    eventually("the transfer waits", || {
        let list = roof.run(&["transfer", "list", "--json"]).ok().json();
        (list[0]["state"] == "waiting").then_some(())
    });
    roof.run(&["contact", "block", "office"]).ok();
    sending.finish().fails(4, "office is blocked here");
}

#[test]
fn a_transfer_to_a_listed_node_goes_on_when_the_list_is_there_again_after_a_crash() {
    let place = Place::new();
    let mut community = Community::gather(&place, &[]);
    community.admit(&[]);
    let Community { roof, office, .. } = &mut community;
    let (note, inbox) = (place.path("note"), place.path("inbox"));
    fs::write(&note, "x").unwrap();
    office.crash_and_return(|| {
        let sent =
            roof.run(&["send", note.to_str().unwrap(), "--to", "office", "--detach", "--json"]).ok().json();
        roof.crash_and_return(|| {});
        let told = roof.run(&["transfer", "list", "--json"]).ok().json();
        assert_eq!(told[0]["id"], sent["id"], "{told}");
    });
    office.run(&["receive", "--yes", "--into", inbox.to_str().unwrap()]).ok();
    assert_eq!(fs::read(inbox.join("note")).unwrap(), b"x");
}

#[test]
fn a_stranger_gets_nothing_from_a_delegator() {
    let place = Place::new();
    let community = Community::gather(&place, &[]);
    community.admit(&[]);
    let mut stranger = place.person("stranger", &[]);
    stranger.up(&[]);
    uses(&stranger, &community.warden);
    let refused = eventually("the refusal", || {
        let list = stranger.run(&["delegator", "list", "--json"]).ok().json();
        let using = list["using"][0].clone();
        using["failure"].is_string().then_some(using)
    });
    assert!(refused["failure"].as_str().unwrap().contains("does not admit"), "{refused}");
    assert_eq!((&refused["revision"], &refused["entries"]), (&Value::Null, &json!(0)));
    let ni = stranger.ni();
    eventually("the delegator learns who knocked", || {
        let requests = community.warden.run(&["contact", "requests", "--json"]).ok().json();
        requests.as_array().unwrap().iter().any(|knock| knock["ni"] == ni.as_str()).then_some(())
    });
    // A contact of the delegator is no member by that.
    community.warden.run(&["contact", "add", "stranger", &stranger.ni()]).ok();
    stranger.run(&["delegator", "drop", "warden"]).ok();
    uses(&stranger, &community.warden);
    let refused = eventually("the refusal, again", || {
        let list = stranger.run(&["delegator", "list", "--json"]).ok().json();
        list["using"][0]["failure"].as_str().map(str::to_owned)
    });
    assert!(refused.contains("does not admit"), "{refused}");
    // Nor does a delegator get any right at those who use it.
    community.warden.knows("roof-itself", &community.roof);
    community.warden.run(&["ping", "roof-itself", "-c", "1"]).fails(4, "does not admit");
}

#[test]
fn dropping_a_delegator_ends_what_only_it_allowed() {
    let place = Place::new();
    let community = Community::gather(&place, &[]);
    community.admit(&[]);
    let pinging = community.roof.command(&["ping", "office", "-c", "1000", "--interval", "20ms", "--json"]);
    pinging.line("rtt_ms");
    community.office.run(&["delegator", "drop", "warden"]).ok();
    let done = pinging.finish();
    assert!(matches!(done.code(), 4 | 5), "{done:?}");
    community.office.run(&["delegator", "drop", "warden"]).fails(3, "no delegator 'warden'");
}

/// A policy with these members in it.
fn policy(members: &[(&str, &str, &Person)], rule: &str) -> String {
    let member = |(name, group, node): &(&str, &str, &Person)| {
        let at: Vec<_> = node.addresses().iter().map(|at| format!("'{at}'")).collect();
        format!(
            "[[member]]\nname = '{name}'\nni = '{}'\ngroups = ['{group}']\nat = [{}]\n",
            node.ni(),
            at.join(", ")
        )
    };
    members.iter().map(member).collect::<String>() + rule
}

#[test]
fn a_policy_in_a_file_is_followed_and_a_broken_one_is_not_served() {
    let place = Place::new();
    let file = place.path("policy.toml");
    fs::write(&file, "").unwrap();
    let community = Community::gather(&place, &["--file", file.to_str().unwrap()]);
    let Community { warden, roof, office } = &community;
    let rule = "[[rule]]\nfrom = 'sensors'\nto = 'hubs'\nprotocols = ['ping/1']\n";
    let both = policy(&[("roof", "sensors", roof), ("office", "hubs", office)], rule);
    replace(&file, &both);
    eventually("the file is read", || {
        let list = warden.run(&["delegator", "list", "--json"]).ok().json();
        (list["members"] == 2).then_some(())
    });
    community.begin();
    community.office_knows_roof(true);
    eventually("the sensor's list", || (entries(roof).len() == 1).then_some(()));
    roof.run(&["ping", "office", "-c", "1"]).ok();
    warden.run(&["delegator", "grant", "hubs", "sensors"]).fails(1, "is kept in");
    replace(&file, &policy(&[("office", "hubs", office)], rule));
    community.office_knows_roof(false);
    let log = warden.run(&["delegator", "log", "--json"]).ok().json();
    let log = log.as_array().unwrap();
    assert!(log.iter().all(|line| line["by"] == "file"), "{log:?}");
    assert_eq!(log.last().unwrap()["change"], "expelled");
    replace(&file, "[[member]]\nname = 'roof'\n");
    warden.run(&["down"]).ok();
    let broken = [&["delegator", "serve", "--file", file.to_str().unwrap()], &LISTEN[..]].concat();
    warden.run(&broken).fails(1, "missing field `ni`");
    let kept = warden.run(&["delegator", "group", "list", "--json"]).ok().json();
    assert_eq!(kept.as_array().unwrap().len(), 1);
}

/// Replaces a file as an editor does.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
fn what_a_delegator_acknowledged_is_there_after_it_was_killed() {
    let place = Place::new();
    let mut warden = place.person("warden", &[]);
    // Without a node, then with one.
    warden.run(&["delegator", "use", &warden.ni()]).fails(2, "a node cannot be its own delegator");
    warden.run(&["delegator", "group", "add", "hubs", ZERO, "--as", "hub"]).ok();
    warden.up_with(&[&["delegator", "serve"], &LISTEN[..]].concat());
    warden.run(&["delegator", "grant", "sensors", "hubs", "--for", "1h", "--direction", "both"]).ok();
    warden.run(&["delegator", "use", &warden.ni()]).fails(2, "a node cannot be its own delegator");
    let told = warden.run(&["delegator", "group", "add", "sensors", ZERO, "--json"]).ok().json();
    assert_eq!(told["changes"], json!(["hub is in group sensors"]));
    warden.crash();
    let list = warden.run(&["delegator", "list", "--json"]).ok().json();
    assert_eq!((&list["members"], &list["groups"]), (&json!(1), &json!(2)));
    let rule = &list["rules"][0];
    assert_eq!((&rule["direction"], rule["until"].is_string()), (&json!("both"), true));
    let log = warden.run(&["delegator", "log", "--json"]).ok().json();
    let kinds: Vec<_> = log.as_array().unwrap().iter().map(|line| line["change"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["admitted", "joined", "granted", "joined"]);
}

/// Every command about delegators and blocks with every exit code that its help promises.
pub fn of_delegators(place: &Place, ledger: &mut Ledger) {
    let own = Place::new();
    let home = own.person("delegating", &[]).home;
    let nowhere = place.path("nowhere");
    ledger.run(
        &home,
        "delegator group add",
        &["hubs", ZERO, "--as", "hub", "--at", "quic://192.0.2.7:7117"],
        0,
    );
    ledger.run(&home, "delegator grant", &["hubs", "hubs", "--protocol", "ping/1", "--for", "8h"], 0);
    ledger.run(&home, "delegator group list", &[], 0);
    ledger.run(&home, "delegator list", &[], 0);
    ledger.run(&home, "delegator show", &["hub"], 0);
    ledger.run(&home, "delegator log", &[], 0);
    let serving = [&["delegator", "serve", "--json"], &LISTEN[..]].concat();
    let serving = Running::spawn(kith(&home, &serving));
    ledger.check_lines("delegator serve", 0, &serving.line("fingerprint"));
    ledger.run(&home, "delegator serve", &LISTEN, 1);
    ledger.run(&home, "delegator group list", &[], 0);
    ledger.run(&home, "delegator show", &["hub"], 0);
    ledger.run(&home, "delegator use", &[ZERO, "--as", "office"], 0);
    ledger.run(&home, "delegator show", &["office"], 0);
    ledger.run(&home, "delegator list", &[], 0);
    ledger.run(&home, "delegator drop", &["office"], 0);
    ledger.run(&home, "delegator revoke", &["hubs", "hubs", "--protocol", "ping/1"], 0);
    ledger.run(&home, "delegator group remove", &["hubs", "hub"], 0);
    ledger.run(&home, "contact block", &[ZERO], 0);
    ledger.run(&home, "contact blocked", &[], 0);
    ledger.run(&home, "contact unblock", &[ZERO], 0);
    ledger.run(&home, "down", &[], 0);
    assert_eq!(serving.finish().code(), 0);
    for (command, more) in [
        ("delegator group add", &["hubs", "nobody"][..]),
        ("delegator group remove", &["hubs", "hub"]),
        ("delegator revoke", &["hubs", "hubs"]),
        ("delegator show", &["hub"]),
        ("delegator use", &["nobody"]),
        ("delegator drop", &["office"]),
        ("contact block", &["nobody"]),
        ("contact unblock", &["nobody"]),
    ] {
        ledger.run(&home, command, more, 3);
        ledger.run(&nowhere, command, more, 1);
    }
    for (command, more) in [
        ("delegator grant", &["hubs", "hubs"][..]),
        ("delegator group list", &[]),
        ("delegator list", &[]),
        ("delegator log", &[]),
        ("contact blocked", &[]),
    ] {
        ledger.run(&nowhere, command, more, 1);
    }
}
