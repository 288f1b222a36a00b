//! `gradus rubric taint`: what a bad rubric touched, and the run without it.

use crate::cli::output;
use crate::cli::rejudge::past;
use gradus::Error;
use gradus::lm::device::DeviceChoice;
use gradus::rejudge::{Taint, TaintedIteration};
use gradus::runtime::Folder;
use std::path::PathBuf;

/// What to look for.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    dir: PathBuf,
    /// The beginning of the rubric's hash, its name, or NAME@VERSION.
    rubric: String,
    /// Begin another run in this folder, which is empty or not there yet: this one from before the rubric's first judgment.
    #[arg(long, value_name = "DIR")]
    rebuild: Option<PathBuf>,
    /// What judges there: an installed rubric, a component (.wasm), or the name of a bundled one.
    /// Default: what judged before.
    #[arg(long = "rubric", value_name = "RUBRIC", requires = "rebuild")]
    instead: Option<String>,
    /// Print it as JSON, with every judgment's record and every pair.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    // No model is asked anything.
    let mut past = past(&arguments.dir, 1, Some(DeviceChoice::Cpu))?;
    let taint = past.taint(&past.installed(&arguments.rubric)?)?;
    arguments.rebuild.as_ref().map_or(Ok(()), |to| past.may_begin(&Folder::at(to)))?;
    if arguments.json {
        output::json(&taint)?;
    } else {
        output::text(&text(&taint))?;
    }
    let Some(to) = &arguments.rebuild else { return Ok(()) };
    let instead = arguments.instead.as_ref().map(|named| past.meant(named)).transpose()?;
    let iteration = past.begin_before(&taint, instead.as_ref(), &Folder::at(to))?;
    let to = to.display();
    eprintln!(
        "{to} is this run before its iteration {iteration} was judged; go on: gradus run {to}"
    );
    Ok(())
}

fn text(taint: &Taint) -> String {
    let Taint { name, version, rubric, .. } = taint;
    let mut text = format!("{name}@{version} ({})", rubric.short());
    let taken_back = match taint.taken_back {
        0 => String::new(),
        1 => "1 prompt that it judged was judged again after it was rolled back\n".to_owned(),
        n => format!("{n} prompts that it judged were judged again after it was rolled back\n"),
    };
    if taint.iterations.is_empty() {
        text.push_str(&format!(" touched nothing\n{taken_back}"));
        return text;
    }
    text.push_str(" touched:\n");
    for one in &taint.iterations {
        text.push_str(&format!("  iteration {}: {}\n", one.iteration, line(one)));
    }
    let models = taint.iterations.iter().filter(|one| one.checkpoint.is_some()).count();
    text.push_str(&match (models, taint.acting) {
        (0, _) => "no model was trained on its pairs\n".to_owned(),
        (models, true) => format!("{models} models come of it; one of them acts now\n"),
        (models, false) => format!("{models} models come of it; none of them acts now\n"),
    });
    text.push_str(&taken_back);
    if taint.judges {
        text.push_str("it judges now: gradus rubric rollback puts the one before it back\n");
    }
    text
}

fn line(one: &TaintedIteration) -> String {
    let mut parts = Vec::new();
    if !one.prompts.is_empty() {
        let (prompts, judgments) = (one.prompts.len(), one.judgments);
        let (pairs, trained) = (one.pairs, one.trained);
        parts.push(format!("{judgments} judgments of {prompts} prompts"));
        parts.push(format!("{pairs} pairs, {trained} of them trained on"));
    }
    if one.measured {
        parts.push("its evaluation".to_owned());
    }
    if one.inherited {
        parts.push("everything, by a policy trained on its pairs".to_owned());
    }
    if let Some(checkpoint) = &one.checkpoint {
        let promoted = if one.promoted { "promoted" } else { "not promoted" };
        parts.push(format!("model {} ({promoted})", checkpoint.short()));
    }
    parts.join("; ")
}
