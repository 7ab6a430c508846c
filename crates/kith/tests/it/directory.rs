//! A directory as its clients see it: status codes by curl, other people's sets, restarts.

use std::fs;
use std::process::Command;

use kith_vnet::needs;

use crate::harness::{Place, Zone, eventually};

#[test]
fn each_status_code_of_the_announce_call_can_be_provoked_with_curl() {
    needs!("curl", "openssl");
    let place = Place::new();
    let zone = Zone::start(&place);
    let north = zone.person(&place, "north");
    fs::write(place.path("blob"), "hello").unwrap();
    north.run(&["blob", "put", place.path("blob").to_str().unwrap()]).ok();
    let id = north.run(&["id", "--json"]).ok().json();
    let url = id["url"].as_str().unwrap();
    let key = north.home.join("key.pem");
    let certificate = place.path("cert.pem");
    let made = Command::new("openssl")
        .args(["req", "-new", "-x509", "-subj", "/CN=x", "-days", "1", "-key"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let certified = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let current = curl(&[url]).1;
    let put = |options: &[&str], url: &str, body: &[u8]| {
        let file = place.path("body");
        fs::write(&file, body).unwrap();
        let data = format!("@{}", file.display());
        curl(&[options, &["-X", "PUT", "--data-binary", &data, url]].concat())
    };
    assert_eq!(put(&certified, url, current.as_bytes()).0, 204, "a repeat");
    assert_eq!(put(&[], url, current.as_bytes()).0, 401);
    let other = url.replace(&url[url.len() - 4..], "AAAA");
    assert_eq!(put(&certified, &other, current.as_bytes()).0, 403);
    assert_eq!(put(&certified, url, &vec![b' '; 1 << 20]).0, 413);
    for wrong in ["{}", "not json", &current.replace("3600", "3601"), &current.replace("\"ttl\"", "\"tti\"")]
    {
        let (code, answer) = put(&certified, url, wrong.as_bytes());
        assert_eq!(code, 422, "{answer}");
        assert!(answer.contains("\"error\""), "{answer}");
    }
    north.run(&["blob", "put", place.path("blob").to_str().unwrap()]).ok();
    assert_eq!(put(&certified, url, current.as_bytes()).0, 409, "an older set");
    assert_eq!(curl(&[&other]).0, 404);
    assert_eq!(curl(&["-X", "DELETE", url]).0, 405);
    assert_eq!(curl(&["-I", url]).0, 200);
    let codes: Vec<_> = (0..200).map(|_| put(&certified, url, b"{}").0).collect();
    assert!(codes.contains(&429), "{codes:?}");
}

/// Status code and body.
fn curl(arguments: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["--silent", "--insecure", "--max-time", "20", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    (code.parse().unwrap(), body.to_owned())
}

#[test]
fn discover_prints_the_verified_set_and_where_it_comes_from() {
    let place = Place::new();
    let zone = Zone::start(&place);
    let mut north = zone.person(&place, "north");
    let south = zone.person(&place, "south");
    north.up(&[]);
    assert_eq!(north.status()["announced"][0]["authority"], zone.authority);
    let ni = north.ni();
    for via in ["dns", "https"] {
        let set = south.run(&["discover", &ni, "--via", via, "--json"]).ok().json();
        assert_eq!(set["verified_by"], via);
        assert_eq!(set["addresses"].as_array().unwrap().len(), 2);
        assert!(set["expires"].as_str().unwrap().ends_with('Z'));
    }
    let nobody = format!("ni://{}/sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY", zone.authority);
    south.run(&["discover", &nobody]).fails(3, "");
    let far = "ni:///sha3-256;k1KYFVJBkgY2aYInWVqSQiOD-B5Zeg7Yj2UaBpgDaBY";
    south.run(&["discover", far]).fails(3, "authority");
    north.run(&["announce"]).ok();
    north.run(&["down"]).ok();
    let set = eventually("the withdrawal", || {
        let set = south.run(&["discover", &ni, "--via", "https", "--json"]).ok().json();
        set["addresses"].as_array().is_none_or(Vec::is_empty).then_some(set)
    });
    assert_eq!(set["verified_by"], "https");
}

#[test]
fn blobs_go_through_the_directory_alone_and_survive_its_killing() {
    let place = Place::new();
    let mut zone = Zone::start(&place);
    let (north, south) = (zone.person(&place, "north"), zone.person(&place, "south"));
    let bytes: Vec<u8> = (0..=255).collect();
    fs::write(place.path("blob"), &bytes).unwrap();
    let blob = place.path("blob");
    north.run(&["blob", "put", blob.to_str().unwrap()]).ok();
    zone.person.crash();
    south.run(&["blob", "get", &north.ni()]).fails(5, "");
    zone.serve();
    let get = south.run(&["blob", "get", &north.ni(), "--json"]).ok().json();
    assert_eq!(data_encoding::BASE64.decode(get["blob"].as_str().unwrap().as_bytes()).unwrap(), bytes);
    fs::write(&blob, vec![1; 5_000]).unwrap();
    north.run(&["blob", "put", blob.to_str().unwrap()]).fails(5, "4");
    fs::write(&blob, vec![1; 20_000]).unwrap();
    north.run(&["blob", "put", blob.to_str().unwrap()]).fails(1, "16 KiB");
}

#[test]
fn a_directory_with_another_key_is_not_believed() {
    let place = Place::new();
    let zone = Zone::start(&place);
    let impostor = place.person("impostor", &[]);
    let pin = impostor.ni();
    let north =
        place.person("north", &["--authority", &zone.authority, "--pin", &pin, "--resolver", &zone.dns]);
    fs::write(place.path("blob"), "x").unwrap();
    let blob = place.path("blob");
    north.run(&["blob", "put", blob.to_str().unwrap()]).fails(5, "");
}

#[test]
fn a_node_can_serve_its_own_zone() {
    let place = Place::new();
    let (https, dns) = (crate::harness::free_port(), crate::harness::free_port());
    let authority = format!("localhost:{https}");
    let mut north =
        place.person("north", &["--authority", &authority, "--resolver", &format!("127.0.0.1:{dns}")]);
    let ni = north.ni();
    let config = north.home.join("kith.toml");
    let text = fs::read_to_string(&config).unwrap();
    let zone = format!(
        "{text}\n[pins]\n\"{authority}\" = \"{ni}\"\n\n[directory]\nlisten-https = [\"127.0.0.1:{https}\"]\nlisten-dns = [\"127.0.0.1:{dns}\"]\n"
    );
    fs::write(&config, zone).unwrap();
    north.up(&[]);
    let status = north.status();
    assert_eq!(status["announced"][0]["error"], serde_json::Value::Null);
    let set = north.run(&["discover", &ni, "--via", "dns", "--json"]).ok().json();
    assert_eq!(set["verified_by"], "dns");
    north.run(&["down"]).ok();
}
