//! What samples say, and how sure it is.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// A mean with the interval that holds the true one with a probability of 95 %; none where there is one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) value: f64,
    pub(crate) margin: Option<f64>,
}

impl Mean {
    /// Of independent samples, by Student's distribution.
    pub(crate) fn of(samples: &[f64]) -> Mean {
        let value = mean(samples);
        let freedom = samples.len() as f64 - 1.0;
        let margin = StudentsT::new(0.0, 1.0, freedom)
            .ok()
            .map(|student| student.inverse_cdf(0.975) * deviation(samples) / (freedom + 1.0).sqrt());
        Mean { value, margin }
    }
}

/// The mean, 0 of nothing.
pub(crate) fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

/// The standard deviation of what the samples were drawn from.
pub(crate) fn deviation(samples: &[f64]) -> f64 {
    let mean = mean(samples);
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (squares / (samples.len().max(2) - 1) as f64).sqrt()
}

/// The largest, 0 of nothing.
pub(crate) fn largest(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(0.0, f64::max)
}

/// The smallest number that at least `share` of the samples do not exceed, 0 of nothing.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Between which shares the true one lies with a probability of 95 %, where `hits` of `tries` were counted (Wilson).
pub(crate) fn share(hits: u64, tries: u64) -> (f64, f64) {
    let (tries, share) = (tries.max(1) as f64, hits as f64 / tries.max(1) as f64);
    let z = Normal::standard().inverse_cdf(0.975);
    let (square, scale) = (z * z / tries, 1.0 + z * z / tries);
    let middle = (share + square / 2.0) / scale;
    let margin = z / scale * (share * (1.0 - share) / tries + square / (4.0 * tries)).sqrt();
    ((middle - margin).max(0.0), (middle + margin).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_the_interval_of_student() {
        let of = Mean::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(of.value, 3.0);
        // t(4, 97.5 %) = 2.776445, s = sqrt(2.5)
        assert!((of.margin.unwrap() - 2.776_445 * 2.5f64.sqrt() / 5f64.sqrt()).abs() < 1e-5);
        assert_eq!(Mean::of(&[7.0]), Mean { value: 7.0, margin: None });
    }

    #[test]
    fn shares_have_the_interval_of_wilson() {
        let (low, high) = share(990, 1_000);
        assert!((low - 0.981_68).abs() < 1e-4 && (high - 0.994_56).abs() < 1e-4, "{low} {high}");
        assert_eq!((share(0, 10).0, share(10, 10).1), (0.0, 1.0));
    }

    #[test]
    fn quantiles_are_samples() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((quantile(&samples, 0.5), quantile(&samples, 0.95), quantile(&[], 0.5)), (2.0, 4.0, 0.0));
        assert_eq!(largest(&samples), 4.0);
    }
}
