//! ZIP-215: everybody agrees on which signatures are valid, one by one or together.

use kith_identity::membership::signature::{Batch, verify};
use kith_identity::{KeyError, PublicKey};
use proptest::prelude::*;

use crate::support::identity;

/// The order of the group, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn batch(items: &[(PublicKey, Vec<u8>, [u8; 64])]) -> Result<(), KeyError> {
    let mut batch = Batch::new();
    items.iter().for_each(|(key, message, signature)| batch.add(key, message, signature));
    batch.verify()
}

#[test]
fn a_batch_of_none_is_valid() {
    assert_eq!(batch(&[]), Ok(()));
}

/// A signature whose first half has a part of small order is refused by the strict rules and by some libraries alone,
/// by others in batches alone. Under ZIP-215 it is valid both ways.
#[test]
fn what_strict_rules_and_others_disagree_about_is_the_same_alone_and_in_a_batch() {
    // s = 0 and R = −[k]A is out of reach, but with R of small order and s = k·a nothing but R's order is odd. The key
    // is made so that its secret is known: a = 1, A = B.
    use curve25519_dalek::constants::ED25519_BASEPOINT_COMPRESSED as BASE;
    use curve25519_dalek::scalar::Scalar;
    use sha2::{Digest, Sha512};
    let key = PublicKey::from_bytes(BASE.as_bytes()).unwrap();
    // A point of order 8, one of order 2, and the neutral one in an encoding that is not its own.
    let mut points = vec![[0u8; 32], [0; 32], [0; 32]];
    data_encoding::HEXLOWER
        .decode_mut(b"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", &mut points[0])
        .unwrap();
    points[1] = [0xff; 32];
    (points[1][0], points[1][31]) = (0xec, 0x7f);
    points[2] = [0xff; 32];
    (points[2][0], points[2][31]) = (0xee, 0x7f);
    for point in points {
        let message = b"everybody agrees".to_vec();
        let k = Sha512::new().chain_update(point).chain_update(key.as_bytes()).chain_update(&message);
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&point);
        signature[32..].copy_from_slice(Scalar::from_hash(k).as_bytes());
        assert_eq!(verify(&key, &message, &signature), Ok(()));
        assert_eq!(key.verify(&message, &signature), Err(KeyError::Signature), "the strict rules refuse it");
        for _ in 0..20 {
            let other = (identity(1).public(), b"other".to_vec(), identity(1).sign(b"other"));
            assert_eq!(batch(&[(key, message.clone(), signature), other]), Ok(()));
        }
    }
}

#[test]
fn a_number_that_is_not_reduced_is_refused_alone_and_in_a_batch() {
    let (key, mut signature) = (identity(1).public(), identity(1).sign(b"message"));
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(verify(&key, b"message", &signature), Err(KeyError::Signature));
    assert_eq!(batch(&[(key, b"message".to_vec(), signature)]), Err(KeyError::Signature));
}

/// Errors that cancel in a plain sum: s + 1 in one and s − 1 in the other signature.
#[test]
fn errors_that_would_cancel_out_are_found() {
    use curve25519_dalek::scalar::Scalar;
    let shifted = |message: &[u8], by: Scalar| {
        let mut signature = identity(1).sign(message);
        let s = Scalar::from_bytes_mod_order(signature[32..].try_into().unwrap()) + by;
        signature[32..].copy_from_slice(s.as_bytes());
        (identity(1).public(), message.to_vec(), signature)
    };
    let pair = [shifted(b"one", Scalar::ONE), shifted(b"other", -Scalar::ONE)];
    assert_eq!(batch(&pair), Err(KeyError::Signature));
    assert_eq!(batch(&[shifted(b"one", Scalar::ZERO), shifted(b"other", Scalar::ZERO)]), Ok(()));
}

/// Every encoding of the points of small order, and those that only look like one of them.
#[test]
fn a_batch_takes_the_same_keys_as_there_are() {
    use curve25519_dalek::constants::EIGHT_TORSION;
    let small = EIGHT_TORSION.map(|point| *point.compress().as_bytes());
    let mut keys: Vec<[u8; 32]> = small.to_vec();
    for key in small {
        let mut signed = key;
        signed[31] ^= 0x80;
        keys.push(signed);
    }
    // The field's prime and what follows it are no canonical numbers.
    keys.extend((0xed..=0xff).flat_map(|low| {
        [0x7f, 0xff].map(|high| {
            let mut key = [0xff; 32];
            (key[0], key[31]) = (low, high);
            key
        })
    }));
    keys.extend((0..200).map(|seed| *identity(seed).public().as_bytes()));
    for key in keys {
        let (message, mut signature) = (b"whose key is it".to_vec(), [0; 64]);
        if let Some(owner) = (0..200).map(identity).find(|owner| *owner.public().as_bytes() == key) {
            signature = owner.sign(&message);
        } else {
            // Under a key of small order this passes wherever nobody looks at the key.
            signature[0] = 1;
        }
        let mut batch = Batch::new();
        batch.add_claimed(&key, &message, &signature);
        assert_eq!(batch.verify().is_ok(), PublicKey::from_bytes(&key).is_ok(), "{key:02x?}");
    }
}

proptest! {
    #[test]
    fn a_batch_is_valid_exactly_if_each_of_its_signatures_is(
        seeds in prop::collection::vec((0u64..4, any::<Vec<u8>>(), prop::option::weighted(0.1, 0usize..512)), 0..12),
    ) {
        let items: Vec<_> = seeds
            .into_iter()
            .map(|(seed, message, damage)| {
                let mut signature = identity(seed).sign(&message);
                if let Some(bit) = damage {
                    signature[bit / 8] ^= 1 << (bit % 8);
                }
                (identity(seed).public(), message, signature)
            })
            .collect();
        let each = items.iter().all(|(key, message, signature)| verify(key, message, signature).is_ok());
        prop_assert_eq!(batch(&items).is_ok(), each);
    }
}
