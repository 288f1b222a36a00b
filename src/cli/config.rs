//! `gradus config`: what settings there are, and what a run has set.

use super::{ExitStatus, output};
use gradus::Error;
use gradus::config::{Config, SettingInfo, ValueKind, differences, schema, settings_page};
use gradus::domain::plan::SettingChange;
use gradus::runtime::{Folder, SettingsToCome};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

/// What settings there are, and what a run has set.
#[derive(clap::Subcommand)]
pub enum ConfigVerb {
    /// What a setting means, what it takes, what it is by default; without one, all of them.
    Explain(Explain),
    /// A JSON Schema of gradus.yaml, for editors that check and complete it.
    Schema,
    /// What a run has set otherwise than a preset, and what of that no iteration has yet.
    Diff(PresetDiff),
}

/// A setting.
#[derive(clap::Args)]
pub struct Explain {
    /// The setting or group: train.dpo.beta, train.
    key: Option<String>,
    /// A run's folder: what it has set is shown too.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// Print the page of all settings (docs/settings.md).
    #[arg(long, conflicts_with_all = ["key", "json", "run"])]
    markdown: bool,
}

/// A run beside a preset.
#[derive(clap::Args)]
pub struct PresetDiff {
    /// The run's folder.
    dir: PathBuf,
    /// Beside which preset: recommended, paper, tiny, verifiable or demo.
    #[arg(long, default_value = "recommended")]
    preset: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ConfigDiff {
    preset: String,
    otherwise: Vec<SettingChange>,
    to_come: Option<SettingsToCome>,
}

/// Runs the verb.
pub fn run(verb: &ConfigVerb) -> Result<ExitStatus, Error> {
    match verb {
        ConfigVerb::Explain(arguments) => explain(arguments)?,
        ConfigVerb::Schema => output::json(&schema())?,
        ConfigVerb::Diff(arguments) => diff(arguments)?,
    }
    Ok(ExitStatus::Done)
}

fn explain(arguments: &Explain) -> Result<(), Error> {
    if arguments.markdown {
        return output::text(&settings_page());
    }
    let all = SettingInfo::all();
    let shown = match &arguments.key {
        None => all,
        Some(key) => {
            let found = SettingInfo::find(key)?;
            let below = format!("{}.", found.key);
            let group = found.kind == ValueKind::Group;
            let wanted =
                |one: &SettingInfo| one.key == found.key || (group && one.key.starts_with(&below));
            all.into_iter().filter(wanted).collect()
        }
    };
    if arguments.json {
        return output::json(&shown);
    }
    let run = arguments.run.as_ref().map(|dir| Config::from_yaml(&Folder::at(dir).config()));
    let run = run.transpose()?;
    let whole = shown.len() == 1;
    let lines = shown
        .iter()
        .map(|one| if whole { explained(one, run.as_ref()) } else { listed(one, run.as_ref()) });
    output::text(&lines.collect::<String>())
}

fn json(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// One of many: a line.
fn listed(one: &SettingInfo, run: Option<&Config>) -> String {
    if one.kind == ValueKind::Group {
        return format!("\n{}: {}\n", one.key, one.about);
    }
    let value = run.and_then(|run| run.value(&one.key)).unwrap_or_else(|| one.default.clone());
    format!("  {:<44} {:<16} {}\n", one.key, json(&value), one.takes())
}

/// One alone: everything.
fn explained(one: &SettingInfo, run: Option<&Config>) -> String {
    let mut text = format!("{}\n  {}\n  takes      {}\n", one.key, one.about, one.takes());
    if one.kind != ValueKind::Group {
        text.push_str(&format!("  default    {}\n", json(&one.default)));
    }
    let presets = one.presets.iter().map(|(name, value)| format!("{name} {}", json(value)));
    let presets: Vec<String> = presets.collect();
    if !presets.is_empty() {
        text.push_str(&format!("  presets    {}\n", presets.join(", ")));
    }
    if !one.other_names.is_empty() {
        text.push_str(&format!("  read as    {}, too\n", one.other_names.join(", ")));
    }
    if let Some(value) = run.and_then(|run| run.value(&one.key)) {
        text.push_str(&format!("  this run   {}\n", json(&value)));
    }
    text.push_str(&format!(
        "  set it     in DIR/gradus.yaml, or --set {}=VALUE of gradus init and gradus run\n",
        one.key
    ));
    text
}

fn diff(arguments: &PresetDiff) -> Result<(), Error> {
    let folder = Folder::at(&arguments.dir);
    let config = Config::from_yaml(&folder.config())?;
    let view = super::drive::known(&folder)?;
    let found = ConfigDiff {
        otherwise: differences(&Config::preset(&arguments.preset)?, &config),
        preset: arguments.preset.clone(),
        to_come: SettingsToCome::of(&config, &view),
    };
    if arguments.json {
        return output::json(&found);
    }
    let mut text = match found.otherwise.is_empty() {
        true => format!("everything is as in the preset {}\n", found.preset),
        false => format!("otherwise than in the preset {}:\n", found.preset),
    };
    text.extend(found.otherwise.iter().map(|change| format!("  {change}\n")));
    match &found.to_come {
        Some(to_come) => text.push_str(&format!("not yet in any iteration: {to_come}\n")),
        None => text.push_str("all of it is in the last plan that was made\n"),
    }
    output::text(&text)
}
