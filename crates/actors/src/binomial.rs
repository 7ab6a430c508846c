//! Tails of the binomial distribution: equations (1) and (2) of SEP2P §3.3.
//!
//! Both are the regularised incomplete beta function, because a sum of ten million terms underflows. For up to 10^7
//! trials the relative error is below 10^-6, for 10^9 below 10^-5 (`tests/it/binomial.rs`).

use statrs::function::beta::beta_reg;

/// Probability that at least `k` of `n` nodes with uniform places lie in a region of size `rs` (a share of the whole).
pub fn at_least(k: u64, n: u64, rs: f64) -> f64 {
    match k {
        0 => 1.0,
        _ if k > n || rs <= 0.0 => 0.0,
        _ if rs >= 1.0 => 1.0,
        _ => beta_reg(k as f64, (n - k + 1) as f64, rs),
    }
}

/// Probability that fewer than `k` of them do; exact where [`at_least`] is so near to 1 that `1.0 - at_least` is noise.
pub fn fewer_than(k: u64, n: u64, rs: f64) -> f64 {
    match k {
        0 => 0.0,
        _ if k > n || rs <= 0.0 => 1.0,
        _ if rs >= 1.0 => 0.0,
        _ => beta_reg((n - k + 1) as f64, k as f64, 1.0 - rs),
    }
}

/// How many of `actors` are colluding on average in the best of `draws` independent draws, where each actor is with
/// probability `share`: what an adversary gets that draws as often as its quota allows and keeps the best.
pub fn best_of(draws: u64, actors: u64, share: f64) -> f64 {
    // The mean of the largest is the sum over x of the chance that some draw has x or more.
    let some = |x| -(draws as f64 * (-at_least(x, actors, share)).ln_1p()).exp_m1();
    (1..=actors).map(some).sum()
}
