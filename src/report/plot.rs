//! Small line plots as inline SVG: no script, no outside file, readable in black and white.

/// One curve.
pub struct Series<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Its values; x is the index.
    pub values: &'a [f64],
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 12.0;
/// Okabe-Ito colours, told apart by colour-blind readers.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

fn bounds(series: &[Series<'_>]) -> Option<(f64, f64, usize)> {
    let finite = || series.iter().flat_map(|s| s.values).copied().filter(|v| v.is_finite());
    let low = finite().fold(f64::INFINITY, f64::min);
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    let longest = series.iter().map(|s| s.values.len()).max()?;
    let room = ((high - low) * 0.05).max(1e-6);
    (low.is_finite() && longest > 1).then_some((low - room, high + room, longest))
}

/// A line plot with axes and a legend; empty when there is nothing to draw.
pub fn lines(title: &str, x_name: &str, series: &[Series<'_>]) -> String {
    let Some((low, high, longest)) = bounds(series) else { return String::new() };
    let x = |at: usize| LEFT + (WIDTH - LEFT - 8.0) * at as f64 / (longest - 1) as f64;
    let y = |v: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - v) / (high - low);
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"{title}\">"
    );
    for tick in 0..=4 {
        let value = low + (high - low) * f64::from(tick) / 4.0;
        let at = y(value);
        svg.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"tick end\">{value:.3}</text>",
            LEFT - 6.0,
            at + 4.0
        ));
    }
    let base = HEIGHT - 8.0;
    svg.push_str(&format!(
        "<text x=\"{LEFT}\" y=\"{base}\" class=\"tick\">{x_name} 1</text>\
         <text x=\"{:.1}\" y=\"{base}\" class=\"tick end\">{longest}</text>",
        WIDTH - 8.0
    ));
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = series
            .values
            .iter()
            .enumerate()
            .filter(|(_, v)| v.is_finite())
            .map(|(at, v)| format!("{:.1},{:.1}", x(at), y(*v)))
            .collect();
        let points = points.join(" ");
        svg.push_str(&format!("<polyline points=\"{points}\" stroke=\"{colour}\"/>"));
    }
    svg.push_str("</svg><p class=\"legend\">");
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        svg.push_str(&format!("<span style=\"color:{colour}\">&#9644; {}</span> ", series.name));
    }
    svg.push_str("</p></figure>");
    svg
}

/// A name, a mean, and the ends of its 95 % interval where they are known.
pub type Mean = (String, f64, Option<(f64, f64)>);

/// Means with their 95 % intervals, one a row. One without an interval has no bar.
pub fn intervals(title: &str, rows: &[Mean]) -> String {
    let ends = |(_, mean, bounds): &Mean| bounds.unwrap_or((*mean, *mean));
    let low = rows.iter().map(|row| ends(row).0).fold(f64::INFINITY, f64::min);
    let high = rows.iter().map(|row| ends(row).1).fold(f64::NEG_INFINITY, f64::max);
    if rows.len() < 2 || !low.is_finite() || !high.is_finite() {
        return String::new();
    }
    let room = ((high - low) * 0.1).max(1e-6);
    let (low, high) = (low - room, high + room);
    let x = |v: f64| 90.0 + (WIDTH - 190.0) * (v - low) / (high - low);
    let height = 16.0 + 26.0 * rows.len() as f64;
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"{title}\">"
    );
    for (at, row) in rows.iter().enumerate() {
        let ((name, mean, _), (from, to)) = (row, ends(row));
        let y = 20.0 + 26.0 * at as f64;
        let (mid, from, to) = (x(*mean), x(from), x(to));
        let text = y + 4.0;
        svg.push_str(&format!(
            "<text x=\"4\" y=\"{text}\" class=\"name\">{name}</text>\
             <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y}\" y2=\"{y}\" class=\"bar\"/>\
             <circle cx=\"{mid:.1}\" cy=\"{y}\" r=\"4.5\"/>\
             <text x=\"{:.1}\" y=\"{text}\" class=\"tick end\">{mean:.3}</text>",
            WIDTH - 8.0
        ));
    }
    svg.push_str("</svg></figure>");
    svg
}
