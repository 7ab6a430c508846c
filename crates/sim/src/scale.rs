//! How the axes of a picture are divided, and what is written at their marks.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten; what is not positive is left out.
    Logarithmic,
}

/// From where to where an axis goes, and where it is marked, by places (see [`Scale::place`]).
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    scale: Scale,
    range: Range<f64>,
    /// Where a number is written.
    labelled: Vec<f64>,
    /// Where there are thin lines besides.
    thin: Vec<f64>,
}

/// The steps within a power of ten that axes end at.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
/// About so many labels fit beside an even axis.
const LABELS: f64 = 8.0;
/// A logarithmic axis of more powers of ten has no labels between them.
const NARROW: f64 = 3.0;
/// Places are equal that differ by less than this.
const EQUAL: f64 = 1e-9;

impl Scale {
    /// Where a number is on the axis, none where it has no place.
    pub(crate) fn place(self, number: f64) -> Option<f64> {
        let place = match self {
            Scale::Linear => number,
            Scale::Logarithmic => number.log10(),
        };
        place.is_finite().then_some(place)
    }

    /// The axis that has all places on it.
    pub(crate) fn axis(self, places: impl Iterator<Item = f64>) -> Axis {
        let (low, high) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
        match self {
            _ if low > high => Axis { scale: self, range: 0.0..1.0, labelled: Vec::new(), thin: Vec::new() },
            Scale::Linear => even(high),
            Scale::Logarithmic => by_powers(low, high),
        }
    }

    /// The number at a place, as people write it.
    fn label(self, place: f64) -> String {
        match self {
            Scale::Linear => short(place),
            Scale::Logarithmic => short(10f64.powf(place)),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(place, limit)
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() { self.thin.clone() } else { self.labelled.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        self.scale.label(*place)
    }
}

/// From 0 to the first mark at `high` or above.
fn even(high: f64) -> Axis {
    let high = if high > 0.0 { high } else { 1.0 };
    let power = 10f64.powf((high / LABELS).log10().floor());
    let steps = STEPS.iter().chain(&[10.0]).map(|step| step * power);
    let step = steps.into_iter().find(|step| high / step <= LABELS).unwrap_or(high);
    let marks = (high / step - EQUAL).ceil().max(1.0);
    let labelled = (0..=marks as u64).map(|mark| mark as f64 * step).collect();
    Axis { scale: Scale::Linear, range: 0.0..marks * step, labelled, thin: Vec::new() }
}

/// From the last step at `low` or below to the first one at `high` or above.
fn by_powers(low: f64, high: f64) -> Axis {
    let powers = low.floor() as i32 - 1..=high.ceil() as i32 + 1;
    let steps = |within: &[f64]| -> Vec<f64> {
        powers
            .clone()
            .flat_map(|power| within.iter().map(move |step| f64::from(power) + step.log10()))
            .collect()
    };
    let ends = steps(&STEPS);
    let begin = ends.iter().rev().find(|at| **at <= low + EQUAL).copied().unwrap_or(low);
    let end = ends.iter().find(|at| **at >= (high - EQUAL).max(begin + EQUAL)).copied().unwrap_or(high);
    let within = |places: Vec<f64>| {
        places.into_iter().filter(|at| (begin - EQUAL..end + EQUAL).contains(at)).collect::<Vec<_>>()
    };
    let labels: &[f64] = if end - begin > NARROW { &STEPS[..1] } else { &STEPS };
    let all: Vec<_> = (1..10).map(f64::from).collect();
    let (labelled, thin) = (within(steps(labels)), within(steps(&all)));
    Axis { scale: Scale::Logarithmic, range: begin..end, labelled, thin }
}

/// A number in few letters: 0.001, 2.5, 10, 20K, 10M; 1e-5 where it is very small.
pub(crate) fn short(number: f64) -> String {
    let rounded = |number: f64| format!("{number:.4}").trim_end_matches('0').trim_end_matches('.').to_owned();
    match number.abs() {
        size if size >= 999_999.5 => rounded(number / 1e6) + "M",
        size if size >= 999.5 => rounded(number / 1e3) + "K",
        size if size < 0.99e-4 && size > 0.0 => format!("{number:.0e}"),
        _ => rounded(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, numbers: &[f64]) -> Vec<String> {
        let axis = scale.axis(numbers.iter().filter_map(|number| scale.place(*number)));
        let inside = |place: &f64| (axis.range.start - EQUAL..=axis.range.end + EQUAL).contains(place);
        let drawn = numbers.iter().filter_map(|number| scale.place(*number));
        assert!(drawn.chain(axis.thin.clone()).all(|place| inside(&place)), "{axis:?}");
        axis.labelled.iter().map(|place| scale.label(*place)).collect()
    }

    #[test]
    fn even_axes_have_labels_at_round_numbers() {
        assert_eq!(
            labels(Scale::Linear, &[3.0, 71.0]),
            ["0", "10", "20", "30", "40", "50", "60", "70", "80"]
        );
        assert_eq!(labels(Scale::Linear, &[1.02]), ["0", "0.2", "0.4", "0.6", "0.8", "1", "1.2"]);
        assert_eq!(labels(Scale::Linear, &[0.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(
            labels(Scale::Linear, &[4_000.0]),
            ["0", "500", "1K", "1.5K", "2K", "2.5K", "3K", "3.5K", "4K"]
        );
    }

    #[test]
    fn logarithmic_axes_have_labels_at_powers_of_ten_and_between_them_where_there_are_few() {
        assert_eq!(labels(Scale::Logarithmic, &[1e-3, 10.0]), ["0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(
            labels(Scale::Logarithmic, &[7.0, 800.0]),
            ["5", "10", "20", "50", "100", "200", "500", "1K"]
        );
        assert_eq!(labels(Scale::Logarithmic, &[1e-6, 1e7]).len(), 14);
        assert_eq!(labels(Scale::Logarithmic, &[5.0]), ["5", "10"]);
        assert!(labels(Scale::Logarithmic, &[0.0, -1.0, f64::NAN]).is_empty());
    }

    #[test]
    fn numbers_are_written_in_few_letters() {
        let numbers = [0.0, 1e-5, 1e-4, 0.25, 2.0, 1_000.0, 1_500.0, 100_000.0, 1e7];
        let texts = ["0", "1e-5", "0.0001", "0.25", "2", "1K", "1.5K", "100K", "10M"];
        assert_eq!(numbers.map(short), texts);
    }
}
