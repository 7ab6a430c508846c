//! A virtual network in virtual time with seeded faults, for the tests of every floor (floor 0).
