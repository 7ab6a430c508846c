//! A picture of pixels, with letters of a font that is part of the program: no font of the system is needed.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_7::{FONT_7X13, FONT_9X18_BOLD};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::DrawTarget;
use embedded_graphics::text::{Baseline, Text};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontTransform,
};

/// From this size on, letters are those of a title.
const TITLE: f64 = 18.0;

/// Pixels, three bytes each, row by row.
pub(crate) struct Picture<'a> {
    size: (u32, u32),
    bytes: &'a mut Vec<u8>,
}

impl<'a> Picture<'a> {
    /// A black picture, whose pixels go to `bytes`.
    pub(crate) fn new(size: (u32, u32), bytes: &'a mut Vec<u8>) -> Picture<'a> {
        bytes.clear();
        bytes.resize(size.0 as usize * size.1 as usize * 3, 0);
        Picture { size, bytes }
    }
}

impl DrawingBackend for Picture<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn draw_pixel(
        &mut self,
        (x, y): BackendCoord,
        BackendColor { alpha, rgb: (red, green, blue) }: BackendColor,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return Ok(()) };
        if x >= self.size.0 || y >= self.size.1 {
            return Ok(());
        }
        let at = (y as usize * self.size.0 as usize + x as usize) * 3;
        for (byte, wanted) in self.bytes[at..at + 3].iter_mut().zip([red, green, blue]) {
            let mixed = f64::from(*byte) * (1.0 - alpha) + f64::from(wanted) * alpha;
            *byte = mixed.round().clamp(0.0, 255.0) as u8;
        }
        Ok(())
    }

    fn draw_text<T: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &T,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let mut letters = Letters::new(font(style), text);
        let (width, height) = (letters.size.width as i32, letters.size.height as i32);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Right => -width,
            HPos::Center => -width / 2,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Bottom => -height,
            VPos::Center => -height / 2,
        };
        for Point { x: right, y: down } in std::mem::take(&mut letters.points) {
            let (dx, dy) = style.transform().transform(left + right, top + down);
            self.draw_pixel((x + dx, y + dy), style.color())?;
        }
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(
        &self,
        text: &str,
        style: &T,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let Size { width, height } = Letters::size(font(style), text);
        Ok(match style.transform() {
            FontTransform::None | FontTransform::Rotate180 => (width, height),
            FontTransform::Rotate90 | FontTransform::Rotate270 => (height, width),
        })
    }
}

fn font(style: &impl BackendTextStyle) -> &'static MonoFont<'static> {
    if style.size() < TITLE { &FONT_7X13 } else { &FONT_9X18_BOLD }
}

/// The pixels of a line of text.
struct Letters {
    size: Size,
    points: Vec<Point>,
}

impl Letters {
    fn new(font: &'static MonoFont<'static>, text: &str) -> Letters {
        let mut letters = Letters { size: Letters::size(font, text), points: Vec::new() };
        let style = MonoTextStyle::new(font, BinaryColor::On);
        let Ok(_) = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut letters);
        letters
    }

    fn size(font: &MonoFont<'_>, text: &str) -> Size {
        let letters = text.chars().count() as u32;
        Size::new(letters * (font.character_size.width + font.character_spacing), font.character_size.height)
    }
}

impl OriginDimensions for Letters {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Letters {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        let on = pixels.into_iter().filter(|Pixel(_, color)| color.is_on());
        self.points.extend(on.map(|Pixel(point, _)| point));
        Ok(())
    }
}

/// The pixels as a file (PNG).
pub(crate) fn encoded(size: (u32, u32), bytes: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_pixels_greek_ones_too() {
        let pixels = |text| Letters::new(&FONT_7X13, text).points;
        assert!(pixels("k").len() > 8);
        assert_eq!(pixels(" ").len(), 0);
        // What the font does not have is drawn as a question mark.
        assert_eq!(pixels("語"), pixels("?"));
        assert!(pixels("α") != pixels("?") && pixels("α").len() > 8);
    }

    #[test]
    fn what_is_beyond_the_edge_is_not_drawn() {
        let mut bytes = Vec::new();
        let mut picture = Picture::new((2, 2), &mut bytes);
        let white = BackendColor { alpha: 0.5, rgb: (255, 255, 255) };
        for at in [(-1, 0), (0, -1), (2, 0), (0, 2), (i32::MAX, i32::MIN), (1, 1)] {
            let Ok(()) = picture.draw_pixel(at, white) else { unreachable!() };
        }
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 128, 128]);
    }

    #[test]
    fn a_file_has_the_pixels_again() {
        let bytes: Vec<u8> = (0..12 * 8 * 3).map(|at| (at * 7) as u8).collect();
        let file = encoded((12, 8), &bytes).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
        let mut read = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut read).unwrap();
        assert_eq!((info.width, info.height, read), (12, 8, bytes));
    }
}
