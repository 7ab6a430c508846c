use data_encoding::BASE64;
use kith_identity::fuzz;
use kith_identity::record::{Draft, Kind, MAX_JSON_BYTES, MAX_SIGNED_BYTES, Record, RecordError, RecordSet};
use kith_identity::{Fingerprint, Identity, Ni, Relay};
use proptest::prelude::*;

use crate::support::{
    MADE, VECTOR_JSON, VECTOR_KEY, VECTOR_TXT, draft, identity, record, signed, vector_bytes,
    vector_fingerprint,
};

fn json(text: &str) -> Result<RecordSet, RecordError> {
    RecordSet::from_json(text.as_bytes())
}

#[test]
fn the_three_forms_of_the_vector_are_one_set() {
    let from_bytes = RecordSet::from_bytes(&vector_bytes()).unwrap();
    assert_eq!(json(VECTOR_JSON).as_ref(), Ok(&from_bytes));
    assert_eq!(RecordSet::from_txt(VECTOR_TXT.lines()).as_ref(), Ok(&from_bytes));
    assert_eq!(from_bytes.to_bytes(), vector_bytes());
    let set = from_bytes.verify(&vector_fingerprint(), MADE).unwrap();
    assert_eq!(set.addresses().len(), 2);
    assert_eq!(set.blobs().iter().map(|blob| blob.len()).collect::<Vec<_>>(), [0, 256]);
}

#[test]
fn signing_what_the_vector_says_gives_the_vector() {
    let identity = Identity::from_pem(VECTOR_KEY, None).unwrap();
    let vector =
        RecordSet::from_bytes(&vector_bytes()).unwrap().verify(&identity.fingerprint(), MADE).unwrap();
    let own = [Kind::TIMESTAMP, Kind::TTL, Kind::VERSION, Kind::PUBKEY];
    let mut extra: Vec<Record> =
        vector.iter().filter(|record| !own.contains(record.kind())).cloned().collect();
    extra.reverse();
    let again = Draft { extra, ttl: 3600, ..Draft::default() }.sign(&identity, MADE).unwrap();
    assert_eq!(again.to_bytes(), vector_bytes());
}

#[test]
fn the_json_has_the_layout_of_the_design() {
    let zero = Fingerprint::from_bytes([0; 32]);
    let relays = vec![Relay { preference: 10, ni: Ni::new(zero, Some("example.org".parse().unwrap())) }];
    let set = Draft { relays, ttl: 10, ..draft() }.sign(&identity(1), MADE).unwrap();
    let expected = format!(
        r#"{{"version":1,"addresses":["quic://192.0.2.1:4433","tcp://[2001:db8::1]:443"],"relay":["10 {relay}"],"blob":["AAEC/w=="],"x-new":["AGFueXRoaW5n"],"timestamp":"2026-01-31T12:00:00Z","ttl":10,"pubkey":"{key}","signature":"{signature}"}}"#,
        relay = set.relays()[0].ni,
        key = BASE64.encode(&set.public_key().spki()),
        signature = BASE64.encode(set.signature()),
    );
    assert_eq!(String::from_utf8(set.to_json()).unwrap(), expected);
}

#[test]
fn json_that_is_not_exactly_the_layout_is_refused() {
    let good = String::from_utf8(signed(1).to_json()).unwrap();
    assert!(json(&good).is_ok());
    for (from, to) in [
        // Numbers.
        (r#""version":1"#, r#""version":1.0"#),
        (r#""version":1"#, r#""version":"1""#),
        (r#""version":1"#, r#""version":-1"#),
        (r#""version":1"#, r#""version":1e0"#),
        (r#""version":1"#, r#""version":[1]"#),
        (r#""version":1"#, r#""version":01"#),
        (r#""version":1"#, r#""version":true"#),
        (r#""version":1"#, r#""version":null"#),
        (r#""version":1"#, r#""version":4294967296"#),
        (r#""ttl":3600"#, r#""ttl":+3600"#),
        (r#""ttl":3600"#, r#""ttl":-0"#),
        (r#""ttl":3600"#, r#""ttl":0"#),
        (r#""ttl":3600"#, r#""ttl":86401"#),
        (r#""ttl":3600"#, r#""ttl":3.6e3"#),
        (r#""ttl":3600"#, r#""ttl":"3600""#),
        (r#""ttl":3600"#, r#""ttl":36000000000000000000000"#),
        // Shapes.
        (r#""timestamp":"2026-01-31T12:00:00Z""#, r#""timestamp":["2026-01-31T12:00:00Z"]"#),
        (r#""timestamp":"2026-01-31T12:00:00Z""#, r#""timestamp":1769860800"#),
        (r#""blob":["AAEC/w=="]"#, r#""blob":"AAEC/w==""#),
        (r#""blob":["AAEC/w=="]"#, r#""blob":[["AAEC/w=="]]"#),
        (r#""blob":["AAEC/w=="]"#, r#""blob":[1]"#),
        (r#""blob":["AAEC/w=="]"#, r#""blob":[null]"#),
        (r#""blob":["AAEC/w=="]"#, r#""blob":{"a":"AAEC/w=="}"#),
        (r#""blob":["AAEC/w=="]"#, r#""blob":null"#),
        // Base64.
        ("AAEC/w==", "AAEC/w"),
        ("AAEC/w==", "AAEC/w="),
        ("AAEC/w==", "AAEC_w=="),
        ("AAEC/w==", "AAEC/x=="),
        ("AAEC/w==", "AAEC/w==\\n"),
        ("AAEC/w==", " AAEC/w=="),
        ("AAEC/w==", "AAEC /w=="),
        ("AAEC/w==", "AAEC/w===="),
        // Keys.
        (r#""addresses":"#, r#""address":"#),
        (r#""x-new":"#, r#""X-New":"#),
        (r#""x-new":"#, r#""":"#),
        (r#""x-new":"#, r#""blob":"#),
        (r#""ttl":3600"#, r#""ttl":3600,"ttl":3600"#),
        (r#""version":1"#, r#""version":1,"\u0076ersion":1"#),
        (r#""blob":["#, r#""blob":[],"blob":["#),
        // Text that is none.
        ("quic://192.0.2.1:4433", "quic://192.0.2.1:4433\\n"),
        ("quic://192.0.2.1:4433", "quic://192.0.2.1:4433\\u0000"),
        ("quic://192.0.2.1:4433", "quic://192.0.2.1:4433ä"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(json(&bad).is_err(), "{bad}");
    }
}

#[test]
fn json_refusals_say_which_record() {
    let good = String::from_utf8(signed(1).to_json()).unwrap();
    let refuse = |from: &str, to: &str| json(&good.replacen(from, to, 1)).unwrap_err();
    assert_eq!(refuse("AAEC/w==", "AAEC/w"), RecordError::Base64(Kind::BLOB));
    assert_eq!(refuse("192.0.2.1:4433", "192.0.2.1\\n"), RecordError::NotText(Kind::ADDRESS));
    assert!(
        matches!(refuse("\"ttl\":3600", "\"ttl\":0"), RecordError::Value { kind, .. } if kind == Kind::TTL)
    );
    assert!(refuse("\"blob\":", "\"relay\":").to_string().contains("relay"));
    assert_eq!(refuse("\"ttl\":3600,", ""), RecordError::Missing(Kind::TTL));
}

#[test]
fn json_may_be_written_with_blanks_escapes_and_empty_arrays() {
    let good = String::from_utf8(signed(1).to_json()).unwrap();
    let set = json(&good).unwrap();
    for (from, to) in
        [(",", " ,\n"), ("blob", r"b\u006cob"), ("/", r"\/"), ("\"ttl\"", "\"onion\":[],\"ttl\"")]
    {
        assert_eq!(json(&good.replace(from, to)).as_ref(), Ok(&set), "{from}");
    }
    for bad in [
        format!("{good}x"),
        format!("{good}{good}"),
        format!("[{good}]"),
        String::new(),
        "{}".into(),
        "[]".into(),
    ] {
        assert!(json(&bad).is_err());
    }
    assert!(RecordSet::from_json(b"{\"version\":1,\"blob\":[\"\xff\"]}").is_err());
}

#[test]
fn huge_inputs_are_refused_by_their_size() {
    let huge = vec![b' '; MAX_JSON_BYTES + 1];
    let too_large = |limit| RecordError::InputTooLarge { bytes: limit + 1, limit };
    assert_eq!(RecordSet::from_json(&huge), Err(too_large(MAX_JSON_BYTES)));
    let limit = MAX_SIGNED_BYTES + 64;
    assert_eq!(RecordSet::from_bytes(&vec![0; limit + 1]), Err(too_large(limit)));
    let txt = [[b"blob=".to_vec(), vec![b'A'; MAX_JSON_BYTES]].concat()];
    assert!(matches!(RecordSet::from_txt(txt), Err(RecordError::InputTooLarge { .. })));
    // An endless source ends at the first record that is one too many.
    let endless = (0..).map(|n| format!("x={}", BASE64.encode(&u32::to_be_bytes(n))));
    assert_eq!(RecordSet::from_txt(endless), Err(RecordError::TooManyRecords));
}

#[test]
fn many_keys_and_many_elements_are_refused() {
    let many: Vec<String> = (0..65).map(|n| format!("\"x{n}\":[]")).collect();
    assert_eq!(json(&format!("{{{}}}", many.join(","))), Err(RecordError::TooManyRecords));
    let many = vec!["\"\""; 65].join(",");
    assert_eq!(json(&format!("{{\"x\":[{many}]}}")), Err(RecordError::TooManyRecords));
    let deep = format!("{{\"x\":{}", "[".repeat(20_000));
    assert!(json(&deep).is_err());
}

#[test]
fn txt_is_one_record_per_resource_record_in_any_order() {
    let set = signed(1);
    let mut txt = set.to_txt();
    assert_eq!(txt.len(), 10);
    assert!(txt.contains(&b"address=quic://192.0.2.1:4433".to_vec()));
    assert!(txt.contains(&b"blob=AAEC/w==".to_vec()));
    assert!(txt.contains(&b"version=1".to_vec()));
    for _ in 0..txt.len() {
        txt.rotate_left(1);
        txt.swap(0, 4);
        assert_eq!(RecordSet::from_txt(&txt).as_ref(), Ok(set.as_record_set()));
    }
}

#[test]
fn wrong_txt_is_refused() {
    let with =
        |line: &[u8]| RecordSet::from_txt([vec![line.to_vec()], signed(1).to_txt()].concat()).unwrap_err();
    assert_eq!(with(b""), RecordError::Txt(0));
    assert_eq!(with(b"kithnet"), RecordError::Txt(0));
    assert_eq!(with(b"addresses=tcp://192.0.2.9:1"), RecordError::Reserved);
    assert!(matches!(with(b"=x"), RecordError::Kind(_)));
    assert!(matches!(with(b"Blob=AA=="), RecordError::Kind(_)));
    assert!(matches!(with(b"\xff=AA=="), RecordError::Kind(_)));
    assert!(matches!(with(b" blob=AA=="), RecordError::Kind(_)));
    assert_eq!(with(b"blob=AA"), RecordError::Base64(Kind::BLOB));
    assert_eq!(with(b"blob=AB=="), RecordError::Base64(Kind::BLOB));
    assert_eq!(with(b"address=tcp://192.0.2.9:1\n"), RecordError::NotText(Kind::ADDRESS));
    assert_eq!(with(b"blob=AAEC/w=="), RecordError::Duplicate(Kind::BLOB));
    assert_eq!(with(b"ttl=3600"), RecordError::Several(Kind::TTL));
    assert!(matches!(with(b"ttl=0"), RecordError::Value { .. }));
}

#[test]
fn binary_has_one_form() {
    let set = signed(1);
    let good = set.to_bytes();
    assert_eq!(good, [set.signed_bytes(), set.signature()].concat());
    for cut in 0..good.len() {
        assert!(RecordSet::from_bytes(&good[..cut]).is_err(), "{cut} bytes");
    }
    assert!(RecordSet::from_bytes(&[&good[..], &[0]].concat()).is_err());
    let tag = b"kithnet record set v1".len();
    // The first two records are `ttl` and `blob`; the other way round they are the same set in another form.
    let first = 2 + "ttl".len() + 4 + "3600".len();
    let second = 2 + "blob".len() + 4 + 4;
    let mut swapped = good.clone();
    swapped[tag..tag + first + second].rotate_left(first);
    assert_ne!(swapped, good);
    let refused = RecordSet::from_bytes(&swapped).unwrap_err();
    assert!(matches!(refused, RecordError::Binary("records out of order")), "{refused}");
    let mut lying = good.clone();
    lying[tag + 5..tag + 9].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(RecordSet::from_bytes(&lying), Err(RecordError::Binary(_))));
}

#[test]
fn values_of_255_and_256_bytes_keep_their_length() {
    for bytes in [254, 255, 256, 4096] {
        let set = Draft { blobs: vec![vec![0xa5; bytes]], ..draft() }.sign(&identity(1), MADE).unwrap();
        for read in [RecordSet::from_txt(set.to_txt()), RecordSet::from_json(&set.to_json())] {
            assert_eq!(read.unwrap().verify(&set.fingerprint(), MADE).unwrap().blobs()[0].len(), bytes);
        }
    }
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let extra = prop::collection::vec(("x[a-z0-9-]{0,8}", bytes()), 0..6);
    (
        prop::collection::vec(any::<std::net::SocketAddr>(), 0..6),
        prop::collection::vec(bytes(), 0..4),
        extra,
        1u32..=86_400,
    )
        .prop_map(|(sockets, blobs, extra, ttl)| Draft {
            addresses: sockets
                .into_iter()
                .map(|socket| kith_identity::Address::new(kith_identity::Transport::Quic, socket))
                .collect(),
            blobs,
            extra: extra.into_iter().map(|(kind, value)| record(&kind, &value)).collect(),
            ttl,
            ..Draft::default()
        })
}

proptest! {
    #[test]
    fn every_set_is_the_same_in_every_form(draft in any_draft(), seed: u64) {
        let Ok(set) = draft.sign(&identity(seed), MADE) else { return Ok(()) };
        for read in [
            RecordSet::from_json(&set.to_json()), RecordSet::from_bytes(&set.to_bytes()), RecordSet::from_txt(set.to_txt()),
        ] {
            prop_assert_eq!(read.unwrap().verify(&set.fingerprint(), MADE), Ok(set.clone()));
        }
        fuzz::fuzz_json(&set.to_json());
        fuzz::fuzz_binary(&set.to_bytes());
        fuzz::fuzz_txt(&set.to_txt().join(&b'\n'));
    }

    #[test]
    fn any_bytes_are_refused_or_one_set(data: Vec<u8>, text in ".*") {
        for data in [&data[..], text.as_bytes()] {
            fuzz::fuzz_json(data);
            fuzz::fuzz_binary(data);
            fuzz::fuzz_txt(data);
        }
    }

    #[test]
    fn almost_a_set_is_refused_or_one_set(at: prop::sample::Index, len in 0usize..9, with: Vec<u8>) {
        let set = signed(1);
        let splice = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            let end = (at + len).min(bytes.len());
            bytes.splice(at..end, with.iter().copied());
            bytes
        };
        fuzz::fuzz_json(&splice(set.to_json()));
        fuzz::fuzz_binary(&splice(set.to_bytes()));
        fuzz::fuzz_txt(&splice(set.to_txt().join(&b'\n')));
    }
}
