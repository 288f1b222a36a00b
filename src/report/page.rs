//! The report as one HTML file that needs nothing else: no script, no font, no network. It reads from
//! the top: what came of it, whether to believe it, what it looks like, how it was made.

use super::figures::figures;
use super::plain::{Reason, RunVerdict, Speaks};
use super::plot::{PlotFigure, escape, svg};
use super::table::{name, outcome};
use super::{
    AnswerExample, BeforeAfterExamples, DiffPiece, FullReport, IterationRow, Report,
    ReportEvidence, iterations_table, judge_table, rubrics_table, time_table,
};
use crate::domain::evaluation::{HeadToHead, Verdict};
use crate::domain::event::IterationKind;

const STYLE: &str = include_str!("style.css");

/// What stands in a page that gradus wrote, by which it knows one again.
pub const MARK: &str = "<meta name=\"generator\" content=\"gradus report\">";

/// The page of a run. Whatever the run's texts hold is shown as text.
pub fn page(full: &FullReport) -> String {
    let FullReport { verdict, report, arms, evidence, .. } = full;
    let title = escape(&evidence.about.name);
    let drawn = figures(full);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{MARK}\
         <title>{title} - gradus report</title><style>{STYLE}</style></head><body><main>\
         <h1>{title}{}</h1><p class=\"verdict {}\">{}</p>",
        evidence
            .about
            .base_name
            .as_ref()
            .map_or_else(String::new, |base| format!(" · {}", escape(base))),
        match verdict.verdict {
            RunVerdict::Better => "is-better",
            RunVerdict::Worse => "is-worse",
            RunVerdict::Unproven | RunVerdict::NothingYet => "is-open",
        },
        escape(&verdict.sentence)
    );
    html.extend(verdict.beside.iter().map(|text| format!("<p>{}</p>", escape(text))));
    html.extend(report.warnings.iter().map(|text| format!("<p><b>{}</b></p>", escape(text))));
    html.push_str(&reasons(&verdict.reasons));
    html.push_str("<h2>Models</h2>");
    html.push_str(&models(report));
    html.push_str(&these(&drawn, &["win-rates", "scores"]));
    for arm in arms {
        let heading = format!("Control: {} judge", arm.name);
        html.push_str(&format!(
            "<h3>{}</h3><p class=\"note\">{}</p>{}",
            escape(&heading),
            escape(arm.what()),
            models(&arm.report)
        ));
    }
    html.push_str(&before_and_after(evidence.answers.as_ref()));
    html.push_str(&pairs(evidence));
    html.push_str(&judging(full, &drawn));
    html.push_str(
        "<h2>Length</h2><p class=\"note\">Answers that only get longer please many judges.</p>",
    );
    html.push_str(&these(&drawn, &["lengths"]));
    html.push_str("<h2>Training</h2><div class=\"plots\">");
    html.extend(drawn.iter().filter(|figure| is_training(figure)).map(svg));
    html.push_str("</div>");
    html.push_str(&made(full));
    html.push_str("</main></body></html>\n");
    html
}

fn is_training(figure: &PlotFigure) -> bool {
    ["-loss", "-margin", "-logps"].iter().any(|end| figure.id.ends_with(end))
}

fn these(drawn: &[PlotFigure], ids: &[&str]) -> String {
    drawn.iter().filter(|figure| ids.contains(&figure.id.as_str())).map(svg).collect()
}

fn reasons(reasons: &[Reason]) -> String {
    if reasons.is_empty() {
        return String::new();
    }
    let one = |reason: &Reason| {
        let class = match reason.speaks {
            Speaks::For => "for",
            Speaks::Against => "against",
            Speaks::Unknown => "unknown",
        };
        let (title, text) = (escape(reason.title), escape(&reason.text));
        format!("<li class=\"{class}\"><b>{title}</b>{text}</li>")
    };
    let all: String = reasons.iter().map(one).collect();
    format!("<h2>Can one believe it?</h2><ul class=\"reasons\">{all}</ul>")
}

/// A table; cells are HTML already.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = head.iter().map(|cell| format!("<th>{cell}</th>")).collect();
    let row = |row: &Vec<String>| {
        let cells: String = row.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr>{cells}</tr>")
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn versus(row: &IterationRow, opponent: &str) -> String {
    let found = row.evaluation.as_ref().and_then(|e| {
        e.head_to_head.iter().find(|h| h.opponent == opponent && h.referee == e.referee)
    });
    let Some(HeadToHead { win_rate, finding, .. }) = found else { return "-".to_owned() };
    let word = finding.as_ref().map(|finding| finding.verdict);
    let class = match word {
        Some(Verdict::Better) => " class=\"better\"",
        Some(Verdict::Worse) => " class=\"worse\"",
        Some(Verdict::Unproven) | None => "",
    };
    let word = word.map_or("", Verdict::as_str);
    let bounds = win_rate.bounds().map_or_else(String::new, |(low, high)| {
        format!(" [{:.1}, {:.1}]", low * 100.0, high * 100.0)
    });
    format!("{:.1} %{bounds} <span{class}>{word}</span>", win_rate.mean * 100.0)
}

/// What each iteration trained on, and what came of it.
fn models(report: &Report) -> String {
    let dash = || "-".to_owned();
    let mut rows = Vec::new();
    if let Some(base) = &report.base_quality {
        let score = format!("{:.2}", base.score.mean);
        let length = format!("{:.1}", base.length);
        let (m0, base) = ("M0".to_owned(), "the base".to_owned());
        rows.push(vec![m0, dash(), dash(), String::new(), score, length, base]);
    }
    for row in &report.iterations {
        let trained = match row.kind {
            IterationKind::Sft => "seed data".to_owned(),
            IterationKind::Dpo => format!("{} pairs of {} prompts", row.pairs, row.prompts),
        };
        let evaluation = row.evaluation.as_ref();
        rows.push(vec![
            format!("M{}", row.iteration),
            versus(row, "previous"),
            versus(row, "first"),
            outcome(row).to_owned(),
            evaluation.map_or_else(dash, |e| format!("{:.2}", e.score.mean)),
            evaluation.map_or_else(dash, |e| format!("{:.1}", e.length.mean)),
            trained,
        ]);
    }
    let by = report.iterations.iter().find_map(|row| row.evaluation.as_ref());
    let score = format!("score ({})", by.map_or("judge", |e| name(e.referee)));
    let (before, first) = ("wins against the one before", "wins against M1");
    let head = ["model", before, first, "", &score, "tokens", "trained on"];
    table(&head, &rows)
}

fn number(score: Option<f64>) -> String {
    score.map_or_else(|| "no score".to_owned(), |score| format!("{score:.2}"))
}

fn text(pieces: &[DiffPiece], mark: &str) -> String {
    let piece = |piece: &DiffPiece| match piece.shared {
        true => escape(&piece.text),
        false => format!("<{mark}>{}</{mark}>", escape(&piece.text)),
    };
    let all: String = pieces.iter().map(piece).collect();
    if all.trim().is_empty() { "<i>(nothing)</i>".to_owned() } else { all }
}

fn answer(title: &str, answer: &AnswerExample, mark: &str) -> String {
    let mut said = String::new();
    for verdict in &answer.verdicts {
        let why = verdict.reason.as_ref().map_or_else(String::new, |why| format!(", {why}"));
        let forced = if verdict.forced { ", forced" } else { "" };
        said.push_str(&format!(
            "{} judgment {}: {}{forced}{why}\n{}\n\n",
            verdict.rubric,
            verdict.sample + 1,
            number(verdict.score),
            verdict.text.trim()
        ));
    }
    let words = match said.is_empty() {
        true => String::new(),
        false => format!(
            "<details><summary>what the judge said</summary><pre>{}</pre></details>",
            escape(said.trim())
        ),
    };
    format!(
        "<div class=\"answer\"><h4>{}: {}</h4><p class=\"said\">{}</p>{words}</div>",
        escape(title),
        number(answer.score),
        text(&answer.pieces, mark)
    )
}

fn before_and_after(found: Option<&BeforeAfterExamples>) -> String {
    let Some(BeforeAfterExamples { before, after, referee, of, examples, .. }) = found else {
        return String::new();
    };
    let mut html = format!(
        "<h2>Answers before and after</h2><p class=\"note\">{} of {of} held-out prompts, which nothing was \
         trained on: at even distances from the one on which {after} lost most to the one on which it gained \
         most, by the {}'s scores. Marked is what the other answer does not have.</p>",
        examples.len(),
        name(*referee)
    );
    for one in examples {
        html.push_str(&format!(
            "<div class=\"example\"><div class=\"asked\">{}</div><div class=\"two\">{}{}</div></div>",
            escape(&one.asked),
            answer(before, &one.before, "del"),
            answer(after, &one.after, "ins")
        ));
    }
    html
}

fn pairs(evidence: &ReportEvidence) -> String {
    let Some(first) = evidence.pairs.first() else { return String::new() };
    let mut html = format!(
        "<h2>What it learned from</h2><p class=\"note\">{} of the {} pairs that M{} was trained on, chosen by the \
         model's own judgment: by the difference of their scores, at even distances from the least to the \
         greatest.</p>",
        evidence.pairs.len(),
        evidence.pairs_of,
        first.iteration
    );
    for one in &evidence.pairs {
        html.push_str(&format!(
            "<div class=\"example\"><div class=\"asked\">{}</div><div class=\"two\">{}{}</div></div>",
            escape(&one.asked),
            answer("chosen", &one.chosen, "ins"),
            answer("rejected", &one.rejected, "del")
        ));
    }
    html
}

fn judging(full: &FullReport, drawn: &[PlotFigure]) -> String {
    let FullReport { report, evidence, .. } = full;
    let mut html = "<h2>The judge</h2>".to_owned();
    let mut rows = Vec::new();
    for one in &evidence.scores {
        let answers = one.counts.iter().sum::<u32>() + one.without;
        let share =
            |n: u32, of: u32| format!("{:.1} %", 100.0 * f64::from(n) / f64::from(of.max(1)));
        rows.push(vec![
            format!("M{}", one.iteration),
            answers.to_string(),
            share(one.without, answers),
            share(one.ties, one.prompts),
        ]);
    }
    if !rows.is_empty() {
        let head = ["iteration", "answers", "without a score", "prompts whose answers tie"];
        html.push_str(&table(&head, &rows));
    }
    html.push_str("<div class=\"plots\">");
    html.extend(drawn.iter().filter(|figure| figure.id.ends_with("-histogram")).map(svg));
    html.push_str("</div>");
    let mut attacks = Vec::new();
    for row in &report.iterations {
        for one in &row.attacks {
            attacks.push(vec![
                format!("M{}", row.iteration),
                escape(super::judging::in_words(one.attack)),
                super::judging::works(one.result).to_owned(),
                escape(&one.gain.percent()),
                one.gain.n.to_string(),
            ]);
        }
    }
    if !attacks.is_empty() {
        let head = ["iteration", "attack", "does it pay?", "gain, of the scale", "answers"];
        html.push_str(&format!("<h3>Attacks on the judge</h3>{}", table(&head, &attacks)));
    }
    for (heading, note, text) in [
        (
            "How well each model judges",
            "Against a program that knows the truth, on the base's answers to held-out prompts.",
            judge_table(report),
        ),
        (
            "What judgments are worth",
            "Mass: how likely any score at all was where one was read. Entropy: how unsure the judge was, in \
             nats. Length r: whether longer answers to the same prompt get higher scores.",
            rubrics_table(report),
        ),
    ] {
        if !text.is_empty() {
            html.push_str(&format!(
                "<h3>{heading}</h3><p class=\"note\">{note}</p><div class=\"wide\"><pre class=\"notes\">{}</pre></div>",
                escape(&text)
            ));
        }
    }
    html
}

/// What the run is made of, and how to make this page again.
fn made(full: &FullReport) -> String {
    let FullReport { report, evidence, .. } = full;
    let about = &evidence.about;
    let mut rows: Vec<(&str, String)> = vec![("model", about.model.clone())];
    rows.extend(about.base_name.iter().map(|base| ("base", base.clone())));
    rows.extend(about.seed.map(|seed| ("seed", seed.to_string())));
    rows.extend(
        about
            .span_ms
            .map(|(first, last)| ("dates", format!("{} to {} (UTC)", date(first), date(last)))),
    );
    rows.push(("rubrics", about.rubrics.join(", ")));
    let settings = match about.settings.is_empty() {
        true => "as in the preset recommended".to_owned(),
        false => format!("otherwise than in the preset recommended: {}", about.settings.join("; ")),
    };
    rows.push(("settings", settings));
    rows.push((
        "weights",
        format!(
            "base {}, policy {}",
            report.base.as_deref().unwrap_or("none yet"),
            report.policy.as_deref().unwrap_or("none yet")
        ),
    ));
    rows.push(("log", format!("{} records", report.records)));
    rows.push(("made by", format!("{} (gradus {})", about.command, about.version)));
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value)))
        .collect();
    let missing: String = evidence
        .missing
        .iter()
        .map(|what| format!("<p class=\"note\">{}</p>", escape(what)))
        .collect();
    format!(
        "<h2>How it was made</h2><dl>{rows}</dl>{missing}<details><summary>every note, as the command line prints \
         it</summary><pre>{}</pre></details><details><summary>where the time went</summary><pre>{}</pre></details>",
        escape(&iterations_table(report)),
        escape(&time_table(report))
    )
}

/// `2026-11-28 14:03`, of milliseconds since 1970, in UTC (Hinnant's civil_from_days).
fn date(ms: u64) -> String {
    let minutes = ms / 60_000;
    let days = (minutes / 1440) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let minute = minutes % 1440;
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (ms, said) in [
            (0, "1970-01-01 00:00"),
            (951_782_400_000, "2000-02-29 00:00"),
            (1_764_000_000_000, "2025-11-24 16:00"),
            (1_795_871_040_000, "2026-11-28 13:04"),
        ] {
            assert_eq!(date(ms), said);
        }
    }
}
