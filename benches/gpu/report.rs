//! The document, line by line: what was measured, what failed and why, what there was no time for.
//! One that fails takes nothing else with it, and what was measured is on disk at once.

use crate::Failure;
use gradus::lm::cancel::Cancel;
use serde_json::{Map, Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a measurement begins with is never foretold well; so many seconds on top.
const SPARE_SECONDS: f64 = 2.0;

/// All that is known so far.
pub struct Report {
    head: Map<String, Value>,
    results: Vec<Value>,
    to: Option<PathBuf>,
    began: Instant,
    budget: Duration,
    cancel: Cancel,
}

impl Report {
    /// Begins; after `budget` whatever is measured then is stopped.
    pub fn new(head: Value, to: Option<PathBuf>, budget: Duration) -> Report {
        let cancel = Cancel::default();
        let stopped = cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(budget);
            stopped.cancel();
        });
        let head = head.as_object().cloned().unwrap_or_default();
        Report { head, results: Vec::new(), to, began: Instant::now(), budget, cancel }
    }

    /// Adds to the document's head.
    pub fn note(&mut self, key: &str, value: Value) {
        self.head.insert(key.to_owned(), value);
    }

    /// A line that names what it is (`of`), and its figures, or why there are none. `about` is how
    /// many seconds it may take, as far as that can be foretold.
    pub fn measure(
        &mut self,
        of: Value,
        about: f64,
        work: impl FnOnce(&Cancel) -> Result<Outcome, Failure>,
    ) {
        let left = self.budget.saturating_sub(self.began.elapsed()).as_secs_f64();
        let began = Instant::now();
        let figures = if about + SPARE_SECONDS > left {
            let wants =
                format!("{:.0} s are foretold, {left:.0} s are left", about + SPARE_SECONDS);
            json!({"skipped": wants})
        } else {
            let cancel = self.cancel.child();
            match catch_unwind(AssertUnwindSafe(|| work(&cancel))) {
                Ok(Ok(Outcome::Figures(figures))) => figures,
                Ok(Ok(Outcome::Skipped(why))) => json!({"skipped": why}),
                Ok(Err(_)) if self.cancel.is_cancelled() => {
                    json!({"skipped": format!("was not done in {left:.0} s that were left")})
                }
                Ok(Err(why)) => json!({"failed": why.to_string()}),
                Err(panic) => json!({"failed": format!("a panic: {}", words(&*panic))}),
            }
        };
        let mut line = of.as_object().cloned().unwrap_or_default();
        line.extend(figures.as_object().cloned().unwrap_or_default());
        line.insert("took_s".to_owned(), json!(began.elapsed().as_secs_f64()));
        eprintln!("{}", Value::Object(line.clone()));
        self.results.push(Value::Object(line));
        self.keep();
    }

    /// The whole of it.
    pub fn document(&self) -> Value {
        let mut document = self.head.clone();
        document.insert("seconds".to_owned(), json!(self.began.elapsed().as_secs_f64()));
        document.insert("results".to_owned(), json!(self.results));
        Value::Object(document)
    }

    /// Writes it: a program that is killed later has not worked for nothing.
    pub fn keep(&self) {
        if let Some(path) = &self.to
            && let Err(error) = std::fs::write(path, format!("{:#}\n", self.document()))
        {
            eprintln!("gpu-bench: {}: {error}", path.display());
        }
    }
}

/// What a measurement came to.
pub enum Outcome {
    Figures(Value),
    /// Not tried, and why.
    Skipped(String),
}

/// What a panic said.
pub fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_takes_nothing_with_it() {
        let mut report = Report::new(json!({"a": 1}), None, Duration::from_secs(60));
        report.measure(json!({"what": "fails"}), 0.0, |_| Err("no room".into()));
        report.measure(json!({"what": "panics"}), 0.0, |_| panic!("a {}", "stretch"));
        report.measure(json!({"what": "long"}), 100.0, |_| panic!("is not begun"));
        let figures = |_: &Cancel| Ok(Outcome::Figures(json!({"x": 3})));
        report.measure(json!({"what": "works"}), 0.0, figures);
        let document = report.document();
        let results = document["results"].as_array().unwrap();
        assert_eq!(results[0]["failed"], "no room");
        assert_eq!(results[1]["failed"], "a panic: a stretch");
        assert!(results[2]["skipped"].as_str().unwrap().starts_with("102 s are foretold"));
        assert_eq!((&results[3]["what"], &results[3]["x"]), (&json!("works"), &json!(3)));
        assert_eq!(document["a"], 1);
    }

    #[test]
    fn what_is_not_done_in_time_is_stopped() {
        let mut report = Report::new(json!({}), None, Duration::from_millis(2200));
        report.measure(json!({}), 0.0, |cancel| {
            loop {
                std::thread::sleep(Duration::from_millis(10));
                cancel.check()?;
            }
        });
        let document = report.document();
        assert!(document["results"][0]["skipped"].as_str().unwrap().starts_with("was not done"));
    }
}
