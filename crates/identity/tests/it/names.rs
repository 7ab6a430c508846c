use std::collections::HashSet;

use kith_identity::{
    Address, AddressError, Authority, AuthorityError, Fingerprint, Ni, NiError, Reach, Relay, RelayError,
    fuzz, words,
};
use proptest::prelude::*;

use crate::support::ZERO;

fn ni(text: &str) -> Result<Ni, NiError> {
    text.parse()
}

#[test]
fn names_map_to_the_dns_and_to_urls() {
    let name = ni(&format!("ni://example.org/sha3-256;{ZERO}")).unwrap();
    assert_eq!(
        name.fqdn().unwrap(),
        "935298155241920636698227595a9242.2383f81e597a0ed88f651a0698036816.0a.example.org"
    );
    assert_eq!(name.url().unwrap(), format!("https://example.org/.well-known/ni/sha3-256/{ZERO}"));
}

#[test]
fn the_port_stands_in_the_url_and_not_in_the_dns() {
    let name = ni(&format!("ni://Example.ORG:8443/sha3-256;{ZERO}")).unwrap();
    assert!(name.fqdn().unwrap().ends_with(".0a.example.org"));
    assert_eq!(name.url().unwrap(), format!("https://example.org:8443/.well-known/ni/sha3-256/{ZERO}"));
    let name = ni(&format!("ni://[2001:DB8::1]:8443/sha3-256;{ZERO}")).unwrap();
    assert_eq!(name.url().unwrap(), format!("https://[2001:db8::1]:8443/.well-known/ni/sha3-256/{ZERO}"));
    assert!(matches!(name.fqdn(), Err(NiError::NotAName(_))));
    let nowhere = ni(&format!("ni:///sha3-256;{ZERO}")).unwrap();
    assert_eq!(nowhere.fqdn(), Err(NiError::NoAuthority));
    assert_eq!(nowhere.url(), Err(NiError::NoAuthority));
}

#[test]
fn a_host_without_room_below_it_has_no_dns_name() {
    let label = "a".repeat(61);
    let long = format!("ni://{label}.{label}.{label}.example/sha3-256;{ZERO}");
    assert!(matches!(ni(&long).unwrap().fqdn(), Err(NiError::HostTooLong(_))));
}

#[test]
fn names_are_equal_whatever_their_authority() {
    let here = ni(&format!("ni://example.org/sha3-256;{ZERO}")).unwrap();
    let nowhere = ni(&format!("ni:///sha3-256;{ZERO}")).unwrap();
    assert_eq!(here, nowhere);
    assert_eq!(HashSet::from([here, nowhere]).len(), 1);
}

#[test]
fn six_words_stand_for_the_first_66_bits() {
    let zero: Fingerprint = ZERO.parse().unwrap();
    assert_eq!(words(&zero), ["nation", "network", "aim", "pig", "bomb", "adapt"]);
    let bits = |bytes| words(&Fingerprint::from_bytes(bytes));
    assert_eq!(bits([0; 32]), ["abandon"; 6]);
    assert_eq!(bits([255; 32]), ["zoo"; 6]);
    let mut late = [0; 32];
    late[8] = 0b0011_1111;
    late[9..].fill(255);
    assert_eq!(bits(late), ["abandon"; 6]);
    late[8] |= 0b0100_0000;
    assert_eq!(bits(late)[5], "ability");
}

#[test]
fn other_algorithms_are_refused_by_name() {
    for other in ["sha-256", "sha-256-128", "sha-256-32", "sha3-512", "blake2s-256", "blake2b-512", "k12-256"]
    {
        let refused = ni(&format!("ni://example.org/{other};AAAA")).unwrap_err();
        assert_eq!(refused, NiError::OtherAlgorithm(other));
        assert!(refused.to_string().contains(other), "{refused}");
    }
    let refused = ni(&format!("ni://example.org/md5;{ZERO}")).unwrap_err();
    assert_eq!(refused, NiError::UnknownAlgorithm("md5".into()));
}

#[test]
fn wrong_values_are_refused_each_for_its_reason() {
    let value = |value: &str| ni(&format!("ni:///sha3-256;{value}")).unwrap_err();
    assert_eq!(value(""), NiError::Length(0));
    assert_eq!(value(&ZERO[1..]), NiError::Length(42));
    assert_eq!(value(&format!("{ZERO}A")), NiError::Length(44));
    assert_eq!(value(&format!("{ZERO}=")), NiError::Padding);
    assert_eq!(value(&ZERO.replace('-', "+")), NiError::Alphabet('+'));
    assert_eq!(value(&ZERO.replace('-', "ä")), NiError::Alphabet('ä'));
    assert_eq!(value(&format!(" {}", &ZERO[1..])), NiError::Alphabet(' '));
    assert_eq!(value(&format!("{ZERO}\n")), NiError::Alphabet('\n'));
    // The last character carries four bits of the value; `Y` is 011000, `Z` 011001.
    for last in ["Z", "a", "b"] {
        assert!(matches!(value(&format!("{}{last}", &ZERO[..42])), NiError::UnusedBits(_)));
    }
    assert!(matches!(value(&format!("{ZERO}?ct=text/plain")), NiError::Trailing(_)));
}

#[test]
fn wrong_forms_are_refused() {
    for form in ["", "ni:", "ni://", "ni:///", "example.org", &format!("http://example.org/sha3-256;{ZERO}")]
    {
        assert!(matches!(ni(form), Err(NiError::Form(_))), "{form}");
    }
    for form in
        [format!("ni:/sha3-256;{ZERO}"), format!("ni://sha3-256;{ZERO}"), format!(" ni:///sha3-256;{ZERO}")]
    {
        assert!(matches!(ni(&form), Err(NiError::Form(_))), "{form}");
    }
    assert!(matches!(ni(&"n".repeat(1 << 20)), Err(NiError::TooLong(_))));
    assert!(ni(&format!("ni://exa\u{202e}mple.org/sha3-256;{ZERO}")).is_err());
}

#[test]
fn wrong_authorities_are_refused_each_for_its_reason() {
    let at = |authority: &str| match ni(&format!("ni://{authority}/sha3-256;{ZERO}")) {
        Err(NiError::Authority(error)) => error,
        other => panic!("{authority}: {other:?}"),
    };
    for host in [
        "example org",
        " example.org",
        "example.org ",
        "example.org/path",
        "/",
        "example..org",
        ".example.org",
        "example.org.",
        "-example.org",
        "example-.org",
        "exämple.org",
        "exa_mple.org",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "0x7f.1",
        "example.123",
        "[::1",
        "[::1]x",
        "[]",
        "[fe80::1%1]",
        "[1.2.3.4]",
        "%65xample.org",
        "a?b",
        "a#b",
    ] {
        assert!(matches!(at(host), AuthorityError::Host(_)), "{host}");
    }
    for host in ["user@example.org", "user:pass@example.org", "@example.org"] {
        assert!(matches!(at(host), AuthorityError::UserInfo(_)), "{host}");
    }
    for host in
        ["a:", "a:0", "a:65536", "a:-1", "a:+1", "a:01", "a:1x", "a: 1", "a:1:2", "[::1]:", "[::1]:0", "::1"]
    {
        assert!(matches!(at(host), AuthorityError::Port(_) | AuthorityError::Host(_)), "{host}");
    }
    assert!(matches!(at(&"a".repeat(300)), AuthorityError::TooLong(300)));
    assert!(matches!(at(&"a".repeat(64)), AuthorityError::Host(_)));
    assert_eq!("".parse::<Authority>(), Err(AuthorityError::Empty));
}

#[test]
fn authorities_have_one_form() {
    for (text, shown, is_name) in [
        ("Example.ORG", "example.org", true),
        ("localhost:8443", "localhost:8443", true),
        ("192.0.2.1:80", "192.0.2.1:80", false),
        ("[2001:DB8:0::1]", "[2001:db8::1]", false),
        ("[::1]:65535", "[::1]:65535", false),
    ] {
        let authority: Authority = text.parse().unwrap();
        assert_eq!((authority.to_string().as_str(), authority.is_name()), (shown, is_name));
        assert_eq!(authority.ip().is_none(), is_name);
    }
    let authority: Authority = "[2001:db8::1]:443".parse().unwrap();
    assert_eq!((authority.host(), authority.port()), ("2001:db8::1", Some(443)));
}

#[test]
fn addresses_have_one_form() {
    for text in ["tcp://192.0.2.1:443", "quic://[2001:db8::1]:4433", "dtls://[::1]:1", "quic://0.0.0.0:0"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in [
        "tcp://192.0.2.1",
        "tcp://192.0.2.01:443",
        "tcp://192.0.2.1:0443",
        "tcp://192.0.2.1:+443",
        "tcp://192.0.2.1:443/",
        "quic://2001:db8::1:443",
        "quic://[2001:DB8::1]:443",
        "quic://[2001:db8:0::1]:443",
        "quic://[fe80::1%2]:443",
        "quic://example.org:443",
        "tcp://192.0.2.1:65536",
        " tcp://192.0.2.1:443",
        "tcp://",
        "quic://[::ffff:c000:201]:1",
    ] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
    assert!(matches!("udp://192.0.2.1:443".parse::<Address>(), Err(AddressError::Transport(_))));
    assert!(matches!("TCP://192.0.2.1:443".parse::<Address>(), Err(AddressError::Transport(_))));
    assert!(matches!("192.0.2.1:443".parse::<Address>(), Err(AddressError::Form(_))));
    let long = format!("tcp://{}", "1".repeat(1 << 20));
    assert!(matches!(long.parse::<Address>(), Err(AddressError::Socket(_))));
}

#[test]
fn addresses_are_told_apart_by_how_far_they_reach() {
    for (ip, reach) in [
        ("192.0.2.1", Reach::Global),
        ("203.0.113.9", Reach::Global),
        ("[2001:db8::1]", Reach::Global),
        ("8.8.8.8", Reach::Global),
        ("[2606:4700::1]", Reach::Global),
        ("[::ffff:8.8.8.8]", Reach::Global),
        ("10.0.0.1", Reach::Private),
        ("172.16.0.1", Reach::Private),
        ("172.31.9.9", Reach::Private),
        ("172.32.0.1", Reach::Global),
        ("192.168.1.1", Reach::Private),
        ("100.64.0.1", Reach::Private),
        ("[fd00::1]", Reach::Private),
        ("[::ffff:10.0.0.1]", Reach::Private),
        ("[64:ff9b::a00:1]", Reach::Private),
        ("169.254.1.1", Reach::LinkLocal),
        ("[fe80::1]", Reach::LinkLocal),
        ("[febf::1]", Reach::LinkLocal),
        ("127.0.0.1", Reach::Loopback),
        ("127.9.9.9", Reach::Loopback),
        ("[::1]", Reach::Loopback),
        ("[::ffff:127.0.0.1]", Reach::Loopback),
        ("[64:ff9b::7f00:1]", Reach::Loopback),
        ("[2002:7f00:1::]", Reach::Loopback),
        ("224.0.0.251", Reach::Never),
        ("239.255.255.250", Reach::Never),
        ("[ff02::fb]", Reach::Never),
        ("0.0.0.0", Reach::Never),
        ("0.1.2.3", Reach::Never),
        ("[::]", Reach::Never),
        ("255.255.255.255", Reach::Never),
        ("240.0.0.1", Reach::Never),
        ("169.254.169.254", Reach::Never),
        ("[::ffff:169.254.169.254]", Reach::Never),
        ("[fd00:ec2::254]", Reach::Never),
        ("[fd20:ce::254]", Reach::Never),
        ("[100::1]", Reach::Never),
        ("[64:ff9b:1::1]", Reach::Private),
        ("[fec0::1]", Reach::Private),
        ("[::7f00:1]", Reach::Never),
    ] {
        // An IPv4-compatible address has another canonical text, so these are not read but made.
        let socket = format!("{ip}:4433").parse().unwrap();
        let address = Address::new(kith_identity::Transport::Quic, socket);
        assert_eq!(address.reach(), reach, "{ip}");
    }
    assert_eq!("tcp://192.0.2.1:0".parse::<Address>().unwrap().reach(), Reach::Never);
}

#[test]
fn relays_sort_by_preference() {
    let relay = |text: &str| format!("{text} ni://example.org/sha3-256;{ZERO}").parse::<Relay>();
    let mut relays =
        [relay("65535").unwrap(), relay("9").unwrap(), relay("10").unwrap(), relay("0").unwrap()];
    relays.sort();
    assert_eq!(relays.map(|relay| relay.preference), [0, 9, 10, 65535]);
    for wrong in ["", "-1", "+1", "01", "65536", "1.0", "1 ", "x"] {
        assert!(relay(wrong).is_err(), "{wrong}");
    }
    assert!(matches!("10".parse::<Relay>(), Err(RelayError::Form(_))));
    assert!(matches!("10 example.org".parse::<Relay>(), Err(RelayError::Ni(_))));
    assert!(matches!(
        "10 ni:///sha-256;AA".parse::<Relay>(),
        Err(RelayError::Ni(NiError::OtherAlgorithm("sha-256")))
    ));
}

proptest! {
    #[test]
    fn every_fingerprint_has_one_text(bytes: [u8; 32], port in 1u16.., host in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?") {
        let fingerprint = Fingerprint::from_bytes(bytes);
        prop_assert_eq!(fingerprint.to_string().parse::<Fingerprint>(), Ok(fingerprint));
        let name = Ni::new(fingerprint, Some(format!("{host}.example:{port}").parse().unwrap()));
        let again: Ni = name.to_string().parse().unwrap();
        prop_assert_eq!(again.fingerprint, name.fingerprint);
        prop_assert_eq!(again.authority, name.authority);
    }

    #[test]
    fn one_wrong_character_makes_another_fingerprint_or_none(bytes: [u8; 32], at in 0usize..43, with in any::<char>()) {
        let text = Fingerprint::from_bytes(bytes).to_string();
        let mut wrong: Vec<char> = text.chars().collect();
        prop_assume!(wrong[at] != with);
        wrong[at] = with;
        let wrong: String = wrong.into_iter().collect();
        if let Ok(other) = wrong.parse::<Fingerprint>() {
            prop_assert_ne!(other, Fingerprint::from_bytes(bytes));
        }
    }

    #[test]
    fn any_text_is_refused_or_has_one_meaning(text in ".*", socket: std::net::SocketAddr) {
        fuzz::fuzz_names(text.as_bytes());
        fuzz::fuzz_names(format!("ni://{text}/sha3-256;{ZERO}").as_bytes());
        fuzz::fuzz_names(format!("quic://{text}").as_bytes());
        fuzz::fuzz_names(format!("tcp://{socket}").as_bytes());
    }

    #[test]
    fn almost_an_authority_is_refused_or_has_one_meaning(text in r"[a-z0-9.:@%/\[\]-]{0,24}") {
        fuzz::fuzz_names(text.as_bytes());
        fuzz::fuzz_names(format!("ni://{text}/sha3-256;{ZERO}").as_bytes());
        fuzz::fuzz_names(format!("tcp://{text}:80").as_bytes());
    }
}
