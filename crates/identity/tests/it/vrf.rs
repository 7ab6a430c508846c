//! The verifiable random function: the standard's vectors, and what is no key and no proof.

use data_encoding::HEXLOWER;
use kith_identity::vrf::{Key, Output, Proof, Secret, VrfError};
use kith_identity::{Identity, fuzz};
use kith_sansio::SeededRng;
use proptest::prelude::*;

const VECTORS: &str = include_str!("vectors/ecvrf.txt");
/// The order of the group, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// The eight points of small order in their one encoding each.
const SMALL_ORDER: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
];

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
}

fn secret(seed: u64) -> Secret {
    Secret::generate(&mut SeededRng::new(seed))
}

#[test]
fn every_vector_of_the_standard_is_made_and_verified() {
    let vectors: Vec<_> = VECTORS.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let [seed, key, input, proof, output] = vector.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let input = HEXLOWER.decode(input.trim_matches('-').as_bytes()).unwrap();
        let (secret, proof) = (Secret::from_seed(&bytes(seed)), Proof::from_bytes(bytes(proof)));
        assert_eq!(secret.key(), Key::from_bytes(&bytes(key)).unwrap());
        assert_eq!(secret.prove(&input), proof);
        let output = Output::from_bytes(bytes(output));
        assert_eq!(secret.key().verify(&input, &proof), Ok(output));
        assert_eq!(proof.claimed_output(), Ok(output));
    }
}

#[test]
fn an_identity_has_one_key_of_the_function_and_it_is_not_its_signing_key() {
    let identity = Identity::generate(&mut SeededRng::new(1));
    let key = identity.vrf_secret().key();
    assert_eq!(key, identity.clone().vrf_secret().key());
    assert_ne!(key.as_bytes(), identity.public().as_bytes());
    assert_ne!(key, Identity::generate(&mut SeededRng::new(2)).vrf_secret().key());
}

#[test]
fn a_point_of_small_order_is_no_key() {
    for point in SMALL_ORDER {
        assert_eq!(Key::from_bytes(&bytes(point)).unwrap_err(), VrfError::Key, "{point}");
    }
}

#[test]
fn a_second_encoding_of_a_point_is_no_key_and_no_part_of_a_proof() {
    // The coordinate 3 + p, which decoders take for 3; and the neutral point with a sign that zero has not.
    let beyond = bytes::<32>("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    let signed = bytes::<32>("0100000000000000000000000000000000000000000000000000000000000080");
    let proof = secret(1).prove(b"input");
    for point in [beyond, signed] {
        assert_eq!(Key::from_bytes(&point), Err(VrfError::Key));
        let mut bad = *proof.as_bytes();
        bad[..32].copy_from_slice(&point);
        assert_eq!(secret(1).key().verify(b"input", &Proof::from_bytes(bad)), Err(VrfError::Form));
    }
    assert!(
        Key::from_bytes(&bytes("0300000000000000000000000000000000000000000000000000000000000000")).is_ok()
    );
}

#[test]
fn a_number_that_is_not_reduced_is_refused_so_that_a_proof_has_no_second_form() {
    let mut bad = *secret(1).prove(b"input").as_bytes();
    let mut carry = 0;
    for (byte, order) in bad[48..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(secret(1).key().verify(b"input", &Proof::from_bytes(bad)), Err(VrfError::Form));
}

#[test]
fn every_flipped_bit_of_a_proof_is_refused() {
    let (key, proof) = (secret(1).key(), secret(1).prove(b"input"));
    for bit in 0..640 {
        let mut bad = *proof.as_bytes();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(key.verify(b"input", &Proof::from_bytes(bad)).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn an_output_belongs_to_one_key_and_one_input(seed: u64, other: u64, input: Vec<u8>, different: Vec<u8>) {
        let (mine, proof) = (secret(seed), secret(seed).prove(&input));
        let output = mine.key().verify(&input, &proof);
        prop_assert_eq!(output, proof.claimed_output());
        prop_assert!(output.is_ok());
        prop_assert_eq!(mine.key().verify(&different, &proof).is_ok(), different == input);
        prop_assert_eq!(secret(other).key().verify(&input, &proof).is_ok(), other == seed);
        prop_assert_eq!(secret(other).prove(&input).claimed_output() == output, other == seed);
    }

    #[test]
    fn any_bytes_are_no_proof(low: [u8; 32], high: [u8; 32], c: [u8; 16]) {
        let bytes: Vec<u8> = [&low[..], &c, &high].concat();
        let proof = Proof::from_bytes(bytes.clone().try_into().unwrap());
        prop_assert!(secret(1).key().verify(b"input", &proof).is_err());
        fuzz::fuzz_vrf(&[&secret(1).key().as_bytes()[..], &bytes, b"input"].concat());
        if let Ok(key) = Key::from_bytes(&low) {
            prop_assert_eq!(key.as_bytes(), &low);
        }
    }
}
