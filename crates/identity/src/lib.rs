//! Keys, fingerprints, signed record sets, contacts and TLS identity (floor 1).
