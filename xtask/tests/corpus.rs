#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
//! The fuzz functions of the crates on the stable compiler: each over the inputs kept for it, over mutations of
//! them, and over random bytes.
//!
//! `KITH_FUZZ_INPUTS` sets how many mutations each target gets, `KITH_SEED` the seed of all of them; a failure
//! prints the input, ready to be kept in `fuzz/corpus/TARGET`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use kith_sansio::{Rng, SeededRng};

/// Mutations for each target where nothing else is asked for: a second or two in all.
const INPUTS: u64 = 500;

/// No mutation grows beyond this.
const MAX_BYTES: usize = 64 * 1024;

macro_rules! targets {
    ($($name:ident => $function:path,)*) => {
        /// Every target that is run here.
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            run(stringify!($name), $function);
        })*
    };
}

targets! {
    sansio_times => kith_sansio::fuzz::fuzz_times,
    sansio_wire => kith_sansio::fuzz::fuzz_wire,
    identity_binary => kith_identity::fuzz::fuzz_binary,
    identity_invitation => kith_identity::fuzz::fuzz_invitation,
    identity_json => kith_identity::fuzz::fuzz_json,
    identity_keys => kith_identity::fuzz::fuzz_keys,
    identity_leaf => kith_identity::fuzz::fuzz_leaf,
    identity_membership => kith_identity::fuzz::fuzz_membership,
    identity_names => kith_identity::fuzz::fuzz_names,
    identity_succession => kith_identity::fuzz::fuzz_succession,
    identity_txt => kith_identity::fuzz::fuzz_txt,
    identity_vrf => kith_identity::fuzz::fuzz_vrf,
    directory_announce_body => kith_directory::fuzz::fuzz_announce_body,
    directory_dns_answer => kith_directory::fuzz::fuzz_dns_answer,
    directory_dns_query => kith_directory::fuzz::fuzz_dns_query,
    directory_dns_signed => kith_directory::fuzz::fuzz_dns_signed,
    directory_http_error => kith_directory::fuzz::fuzz_http_error,
    directory_members => kith_directory::fuzz::fuzz_members,
    directory_lan_packet => kith_directory::fuzz::fuzz_lan_packet,
    directory_held => kith_directory::fuzz::fuzz_held,
    directory_redis_address => kith_directory::fuzz::fuzz_redis_address,
    directory_redis_answer => kith_directory::fuzz::fuzz_redis_answer,
    connect_delegator_message => kith_connect::fuzz::fuzz_delegator_message,
    connect_delegator_server => kith_connect::fuzz::fuzz_delegator_server,
    connect_delegator_subscriber => kith_connect::fuzz::fuzz_delegator_subscriber,
    connect_dtls => kith_connect::fuzz::fuzz_dtls,
    connect_flow => kith_connect::fuzz::fuzz_flow,
    connect_frames => kith_connect::fuzz::fuzz_frames,
    connect_hello => kith_connect::fuzz::fuzz_hello,
    connect_direct_message => kith_connect::fuzz::fuzz_direct_message,
    connect_direct_probe => kith_connect::fuzz::fuzz_direct_probe,
    connect_network_message => kith_connect::fuzz::fuzz_network_message,
    connect_relay_message => kith_connect::fuzz::fuzz_relay_message,
    connect_router => kith_connect::fuzz::fuzz_router,
    transfer_frame => kith_transfer::fuzz::fuzz_frame,
    transfer_offer => kith_transfer::fuzz::fuzz_offer,
    transfer_receiver => kith_transfer::fuzz::fuzz_receiver,
    transfer_sender => kith_transfer::fuzz::fuzz_sender,
    tunnel_frame => kith_tunnel::fuzz::fuzz_frame,
    tunnel_network => kith_tunnel::fuzz::fuzz_network,
    tunnel_packet => kith_tunnel::fuzz::fuzz_packet,
    dht_blinded => kith_dht::fuzz::fuzz_blinded,
    dht_message => kith_dht::fuzz::fuzz_message,
    dht_node => kith_dht::fuzz::fuzz_node,
    actors_book => kith_actors::fuzz::fuzz_book,
    actors_list => kith_actors::fuzz::fuzz_list,
    actors_message => kith_actors::fuzz::fuzz_message,
}

#[test]
fn every_target_of_cargo_fuzz_is_run_here() {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut here: Vec<_> = NAMES.iter().map(ToString::to_string).collect();
    here.sort();
    assert_eq!(files(&fuzz().join("fuzz_targets")).iter().map(stem).collect::<Vec<_>>(), here);
}

#[test]
fn mutations_are_bounded_and_follow_their_seed() {
    let kept = vec![vec![7; MAX_BYTES], b"abc".to_vec(), Vec::new()];
    let draw = |seed| {
        let mut rng = SeededRng::new(seed);
        (0..200).map(|_| mutation(&kept, &mut rng)).collect::<Vec<_>>()
    };
    assert!(draw(1).iter().all(|input| input.len() <= MAX_BYTES));
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

/// The files of a folder in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

fn run(name: &str, function: fn(&[u8])) {
    let kept: Vec<_> =
        files(&fuzz().join("corpus").join(name)).iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!kept.is_empty(), "no inputs are kept for {name}");
    for input in &kept {
        hold(name, function, input);
    }
    let mut rng = SeededRng::new(number("KITH_SEED").unwrap_or(1));
    for _ in 0..number("KITH_FUZZ_INPUTS").unwrap_or(INPUTS) {
        hold(name, function, &mutation(&kept, &mut rng));
    }
}

fn hold(name: &str, function: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| function(input))) {
        eprintln!("{name} does not hold for {} bytes: b\"{}\"", input.len(), input.escape_ascii());
        resume_unwind(panic);
    }
}

/// A kept input with one to eight changes; one time in sixteen, random bytes.
fn mutation(kept: &[Vec<u8>], rng: &mut SeededRng) -> Vec<u8> {
    if below(rng, 16) == 0 {
        let mut bytes = vec![0; below(rng, 300)];
        rng.fill(&mut bytes);
        return bytes;
    }
    let mut bytes = kept[below(rng, kept.len())].clone();
    for _ in 0..=below(rng, 8) {
        change(&mut bytes, kept, rng);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

/// One change: of a bit, a byte, a run of bytes, or with a piece of another kept input.
fn change(bytes: &mut Vec<u8>, kept: &[Vec<u8>], rng: &mut SeededRng) {
    const EDGES: &[u8] =
        &[0, 1, 0x7f, 0x80, 0xff, b'\n', b' ', b'"', b'/', b'.', b'-', b'0', b'9', b'=', b':', b';'];
    let at = below(rng, bytes.len() + 1);
    let until = at + below(rng, (bytes.len() - at + 1).min(32));
    match below(rng, 7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << below(rng, 8),
        1 if at < bytes.len() => bytes[at] = EDGES[below(rng, EDGES.len())],
        2 => bytes.insert(at, EDGES[below(rng, EDGES.len())]),
        3 => drop(bytes.drain(at..until)),
        4 => {
            let again = bytes[at..until].to_vec();
            bytes.splice(at..at, again);
        }
        5 => bytes.truncate(at),
        _ => {
            let other = &kept[below(rng, kept.len())];
            let from = below(rng, other.len() + 1);
            let piece = &other[from..from + below(rng, (other.len() - from + 1).min(256))];
            bytes.splice(at..until, piece.iter().copied());
        }
    }
}

fn below(rng: &mut SeededRng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}
