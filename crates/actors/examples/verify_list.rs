//! How long the check of an actor list takes, from its file and the issuer's fingerprint alone, beside single checks of
//! Ed25519 signatures in the same run (`bench/README.md`).
//!
//! `cargo run --release -p kith-actors --example verify_list -- [MEMBERS] [ROUNDS]`

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/it/village.rs"]
#[allow(dead_code)]
mod village;

use std::hint::black_box;
use std::path::Path;

use kith_actors::hardened::ActorList;
use kith_identity::membership::signature;
use kith_identity::{Fingerprint, Identity};
use kith_sansio::SeededRng;
use kith_sansio::system::time;

use village::Village;

/// How many builders sign the list that is measured, and of how many actors it is.
const K: usize = 8;
const A: u16 = 32;
/// Checks in one round, so that a round is long beside the clock's microsecond.
const CHECKS: u32 = 20;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.replace('_', "").parse::<u64>().unwrap());
    let (members, rounds) = (numbers.next().unwrap_or(10_000), numbers.next().unwrap_or(101));
    let (list, issuer) = made(members);
    let folder = std::env::temp_dir().join(format!("kith-verify-list-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("list");
    std::fs::write(&file, list.to_bytes()).unwrap();
    let facts = *list.epoch.clone().verify(&issuer).unwrap().facts();
    println!(
        "N {}, C {}, alpha {:e}, A {A}, k {K}, {} bytes; medians of {rounds} rounds of {CHECKS}, in microseconds",
        facts.members,
        facts.colluding,
        facts.threshold.alpha(),
        list.to_bytes().len()
    );
    measured(&file, &issuer, rounds);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A list of `K` builders and `A` actors of a network with C = 1 % and α = 1e-12.
fn made(members: u64) -> (ActorList, Fingerprint) {
    let mut village = Village::new(members, (members / 100).max(10), 1e-12).unwrap();
    let list = (0..members as usize).find_map(|trigger| {
        let drawn = village.draw(village.ticket(trigger, 1, A)).ok()?;
        let list = village.select(drawn).ok()?;
        (list.moves.is_empty() && list.endorsement.signatures.len() == K).then_some(list)
    });
    (list.expect("one of all draws has so many builders"), village.issuer)
}

fn measured(file: &Path, issuer: &Fingerprint, rounds: u64) {
    let identity = Identity::generate(&mut SeededRng::new(2));
    let key = identity.public();
    let message = ActorList::from_bytes(&std::fs::read(file).unwrap()).unwrap().epoch.pledge().message();
    let signed = identity.sign(&message);
    let list = || {
        let read = ActorList::from_bytes(&std::fs::read(file).unwrap()).unwrap();
        drop(black_box(read.verify(issuer).unwrap()));
    };
    let strict = || (0..K).for_each(|_| black_box(&key).verify(&message, &signed).unwrap());
    let zip215 = || (0..K).for_each(|_| signature::verify(black_box(&key), &message, &signed).unwrap());
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        // One after the other in each round, so that what else the machine does meets all of them.
        times[0].push(timed(&list));
        times[1].push(timed(&strict));
        times[2].push(timed(&zip215));
    }
    let ratio =
        |other: usize| times[0].iter().zip(&times[other]).map(|(list, single)| list / single).collect();
    let rows = [
        ("list".to_owned(), times[0].clone()),
        (format!("{K} single checks, strict (RFC 8032)"), times[1].clone()),
        (format!("{K} single checks, ZIP-215"), times[2].clone()),
        ("list / strict".to_owned(), ratio(1)),
        ("list / ZIP-215".to_owned(), ratio(2)),
    ];
    println!("{:<36} {:>9} {:>9} {:>9}", "", "5 %", "median", "95 %");
    for (name, mut values) in rows {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        println!("{name:<36} {:>9.3} {:>9.3} {:>9.3}", at(0.05), at(0.5), at(0.95));
    }
}

/// Microseconds of one.
fn timed(work: &impl Fn()) -> f64 {
    let begin = time();
    (0..CHECKS).for_each(|_| work());
    (time() - begin).0 as f64 / f64::from(CHECKS)
}
