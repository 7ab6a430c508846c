//! The control API against its OpenAPI file: every call of the file is made, every answer has its shape.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Person, Place, Zone, eventually};

/// The description, with what was called.
struct Description {
    document: Value,
    called: BTreeSet<(String, String)>,
}

impl Description {
    fn load() -> Description {
        let text = include_str!("../../../../docs/openapi.json");
        Description { document: serde_json::from_str(text).unwrap(), called: BTreeSet::new() }
    }

    /// Makes a call, holds the answer against the description and gives back its last document.
    #[track_caller]
    fn call(
        &mut self,
        node: &Person,
        method: &str,
        template: &str,
        path: &str,
        body: Option<Value>,
    ) -> Value {
        self.called.insert((method.to_owned(), template.to_owned()));
        let operation = &self.document["paths"][template][method];
        assert!(operation.is_object(), "{method} {template} is not described");
        if let Some(body) = &body {
            self.check(&operation["requestBody"]["content"]["application/json"]["schema"], body);
        }
        let (status, text) = request(&node.home.join("control.sock"), method, path, body);
        let response =
            if status == 200 { &operation["responses"]["200"] } else { &operation["responses"]["default"] };
        let (kind, content) = response["content"].as_object().unwrap().iter().next().unwrap();
        let documents: Vec<Value> = match kind.as_str() {
            "application/jsonl" => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            _ => vec![serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"))],
        };
        for document in &documents {
            self.check(&content["schema"], document);
        }
        documents.last().cloned().unwrap_or_default()
    }

    #[track_caller]
    fn check(&self, schema: &Value, document: &Value) {
        let whole = json!({ "allOf": [schema], "components": self.document["components"] });
        let validator = jsonschema::validator_for(&whole).unwrap();
        let faults: Vec<_> = validator.iter_errors(document).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {document}");
    }
}

/// One HTTP/1.1 request over the Unix socket, by hand: no code of the program under test.
fn request(socket: &Path, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let method = method.to_uppercase();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: kith\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn every_call_is_described_and_answers_as_described() {
    let place = Place::new();
    let zone = Zone::start(&place);
    let (mut north, mut south) = (zone.person(&place, "north"), zone.person(&place, "south"));
    north.up(&[]);
    south.up(&[]);
    assert_eq!(north.status()["ready"], south.status()["ready"]);
    let ni = south.ni();
    let mut api = Description::load();
    let new = json!({ "name": "south", "ni": ni, "at": [] });
    api.call(&north, "post", "/v1/contacts", "/v1/contacts", Some(new));
    api.call(&north, "get", "/v1/contacts", "/v1/contacts", None);
    api.call(&north, "get", "/v1/contacts/{name}", "/v1/contacts/south", None);
    let missing = api.call(&north, "get", "/v1/contacts/{name}", "/v1/contacts/nobody", None);
    assert_eq!(missing["code"], "not-found");
    api.call(
        &north,
        "patch",
        "/v1/contacts/{name}",
        "/v1/contacts/south",
        Some(json!({ "join": "friends" })),
    );
    let decision = json!({ "confirm": true, "ni": null });
    let succession = "/v1/contacts/{name}/succession";
    let none = api.call(&north, "post", succession, "/v1/contacts/south/succession", Some(decision));
    assert_eq!(none["code"], "not-found");
    api.call(&north, "get", "/v1/successions", "/v1/successions", None);
    let refused = json!({ "contact": "south", "count": 1, "interval_ms": 0, "fresh": false, "via": null, "wait_ms": 0 });
    let line = api_line(&mut api, &north, refused.clone());
    assert_eq!(line["failure"]["code"], "not-trusted");
    eventually("the request", || {
        let listed = api.call(&south, "get", "/v1/requests", "/v1/requests", None);
        (!listed.as_array().unwrap().is_empty()).then_some(())
    });
    api.call(&south, "delete", "/v1/requests", "/v1/requests", None);
    south.knows("north", &north);
    api.call(&north, "post", "/v1/ping", "/v1/ping", Some(refused));
    api.call(&north, "post", "/v1/announce", "/v1/announce", None);
    api.call(&north, "put", "/v1/blob", "/v1/blob", Some(json!({ "blob": "aGVsbG8=" })));
    let found = format!("/v1/discover?ni={}", north.ni().replace(';', "%3B"));
    let set = api.call(&south, "get", "/v1/discover", &found, None);
    assert_eq!(set["blob"][0], "aGVsbG8=");
    transfers(&place, &mut api, &north, &south);
    delegation(&mut api, &north, &south);
    membership(&mut api, &north, &south);
    invitations(&mut api, &north, &south);
    tunnels(&mut api, &north);
    api.call(&north, "get", "/v1/status", "/v1/status?wait=true", None);
    let own = api.call(&north, "get", "/v1/openapi.json", "/v1/openapi.json", None);
    assert_eq!(own, api.document);
    api.call(&north, "delete", "/v1/contacts/{name}", "/v1/contacts/south", None);
    api.call(&north, "post", "/v1/shutdown", "/v1/shutdown", None);
    let described: BTreeSet<_> = api.document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    assert_eq!(api.called, described);
}

/// A refused ping answers with a line that holds the failure.
fn api_line(api: &mut Description, node: &Person, body: Value) -> Value {
    api.called.insert(("post".to_owned(), "/v1/ping".to_owned()));
    let (status, text) = request(&node.home.join("control.sock"), "post", "/v1/ping", Some(body));
    assert_eq!(status, 200);
    let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    api.check(&json!({ "$ref": "#/components/schemas/Line" }), &line);
    line
}

fn invitations(api: &mut Description, north: &Person, south: &Person) {
    let wish = json!({ "as": null, "valid_ms": 60_000, "offers": false });
    let all = "/v1/invitations";
    let taken = api.call(north, "post", all, all, Some(wish.clone()));
    let open = api.call(north, "post", all, all, Some(wish));
    let one = |invitation: &Value| format!("{all}/{}", invitation["id"].as_str().unwrap());
    let back = api.call(north, "delete", "/v1/invitations/{id}", &one(&open), None);
    assert_eq!((&back["cancelled"], &back["invitation"]["state"]), (&json!(true), &json!("cancelled")));
    let order = json!({ "link": taken["link"], "as": null, "via": null, "wait_ms": 1000 });
    let joined = api.call(south, "post", "/v1/join", "/v1/join", Some(order.clone()));
    assert_eq!(joined["new"], false);
    let again = api.call(south, "post", "/v1/join", "/v1/join", Some(order));
    assert_eq!(again["code"], "not-trusted");
    let late = api.call(north, "delete", "/v1/invitations/{id}", &one(&taken), None);
    assert_eq!((&late["cancelled"], &late["invitation"]["state"]), (&json!(false), &json!("joined")));
    assert_eq!(late["invitation"]["contact"]["name"], "south");
    let events = format!("{}/events", one(&taken));
    let end = api.call(north, "get", "/v1/invitations/{id}/events", &events, None);
    assert_eq!((&end["state"], &end["link"]), (&json!("joined"), &Value::Null));
    let listed = api.call(north, "get", all, all, None);
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

fn delegation(api: &mut Description, north: &Person, south: &Person) {
    let (ni, escaped) = (south.ni(), south.ni().replace(';', "%3B").replace('/', "%2F"));
    api.call(north, "post", "/v1/blocks", "/v1/blocks", Some(json!({ "who": ni })));
    let blocked = api.call(north, "get", "/v1/blocks", "/v1/blocks", None);
    assert_eq!(blocked.as_array().unwrap().len(), 1);
    api.call(north, "delete", "/v1/blocks/{who}", &format!("/v1/blocks/{escaped}"), None);
    let group = "/v1/delegator/groups/{group}";
    let add = json!({ "add": [{ "who": "south", "as": "hub", "at": [] }], "remove": [] });
    let changed = api.call(north, "patch", group, "/v1/delegator/groups/hubs", Some(add));
    assert_eq!(changed["changes"].as_array().unwrap().len(), 2);
    let rules = "/v1/delegator/rules";
    let rule =
        json!({ "from": "hubs", "to": "hubs", "direction": "both", "protocols": ["ping/1"], "for_secs": 60 });
    api.call(north, "post", rules, rules, Some(rule));
    let wrong = json!({ "from": "hubs", "to": "hubs", "direction": "out", "protocols": ["ping"] });
    assert_eq!(api.call(north, "post", rules, rules, Some(wrong))["code"], "usage");
    api.call(north, "get", "/v1/delegator", "/v1/delegator", None);
    api.call(north, "get", "/v1/delegator/members", "/v1/delegator/members", None);
    let member = "/v1/delegator/members/{name}";
    let list = api.call(north, "get", member, "/v1/delegator/members/hub", None);
    assert_eq!((&list["member"]["name"], &list["entries"]), (&json!("hub"), &json!([])));
    let revoked = format!("{rules}?from=hubs&to=hubs&protocols=ping%2F1");
    api.call(north, "delete", rules, &revoked, None);
    assert_eq!(api.call(north, "delete", rules, &revoked, None)["code"], "not-found");
    api.call(north, "delete", member, "/v1/delegator/members/hub", None);
    let log = api.call(north, "get", "/v1/delegator/log", "/v1/delegator/log?count=4", None);
    assert_eq!(log.as_array().unwrap().len(), 4);
    let used = "/v1/delegators/{name}";
    let using = json!({ "who": "south", "as": "warden", "at": [] });
    api.call(north, "post", "/v1/delegators", "/v1/delegators", Some(using));
    let own = api.call(north, "get", used, "/v1/delegators/warden", None);
    assert_eq!((&own["delegator"]["name"], &own["member"]), (&json!("warden"), &Value::Null));
    api.call(north, "delete", used, "/v1/delegators/warden", None);
}

fn membership(api: &mut Description, north: &Person, south: &Person) {
    let escaped = south.ni().replace(';', "%3B").replace('/', "%2F");
    api.call(north, "get", "/v1/network", "/v1/network", None);
    let (issued, joined) = ("/v1/network/issued", "/v1/network/joined");
    assert_eq!(
        api.call(north, "post", issued, issued, Some(json!({ "who": ["nobody"] })))["code"],
        "not-found"
    );
    let entry = api.call(north, "post", issued, issued, Some(json!({ "who": [south.ni()] })));
    assert_eq!(entry["roll"][0]["state"], "invited");
    let wish = json!({ "issuer": north.ni(), "at": north.addresses() });
    assert_eq!(api.call(south, "post", joined, joined, Some(wish))["state"], "member");
    api.call(north, "get", "/v1/network", "/v1/network", None);
    api.call(south, "get", "/v1/network", "/v1/network", None);
    api.call(south, "get", "/v1/status", "/v1/status", None);
    table(api, north, south);
    let member = "/v1/network/members/{who}";
    let revoked = api.call(north, "delete", member, &format!("/v1/network/members/{escaped}"), None);
    assert_eq!(revoked["state"], "revoked");
}

/// The issuer has no part in the table of keys, and its only member keeps everything.
fn table(api: &mut Description, issuer: &Person, member: &Person) {
    let (all, one) = ("/v1/dht/values", "/v1/dht/values/{key}");
    assert_eq!(api.call(issuer, "get", "/v1/dht", "/v1/dht", None)["code"], "not-found");
    eventually("a node of the DHT", || (member.run(&["dht", "status"]).code() == 0).then_some(()));
    api.call(member, "get", "/v1/dht", "/v1/dht", None);
    let stored = api.call(member, "post", all, all, Some(json!({})));
    assert_eq!(stored["nodes"], 1);
    let key = stored["key"].as_str().unwrap();
    let found = api.call(member, "get", one, &format!("/v1/dht/values/{key}"), None);
    assert_eq!((&found["ni"], &found["key"]), (&stored["ni"], &json!(key)));
    let again = api.call(member, "post", all, all, Some(json!({ "set": found["set"] })));
    assert_eq!(again["key"], key);
    let nobody = "0".repeat(64);
    let failure = api.call(member, "get", one, &format!("/v1/dht/values/{nobody}"), None);
    assert_eq!(failure["code"], "not-found");
    draws(api, issuer, member);
}

/// Nobody is drawn among one member alone.
fn draws(api: &mut Description, issuer: &Person, member: &Person) {
    let all = "/v1/actors";
    let wish = json!({ "manifest": "0".repeat(64), "count": 1, "role": 0, "expires": null });
    assert_eq!(api.call(issuer, "post", all, all, Some(wish.clone()))["code"], "not-found");
    let wrong = json!({ "manifest": "query", "count": 1 });
    assert_eq!(api.call(member, "post", all, all, Some(wrong))["code"], "usage");
    let refused = eventually("an epoch in which nothing can be selected", || {
        let refused = api.call(member, "post", all, all, Some(wish.clone()));
        (refused["code"] == "failed").then(|| refused["error"].as_str().unwrap().to_owned())
    });
    assert!(refused.contains("a network has 2 to"), "{refused}");
    let status = api.call(member, "get", "/v1/status", "/v1/status", None);
    assert!(status["actors"]["refused"].as_str().unwrap().contains(&refused), "{status}");
}

/// Without the privilege to make a network device: how they are opened is another test's.
fn tunnels(api: &mut Description, node: &Person) {
    let all = "/v1/tunnels";
    let wish = json!({ "contact": "south", "addresses": [], "allow": [], "transport": "quic", "device": null, "mtu": 1400 });
    let refused = api.call(node, "post", all, all, Some(wish));
    assert_eq!(refused["code"], "usage");
    assert_eq!(api.call(node, "get", all, all, None), json!([]));
    let none = api.call(node, "delete", "/v1/tunnels/{contact}", "/v1/tunnels/south", None);
    assert_eq!(none["code"], "not-found");
}

fn transfers(place: &Place, api: &mut Description, north: &Person, south: &Person) {
    let (file, inbox) = (place.path("file"), place.path("inbox"));
    fs::write(&file, "hello").unwrap();
    let order = json!({ "to": "south", "paths": [file], "via": null, "wait_ms": 5000 });
    let started = api.call(north, "post", "/v1/transfers", "/v1/transfers", Some(order));
    let one = format!("/v1/transfers/{}", started["id"].as_str().unwrap());
    let offered = eventually("the offer", || {
        let listed = api.call(south, "get", "/v1/transfers", "/v1/transfers", None);
        listed.as_array().unwrap().iter().find(|transfer| transfer["state"] == "offered").cloned()
    });
    let id = offered["id"].as_str().unwrap().to_owned();
    for change in [json!({ "paused": true, "limit": 1 << 30 }), json!({ "paused": false, "limit": 0 })] {
        let paused = change["paused"] == true;
        let changed = api.call(north, "patch", "/v1/transfers/{id}", &one, Some(change));
        assert_eq!((changed["state"] == "paused", changed["paused_by"] == "here"), (paused, paused));
    }
    let refused = json!({ "limit": 5 });
    let refused = api.call(north, "patch", "/v1/transfers/{id}", &one, Some(refused));
    assert_eq!(refused["code"], "usage");
    eventually("the offer, again", || {
        let listed = api.call(south, "get", "/v1/transfers", "/v1/transfers", None);
        listed.as_array().unwrap().iter().any(|transfer| transfer["state"] == "offered").then_some(())
    });
    let accept = format!("/v1/transfers/{id}/accept");
    api.call(south, "post", "/v1/transfers/{id}/accept", &accept, Some(json!({ "into": inbox })));
    let end = api.call(north, "get", "/v1/transfers/{id}/events", &format!("{one}/events"), None);
    assert_eq!(end["done"], true);
    api.call(north, "get", "/v1/transfers/{id}", &one, None);
    api.call(north, "delete", "/v1/transfers/{id}", &one, None);
    // It ended while no command watched, so the next one is told.
    let wish = json!({ "from": "north", "into": inbox, "yes": true, "overwrite": false });
    let reported = api.call(south, "post", "/v1/receivers", "/v1/receivers", Some(wish));
    assert_eq!(reported["id"], id.as_str());
    assert_eq!(fs::read(inbox.join("file")).unwrap(), b"hello");
}

#[test]
fn the_control_socket_is_its_owners_alone_and_refuses_nonsense() {
    let place = Place::new();
    let mut north = place.person("north", &[]);
    north.up(&[]);
    let socket = north.home.join("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for (method, path, body) in [
        ("GET", "/v1/nonsense", None),
        (
            "POST",
            "/v1/transfers",
            Some(json!({ "to": "x", "paths": ["relative"], "via": null, "wait_ms": 0 })),
        ),
        ("POST", "/v1/contacts", Some(json!({ "name": "x" }))),
        ("POST", "/v1/contacts", Some(json!({ "name": "x", "ni": "y", "extra": 1 }))),
        ("GET", "/v1/discover", None),
        ("PUT", "/v1/blob", Some(json!({ "blob": "not base64!" }))),
        (
            "POST",
            "/v1/receivers",
            Some(json!({ "from": null, "into": "here", "yes": true, "overwrite": false })),
        ),
    ] {
        let (status, text) = request(&socket, method, path, body);
        assert!((400..500).contains(&status), "{method} {path}: {status} {text}");
        let failure: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"));
        assert!(failure["error"].is_string());
    }
    // Refused for what it announces, before it is sent.
    let mut stream = UnixStream::connect(&socket).unwrap();
    let head = "POST /v1/contacts HTTP/1.0\r\nhost: kith\r\ncontent-type: application/json\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n", 2 << 20).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[9..], b"413");
}
