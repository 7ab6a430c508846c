//! Pictures of figures, as SVG and PNG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::picture::{Picture, encoded};
use crate::scale::Scale;

/// Width and height of a picture.
const SIZE: (u32, u32) = (960, 560);
/// Letters of the title, and of everything else, in pixels.
const TITLE: u32 = 20;
const LETTERS: u32 = 14;
/// About how wide such a letter is.
const LETTER: u32 = 7;
/// Height of a line of the legend, and the length of the piece of curve in it.
const LINE: i32 = 22;
const PIECE: i32 = 28;
const RADIUS: i32 = 4;
const COLORS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0x7f, 0x7f, 0x7f),
];

/// How the curves of a picture differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Plain symbols, in one of eight colours.
    Plain(usize),
    /// Empty symbols, in one of eight colours.
    Empty(usize),
}

/// A named curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its symbols.
    pub mark: Mark,
    /// Its points, in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
    /// From where to where the true value may be: x, and both ends.
    pub intervals: Vec<(f64, [f64; 2])>,
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

/// What drawing gives.
type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl Mark {
    /// The color of the number, of which there are eight.
    fn color(self) -> RGBColor {
        let (Mark::Plain(number) | Mark::Empty(number)) = self;
        COLORS[number % COLORS.len()]
    }

    /// The symbol at a point.
    fn symbols<P: Copy>(self, at: P) -> impl Iterator<Item = Circle<P, i32>> {
        let color = self.color();
        let inner = matches!(self, Mark::Empty(_)).then(|| Circle::new(at, RADIUS - 1, WHITE.filled()));
        [Circle::new(at, RADIUS, color.filled())].into_iter().chain(inner)
    }
}

impl Series {
    /// The curve of this name, which is begun where it is missing.
    pub(crate) fn of<'a>(all: &'a mut Vec<Series>, name: &str, mark: Mark) -> &'a mut Series {
        let at = all.iter().position(|series| series.name == name).unwrap_or_else(|| {
            all.push(Series { name: name.to_owned(), mark, points: Vec::new(), intervals: Vec::new() });
            all.len() - 1
        });
        &mut all[at]
    }

    /// Puts a point to the curve of this name.
    pub(crate) fn push(all: &mut Vec<Series>, name: &str, mark: Mark, point: (f64, f64)) {
        Series::of(all, name, mark).points.push(point);
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

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        area.fill(&WHITE)?;
        let below = area.titled(self.title, ("sans-serif", TITLE))?;
        let longest = self.series.iter().map(|series| series.name.chars().count()).max().unwrap_or(0);
        let legend = longest as u32 * LETTER + PIECE as u32 + 24;
        let (curves, names) = below.split_horizontally(SIZE.0.saturating_sub(legend));
        self.draw_curves(&curves)?;
        self.draw_names(&names)?;
        area.present()
    }

    fn draw_curves<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let places =
            || self.series.iter().flat_map(|series| self.points(series).chain(self.ends(series).flatten()));
        let x = self.x.1.axis(places().map(|at| at.0));
        let y = self.y.1.axis(places().map(|at| at.1));
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .bold_line_style(BLACK.mix(0.2))
            .light_line_style(BLACK.mix(0.07))
            .label_style(("sans-serif", LETTERS))
            .x_desc(self.x.0)
            .y_desc(self.y.0)
            .draw()?;
        for series in &self.series {
            let line = series.mark.color().stroke_width(2);
            chart.draw_series(LineSeries::new(self.points(series), line))?;
            let thin = series.mark.color().stroke_width(1);
            chart.draw_series(self.ends(series).map(|ends| PathElement::new(ends, thin)))?;
            chart.draw_series(self.points(series).flat_map(|at| series.mark.symbols(at)))?;
        }
        Ok(())
    }

    /// The legend, beside the curves so that it hides none.
    fn draw_names<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let style = ("sans-serif", LETTERS).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
        for (line, series) in (0..).zip(&self.series) {
            let y = LINE * (line + 1);
            area.draw(&PathElement::new([(0, y), (PIECE, y)], series.mark.color().stroke_width(2)))?;
            series.mark.symbols((PIECE / 2, y)).try_for_each(|symbol| area.draw(&symbol))?;
            area.draw_text(&series.name, &style, (PIECE + 8, y))?;
        }
        Ok(())
    }

    /// Where a point is on the axes, none where it has no place there.
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x.1.place(x)?, self.y.1.place(y)?))
    }

    fn points<'a>(&'a self, series: &'a Series) -> impl Iterator<Item = (f64, f64)> + 'a {
        series.points.iter().filter_map(|point| self.place(*point))
    }

    /// The ends of the intervals.
    fn ends<'a>(&'a self, series: &'a Series) -> impl Iterator<Item = [(f64, f64); 2]> + 'a {
        let ends =
            |(x, [low, high]): &(f64, [f64; 2])| Some([self.place((*x, *low))?, self.place((*x, *high))?]);
        series.intervals.iter().filter_map(ends)
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
            series: vec![Series {
                name: "a curve".to_owned(),
                mark: Mark::Plain(0),
                points,
                intervals: Vec::new(),
            }],
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
        let RGBColor(red, green, blue) = COLORS[0];
        let marks = pixels.chunks(3).filter(|pixel| *pixel == [red, green, blue]).count();
        assert!(marks > 100, "{marks}");
        assert_eq!(png(), png());
    }

    #[test]
    fn empty_symbols_and_intervals_are_drawn_too() {
        let plain = chart(vec![(1.0, 2.0), (10.0, 5.0)]);
        let mut other = plain.clone();
        other.series[0].mark = Mark::Empty(8);
        other.series[0].intervals = vec![(1.0, [1.0, 3.0]), (0.0, [1.0, 2.0])];
        let count = |chart: &Chart, what: &str| chart.svg().unwrap().matches(what).count();
        assert_eq!(count(&other, "<circle"), 2 * count(&plain, "<circle"));
        let color = "#0072B2";
        assert_eq!(count(&other, color), count(&plain, color) + 1);
    }

    #[test]
    fn names_are_beside_the_curves_and_whole() {
        let mut chart = chart(vec![(1.0, 2.0), (10.0, 5.0)]);
        chart.series[0].name = "a curve with a name that is rather long".to_owned();
        let svg = chart.svg().unwrap();
        let number = |text: &str, name: &str| -> f64 {
            text.split_once(name).unwrap().1.split('"').next().unwrap().parse().unwrap()
        };
        let text = svg.split("<text").find(|text| text.contains(&chart.series[0].name)).unwrap();
        let begin = number(text, " x=\"");
        let furthest =
            svg.split("<circle").skip(1).take(2).map(|mark| number(mark, " cx=\"")).fold(0.0, f64::max);
        assert!(begin > furthest + 16.0, "{begin} {furthest}");
        let letters = chart.series[0].name.len() as f64 * f64::from(LETTER);
        assert!(begin + letters < f64::from(SIZE.0), "{begin}");
    }

    #[test]
    fn what_has_no_place_on_an_axis_is_left_out() {
        let svg = chart(vec![(0.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (1.0, 1.0)]).svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), 2);
        chart(Vec::new()).svg().unwrap();
    }
}
