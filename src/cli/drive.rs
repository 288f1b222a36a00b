//! `gradus run`, and what every verb that works on a run shares: start, watch, stop.

use super::screen::Screen;
use super::{ExitStatus, devices, hints, notify, output, signals};
use gradus::lm::cancel::Cancel;
use gradus::report::{Report, iterations_table, judge_table, rubrics_table, time_table};
use gradus::runtime::{FailedIteration, Folder, Goal, Runtime, WaitOutcome, fold};
use gradus::stage::Oracle;
use gradus::view::RunView;
use gradus::{Code, Error};
use std::path::PathBuf;
use std::sync::Arc;

/// Go on with a run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    dir: PathBuf,
    #[command(flatten)]
    instead: Instead,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// What is wanted instead of what the settings say.
#[derive(clap::Args, Clone, Default)]
pub struct Instead {
    /// Iterations in all, instead of what gradus.yaml says.
    #[arg(long)]
    pub iterations: Option<u32>,
    /// Change a setting for as long as this process works: train.dpo.beta=0.2. It is recorded as one in
    /// gradus.yaml is, and counts from the next iteration on.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub wish: devices::Wish,
}

/// Works until the goal or a signal; gives what is known then.
pub fn work(
    folder: &Folder,
    label: &str,
    instead: Instead,
    oracle: Option<Arc<dyn Oracle>>,
    stop: &Cancel,
) -> Result<(WaitOutcome, RunView), Error> {
    let screen = Arc::new(Screen::new(label));
    let runtime = started(folder, &screen, instead, oracle, label.is_empty())?;
    // Who says run means go on.
    let handle = runtime.handle();
    if handle.view()?.paused {
        handle.resume_blocking()?;
    }
    notify::ready();
    let outcome = runtime.wait_blocking(Goal::Iterations, stop, |view| screen.tick(view, &runtime));
    notify::stopping();
    let view = handle.history();
    // A signal does not wait for a computation that looks at its flag too seldom.
    drop(runtime);
    screen.close();
    Ok((outcome?, view?))
}

/// Starts a run, and says what of it is not as one may think; `alone`: not for a run and its arms.
pub fn started(
    folder: &Folder,
    screen: &Arc<Screen>,
    instead: Instead,
    oracle: Option<Arc<dyn Oracle>>,
    alone: bool,
) -> Result<Runtime, Error> {
    let mut builder = Runtime::builder(folder.path()).gauge(screen.clone());
    if let Some(iterations) = instead.iterations {
        builder = builder.iterations(iterations);
    }
    if let Some(device) = instead.wish.device {
        builder = builder.device(device);
    }
    builder = builder.settings(instead.set);
    if let Some(oracle) = oracle {
        builder = builder.oracle(oracle);
    }
    if let Some(writer) = super::recipe::writer_of(folder) {
        builder = builder.prompt_writer(writer);
    }
    let runtime = builder.start_blocking()?;
    if alone {
        devices::say(runtime.device());
    }
    if let Some(change) = runtime.held_out_change() {
        eprintln!("held out: {change}");
    }
    if let Some(to_come) = runtime.settings_to_come() {
        eprintln!("settings: {to_come}");
    }
    Ok(runtime)
}

/// What is known of a run, also while a process works on it.
pub fn known(folder: &Folder) -> Result<RunView, Error> {
    fold(&folder.read_log()?)
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let folder = Folder::at(&arguments.dir);
    let stop = signals::stop_flag()?;
    let oracle = super::recipe::oracle_of(&folder);
    let instead = arguments.instead.clone();
    let (outcome, view) = work(&folder, "", instead, oracle, &stop)?;
    let report = Report::of(&view);
    if arguments.json {
        output::json(&report)?;
    } else {
        let table = iterations_table(&report);
        output::text(&table)?;
        if outcome == WaitOutcome::Reached {
            // Else the error has the hint.
            eprint!("{}", hints::of(&table, Some(folder.path())));
        }
        for table in [rubrics_table(&report), judge_table(&report)] {
            if !table.is_empty() {
                output::text(&format!("\n{table}"))?;
            }
        }
        output::text(&format!("\n{}", time_table(&report)))?;
    }
    finish(&outcome, &folder, view.finished())
}

/// Says how the work ended, in a folder of which so many iterations are over.
pub fn finish(outcome: &WaitOutcome, folder: &Folder, over: u32) -> Result<ExitStatus, Error> {
    let dir = folder.path().display();
    let halted = |code: Code, why: String| Err(Error::halted(code, why));
    match outcome {
        WaitOutcome::Reached => Ok(ExitStatus::Done),
        WaitOutcome::Stopped => {
            eprintln!("stopped; go on with: gradus run {dir}");
            Ok(ExitStatus::Stopped)
        }
        WaitOutcome::Paused { reason } => {
            halted(Code::RunPaused, format!("the run pauses (pairs.on_no_signal: pause): {reason}"))
        }
        WaitOutcome::Failed(failed) => halted(
            Code::IterationFailed,
            format!(
                "the run stops (on_failure: stop): {}. The policy from before stays. Mend the \
                 cause, and go on with: gradus run {dir} (an iteration that failed counts as one: if \
                 none is left, gradus run {dir} --iterations {})",
                told(failed),
                over + 1
            ),
        ),
        WaitOutcome::ReachedWithFailures(failed) => {
            let each: Vec<String> = failed.iter().map(told).collect();
            halted(
                Code::IterationFailed,
                format!(
                    "the iterations are over, and not all were done: {}. The policy from before \
                     stayed. Mend the cause, and let the run have more: gradus run {dir} \
                     --iterations {}",
                    each.join("; "),
                    over + 1
                ),
            )
        }
        WaitOutcome::Halted { stage, reason } => {
            halted(Code::StageHalted, format!("the {stage} failed again and again: {reason}"))
        }
        WaitOutcome::Lost(reason) => {
            halted(Code::RunLost, format!("the run stops: {reason}. What was recorded is safe"))
        }
        WaitOutcome::OutOfPrompts { over } => halted(
            Code::NoPromptLeft,
            format!(
                "no prompt is left that was not answered; {over} iterations are over. Add some (gradus \
                 prompts add {dir} FILE), let the policy write them (prompts.generate: true), answer \
                 them again (prompts.reuse: when_empty), or have the run wait for them \
                 (prompts.wait_for: 1), and go on with: gradus run {dir}"
            ),
        ),
        other => {
            halted(Code::Defect, format!("the run ended, and why is not known here: {other:?}"))
        }
    }
}

fn told(FailedIteration { iteration, reason }: &FailedIteration) -> String {
    format!("iteration {iteration} failed: {reason}")
}
