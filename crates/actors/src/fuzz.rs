//! Parsers of outside bytes as ordinary functions that assert what must hold for any input.

use kith_identity::Fingerprint;

use crate::hardened::{ActorList, Book, Message};

/// Any bytes are refused, or an actor list that is written back as it was read and is not of a network that nobody
/// issued.
pub fn fuzz_list(data: &[u8]) {
    if let Ok(list) = ActorList::from_bytes(data) {
        assert_eq!(list.to_bytes(), data, "lists have one form");
        assert!(list.verify(&Fingerprint::from_bytes([0; 32])).is_err());
    }
}

/// Any bytes are refused, or a message of a selection that is written back as it was read.
pub fn fuzz_message(data: &[u8]) {
    if let Ok(message) = Message::from_bytes(data) {
        assert_eq!(message.to_bytes(), data, "messages have one form");
    }
}

/// Any bytes are refused, or a book that is written back as it was read.
pub fn fuzz_book(data: &[u8]) {
    if let Ok(book) = Book::from_bytes(data) {
        assert_eq!(book.to_bytes(), data, "books have one form");
    }
}
