//! The report as one HTML file that needs nothing else.

use super::plot::{Series, intervals, lines};
use super::table::name;
use super::{Report, iterations_table, judge_table, rubrics_table, time_table};
use crate::domain::evaluation::Referee;
use crate::domain::event::IterationKind;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;\
padding:0 1rem;color:#1a1a1a;background:#fff}h1{margin-bottom:0}h2{margin-top:2.2rem}\
pre{overflow-x:auto;background:#f5f5f2;padding:1rem;font:13px/1.5 ui-monospace,monospace}\
figure{margin:1rem 0}figcaption{font-weight:600}svg{width:100%;max-width:44rem;height:auto}\
polyline{fill:none;stroke-width:1.6}.grid{stroke:#ddd}.bar{stroke:#0072b2;stroke-width:3}\
circle{fill:#0072b2}text{font:12px system-ui,sans-serif;fill:#444}.end{text-anchor:end}\
.name{font-weight:600}.legend{margin:.2rem 0;font-size:14px}.plots{display:grid;\
grid-template-columns:repeat(auto-fit,minmax(26rem,1fr));gap:1rem}.note{color:#555}";

/// Text with what HTML would take for its own replaced.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page of a run. `title` is shown as text, whatever it holds; `sections` are further tables,
/// each with a heading.
pub fn page(title: &str, report: &Report, sections: &[(&str, String)]) -> String {
    let title = escape(title);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title} - gradus report</title><style>{STYLE}</style></head><body>\
         <h1>{title}</h1><p class=\"note\">From {} records of the log. Policy: {}. Base: {}.</p>",
        report.records,
        escape(report.policy.as_deref().unwrap_or("none yet")),
        escape(report.base.as_deref().unwrap_or("none yet")),
    );
    html.push_str("<h2>Iterations</h2>");
    html.push_str(&scores(report));
    html.push_str(&format!("<pre>{}</pre>", escape(&iterations_table(report))));
    let rubrics = rubrics_table(report);
    if !rubrics.is_empty() {
        html.push_str(&format!(
            "<h2>What judgments are worth</h2><p class=\"note\">Mass: how likely any score at all was \
             where one was read. Entropy: how unsure the judge was, in nats. Length r: whether longer \
             answers of the same prompt get higher scores.</p><pre>{}</pre>",
            escape(&rubrics)
        ));
    }
    let judge = judge_table(report);
    if !judge.is_empty() {
        html.push_str(&format!(
            "<h2>How well each model judges</h2><p class=\"note\">Against the oracle, on the \
             base's answers to held-out prompts.</p><pre>{}</pre>",
            escape(&judge)
        ));
    }
    for (heading, text) in sections {
        html.push_str(&format!("<h2>{}</h2><pre>{}</pre>", escape(heading), escape(text)));
    }
    html.push_str("<h2>Training</h2><div class=\"plots\">");
    html.push_str(&curves(report));
    html.push_str("</div><h2>Time</h2>");
    html.push_str(&format!("<pre>{}</pre></body></html>\n", escape(&time_table(report))));
    html
}

fn scores(report: &Report) -> String {
    let mut rows = Vec::new();
    if let Some(base) = &report.base_quality {
        let s = base.score;
        rows.push(("M0".to_owned(), s.mean, s.bounds()));
    }
    let mut by = name(Referee::Judge);
    for row in &report.iterations {
        if let Some(e) = &row.evaluation {
            let s = e.score;
            rows.push((format!("M{}", row.iteration), s.mean, s.bounds()));
            by = name(e.referee);
        }
    }
    intervals(&format!("Mean {by} score on held-out prompts, 95 % intervals"), &rows)
}

fn curves(report: &Report) -> String {
    let mut html = String::new();
    for row in &report.iterations {
        let n = row.iteration;
        let loss = [Series { name: "loss", values: &row.losses }];
        html.push_str(&lines(&format!("M{n}: loss"), "step", &loss));
        if row.kind == IterationKind::Dpo {
            let margin = [Series { name: "reward margin", values: &row.margins }];
            html.push_str(&lines(&format!("M{n}: reward margin"), "step", &margin));
        }
    }
    html
}
