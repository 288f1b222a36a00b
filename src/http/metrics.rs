//! FIGURES for Prometheus, in its text format 0.0.4: what a run does, what waits, how it is asked. Base
//! units, `_total` for what only grows, no ids among the labels.

use super::failure::Failure;
use super::state::HttpShared;
use crate::log::Health;
use crate::runtime::{Activity, Status};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Bounds of the histogram of how long requests take until their answer begins, seconds.
const BOUNDS: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

#[derive(Default)]
struct RouteFigures {
    /// By status.
    count: BTreeMap<u16, u64>,
    buckets: [u64; BOUNDS.len()],
    seconds: f64,
}

/// How the run is asked, by route.
#[derive(Default)]
pub(super) struct Requests(Mutex<BTreeMap<String, RouteFigures>>);

impl Requests {
    fn note(&self, route: &str, status: u16, seconds: f64) {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = routes.entry(route.to_owned()).or_default();
        *answered.count.entry(status).or_default() += 1;
        answered.seconds += seconds;
        for (bucket, bound) in answered.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
    }
}

/// Counts requests, and how long they wait for the beginning of their answer.
pub(super) async fn count(
    State(state): State<HttpShared>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let (route, began) = (route.to_owned(), Instant::now());
    let response = next.run(request).await;
    state.requests.note(&route, response.status().as_u16(), began.elapsed().as_secs_f64());
    response
}

/// Figures, one family after another.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> Family<'_> {
        let _ = writeln!(self.0, "# HELP gradus_{name} {help}\n# TYPE gradus_{name} {kind}");
        Family { page: &mut self.0, name: format!("gradus_{name}") }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help).row(&[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help).row(&[], value);
    }
}

struct Family<'a> {
    page: &'a mut String,
    name: String,
}

impl Family<'_> {
    fn row(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part("", labels, value);
    }

    fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let each: Vec<String> =
            labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let labels =
            if each.is_empty() { String::new() } else { format!("{{{}}}", each.join(",")) };
        let _ = writeln!(self.page, "{}{suffix}{labels} {value}", self.name);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All figures.
pub(super) async fn metrics(State(state): State<HttpShared>) -> Result<Response, Failure> {
    let status = state.handle.status().await?;
    let (waiting, drawing) = state.handle.answering()?;
    let mut page = Page::default();
    of_run(&mut page, &status);
    of_stages(&mut page, &status);
    page.gauge("answers_waiting", "Answers that wait for their first token.", waiting as f64);
    page.gauge("answers_drawing", "Answers that are being drawn.", drawing as f64);
    of_requests(&mut page, &state.requests);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, page.0).into_response())
}

fn of_run(page: &mut Page, status: &Status) {
    let version = env!("CARGO_PKG_VERSION");
    let labels = [("version", version), ("device", status.device.as_str())];
    page.family("build_info", "gauge", "What runs, and on what it computes.").row(&labels, 1.0);
    let policy = [("policy", status.policy.as_str())];
    page.family("policy_acting", "gauge", "The policy that acts.").row(&policy, 1.0);
    page.counter("iterations_total", "Iterations that are over.", f64::from(status.finished));
    page.gauge("iterations_wanted", "Iterations wanted in all.", f64::from(status.wanted));
    page.gauge(
        "prompts_waiting",
        "Prompts that wait to be answered.",
        status.prompts_waiting as f64,
    );
    page.counter("log_records_total", "Records of the log.", status.records as f64);
    let healthy = f64::from(u8::from(status.log == Health::Sound));
    page.gauge("log_writable", "Whether the log takes events.", healthy);
    let tokens = status.tokens_per_second.unwrap_or(0.0);
    page.gauge("loop_tokens_per_second", "Tokens that the loop draws a second.", tokens);
    let at = match status.activity {
        Activity::Working => "working",
        Activity::Paused => "paused",
        Activity::WaitingForPrompts { .. } => "waiting_for_prompts",
        Activity::Finished => "finished",
    };
    let mut family =
        page.family("activity", "gauge", "What the run is at: 1 for that, 0 for others.");
    for state in ["working", "paused", "waiting_for_prompts", "finished"] {
        family.row(&[("state", state)], f64::from(u8::from(state == at)));
    }
}

fn of_stages(page: &mut Page, status: &Status) {
    let mut family =
        page.family("stage_tasks_total", "counter", "Tasks of each stage, by how they ended.");
    for (stage, state) in &status.stages {
        family.row(&[("stage", stage), ("end", "recorded")], state.recorded as f64);
        family.row(&[("stage", stage), ("end", "failed")], state.failed as f64);
    }
    let mut family =
        page.family("stage_lag_records", "gauge", "Records that a stage has not looked at yet.");
    for (stage, state) in &status.stages {
        let lag = status.records.saturating_sub(state.next.0);
        family.row(&[("stage", stage)], lag as f64);
    }
    let mut family = page.family("stage_halted", "gauge", "Whether a stage waits for somebody.");
    for (stage, state) in &status.stages {
        family.row(&[("stage", stage)], f64::from(u8::from(state.halted.is_some())));
    }
    let mut family =
        page.family("stage_progress_ratio", "gauge", "How far a stage is in the open iteration.");
    for (stage, (done, total)) in &status.progress {
        family.row(&[("stage", stage)], *done as f64 / (*total).max(1) as f64);
    }
}

fn of_requests(page: &mut Page, requests: &Requests) {
    let routes = requests.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut family = page.family("http_requests_total", "counter", "Requests by route and status.");
    for (route, answered) in routes.iter() {
        for (status, count) in &answered.count {
            family.row(&[("route", route), ("status", &status.to_string())], *count as f64);
        }
    }
    let help = "Seconds until an answer begins.";
    let mut family = page.family("http_request_duration_seconds", "histogram", help);
    for (route, answered) in routes.iter() {
        let all: u64 = answered.count.values().sum();
        for (bound, count) in BOUNDS.iter().zip(answered.buckets) {
            family.part("_bucket", &[("route", route), ("le", &bound.to_string())], count as f64);
        }
        family.part("_bucket", &[("route", route), ("le", "+Inf")], all as f64);
        family.part("_sum", &[("route", route)], answered.seconds);
        family.part("_count", &[("route", route)], all as f64);
    }
}
