"""The comparison: cases, peers, measuring and the tables that come out of it."""
