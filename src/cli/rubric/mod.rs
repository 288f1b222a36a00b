//! `gradus rubric`: write a rubric, try it, and change which ones judge, also while a run works.

mod author;
mod build;
mod taint;

use super::{ExitStatus, output};
use gradus::domain::{Panel, When};
use gradus::rubric::{RubricInfo, bundled};
use gradus::runtime::rubrics::{Again, RubricRow, RubricWanted, find};
use gradus::runtime::{Answer, Command, Component, Folder, socket};
use gradus::view::RunView;
use gradus::{Code, Error};
use std::path::{Path, PathBuf};

/// Write rubrics, try them, and change which ones judge.
#[derive(clap::Subcommand)]
pub enum RubricVerb {
    /// Begin a rubric of your own: a folder with a working one to change.
    New(author::New),
    /// Build the component of a rubric's folder.
    Build(build::Build),
    /// Try a component: golden cases, the same twice, hostile inputs.
    Test(author::Test),
    /// A run's rubrics and which of them judge; without a run, those that come with gradus.
    List(List),
    /// What a rubric says of itself and asks.
    Show(author::ShowRubric),
    /// Check a component and keep it with a run. It judges once it is activated.
    Install(Install),
    /// Let one or several installed rubrics judge, in the place of those that do.
    Activate(Activate),
    /// Put the rubrics back that judged before, at once, or one rubric away: what it judged in the
    /// open iteration is judged again.
    Rollback(Rollback),
    /// Let installed rubrics judge beside those that do, counting for nothing: to see what they
    /// would do.
    Shadow(Shadow),
    /// Compare two rubrics on the completions of a run: pairs, ties, ranks, length.
    Diff(super::rejudge::Diff),
    /// What a rubric touched in a run: judgments, pairs, models; and the run from before it.
    Taint(taint::Arguments),
}

/// Which run.
#[derive(clap::Args)]
pub struct List {
    /// The run's folder.
    dir: Option<PathBuf>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// What to install.
#[derive(clap::Args)]
pub struct Install {
    /// The run's folder.
    dir: PathBuf,
    /// A component (.wasm), or the name of a bundled rubric.
    rubric: String,
    /// Print what was installed as JSON.
    #[arg(long)]
    json: bool,
}

/// What to activate.
#[derive(clap::Args)]
pub struct Activate {
    /// The run's folder.
    dir: PathBuf,
    /// Installed rubrics: NAME, NAME@VERSION or the beginning of a hash, each with an optional
    /// weight and tags: NAME*2, NAME:math,code, NAME*0.5:math. One without tags judges every prompt
    /// that no other is for.
    #[arg(required = true)]
    rubrics: Vec<String>,
    /// From when on: immediately (the open iteration's prompts that are not judged yet, too) or
    /// next-iteration.
    #[arg(long, default_value = "next-iteration", value_parser = when)]
    when: When,
    /// Also a rubric that was rolled back.
    #[arg(long)]
    again: bool,
    /// Only if this is what judges: the beginning of its hash; of several with commas between.
    #[arg(long, value_name = "HASH")]
    if_current: Option<String>,
    /// Print the new panel as JSON.
    #[arg(long)]
    json: bool,
}

/// What to let run beside.
#[derive(clap::Args)]
pub struct Shadow {
    /// The run's folder.
    dir: PathBuf,
    /// Installed rubrics: NAME, NAME@VERSION or the beginning of a hash. None: nobody any more.
    rubrics: Vec<String>,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

/// What to undo.
#[derive(clap::Args)]
pub struct Rollback {
    /// The run's folder.
    dir: PathBuf,
    /// A rubric that judges, to be retired: NAME, NAME@VERSION or the beginning of its hash.
    /// None: all that the last activation brought.
    rubric: Option<String>,
    /// Why, for the record.
    #[arg(long, default_value = "a person said so")]
    reason: String,
    /// Print the panel as JSON.
    #[arg(long)]
    json: bool,
}

fn when(text: &str) -> Result<When, String> {
    match text {
        "immediately" => Ok(When::Immediately),
        "next-iteration" => Ok(When::NextIteration),
        _ => Err("immediately or next-iteration".to_owned()),
    }
}

/// Reads `NAME*WEIGHT:TAG,TAG`.
fn wanted(text: &str) -> Result<RubricWanted, Error> {
    let (head, tags) = text.split_once(':').unwrap_or((text, ""));
    let (name, weight) = head.split_once('*').unwrap_or((head, "1"));
    let weight = weight.parse().map_err(|_| {
        Error::refused(
            Code::RubricArgument,
            format!("{text:?}: {weight:?} is no weight; write NAME*2 or NAME*0.5:math"),
        )
    })?;
    let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    Ok(RubricWanted { rubric: name.to_owned(), weight, tags: tags.map(str::to_owned).collect() })
}

/// Runs the verb.
pub fn run(verb: &RubricVerb) -> Result<ExitStatus, Error> {
    match verb {
        RubricVerb::New(arguments) => author::new(arguments),
        RubricVerb::Build(arguments) => build::run(arguments),
        RubricVerb::Test(arguments) => author::test(arguments),
        RubricVerb::List(arguments) => list(arguments),
        RubricVerb::Show(arguments) => author::show(arguments),
        RubricVerb::Install(arguments) => install(arguments),
        RubricVerb::Activate(arguments) => activate(arguments),
        RubricVerb::Rollback(arguments) => rollback(arguments),
        RubricVerb::Shadow(arguments) => shadow(arguments),
        RubricVerb::Diff(arguments) => super::rejudge::diff(arguments),
        RubricVerb::Taint(arguments) => taint::run(arguments),
    }?;
    Ok(ExitStatus::Done)
}

/// The bytes of a component that a person names: a file, or a bundled rubric.
pub(super) fn component(named: &str) -> Result<Vec<u8>, Error> {
    if let Some((_, bytes)) = bundled::ALL.iter().find(|(name, _)| *name == named) {
        return Ok(bytes.to_vec());
    }
    std::fs::read(named).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let names: Vec<&str> = bundled::ALL.iter().map(|(name, _)| *name).collect();
            Error::refused(
                Code::RubricArgument,
                format!("{named} is neither a file nor a bundled rubric ({})", names.join(", ")),
            )
        }
        _ => Error::io(named, error),
    })
}

fn install(arguments: &Install) -> Result<(), Error> {
    let folder = Folder::at(&arguments.dir);
    let bytes = component(&arguments.rubric)?;
    let command = Command::InstallRubric { component: Component(bytes) };
    let answer = socket::command(&folder, command)?;
    if arguments.json {
        return output::json(&answer);
    }
    let Answer::Installed(installed) = answer else { return Ok(()) };
    let (dir, name) = (arguments.dir.display(), &installed.name);
    output::text(&format!(
        "{} {name}@{} ({})\nnext: gradus rubric activate {dir} {name}\n",
        if installed.known { "was installed before:" } else { "installed" },
        installed.version,
        installed.rubric.short(),
    ))
}

fn activate(arguments: &Activate) -> Result<(), Error> {
    let wanted = arguments.rubrics.iter().map(|text| wanted(text)).collect::<Result<_, _>>()?;
    let again = if arguments.again { Again::Allow } else { Again::Refuse };
    let (when, if_current) = (arguments.when, arguments.if_current.clone());
    let command = Command::ActivateRubrics { wanted, when, again, if_current };
    let answer = socket::command(&Folder::at(&arguments.dir), command)?;
    report(&arguments.dir, &answer, arguments.json)
}

fn rollback(arguments: &Rollback) -> Result<(), Error> {
    let (rubric, reason) = (arguments.rubric.clone(), arguments.reason.clone());
    let command = Command::RollBackRubric { rubric, reason };
    let answer = socket::command(&Folder::at(&arguments.dir), command)?;
    report(&arguments.dir, &answer, arguments.json)
}

fn shadow(arguments: &Shadow) -> Result<(), Error> {
    let folder = Folder::at(&arguments.dir);
    let command = Command::ShadowRubrics { rubrics: arguments.rubrics.clone() };
    let answer = socket::command(&folder, command)?;
    if arguments.json {
        return output::json(&answer);
    }
    let Answer::Shadowed { rubrics } = answer else { return Ok(()) };
    if rubrics.is_empty() {
        return output::text("nobody judges beside the panel any more\n");
    }
    let names: Vec<String> = rubrics.iter().map(|id| id.short().to_owned()).collect();
    let verb = if names.len() == 1 { "judges" } else { "judge" };
    let (names, dir) = (names.join(", "), arguments.dir.display());
    output::text(&format!(
        "{names} {verb} beside the panel from the open iteration on\n\
         compare them later: gradus rubric diff {dir} A B\n"
    ))
}

fn report(dir: &Path, answer: &Answer, json: bool) -> Result<(), Error> {
    if json {
        return output::json(answer);
    }
    let Answer::Activated(done) = answer else { return Ok(()) };
    let view = super::drive::known(&Folder::at(dir))?;
    let from = match done.when {
        When::Immediately => "from the next judgment on",
        When::NextIteration => "from the next iteration on",
    };
    output::text(&format!("{} judges {from}\n", panel_line(&view, &done.panel)))
}

/// `name@version*weight:tags, ...`
fn panel_line(view: &RunView, panel: &Panel) -> String {
    let member = |member: &gradus::domain::PanelMember| {
        let facts = view.rubrics.installed.get(&member.rubric);
        let mut text = facts.map_or_else(
            || member.rubric.short().to_owned(),
            |facts| format!("{}@{}", facts.name, facts.version),
        );
        if member.weight != 1.0 {
            text.push_str(&format!("*{}", member.weight));
        }
        if !member.tags.is_empty() {
            text.push_str(&format!(":{}", member.tags.join(",")));
        }
        text
    };
    panel.members().iter().map(member).collect::<Vec<_>>().join(", ")
}

fn list(arguments: &List) -> Result<(), Error> {
    let Some(dir) = &arguments.dir else { return list_bundled(arguments.json) };
    let view = super::drive::known(&Folder::at(dir))?;
    let rows: Vec<RubricRow> = view
        .rubrics
        .installed
        .iter()
        .map(|(id, facts)| RubricRow::of(&view, id, facts, None))
        .collect();
    if arguments.json {
        return output::json(&rows);
    }
    let mut text = String::new();
    for row in &rows {
        let state = match (&row.weight, &row.retired) {
            (Some(weight), _) if row.tags.is_empty() => format!("judges, weight {weight}"),
            (Some(weight), _) => {
                format!("judges {}, weight {weight}", row.tags.join(", "))
            }
            (None, _) if row.shadow => "judges beside the panel, counts for nothing".to_owned(),
            (None, Some(reason)) => format!("rolled back: {reason}"),
            (None, None) => String::new(),
        };
        let name = format!("{}@{}", row.name, row.version);
        text.push_str(&format!("{}  {name:<24} {state}", row.rubric.short()));
        if let Some(left) = row.on_trial {
            text.push_str(&format!("; on trial for {left} prompts more"));
        }
        if let Some(reason) = &row.failing {
            text.push_str(&format!("; FAILS, and nobody judged before it: {reason}"));
        }
        if row.trapped_prompts > 0 {
            text.push_str(&format!("; trapped at {} prompts", row.trapped_prompts));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    output::text(&text)
}

fn list_bundled(json: bool) -> Result<(), Error> {
    let engine = gradus::rubric::RubricEngine::new()?;
    let mut infos: Vec<RubricInfo> = Vec::new();
    for (_, bytes) in bundled::ALL {
        infos.push(gradus::rubric::Rubric::load_untried(&engine, bytes)?.info().clone());
    }
    if json {
        return output::json(&infos);
    }
    let line = |i: &RubricInfo| format!("{:<14} {:<7} {}\n", i.name, i.version, i.description);
    output::text(&infos.iter().map(line).collect::<String>())
}

/// The component that a person means: of a run when a folder is given, else a file or a bundled
/// one.
fn named(dir: Option<&Path>, rubric: &str) -> Result<Vec<u8>, Error> {
    let Some(dir) = dir else { return component(rubric) };
    let folder = Folder::at(dir);
    let id = find(&super::drive::known(&folder)?, rubric)?;
    folder.component(&id)
}
