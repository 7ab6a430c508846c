use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Names the one seed to run, in decimal.
const VARIABLE: &str = "KITH_SEED";

/// Runs a test once for each seed, or only for the one in the environment variable `KITH_SEED`.
///
/// A test that panics says on standard error with which seed, and how to replay it.
pub fn for_seeds(seeds: Range<u64>, mut test: impl FnMut(u64)) {
    let chosen = std::env::var(VARIABLE).ok();
    let chosen = chosen.map(|text| {
        let seed = text.trim().parse::<u64>();
        assert!(seed.is_ok(), "{VARIABLE}={text} is not a seed: a decimal number is wanted");
        seed.unwrap_or_default()
    });
    for seed in chosen.map_or(seeds, |seed| seed..seed.saturating_add(1)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("failed with seed {seed}; replay with {VARIABLE}={seed}");
            resume_unwind(panic);
        }
    }
}
