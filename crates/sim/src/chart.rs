//! Pictures of figures, as SVG and PNG.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::picture::{Picture, encoded};

/// Width and height of a picture.
const SIZE: (u32, u32) = (800, 560);
const MARKS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0x7f, 0x7f, 0x7f),
];

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By powers of ten; what is not positive is left out.
    Logarithmic,
}

/// A named curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its points, in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

/// Curves over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// What goes to the right.
    pub x: (&'static str, Scale),
    /// What goes up.
    pub y: (&'static str, Scale),
    /// The curves.
    pub series: Vec<Series>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("the picture cannot be drawn: {0}")]
pub struct ChartError(String);

impl Series {
    /// Puts a point to the curve of this name, which is begun where it is missing.
    pub(crate) fn push(all: &mut Vec<Series>, name: &str, point: (f64, f64)) {
        match all.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name: name.to_owned(), points: vec![point] }),
        }
    }
}

impl Scale {
    /// Where a number is on the axis, none where it has no place.
    fn place(self, number: f64) -> Option<f64> {
        let place = match self {
            Scale::Linear => number,
            Scale::Logarithmic => number.log10(),
        };
        place.is_finite().then_some(place)
    }

    /// From where to where the axis goes so that all places are on it.
    fn range(self, places: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
        let (low, high) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
        match self {
            _ if low > high => 0.0..1.0,
            Scale::Linear => 0.0..(high * 1.05).max(1e-9),
            Scale::Logarithmic => low.floor()..high.ceil().max(low.floor() + 1.0),
        }
    }

    fn label(self, place: f64) -> String {
        match self {
            Scale::Linear => format!("{place:.4}").trim_end_matches('0').trim_end_matches('.').to_owned(),
            Scale::Logarithmic if (-4.0..6.0).contains(&place) => format!("{}", 10f64.powf(place) as f32),
            Scale::Logarithmic => format!("{:.0e}", 10f64.powf(place)),
        }
    }
}

impl Chart {
    /// The picture as SVG.
    pub fn svg(&self) -> Result<String, ChartError> {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        self.draw(&area).map_err(|error| ChartError(error.to_string()))?;
        drop(area);
        Ok(text)
    }

    /// The picture as PNG.
    pub fn png(&self) -> Result<Vec<u8>, ChartError> {
        let mut bytes = Vec::new();
        let area = Picture::new(SIZE, &mut bytes).into_drawing_area();
        self.draw(&area).map_err(|error| ChartError(error.to_string()))?;
        drop(area);
        encoded(SIZE, &bytes).map_err(|error| ChartError(error.to_string()))
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let series = self.placed();
        let points = || series.iter().flatten();
        let (x, y) = (self.x.1.range(points().map(|at| at.0)), self.y.1.range(points().map(|at| at.1)));
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .x_desc(self.x.0)
            .y_desc(self.y.0)
            .x_label_formatter(&|place| self.x.1.label(*place))
            .y_label_formatter(&|place| self.y.1.label(*place))
            .draw()?;
        for ((series, places), color) in self.series.iter().zip(&series).zip(MARKS.iter().cycle()) {
            let color = *color;
            chart.draw_series(LineSeries::new(places.iter().copied(), color.stroke_width(2)))?;
            chart
                .draw_series(places.iter().map(|place| Circle::new(*place, 4, color.filled())))?
                .label(&series.name)
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, color.filled()));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .position(SeriesLabelPosition::UpperLeft)
            .draw()?;
        area.present()
    }

    /// The points of each curve as they are on the axes.
    fn placed(&self) -> Vec<Vec<(f64, f64)>> {
        let place = |(x, y): &(f64, f64)| Some((self.x.1.place(*x)?, self.y.1.place(*y)?));
        self.series.iter().map(|series| series.points.iter().filter_map(place).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "A title",
            x: ("to the right", Scale::Logarithmic),
            y: ("upwards", Scale::Linear),
            series: vec![Series { name: "a curve".to_owned(), points }],
        }
    }

    #[test]
    fn pictures_name_what_they_show_and_have_a_mark_for_each_point() {
        let svg = chart(vec![(1.0, 2.0), (10.0, 5.0), (100.0, 3.0)]).svg().unwrap();
        for text in ["A title", "to the right", "upwards", "a curve"] {
            assert!(svg.contains(text), "{text}");
        }
        // One more is in the legend.
        assert_eq!(svg.matches("<circle").count(), 4);
    }

    #[test]
    fn pictures_of_pixels_show_the_curves_and_are_the_same_each_time() {
        let png = || chart(vec![(1.0, 2.0), (10.0, 5.0)]).png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let RGBColor(red, green, blue) = MARKS[0];
        let marks = pixels.chunks(3).filter(|pixel| *pixel == [red, green, blue]).count();
        assert!(marks > 100, "{marks}");
        assert_eq!(png(), png());
    }

    #[test]
    fn what_has_no_place_on_an_axis_is_left_out() {
        let svg = chart(vec![(0.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (1.0, 1.0)]).svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), 2);
        chart(Vec::new()).svg().unwrap();
    }

    #[test]
    fn labels_are_numbers_as_people_write_them() {
        let labels = [-3.0, 0.0, 4.0, 7.0].map(|place| Scale::Logarithmic.label(place));
        assert_eq!(labels, ["0.001", "1", "10000", "1e7"]);
        assert_eq!(Scale::Linear.label(2.5), "2.5");
        assert_eq!(Scale::Linear.label(10.0), "10");
    }
}
