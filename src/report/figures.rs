//! Which figures a report has, and what is in each.

use super::plain::opponent;
use super::plot::{Anchor, PlotFigure, PlotPlace, PlotShape, Tone, label, line};
use super::{ArmReport, FullReport, IterationRow, Report, ScoreHistogram};
use crate::domain::evaluation::{Estimate, Referee};
use crate::domain::event::IterationKind;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;
/// Room for names at the left of rows, and for numbers at their right.
const NAMES: f64 = 140.0;
const NUMBERS: f64 = 132.0;
const ROW: f64 = 26.0;
/// More points than this are shown as means of neighbours.
const POINTS_MAX: usize = 400;

/// Everything that is drawn, in the order of the page.
pub fn figures(full: &FullReport) -> Vec<PlotFigure> {
    let mut all = Vec::new();
    all.extend(win_rates(&full.report, &full.arms));
    all.extend(scores(&full.report));
    all.extend(lengths(&full.report));
    all.extend(full.evidence.scores.iter().map(histogram));
    for row in &full.report.iterations {
        all.extend(training(row));
    }
    all
}

/// A mean with its interval, as a row.
struct IntervalRow {
    name: String,
    estimate: Estimate,
    /// Which series it is of.
    series: usize,
}

/// Means with their 95 % intervals, one a row, over a scale; a rule stands where it means something.
fn intervals(
    (id, title): (&str, String),
    rows: &[IntervalRow],
    (rule, shown, unit): (Option<f64>, fn(f64) -> String, &str),
    legend: Vec<String>,
) -> Option<PlotFigure> {
    let ends =
        |row: &IntervalRow| row.estimate.bounds().unwrap_or((row.estimate.mean, row.estimate.mean));
    let low = rows.iter().map(|row| ends(row).0).chain(rule).fold(f64::INFINITY, f64::min);
    let high = rows.iter().map(|row| ends(row).1).chain(rule).fold(f64::NEG_INFINITY, f64::max);
    if rows.is_empty() || !low.is_finite() || !high.is_finite() {
        return None;
    }
    let room = ((high - low) * 0.08).max(1e-6);
    let (low, high) = (low - room, high + room);
    let x = |v: f64| NAMES + (WIDTH - NAMES - NUMBERS) * (v - low) / (high - low);
    let height = 24.0 + ROW * rows.len() as f64;
    let mut shapes = Vec::new();
    if let Some(rule) = rule {
        shapes.push(line((x(rule), 6.0), (x(rule), height - 16.0), Tone::Rule, 1.0));
        shapes.push(label(
            (x(rule), height - 3.0),
            format!("{}{unit}", shown(rule)),
            Anchor::Middle,
            Tone::Muted,
        ));
    }
    let mut told = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let (y, tone) = (16.0 + ROW * at as f64, Tone::Series(row.series));
        let (from, to) = ends(row);
        let number = match row.estimate.bounds() {
            Some(_) => {
                format!("{} [{}, {}]{unit}", shown(row.estimate.mean), shown(from), shown(to))
            }
            None => format!("{} [?]{unit}", shown(row.estimate.mean)),
        };
        shapes.push(label((4.0, y + 4.0), row.name.clone(), Anchor::Start, Tone::Text));
        shapes.push(line((x(from), y), (x(to), y), tone, 3.0));
        shapes.push(PlotShape::Dot { at: (x(row.estimate.mean), y), radius: 4.5, tone });
        shapes.push(label((WIDTH - 4.0, y + 4.0), number.clone(), Anchor::End, Tone::Muted));
        told.push(format!("{}: {number}", row.name));
    }
    let (id, summary) = (id.to_owned(), format!("{title}. {}", told.join("; ")));
    Some(PlotFigure { id, title, summary, width: WIDTH, height, shapes, legend })
}

fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

fn two_digits(value: f64) -> String {
    format!("{value:.2}")
}

/// Win rates of every checkpoint that was trained on pairs, of the run and of its control arms.
fn win_rates(report: &Report, arms: &[ArmReport]) -> Option<PlotFigure> {
    let mut rows = Vec::new();
    let mut add = |report: &Report, label: &str, series: usize| {
        for row in report.iterations.iter().filter(|row| row.kind == IterationKind::Dpo) {
            let Some(evaluation) = &row.evaluation else { continue };
            let referee = evaluation.referee;
            for versus in evaluation.head_to_head.iter().filter(|h| h.referee == referee) {
                let theirs = opponent(report, row, versus);
                // Against the first and the one before are the same of the second.
                let name = format!("M{} v. {theirs}{label}", row.iteration);
                if rows.iter().all(|known: &IntervalRow| known.name != name) {
                    rows.push(IntervalRow { name, estimate: versus.win_rate, series });
                }
            }
        }
    };
    add(report, "", 0);
    for (at, arm) in arms.iter().enumerate() {
        add(&arm.report, &format!(", {}", arm.name), at + 1);
    }
    let names = ["this run".to_owned()].into_iter();
    let legend = names.chain(arms.iter().map(|arm| format!("control, {} judge", arm.name)));
    let title = "Win rates on held-out prompts, 95 % intervals (a tie counts half)".to_owned();
    intervals(("win-rates", title), &rows, (Some(0.5), percent, " %"), legend.collect())
}

fn scores(report: &Report) -> Option<PlotFigure> {
    let mut rows = Vec::new();
    if let Some(base) = &report.base_quality {
        rows.push(IntervalRow { name: "M0".to_owned(), estimate: base.score, series: 0 });
    }
    let mut by = Referee::Judge;
    for row in &report.iterations {
        if let Some(e) = &row.evaluation {
            let name = format!("M{}", row.iteration);
            rows.push(IntervalRow { name, estimate: e.score, series: 0 });
            by = e.referee;
        }
    }
    let title =
        format!("Mean {} score on held-out prompts, 95 % intervals", super::table::name(by));
    intervals(("scores", title), &rows, (None, two_digits, ""), Vec::new())
}

/// A series of a line plot.
struct Series {
    name: String,
    /// Places on the x axis, and values.
    points: Vec<PlotPlace>,
}

/// Lines over a numbered axis; none where there is nothing to draw.
fn lines((id, title): (String, String), x_name: &str, series: Vec<Series>) -> Option<PlotFigure> {
    let series: Vec<Series> =
        series.into_iter().map(thinned).filter(|s| !s.points.is_empty()).collect();
    let points = || series.iter().flat_map(|s| s.points.iter().copied());
    let bound = |of: fn(PlotPlace) -> f64| {
        let (low, high) = points()
            .map(of)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        (low, high)
    };
    let ((left, right), (low, high)) = (bound(|p| p.0), bound(|p| p.1));
    if right <= left {
        return None;
    }
    let room = ((high - low) * 0.06).max(1e-6);
    let (low, high) = (low - room, high + room);
    let x = |v: f64| LEFT + (WIDTH - LEFT - RIGHT) * (v - left) / (right - left);
    let y = |v: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - v) / (high - low);
    let mut shapes = Vec::new();
    for tick in 0..=4 {
        let value = low + (high - low) * f64::from(tick) / 4.0;
        let (at, text) = (y(value), format!("{value:.3}"));
        shapes.push(line((LEFT, at), (WIDTH - RIGHT, at), Tone::Grid, 1.0));
        shapes.push(label((LEFT - 6.0, at + 4.0), text, Anchor::End, Tone::Muted));
    }
    let base = HEIGHT - 8.0;
    shapes.push(label((LEFT, base), format!("{x_name} {left:.0}"), Anchor::Start, Tone::Muted));
    shapes.push(label((WIDTH - RIGHT, base), format!("{right:.0}"), Anchor::End, Tone::Muted));
    let mut told = Vec::new();
    for (n, one) in series.iter().enumerate() {
        let points: Vec<PlotPlace> = one.points.iter().map(|(a, b)| (x(*a), y(*b))).collect();
        if points.len() < 30 {
            let dot =
                |at: &PlotPlace| PlotShape::Dot { at: *at, radius: 3.0, tone: Tone::Series(n) };
            shapes.extend(points.iter().map(dot));
        }
        shapes.push(PlotShape::Path { points, tone: Tone::Series(n), width: 1.8 });
        let ends = one.points.first().zip(one.points.last());
        told.extend(ends.map(|((_, a), (_, b))| format!("{} from {a:.3} to {b:.3}", one.name)));
    }
    let summary = format!("{title}: {}", told.join("; "));
    let legend = series.into_iter().map(|one| one.name).collect();
    Some(PlotFigure { id, title, summary, width: WIDTH, height: HEIGHT, shapes, legend })
}

/// As few points as can be told apart: means of neighbours.
fn thinned(series: Series) -> Series {
    let Series { name, points } = series;
    let points: Vec<PlotPlace> = points.into_iter().filter(|(_, y)| y.is_finite()).collect();
    let size = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |part: &[PlotPlace]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    let points = if size == 1 { points } else { points.chunks(size).map(mean).collect() };
    Series { name, points }
}

fn counted(name: &str, values: &[f64]) -> Series {
    let points = values.iter().enumerate().map(|(at, value)| ((at + 1) as f64, *value)).collect();
    Series { name: name.to_owned(), points }
}

fn lengths(report: &Report) -> Option<PlotFigure> {
    let of = |name: &str, value: &dyn Fn(&IterationRow) -> Option<f64>| Series {
        name: name.to_owned(),
        points: report
            .iterations
            .iter()
            .filter_map(|row| Some((f64::from(row.iteration), value(row)?)))
            .collect(),
    };
    let mut held_out = of("held-out answers", &|row| Some(row.evaluation.as_ref()?.length.mean));
    if let Some(base) = &report.base_quality {
        held_out.points.insert(0, (0.0, base.length));
    }
    let chosen = of("chosen answers", &|row| Some(row.pair_means?.length_chosen));
    let rejected = of("rejected answers", &|row| Some(row.pair_means?.length_rejected));
    let title = "Length of answers, mean tokens".to_owned();
    lines(("lengths".to_owned(), title), "model M", vec![held_out, chosen, rejected])
}

fn training(row: &IterationRow) -> Vec<PlotFigure> {
    let n = row.iteration;
    let figure = |id: &str, title: &str, series| {
        lines((format!("m{n}-{id}"), format!("M{n}: {title}")), "step", series)
    };
    let mut all = vec![figure("loss", "loss", vec![counted("loss", &row.losses)])];
    if row.kind == IterationKind::Dpo {
        all.push(figure("margin", "reward margin", vec![counted("reward margin", &row.margins)]));
        let logps =
            vec![counted("chosen", &row.logps_chosen), counted("rejected", &row.logps_rejected)];
        all.push(figure("logps", "log-probability of answers", logps));
    }
    all.into_iter().flatten().collect()
}

/// How an iteration's answers were scored.
fn histogram(one: &ScoreHistogram) -> PlotFigure {
    let (height, n) = (150.0, one.counts.len().max(1) as f64);
    let most = one.counts.iter().copied().max().unwrap_or(1).max(1);
    let all: u32 = one.counts.iter().sum();
    let width = (WIDTH - LEFT - RIGHT) / n;
    let base = height - BOTTOM;
    let mut shapes = vec![line((LEFT, base), (WIDTH - RIGHT, base), Tone::Grid, 1.0)];
    for (at, count) in one.counts.iter().enumerate() {
        let tall = (base - TOP) * f64::from(*count) / f64::from(most);
        shapes.push(PlotShape::Bar {
            at: (LEFT + width * at as f64 + 1.0, base - tall),
            size: ((width - 2.0).max(1.0), tall),
            tone: Tone::Series(0),
        });
    }
    let share = 100.0 * f64::from(most) / f64::from(all.max(1));
    shapes.push(label((LEFT - 6.0, TOP + 6.0), format!("{share:.0} %"), Anchor::End, Tone::Muted));
    for value in [one.from, (one.from + one.to) / 2.0, one.to] {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * (value - one.from) / (one.to - one.from);
        let anchor = match value {
            v if v == one.from => Anchor::Start,
            v if v == one.to => Anchor::End,
            _ => Anchor::Middle,
        };
        shapes.push(label((x, height - 10.0), format!("{value}"), anchor, Tone::Muted));
    }
    let title = format!("M{}: scores of its {} answers", one.iteration, all + one.without);
    let summary = format!(
        "{title} from {} to {}, in {} bins: {}; {} without a score",
        one.from,
        one.to,
        one.counts.len(),
        one.counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        one.without
    );
    let id = format!("m{}-histogram", one.iteration);
    PlotFigure { id, title, summary, width: WIDTH, height, shapes, legend: Vec::new() }
}
