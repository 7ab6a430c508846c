//! `kith dht`: the members of a network as programs, who keep each other's record sets.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Person, Place, eventually};
use crate::surface::Ledger;

/// A fingerprint that nobody has a key to.
const ZERO: &str = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";

/// An issuer and running members, of whom nobody is another one's contact.
pub struct Town {
    pub office: Person,
    pub members: Vec<Person>,
    _place: Place,
}

impl Town {
    fn of(names: &[&str]) -> Town {
        Town::issued("epoch = \"10s\"", names)
    }

    /// `network` is that section of the issuer's configuration.
    pub fn issued(network: &str, names: &[&str]) -> Town {
        Town::publishing(network, &names.iter().map(|name| (*name, "open")).collect::<Vec<_>>())
    }

    /// Each publishes its record set for whom it is said.
    fn publishing(network: &str, members: &[(&str, &str)]) -> Town {
        let place = Place::new();
        let mut office = place.person("office", &[]);
        configure(&office, &format!("[network]\n{network}"));
        office.up(&[]);
        let person = |(name, publish): &(&str, &str)| {
            let person = place.person(name, &[]);
            configure(&person, &format!("[dht]\npublish = \"{publish}\""));
            person
        };
        let members: Vec<_> = members.iter().map(person).collect();
        let names: Vec<_> = members.iter().map(Person::ni).collect();
        let invite: Vec<_> =
            ["network", "issue"].into_iter().chain(names.iter().map(String::as_str)).collect();
        office.run(&invite).ok();
        let mut town = Town { office, members, _place: place };
        for member in &mut town.members {
            member.up(&[]);
            join(member, &town.office);
        }
        town
    }

    /// Waits until everybody knows that it knows everybody.
    fn settle(&self) {
        let others = self.members.len() - 1;
        for member in &self.members {
            eventually("a region that is known whole", || {
                let status = status(member)?;
                let region = &status["region"];
                let is_whole = region["known"] == others && region["complete"] == true;
                (is_whole && status["joined"] == true && status["members"] == others + 1).then_some(())
            });
        }
    }
}

/// Adds a section to the configuration.
fn configure(person: &Person, section: &str) {
    let file = person.home.join("kith.toml");
    let config = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{config}\n{section}\n")).unwrap();
}

fn join(member: &Person, office: &Person) {
    let mut words = vec!["network".to_owned(), "join".to_owned(), office.ni()];
    words.extend(office.addresses().into_iter().flat_map(|at| ["--at".to_owned(), at]));
    member.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
}

/// What `kith dht status` shows, once there is a node of the DHT.
fn status(member: &Person) -> Option<Value> {
    let done = member.run(&["dht", "status", "--json"]);
    (done.code() == 0).then(|| done.json())
}

fn sorted(list: &Value) -> Vec<&str> {
    let mut texts: Vec<_> = list.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    texts.sort_unstable();
    texts
}

/// Looks a record set up in the DHT alone.
fn discovered(member: &Person, ni: &str) -> Option<Value> {
    let done = member.run(&["discover", ni, "--via", "dht", "--json"]);
    (done.code() == 0).then(|| done.json())
}

#[test]
fn members_find_each_other_by_fingerprint_alone_and_a_value_outlives_whoever_published_it() {
    let mut town = Town::of(&["north", "south", "east", "west"]);
    town.settle();
    let (ni, at) = (town.members[0].ni(), town.members[0].addresses());
    // Nobody told it to: a member publishes its record set by itself.
    let set = eventually("the set of the first", || discovered(&town.members[1], &ni));
    assert_eq!((&set["verified_by"], sorted(&set["addresses"])), (&json!("dht"), sorted(&json!(at))));
    let found = town.members[2].run(&["dht", "get", &ni, "--json"]).ok().json();
    assert_eq!((&found["ni"], sorted(&found["set"]["addresses"])), (&json!(ni), sorted(&json!(at))));
    let key = found["key"].as_str().unwrap().to_owned();
    let stored = town.members[0].run(&["dht", "put", "--json"]).ok().json();
    assert_eq!((&stored["key"], &stored["nodes"]), (&json!(key), &json!(4)));
    // Without --via it is found, too: no directory is named, and no network is looked on.
    let found = town.members[3].run(&["discover", &ni, "--json"]).ok().json();
    assert!(found["verified_by"] == "dht" || found["verified_by"] == "cache", "{found}");
    town.members[1].run(&["dht", "get", ZERO]).fails(3, "no member has a value");
    town.members[1].run(&["discover", ZERO, "--via", "dht"]).fails(3, "no member has a value");
    town.office.run(&["dht", "status"]).fails(3, "belongs to no network");
    town.office.run(&["discover", &ni, "--via", "dht"]).fails(3, "belongs to no network");
    assert_eq!(town.members[0].run(&["contact", "requests", "--json"]).ok().json(), json!([]));

    town.members.remove(0).crash();
    for member in &town.members {
        let found = member.run(&["dht", "get", &key, "--json"]).ok().json();
        assert_eq!(found["ni"], json!(ni));
    }
    eventually("nobody misses the dead one", || {
        (status(&town.members[0])?["region"]["known"] == 2).then_some(())
    });
}

#[test]
fn a_record_set_for_contacts_is_found_by_contacts_alone() {
    let members = [("north", "contacts"), ("south", "contacts"), ("east", "open"), ("west", "none")];
    let mut town = Town::publishing("epoch = \"10s\"", &members);
    town.settle();
    let [north, south, east, west] = &town.members[..] else { panic!("four members") };
    north.knows("south", south);
    south.knows("north", north);
    let (ni, at) = (north.ni(), json!(north.addresses()));
    let found = |member: &Person| {
        // What the contact itself has told over a connection may be newer for a moment.
        let set = eventually("the set of the contact", || {
            discovered(member, &ni).filter(|set| set["verified_by"] == "dht-blinded")
        });
        assert_eq!(sorted(&set["addresses"]), sorted(&at));
    };
    found(south);
    let now = eventually("a value for one contact", || {
        Some(status(north)?["published"].clone()).filter(|now| now["contacts"] == 1)
    });
    assert_eq!(now["publish"], json!("contacts"));
    assert!(now["nodes"].as_u64() >= Some(2), "{now}");
    // Under its fingerprint nobody finds it, not even the contact; and who is no contact finds it nowhere.
    for member in [south, east, west] {
        member.run(&["dht", "get", &ni]).fails(3, "no member has a value");
        member.run(&["dht", "get", &west.ni()]).fails(3, "no member has a value");
    }
    east.run(&["discover", &ni, "--via", "dht"]).fails(3, "no member has a value");
    let open = eventually("who publishes for everybody", || discovered(north, &east.ni()));
    assert_eq!(open["verified_by"], json!("dht"));
    for member in [north, west] {
        member.run(&["dht", "put"]).fails(1, "not published for everybody");
    }
    assert_eq!(status(west).unwrap()["published"]["publish"], json!("none"));
    // The secret outlives the node.
    town.members[1].crash_and_return(|| {});
    found(&town.members[1]);
}

/// The power goes everywhere at once; nobody who has published comes back.
#[test]
fn values_are_there_when_all_members_start_again_and_without_the_issuer() {
    let mut town = Town::of(&["north", "south", "east"]);
    town.settle();
    let mut north = town.members.remove(0);
    let ni = north.ni();
    north.run(&["dht", "put"]).ok();
    north.crash();
    town.office.crash();
    let at: Vec<_> = town.members.iter().map(Person::addresses).collect();
    town.members.iter_mut().for_each(Person::crash);
    for (member, at) in town.members.iter_mut().zip(&at) {
        let listen = at.iter().flat_map(|at| ["--listen", at.as_str()]);
        member.up_with(&["up"].into_iter().chain(listen).collect::<Vec<_>>());
    }
    for member in &town.members {
        let found = eventually("a node of the DHT", || {
            let done = member.run(&["dht", "get", &ni, "--json"]);
            (done.code() == 0).then(|| done.json())
        });
        assert_eq!(found["ni"], json!(ni));
    }
    for member in &town.members {
        eventually("the other one", || (status(member)?["region"]["known"] == 1).then_some(()));
    }
}

/// Every command with each of its exit codes.
pub fn of_dht(place: &Place, ledger: &mut Ledger) {
    let nowhere = place.path("nowhere");
    let mut town = Town::of(&["north", "south", "east"]);
    let (north, south) = (&town.members[0], &town.members[1]);
    eventually("a region that is known whole", || {
        (status(north)?["region"]["complete"] == true).then_some(())
    });
    eventually("the set of the other", || discovered(north, &south.ni()));
    ledger.run(&north.home, "dht status", &[], 0);
    ledger.run(&north.home, "status", &[], 0);
    ledger.run(&north.home, "dht get", &[&south.ni()], 0);
    ledger.run(&north.home, "dht get", &[ZERO], 3);
    ledger.run(&north.home, "dht put", &[], 0);
    let set = ledger.run(&north.home, "discover", &[&south.ni(), "--via", "dht"], 0).json();
    let file = place.path("set.json");
    fs::write(&file, set.to_string()).unwrap();
    ledger.run(&north.home, "dht put", &[file.to_str().unwrap()], 0);
    let mut forged = set.clone();
    forged["ttl"] = json!(set["ttl"].as_u64().unwrap() + 1);
    fs::write(&file, forged.to_string()).unwrap();
    ledger.run(&north.home, "dht put", &[file.to_str().unwrap()], 4);
    for command in ["dht status", "dht put"] {
        ledger.run(&town.office.home, command, &[], 3);
        ledger.run(&nowhere, command, &[], 1);
    }
    ledger.run(&nowhere, "dht get", &[ZERO], 1);
    // Two of three are needed.
    eventually("an epoch of three", || (status(&town.members[0])?["members"] == 3).then_some(()));
    town.members.drain(1..).for_each(|mut member| member.crash());
    ledger.run(&town.members[0].home, "dht put", &[], 5);
}
