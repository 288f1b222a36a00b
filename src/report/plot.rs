//! Figures as shapes, drawn twice: as SVG in the page, whose colours follow the reader's theme, and as
//! PNG ([`super::png`]). Okabe-Ito colours, told apart by colour-blind readers; nothing is said by
//! colour alone.

/// What a shape is for, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Lines behind everything.
    Grid,
    /// Where something begins to mean something: an even win rate.
    Rule,
    /// Words.
    Text,
    /// Words that matter less.
    Muted,
    /// One of several series, by its number.
    Series(usize),
}

/// Where a text stands from its place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// To the right of it.
    Start,
    /// Around it.
    Middle,
    /// To the left of it.
    End,
}

/// A place: from the left, from the top.
pub type PlotPlace = (f64, f64);

/// A shape of a figure.
#[derive(Clone, Debug, PartialEq)]
pub enum PlotShape {
    /// A line through points.
    Path {
        /// The points.
        points: Vec<PlotPlace>,
        /// What it is for.
        tone: Tone,
        /// How thick it is.
        width: f64,
    },
    /// A disc.
    Dot {
        /// Its middle.
        at: PlotPlace,
        /// How large it is.
        radius: f64,
        /// What it is for.
        tone: Tone,
    },
    /// A rectangle.
    Bar {
        /// Its upper left corner.
        at: PlotPlace,
        /// Its width and height.
        size: PlotPlace,
        /// What it is for.
        tone: Tone,
    },
    /// A text.
    Label {
        /// Its base line's place.
        at: PlotPlace,
        /// What it says.
        text: String,
        /// Where it stands from there on.
        anchor: Anchor,
        /// What it is for.
        tone: Tone,
    },
}

/// Height of a figure's letters.
#[cfg(feature = "png")]
pub const LETTERS: f64 = 13.0;

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct PlotFigure {
    /// What it is called in file names.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// The same for those who do not see it, with its figures.
    pub summary: String,
    /// How wide it is.
    pub width: f64,
    /// How high it is.
    pub height: f64,
    /// What it is made of, from the back to the front.
    pub shapes: Vec<PlotShape>,
    /// What its series are called, by their numbers.
    pub legend: Vec<String>,
}

/// A line from one place to another.
pub fn line(from: PlotPlace, to: PlotPlace, tone: Tone, width: f64) -> PlotShape {
    PlotShape::Path { points: vec![from, to], tone, width }
}

/// A text.
pub fn label(at: PlotPlace, text: impl Into<String>, anchor: Anchor, tone: Tone) -> PlotShape {
    PlotShape::Label { at, text: text.into(), anchor, tone }
}

/// Text with what HTML would take for its own replaced.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn class(tone: Tone) -> String {
    match tone {
        Tone::Grid => "grid".to_owned(),
        Tone::Rule => "rule".to_owned(),
        Tone::Text => "words".to_owned(),
        Tone::Muted => "muted".to_owned(),
        Tone::Series(n) => format!("s{}", n % 4),
    }
}

fn svg_shape(shape: &PlotShape) -> String {
    match shape {
        PlotShape::Path { points, tone, width } => {
            let points: Vec<String> =
                points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let (points, class) = (points.join(" "), class(*tone));
            format!("<polyline class=\"{class}\" stroke-width=\"{width}\" points=\"{points}\"/>")
        }
        PlotShape::Dot { at: (x, y), radius, tone } => {
            format!(
                "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>",
                class(*tone)
            )
        }
        PlotShape::Bar { at: (x, y), size: (width, height), tone } => format!(
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
            class(*tone)
        ),
        PlotShape::Label { at: (x, y), text, anchor, tone } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            format!(
                "<text class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                class(*tone),
                escape(text)
            )
        }
    }
}

/// A figure for a page.
pub fn svg(figure: &PlotFigure) -> String {
    let PlotFigure { id, title, summary, width, height, shapes, legend } = figure;
    let shapes: String = shapes.iter().map(svg_shape).collect();
    let one = |(n, name): (usize, &String)| {
        format!("<li><span class=\"key s{}\"></span>{}</li>", n % 4, escape(name))
    };
    let legend: String = match legend.len() {
        0 | 1 => String::new(),
        _ => {
            let all: String = legend.iter().enumerate().map(one).collect();
            format!("<ul class=\"legend\">{all}</ul>")
        }
    };
    format!(
        "<figure id=\"{id}\"><figcaption>{}</figcaption><svg viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{}\">{shapes}</svg>{legend}</figure>",
        escape(title),
        escape(summary)
    )
}
