//! `gradus log`: read, check or fingerprint the log of a run that nobody works on.

use super::{End, output};
use gradus::Error;
use gradus::domain::Offset;
use gradus::log::{Log, Recorded, state_digest, verify};
use gradus::runtime::Folder;
use std::path::PathBuf;

/// Read, check or fingerprint a run's log.
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Records in order: a line each, or whole as JSON lines.
    Show(Show),
    /// Check every record, the hash chain and the task keys.
    Verify(Target),
    /// One hash over everything that is known: equal runs have equal ones.
    Digest(Target),
}

/// Which run.
#[derive(clap::Args)]
pub struct Target {
    /// The run's folder.
    dir: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Which records.
#[derive(clap::Args)]
pub struct Show {
    /// The run's folder.
    dir: PathBuf,
    /// First offset.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Records at most.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Only events of this kind, such as pair_formed.
    #[arg(long)]
    kind: Option<String>,
    /// Print records whole, one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(verb: &Verb) -> Result<End, Error> {
    match verb {
        Verb::Show(arguments) => show(arguments),
        Verb::Verify(target) => check(target),
        Verb::Digest(target) => digest(target),
    }
}

fn show(arguments: &Show) -> Result<End, Error> {
    let log = Folder::at(&arguments.dir).open_log()?;
    let mut next = Offset(arguments.from);
    let mut left = arguments.limit;
    while left > 0 {
        let records = log.read(next, 256)?;
        let Some(last) = records.last() else { break };
        next = Offset(last.offset.0 + 1);
        let wanted = |r: &&Recorded| arguments.kind.as_ref().is_none_or(|k| r.event.kind() == k);
        for record in records.iter().filter(wanted) {
            if left == 0 {
                break;
            }
            left -= 1;
            print(record, arguments.json)?;
        }
    }
    Ok(End::Done)
}

fn print(record: &Recorded, json: bool) -> Result<(), Error> {
    let hash: String = record.hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
    if json {
        return output::json_line(&serde_json::json!({
            "offset": record.offset,
            "at_ms": record.at_ms,
            "key": record.key,
            "hash": hash,
            "event": record.event,
        }));
    }
    let body = serde_json::to_string(&record.event).unwrap_or_default();
    let short: String = body.chars().take(110).collect();
    let more = if body.chars().count() > 110 { "..." } else { "" };
    output::text(&format!(
        "{:>7}  {hash}  {:<20}  {short}{more}\n",
        record.offset,
        record.event.kind()
    ))
}

fn check(target: &Target) -> Result<End, Error> {
    let log = Folder::at(&target.dir).open_log()?;
    let found = verify(log.as_ref())?;
    if target.json {
        output::json(&found)?;
    } else {
        let mut text = format!("{} records, {} tasks\n", found.records, found.tasks);
        for (kind, count) in &found.kinds {
            text.push_str(&format!("{count:>8}  {kind}\n"));
        }
        text.push_str(&match &found.first_error {
            None => "every record, the hash chain and the task keys are sound\n".to_owned(),
            Some(error) => format!("DAMAGED: {error}\n"),
        });
        output::text(&text)?;
    }
    Ok(if found.first_error.is_none() { End::Done } else { End::Found })
}

fn digest(target: &Target) -> Result<End, Error> {
    let log = Folder::at(&target.dir).open_log()?;
    let digest = state_digest(log.as_ref())?;
    match target.json {
        true => output::json(&digest)?,
        false => output::text(&format!("{}\n", digest.digest))?,
    }
    Ok(End::Done)
}
