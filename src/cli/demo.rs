//! `gradus demo`: the whole loop on the embedded model, with its control arms.

use super::recipe::{RecipeScale, WorldOracle, new_run};
use super::{ExitStatus, arms, devices, drive, output, signals};
use gradus::lm::cancel::Cancel;
use gradus::report::{Report, iterations_table, judge_table, rubrics_table, time_table};
use gradus::runtime::{Folder, WaitOutcome};
use gradus::{Code, Error};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// The whole loop on an embedded tiny model.
#[derive(clap::Args)]
pub struct Arguments {
    /// Keep the run in this folder; a demo that is there already goes on.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Same stages, smaller numbers; shows that the loop turns, not that it gains.
    #[arg(long)]
    reduced: bool,
    /// Root of all randomness: same seed, same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    wish: devices::Wish,
    /// Leave the control arms out.
    #[arg(long)]
    no_arms: bool,
    /// A base from examples/pretrain_demo.rs instead of the embedded one.
    #[arg(long, hide = true)]
    base: Option<PathBuf>,
    /// Measure on the prompts the recipe was tuned on, instead of the reported ones.
    #[arg(long, hide = true)]
    tuning: bool,
}

#[derive(Serialize)]
struct DemoShown {
    seed: u64,
    reduced: bool,
    seconds: f64,
    peak_memory_mib: Option<f64>,
    self_judged: Report,
    random_judge: Option<Report>,
    oracle_judge: Option<Report>,
}

/// Deletes a folder that nobody asked to keep.
pub struct Temporary(Option<PathBuf>);

impl Temporary {
    /// The folder for a demo: the one that is to be kept, or one that goes in the end.
    pub fn or_kept(kept: Option<&PathBuf>) -> (Folder, Temporary) {
        let nobody = format!("gradus-demo-{}", std::process::id());
        let dir = kept.cloned().unwrap_or_else(|| std::env::temp_dir().join(nobody));
        (Folder::at(dir.clone()), Temporary(kept.is_none().then_some(dir)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let began = Instant::now();
    let kept = arguments.dir.clone();
    let (folder, _temporary) = Temporary::or_kept(kept.as_ref());
    let stop = signals::stop_flag()?;
    prepare(arguments, &folder)?;
    let oracle = Some(Arc::new(WorldOracle) as Arc<_>);
    let instead = drive::Instead { wish: arguments.wish, ..drive::Instead::default() };
    let (outcome, view) = drive::work(&folder, "", instead.clone(), oracle, &stop)?;
    let mut shown = DemoShown {
        seed: arguments.seed,
        reduced: arguments.reduced,
        seconds: 0.0,
        peak_memory_mib: None,
        self_judged: Report::of(&view),
        random_judge: None,
        oracle_judge: None,
    };
    let mut last = End { outcome, folder: folder.clone(), over: view.finished() };
    if last.outcome == WaitOutcome::Reached && !arguments.no_arms {
        last = run_arms(&folder, &mut shown, instead, &stop)?;
    }
    shown.seconds = began.elapsed().as_secs_f64();
    shown.peak_memory_mib = peak_memory_mib();
    if last.outcome != WaitOutcome::Reached {
        return last.told(kept.is_some());
    }
    if arguments.json {
        output::json(&shown)?
    } else {
        output::text(&render(&shown, &folder, arguments))?
    }
    Ok(ExitStatus::Done)
}

/// Where the demo ended before it was through.
struct End {
    outcome: WaitOutcome,
    /// The run's folder, or an arm's.
    folder: Folder,
    /// Iterations of that which are over.
    over: u32,
}

impl End {
    fn told(&self, kept: bool) -> Result<ExitStatus, Error> {
        let nothing = "nothing is kept (use --dir DIR to be able to go on)";
        if self.outcome == WaitOutcome::Stopped && !kept {
            eprintln!("stopped; {nothing}");
            return Ok(ExitStatus::Stopped);
        }
        match drive::finish(&self.outcome, &self.folder, self.over) {
            Ok(status) => {
                eprintln!("or with the same command");
                Ok(status)
            }
            Err(error) if kept => Err(error),
            Err(error) => {
                Err(Error::halted(Code::IterationFailed, format!("{error}. But {nothing}")))
            }
        }
    }
}

fn prepare(arguments: &Arguments, folder: &Folder) -> Result<(), Error> {
    let scale = RecipeScale { reduced: arguments.reduced, tuning: arguments.tuning };
    laid_out(folder, arguments.seed, scale, arguments.base.as_deref())
}

/// Lays the demo out in a folder, or finds that it is there.
///
/// # Errors
/// When another demo is.
pub fn laid_out(
    folder: &Folder,
    seed: u64,
    scale: RecipeScale,
    base: Option<&std::path::Path>,
) -> Result<(), Error> {
    let started = folder.holds_run() && drive::known(folder)?.seed.is_some();
    if !started {
        return folder.create(&new_run(seed, scale, base)?);
    }
    let wanted = super::recipe::config(seed, scale)?;
    let found = gradus::config::Config::from_yaml(&folder.config())?;
    if found.seed == wanted.seed && found.prompts.per_iteration == wanted.prompts.per_iteration {
        return Ok(());
    }
    Err(Error::refused(
        Code::DemoDiffers,
        format!(
            "{} holds a demo with seed {} and other settings; give its seed, or another --dir",
            folder.path().display(),
            found.seed
        ),
    ))
}

fn run_arms(
    folder: &Folder,
    shown: &mut DemoShown,
    instead: drive::Instead,
    stop: &Cancel,
) -> Result<End, Error> {
    let mut end = End { outcome: WaitOutcome::Reached, folder: folder.clone(), over: 0 };
    for (name, source) in arms::ARMS {
        let (outcome, view) = arms::run(folder, (name, source), instead.clone(), stop)?;
        let slot = if name == "random" { &mut shown.random_judge } else { &mut shown.oracle_judge };
        *slot = Some(Report::of(&view));
        end = End { outcome, folder: arms::folder(folder, name), over: view.finished() };
        if end.outcome != WaitOutcome::Reached {
            break;
        }
    }
    Ok(end)
}

fn render(shown: &DemoShown, folder: &Folder, arguments: &Arguments) -> String {
    let mut text = format!(
        "Self-judged, seed {}: the loop's own judge chose every pair.\n{}\n{}\n{}",
        shown.seed,
        iterations_table(&shown.self_judged),
        rubrics_table(&shown.self_judged),
        judge_table(&shown.self_judged)
    );
    let arms = [
        (
            "Control, random judge: the same from M1 on, each prompt's scores permuted among its answers.",
            &shown.random_judge,
        ),
        ("Control, oracle judge: the same from M1 on, pairs by the truth.", &shown.oracle_judge),
    ];
    for (title, report) in arms {
        if let Some(report) = report {
            text.push_str(&format!("\n{title}\n{}", iterations_table(report)));
        }
    }
    text.push_str(&format!("\n{}", time_table(&shown.self_judged)));
    let peak = shown.peak_memory_mib.map_or(String::new(), |m| format!(", {m:.0} MiB at most"));
    text.push_str(&format!("\n{:.0} s in all{peak}.\n", shown.seconds));
    if arguments.reduced {
        text.push_str("Reduced: it shows that the loop turns, not that it gains.\n");
    }
    if arguments.dir.is_some() {
        let dir = folder.path().display();
        text.push_str(&format!("Look closer: gradus report {dir}; gradus log show {dir}\n"));
    }
    text
}

/// Most memory this process ever held, where the system says.
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
