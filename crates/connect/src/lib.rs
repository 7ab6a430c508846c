//! From a fingerprint to an authenticated connection (floor 3).
