//! Figures as PNG, for where SVG cannot go: slides, chats, issue trackers. The same shapes as in the
//! page, in the light theme's colours, at twice their size.

use super::plot::{Anchor, LETTERS, PlotFigure, PlotPlace, PlotShape, Tone};
use tiny_skia::{
    Color, FillRule, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash,
    Transform,
};
use ttf_parser::{Face, OutlineBuilder};

/// DejaVu Sans, the letters of ASCII (`assets/letters/LICENSE`).
const FACE: &[u8] = include_bytes!("../../assets/letters/DejaVuSans-subset.ttf");
/// Pixels of a figure's unit.
const SCALE: f32 = 2.0;
/// Room above a figure for its title, and for each line of its legend.
const TITLE: f64 = 28.0;
const LEGEND: f64 = 22.0;
const MARGIN: f64 = 12.0;

/// A figure could not be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a figure could not be drawn: {0}")]
pub struct NotDrawn(String);

fn defect(what: &str) -> NotDrawn {
    NotDrawn(what.to_owned())
}

/// As the page's light theme (`style.css`).
fn colour(tone: Tone) -> Color {
    let (r, g, b) = match tone {
        Tone::Grid => (0xd9, 0xd9, 0xd4),
        Tone::Rule | Tone::Muted => (0x5c, 0x5c, 0x58),
        Tone::Text => (0x1b, 0x1b, 0x1a),
        Tone::Series(n) => match n % 4 {
            0 => (0x00, 0x66, 0xa6),
            1 => (0xb8, 0x4a, 0x00),
            2 => (0x00, 0x7a, 0x58),
            _ => (0xa8, 0x48, 0x7f),
        },
    };
    Color::from_rgba8(r, g, b, 255)
}

struct Sheet<'a> {
    pixels: Pixmap,
    face: Face<'a>,
    /// Where the figure's own corner is.
    origin: PlotPlace,
}

/// A letter's outline at its place.
struct Letter<'a> {
    path: &'a mut PathBuilder,
    at: (f32, f32),
    size: f32,
}

impl Letter<'_> {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (self.at.0 + x * self.size, self.at.1 - y * self.size)
    }
}

impl OutlineBuilder for Letter<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) =
            (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

impl Sheet<'_> {
    fn at(&self, (x, y): PlotPlace) -> (f32, f32) {
        let (left, top) = self.origin;
        ((x + left) as f32 * SCALE, (y + top) as f32 * SCALE)
    }

    fn fill(&mut self, path: &Path, tone: Tone) {
        let mut paint = Paint::default();
        paint.set_color(colour(tone));
        self.pixels.fill_path(path, &paint, FillRule::Winding, Transform::identity(), None);
    }

    fn line(&mut self, points: &[PlotPlace], tone: Tone, width: f64) {
        let mut path = PathBuilder::new();
        for (n, point) in points.iter().enumerate() {
            let (x, y) = self.at(*point);
            if n == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
        }
        let Some(path) = path.finish() else { return };
        let dashed = tone == Tone::Rule;
        let dash = dashed.then(|| StrokeDash::new(vec![4.0 * SCALE, 3.0 * SCALE], 0.0)).flatten();
        let width = width as f32 * SCALE;
        let stroke = Stroke { width, line_join: LineJoin::Round, dash, ..Stroke::default() };
        let mut paint = Paint::default();
        paint.set_color(colour(tone));
        self.pixels.stroke_path(&path, &paint, &stroke, Transform::identity(), None);
    }

    /// The letters of a text: each with how far it is from the text's beginning, and how long that is.
    fn letters(&self, text: &str, size: f32) -> (Vec<(ttf_parser::GlyphId, f32)>, f32) {
        let (mut letters, mut along) = (Vec::new(), 0.0);
        for letter in text.chars() {
            let glyph = self.face.glyph_index(letter).or_else(|| self.face.glyph_index('?'));
            let Some(glyph) = glyph else { continue };
            letters.push((glyph, along));
            along += f32::from(self.face.glyph_hor_advance(glyph).unwrap_or_default()) * size;
        }
        (letters, along)
    }

    fn label(&mut self, at: PlotPlace, text: &str, (anchor, tone): (Anchor, Tone), height: f64) {
        let size = height as f32 * SCALE / f32::from(self.face.units_per_em());
        let (letters, length) = self.letters(text, size);
        let (x, y) = self.at(at);
        let x = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - length / 2.0,
            Anchor::End => x - length,
        };
        let mut path = PathBuilder::new();
        for (glyph, along) in letters {
            let mut letter = Letter { path: &mut path, at: (x + along, y), size };
            self.face.outline_glyph(glyph, &mut letter);
        }
        if let Some(path) = path.finish() {
            self.fill(&path, tone);
        }
    }

    fn draw(&mut self, shape: &PlotShape) {
        match shape {
            PlotShape::Path { points, tone, width } => self.line(points, *tone, *width),
            PlotShape::Dot { at, radius, tone } => {
                let (x, y) = self.at(*at);
                if let Some(path) = PathBuilder::from_circle(x, y, *radius as f32 * SCALE) {
                    self.fill(&path, *tone);
                }
            }
            PlotShape::Bar { at, size: (width, height), tone } => {
                let (x, y) = self.at(*at);
                let (width, height) = (*width as f32 * SCALE, *height as f32 * SCALE);
                if let Some(rect) = Rect::from_xywh(x, y, width, height) {
                    self.fill(&PathBuilder::from_rect(rect), *tone);
                }
            }
            PlotShape::Label { at, text, anchor, tone } => {
                self.label(*at, text, (*anchor, *tone), LETTERS);
            }
        }
    }
}

/// A figure with its title and legend.
///
/// # Errors
/// [`NotDrawn`] of one that has no size.
pub fn png(figure: &PlotFigure) -> Result<Vec<u8>, NotDrawn> {
    let PlotFigure { title, width, height, shapes, legend, .. } = figure;
    let named: &[String] = if legend.len() > 1 { legend } else { &[] };
    let below = LEGEND * named.len() as f64;
    let size = |units: f64| (units * f64::from(SCALE)).ceil() as u32;
    let (wide, high) = (width + 2.0 * MARGIN, height + TITLE + below + 2.0 * MARGIN);
    let mut pixels = Pixmap::new(size(wide), size(high)).ok_or_else(|| defect("it has no size"))?;
    pixels.fill(Color::WHITE);
    let face = Face::parse(FACE, 0).map_err(|error| defect(&error.to_string()))?;
    let mut sheet = Sheet { pixels, face, origin: (MARGIN, MARGIN) };
    sheet.label((0.0, 14.0), title, (Anchor::Start, Tone::Text), LETTERS + 1.0);
    sheet.origin = (MARGIN, MARGIN + TITLE);
    shapes.iter().for_each(|shape| sheet.draw(shape));
    for (n, name) in named.iter().enumerate() {
        let y = height + LEGEND * n as f64 + 12.0;
        sheet.draw(&PlotShape::Bar {
            at: (0.0, y - 6.0),
            size: (16.0, 5.0),
            tone: Tone::Series(n),
        });
        sheet.label((24.0, y), name, (Anchor::Start, Tone::Text), LETTERS);
    }
    sheet.pixels.encode_png().map_err(|error| defect(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::plot::{label, line};
    use super::*;

    #[test]
    fn shapes_are_where_the_figure_has_them() {
        let shapes = vec![
            line((0.0, 50.0), (100.0, 50.0), Tone::Series(0), 4.0),
            PlotShape::Bar { at: (20.0, 10.0), size: (10.0, 10.0), tone: Tone::Series(1) },
            label((99.0, 90.0), "100 %", Anchor::End, Tone::Text),
        ];
        let (id, title) = ("f".to_owned(), "A title".to_owned());
        let summary = String::new();
        let figure = PlotFigure {
            id,
            title,
            summary,
            width: 100.0,
            height: 100.0,
            shapes,
            legend: Vec::new(),
        };
        let bytes = png(&figure).unwrap();
        let found = Pixmap::decode_png(&bytes).unwrap();
        let at = |x: f64, y: f64| {
            let pixel = |v: f64| (v * f64::from(SCALE)) as u32;
            let (x, y) = (pixel(x + MARGIN), pixel(y + MARGIN + TITLE));
            found.pixel(x, y).unwrap().demultiply()
        };
        let is = |found: tiny_skia::ColorU8, tone: Tone| {
            let wanted = colour(tone).to_color_u8();
            (found.red(), found.green(), found.blue())
                == (wanted.red(), wanted.green(), wanted.blue())
        };
        assert!(is(at(50.0, 50.0), Tone::Series(0)) && is(at(25.0, 15.0), Tone::Series(1)));
        let white = at(50.0, 30.0);
        assert_eq!((white.red(), white.green(), white.blue()), (255, 255, 255));
        let dark = |x: u32, y: u32| found.pixel(x, y).is_some_and(|p| p.red() < 128);
        let (wide, high) = (found.width(), found.height());
        let words = |from: u32, to: u32| (0..wide).any(|x| (from..to).any(|y| dark(x, y)));
        assert!(words(0, (TITLE as f32 * SCALE) as u32), "the title");
        assert!(words(high - 70, high - 20), "the label at the bottom");
    }
}
