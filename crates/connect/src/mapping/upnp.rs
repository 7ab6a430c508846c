//! UPnP Internet Gateway Device, as far as mapping a port needs it: what is searched for, asked and answered, as text.
//!
//! A router describes itself in XML at an address that it names itself. [`location`] takes that address only where it
//! is the router's own, so that nobody on the network can send this node anywhere else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::Kind;

/// Where routers are searched for (UPnP Device Architecture 1.1 §1.3.2).
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// Longest description and answer in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Longest answer to a search in bytes.
pub const MAX_SEARCH_BYTES: usize = 2048;
/// Services that map ports, the best first.
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// The router takes mappings without an end alone (UPnP WANIPConnection 1 §2.4.16).
pub const ONLY_PERMANENT: u16 = 725;

/// A place in a router that is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The router.
    pub at: SocketAddr,
    /// The path, with its leading slash.
    pub path: String,
}

/// What maps ports in a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it is controlled.
    pub control: Place,
    /// Its type.
    pub kind: &'static str,
}

/// An action, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// For the header `SOAPAction`.
    pub header: String,
    /// The body.
    pub body: String,
}

/// The packet that searches for routers.
#[must_use]
pub fn search() -> Vec<u8> {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {GROUP}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
         ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )
    .into_bytes()
}

/// Where the router whose address is `gateway` describes itself, by its answer to a search.
#[must_use]
pub fn location(answer: &[u8], gateway: Ipv4Addr) -> Option<Place> {
    let text = std::str::from_utf8(answer.get(..answer.len().min(MAX_SEARCH_BYTES))?).ok()?;
    let (status, headers) = text.split_once("\r\n")?;
    if !status.starts_with("HTTP/1.") || status.split(' ').nth(1) != Some("200") {
        return None;
    }
    let mut fields = headers.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, url) = fields.find(|(name, _)| name.eq_ignore_ascii_case("location"))?;
    let place = place(url.trim(), None)?;
    (place.at.ip() == IpAddr::V4(gateway)).then_some(place)
}

/// A URL: `http://ADDRESS[:PORT]/PATH`, or a path of the same host as `base`.
fn place(url: &str, base: Option<&Place>) -> Option<Place> {
    let clean = |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic()).then(|| path.to_owned());
    let Some(rest) = url.strip_prefix("http://") else {
        let base = base.filter(|_| !url.contains("://"))?;
        let path = if url.starts_with('/') { url.to_owned() } else { format!("/{url}") };
        return Some(Place { at: base.at, path: clean(&path)? });
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let at = host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse().ok()?, 80)))?;
    Some(Place { at, path: clean(if path.is_empty() { "/" } else { path })? })
}

/// What maps ports, by the description that `at` gave; on the same host alone.
#[must_use]
pub fn service(description: &str, at: &Place) -> Option<Service> {
    let document = document(description)?;
    let services: Vec<_> =
        document.descendants().filter(|node| node.tag_name().name() == "service").collect();
    let text = |node: &roxmltree::Node<'_, '_>, name: &str| {
        node.children()
            .find(|child| child.tag_name().name() == name)?
            .text()
            .map(|text| text.trim().to_owned())
    };
    SERVICES.into_iter().find_map(|kind| {
        let service = services.iter().find(|node| text(node, "serviceType").as_deref() == Some(kind))?;
        let control = place(&text(service, "controlURL")?, Some(at))?;
        (control.at.ip() == at.at.ip()).then_some(Service { control, kind })
    })
}

fn document(text: &str) -> Option<roxmltree::Document<'_>> {
    if text.len() > MAX_BODY_BYTES {
        return None;
    }
    let options = roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: 4096, ..Default::default() };
    roxmltree::Document::parse_with_options(text, options).ok()
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Udp => "UDP",
            Kind::Tcp => "TCP",
        }
    }
}

impl Service {
    fn action(&self, name: &str, arguments: &[(&str, String)]) -> Action {
        let inner: String =
            arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
        let kind = self.kind;
        Action {
            header: format!("\"{kind}#{name}\""),
            body: format!(
                "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                 s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
                 <u:{name} xmlns:u=\"{kind}\">{inner}</u:{name}></s:Body></s:Envelope>\r\n"
            ),
        }
    }

    /// Asks for the router's address on the other side.
    #[must_use]
    pub fn external_address(&self) -> Action {
        self.action("GetExternalIPAddress", &[])
    }

    /// Maps the router's port `external` to `internal` for `life_secs`; 0 means for ever.
    #[must_use]
    pub fn add(&self, kind: Kind, external: u16, internal: SocketAddrV4, life_secs: u32) -> Action {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", kind.name().to_owned()),
            ("NewInternalPort", internal.port().to_string()),
            ("NewInternalClient", internal.ip().to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", "kith".to_owned()),
            ("NewLeaseDuration", life_secs.to_string()),
        ];
        self.action("AddPortMapping", &arguments)
    }

    /// Takes a mapping away.
    #[must_use]
    pub fn delete(&self, kind: Kind, external: u16) -> Action {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", kind.name().to_owned()),
        ];
        self.action("DeletePortMapping", &arguments)
    }
}

/// The router's address out of the answer to [`Service::external_address`].
#[must_use]
pub fn answered_address(body: &str) -> Option<Ipv4Addr> {
    let document = document(body)?;
    let node = document.descendants().find(|node| node.tag_name().name() == "NewExternalIPAddress")?;
    node.text()?.trim().parse().ok()
}

/// The code of a refusal.
#[must_use]
pub fn refused(body: &str) -> Option<u16> {
    let document = document(body)?;
    let node = document.descendants().find(|node| node.tag_name().name() == "errorCode")?;
    node.text()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn answer(url: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {url}\r\nEXT:\r\n\r\n").into_bytes()
    }

    fn root() -> Place {
        location(&answer("http://192.168.1.1:5000/rootDesc.xml"), GATEWAY).unwrap()
    }

    fn description(kind: &str, control: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device><deviceList><device>\
             <serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
             <controlURL>/l3</controlURL></service><service><serviceType>{kind}</serviceType>\
             <controlURL> {control} </controlURL></service></serviceList></device></deviceList></device></root>"
        )
    }

    #[test]
    fn a_router_that_answers_for_another_host_is_not_followed() {
        assert_eq!(root().path, "/rootDesc.xml");
        for elsewhere in
            ["http://192.168.1.2/", "http://example.org/", "https://192.168.1.1/", "file:///x", "/x"]
        {
            assert_eq!(location(&answer(elsewhere), GATEWAY), None, "{elsewhere}");
        }
        assert_eq!(location(b"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n", GATEWAY), None);
        for elsewhere in ["http://10.0.0.1/ctl", "http://example.org/ctl", "gopher://192.168.1.1/"] {
            assert_eq!(service(&description(SERVICES[1], elsewhere), &root()), None, "{elsewhere}");
        }
    }

    #[test]
    fn the_service_is_found_wherever_it_stands_and_the_newest_counts() {
        for (kind, control) in
            [(SERVICES[1], "/ctl/IPConn"), (SERVICES[2], "ctl"), (SERVICES[0], "http://192.168.1.1:5000/c")]
        {
            let found = service(&description(kind, control), &root()).unwrap();
            assert_eq!((found.kind, found.control.at), (kind, root().at));
            assert!(found.control.path.starts_with('/'));
        }
        assert_eq!(service(&description("urn:x", "/c"), &root()), None);
    }

    #[test]
    fn documents_that_grow_or_never_end_are_refused() {
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><root>&a;</root>";
        assert_eq!(service(bomb, &root()), None);
        assert_eq!(answered_address(&format!("<a>{}</a>", "<b/>".repeat(10_000))), None);
        assert_eq!(answered_address(&" ".repeat(MAX_BODY_BYTES + 1)), None);
    }

    #[test]
    fn actions_name_what_they_map_and_answers_are_read() {
        let service = service(&description(SERVICES[1], "/ctl"), &root()).unwrap();
        let action = service.add(Kind::Udp, 7118, "192.168.1.5:7117".parse().unwrap(), 3600);
        assert_eq!(action.header, format!("\"{}#AddPortMapping\"", SERVICES[1]));
        for part in ["<NewExternalPort>7118<", "<NewInternalClient>192.168.1.5<", "<NewProtocol>UDP<"] {
            assert!(action.body.contains(part), "{part}");
        }
        assert!(document(&action.body).is_some());
        let said = "<s:Envelope xmlns:s='e'><s:Body><u:R xmlns:u='k'><NewExternalIPAddress>203.0.113.7\
                    </NewExternalIPAddress></u:R></s:Body></s:Envelope>";
        assert_eq!(answered_address(said), Some(Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(refused("<a><UPnPError><errorCode>725</errorCode></UPnPError></a>"), Some(ONLY_PERMANENT));
        assert_eq!(refused("nothing"), None);
    }
}
