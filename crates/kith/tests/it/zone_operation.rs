//! What the operator of a directory sees and does: the list of members read again, and the page of metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::harness::{DEADLINE, Person, Place, eventually, free_port, kith};

/// A directory whose words go into a file.
struct Served {
    child: Child,
    words: PathBuf,
    https: u16,
}

impl Served {
    #[track_caller]
    fn start(place: &Place, zone: &Person, https: u16, more: &[&str]) -> Served {
        let words = place.path("words");
        let file = fs::File::create(&words).unwrap();
        let address = format!("127.0.0.1:{https}");
        let arguments = ["-v", "directory", "serve", "--listen-https", &address];
        let mut command = kith(&zone.home, &[&arguments, more].concat());
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let served = Served { child: command.spawn().unwrap(), words, https };
        served.says("ready", 1);
        served
    }

    /// Waits until it has said so that many times.
    #[track_caller]
    fn says(&self, part: &str, times: usize) {
        let text = || fs::read_to_string(&self.words).unwrap_or_default();
        eventually(part, || (text().matches(part).count() >= times).then_some(()));
    }

    fn hang_up(&self) {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    /// A home that announces to this zone.
    #[track_caller]
    fn person(&self, place: &Place, zone: &Person, name: &str) -> Person {
        let (authority, pin) = (format!("localhost:{}", self.https), zone.ni());
        place.person(name, &["--authority", &authority, "--pin", &pin])
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A zone, and the port that it will serve HTTPS on.
fn zone(place: &Place) -> (Person, u16) {
    let https = free_port();
    (place.person("zone", &["--authority", &format!("localhost:{https}")]), https)
}

/// Replaces the text of a file by one of the same length, and leaves no trace of that for who looks at the time.
#[track_caller]
fn replace_unseen(path: &Path, text: &str) {
    let before = fs::metadata(path).unwrap();
    assert_eq!(before.len(), text.len() as u64);
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
}

#[test]
fn members_are_read_again_on_sighup_and_a_wrong_list_changes_nothing() {
    let place = Place::new();
    let (operator, https) = zone(&place);
    let members = place.path("members");
    fs::write(&members, format!("{}\n", place.person("somebody", &[]).ni())).unwrap();
    let members_text = members.to_str().unwrap();
    let served = Served::start(&place, &operator, https, &["--listen-dns", "off", "--members", members_text]);
    let (north, south) =
        (served.person(&place, &operator, "north"), served.person(&place, &operator, "south"));
    let plain = |person: &Person| {
        let value = person.ni();
        format!("ni:///sha3-256;{}\n", value.rsplit(';').next().unwrap())
    };
    fs::write(place.path("blob"), "hello").unwrap();
    let blob = place.path("blob");
    let put = |person: &Person| person.run(&["blob", "put", blob.to_str().unwrap()]);
    put(&north).fails(5, "does not take announces");
    let (of_north, of_south) = (plain(&north), plain(&south));
    // A file that is replaced is noticed by itself.
    fs::write(place.path("next"), &of_north).unwrap();
    fs::rename(place.path("next"), &members).unwrap();
    served.says("the members were read again", 1);
    put(&north).ok();
    put(&south).fails(5, "does not take announces");
    // One whose time says nothing is read when it is asked for.
    replace_unseen(&members, &of_south);
    served.hang_up();
    served.says("the members were read again", 2);
    put(&south).ok();
    put(&north).fails(5, "does not take announces");
    replace_unseen(&members, &of_south.replace("sha3-256", "sha2-256"));
    served.hang_up();
    served.says("the members stay the old ones", 1);
    served.says("line 1", 1);
    put(&south).ok();
}

/// A family of metrics: its type, and its samples by name and labels.
#[derive(Default)]
struct Family {
    kind: String,
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

/// Reads a page strictly (OpenMetrics 1.0, what of it is used): every line, in its order, with nothing behind the end.
#[track_caller]
fn parse(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let body = page.strip_suffix("# EOF\n").expect("the end");
    for line in body.lines() {
        if let Some(told) = line.strip_prefix("# ") {
            let mut words = told.splitn(3, ' ');
            let (what, name, rest) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            assert!(is_name(name), "{line}");
            match what {
                "HELP" => {
                    assert!(families.insert(name.to_owned(), Family::default()).is_none(), "twice: {line}");
                    assert!(rest.ends_with('.') && rest.len() > 10, "no help: {line}");
                    current = name.to_owned();
                }
                "TYPE" => {
                    assert_eq!(name, current, "{line}");
                    assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                    let family = families.get_mut(name).unwrap();
                    assert!(family.kind.is_empty() && family.samples.is_empty(), "{line}");
                    family.kind = rest.to_owned();
                }
                _ => panic!("neither help nor type: {line}"),
            }
            continue;
        }
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family yet: {line}"));
        let (name, labels, value) = sample(line);
        let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("another family: {line}"));
        let allowed: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            _ => &["_bucket", "_sum", "_count"],
        };
        assert!(allowed.contains(&suffix), "{line}");
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(family.samples.insert((name, labels), value).is_none(), "twice: {line}");
    }
    families
}

/// Takes a sample apart: name, labels, value, and no time.
#[track_caller]
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let (name, inner) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
        None => (series, ""),
    };
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    for pair in inner.split(',').filter(|pair| !pair.is_empty()) {
        let (key, text) = pair.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let text = text.filter(|text| !text.contains(['"', '\\'])).unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(key) && labels.insert(key.to_owned(), text.to_owned()).is_none(), "{line}");
    }
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The classes of a histogram grow, and the last one holds everything.
#[track_caller]
fn check_histogram(family: &Family) {
    let mut classes: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), count) in &family.samples {
        if name.ends_with("_bucket") {
            let end = labels["le"].replace("+Inf", "inf").parse().unwrap();
            classes.entry(&labels["operation"]).or_default().push((end, *count));
        }
    }
    assert!(!classes.is_empty());
    for (operation, mut classes) in classes {
        classes.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(classes.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{operation}: {classes:?}");
        let count = family
            .samples
            .iter()
            .find(|((name, labels), _)| name.ends_with("_count") && labels["operation"] == operation);
        let last = classes.last().unwrap();
        assert_eq!((last.0, Some(last.1)), (f64::INFINITY, count.map(|(_, count)| *count)), "{operation}");
    }
}

/// The page, after its head was looked at.
#[track_caller]
fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, page) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.to_ascii_lowercase().contains(kind), "{head}");
    page.to_owned()
}

#[test]
fn the_page_of_metrics_is_well_formed_and_every_name_on_it_is_documented() {
    let place = Place::new();
    let (operator, https) = zone(&place);
    let served =
        Served::start(&place, &operator, https, &["--listen-dns", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let words = fs::read_to_string(&served.words).unwrap();
    let address = words.lines().find_map(|line| line.strip_prefix("metrics ")).unwrap().to_owned();
    let created = |families: &BTreeMap<String, Family>| {
        let labels = BTreeMap::from([("outcome".to_owned(), "created".to_owned())]);
        let name = "kith_directory_announces_total".to_owned();
        families["kith_directory_announces"].samples[&(name, labels)]
    };
    let before = parse(&scrape(&address));
    let north = served.person(&place, &operator, "north");
    fs::write(place.path("blob"), "hello").unwrap();
    north.run(&["blob", "put", place.path("blob").to_str().unwrap()]).ok();
    let families = parse(&scrape(&address));
    assert_eq!((created(&before), created(&families)), (0.0, 1.0));
    check_histogram(&families["kith_directory_store_seconds"]);
    let sets = families["kith_directory_sets"].samples.values().copied().collect::<Vec<_>>();
    assert_eq!(sets, [1.0]);

    let docs = include_str!("../../../../docs/directory.md");
    let rows: BTreeMap<&str, &str> = docs
        .lines()
        .filter(|line| line.starts_with("| `kith_directory_"))
        .map(|line| (line.split('`').nth(1).unwrap(), line))
        .collect();
    let full = |name: &String, family: &Family| {
        if family.kind == "counter" { format!("{name}_total") } else { name.clone() }
    };
    let names: BTreeSet<String> = families.iter().map(|(name, family)| full(name, family)).collect();
    assert_eq!(names, rows.keys().map(ToString::to_string).collect(), "the page, and what is documented");
    let table = rows.values().copied().collect::<String>();
    for (name, family) in &families {
        let row = rows[full(name, family).as_str()];
        for (key, value) in family.samples.keys().flat_map(|(_, labels)| labels) {
            if key != "le" {
                assert!(row.contains(&format!("`{key}`")), "{key} of {name}");
                assert!(table.contains(&format!("`{value}`")), "{key} = {value} of {name}");
            }
        }
    }
}
