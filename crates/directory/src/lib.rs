//! Announce and discover record sets over HTTPS and DNS (floor 2).
