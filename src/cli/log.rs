//! `gradus log`: read, check, fingerprint, compact or mend a run's log. All but the last two work
//! beside a running process, and change nothing.

use super::{ExitStatus, output};
use gradus::Error;
use gradus::domain::Offset;
use gradus::log::{Compacted, Log, LostRecords, Recorded, state_digest};
use gradus::runtime::Folder;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks of `tail --follow`.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// Read, check, fingerprint, compact or mend a run's log.
#[derive(clap::Subcommand)]
pub enum LogVerb {
    /// Records in order: a line each, or whole as JSON lines.
    Show(ShowRecords),
    /// The last records, and with --follow those that come.
    Tail(Tail),
    /// The whole log as it lies on the disk: JSON lines with checksums and hash chain.
    Export(Export),
    /// Check every record, the hash chain, the task keys, and that both copies are the same.
    Verify(LogTarget),
    /// Mend the log: what one copy lost comes from the other.
    Rebuild(Rebuild),
    /// Drop what old iterations left: completions, judgments, pairs, checkpoints on the way. What
    /// they came to stays, and so does the digest.
    Compact(Compact),
    /// One hash over everything that is known: equal runs have equal ones.
    Digest(LogTarget),
}

/// Which run.
#[derive(clap::Args)]
pub struct LogTarget {
    /// The run's folder.
    dir: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Which records.
#[derive(clap::Args)]
pub struct ShowRecords {
    /// The run's folder.
    dir: PathBuf,
    /// First offset.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Records at most.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    #[command(flatten)]
    style: Style,
}

/// How records are printed.
#[derive(clap::Args)]
pub struct Style {
    /// Only events of this kind, such as pair_formed.
    #[arg(long)]
    kind: Option<String>,
    /// Print records whole, one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// How many of the last records.
#[derive(clap::Args)]
pub struct Tail {
    /// The run's folder.
    dir: PathBuf,
    /// Records to begin with.
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: u64,
    /// Go on printing records as they come, until interrupted.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    style: Style,
}

/// Where to.
#[derive(clap::Args)]
pub struct Export {
    /// The run's folder.
    dir: PathBuf,
    /// The file to write; without it, standard output.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Say how much was written as JSON (with --out).
    #[arg(long, requires = "out")]
    json: bool,
}

/// What may be given up.
#[derive(clap::Args)]
pub struct Rebuild {
    /// The run's folder.
    dir: PathBuf,
    /// Keep what is before records that neither copy has, instead of changing nothing.
    #[arg(long)]
    accept_loss: bool,
    /// Print the repairs as JSON.
    #[arg(long)]
    json: bool,
}

/// What stays whole.
#[derive(clap::Args)]
pub struct Compact {
    /// The run's folder.
    dir: PathBuf,
    /// Finished iterations that keep everything, counted from the last.
    #[arg(long, default_value_t = 1)]
    keep_iterations: u32,
    /// Write the whole log to this file first, as `export` does.
    #[arg(long)]
    archive: Option<PathBuf>,
    /// Print what was freed as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(verb: &LogVerb) -> Result<ExitStatus, Error> {
    match verb {
        LogVerb::Show(arguments) => show(arguments),
        LogVerb::Tail(arguments) => tail(arguments),
        LogVerb::Export(arguments) => export(arguments),
        LogVerb::Verify(target) => check(target),
        LogVerb::Rebuild(arguments) => rebuild(arguments),
        LogVerb::Compact(arguments) => compact(arguments),
        LogVerb::Digest(target) => digest(target),
    }
}

fn show(arguments: &ShowRecords) -> Result<ExitStatus, Error> {
    let log = Folder::at(&arguments.dir).read_log()?;
    print_from(&log, Offset(arguments.from), arguments.limit, &arguments.style)?;
    Ok(ExitStatus::Done)
}

/// Prints records until the tail or the limit; where it ended.
fn print_from(log: &dyn Log, from: Offset, limit: u64, style: &Style) -> Result<Offset, Error> {
    let (mut next, mut left) = (from, limit);
    while left > 0 {
        let records = log.read(next, 256)?;
        let Some(last) = records.last() else { break };
        next = Offset(last.offset.0 + 1);
        let wanted = |r: &&Recorded| style.kind.as_ref().is_none_or(|k| r.event.kind() == k);
        for record in records.iter().filter(wanted) {
            if left == 0 {
                break;
            }
            left -= 1;
            print(record, style.json)?;
        }
    }
    Ok(next)
}

fn tail(arguments: &Tail) -> Result<ExitStatus, Error> {
    let log = Folder::at(&arguments.dir).read_log()?;
    let mut next = Offset(log.tail().0.saturating_sub(arguments.lines));
    loop {
        next = print_from(&log, next, u64::MAX, &arguments.style)?;
        if !arguments.follow {
            return Ok(ExitStatus::Done);
        }
        std::thread::sleep(FOLLOW_PAUSE);
    }
}

fn export(arguments: &Export) -> Result<ExitStatus, Error> {
    let log = Folder::at(&arguments.dir).read_log()?;
    let Some(path) = &arguments.out else {
        log.export(&mut std::io::stdout().lock())?;
        return Ok(ExitStatus::Done);
    };
    let (records, bytes) = output::new_file(path, |to| Ok(log.export(to)?))?;
    match arguments.json {
        true => output::json(&serde_json::json!({"records": records, "bytes": bytes}))?,
        false => output::text(&format!("{records} records, {bytes} bytes\n"))?,
    }
    Ok(ExitStatus::Done)
}

fn compact(arguments: &Compact) -> Result<ExitStatus, Error> {
    let folder = Folder::at(&arguments.dir);
    if let Some(archive) = &arguments.archive {
        let log = folder.read_log()?;
        output::new_file(archive, |to| Ok(log.export(to)?))?;
    }
    let freed = folder.retain(arguments.keep_iterations)?;
    if arguments.json {
        output::json(&freed)?;
        return Ok(ExitStatus::Done);
    }
    output::text(&match freed.log {
        None => "no record is older than what is kept\n".to_owned(),
        Some(Compacted { floor, dropped, kept, bytes_before, bytes_after }) => format!(
            "{dropped} of {} records before {floor} dropped: {bytes_before} bytes, now \
             {bytes_after}\n",
            dropped + kept
        ),
    })?;
    output::text(&format!("{} blobs removed, {} bytes\n", freed.blobs, freed.blob_bytes))?;
    Ok(ExitStatus::Done)
}

fn rebuild(arguments: &Rebuild) -> Result<ExitStatus, Error> {
    let lost_records =
        if arguments.accept_loss { LostRecords::Accept } else { LostRecords::Refuse };
    let repairs = Folder::at(&arguments.dir).rebuild_log(lost_records)?;
    if arguments.json {
        output::json(&serde_json::json!({"repairs": repairs}))?;
    } else if repairs.is_empty() {
        output::text("nothing to mend: both copies are sound and the same\n")?;
    } else {
        output::text(&format!("{}\n", repairs.join("\n")))?;
    }
    Ok(ExitStatus::Done)
}

fn print(record: &Recorded, json: bool) -> Result<(), Error> {
    if json {
        return output::json_line(&serde_json::json!({
            "offset": record.offset,
            "at_ms": record.at_ms,
            "key": record.key,
            "event": record.event,
        }));
    }
    let body =
        serde_json::to_string(&record.event).map_err(|e| output::not_json("an event", &e))?;
    let short: String = body.chars().take(110).collect();
    let more = if body.chars().count() > 110 { "..." } else { "" };
    output::text(&format!("{:>7}  {:<20}  {short}{more}\n", record.offset, record.event.kind()))
}

fn check(target: &LogTarget) -> Result<ExitStatus, Error> {
    let found = Folder::at(&target.dir).verify_log()?;
    if target.json {
        output::json(&found)?;
    } else {
        let mut text = format!("{} records, {} tasks\n", found.records, found.tasks);
        for (kind, count) in &found.kinds {
            text.push_str(&format!("{count:>8}  {kind}\n"));
        }
        text.push_str(&match &found.first_error {
            None => match &found.not_compared {
                None => "every record, the hash chain, the task keys and both copies are sound\n"
                    .to_owned(),
                Some(why) => format!(
                    "every record, the hash chain and the task keys are sound in the journal; the \
                     store was not looked at: {why}\n"
                ),
            },
            Some(error) => format!("DAMAGED: {error}\n"),
        });
        output::text(&text)?;
    }
    Ok(if found.first_error.is_none() { ExitStatus::Done } else { ExitStatus::Failed })
}

fn digest(target: &LogTarget) -> Result<ExitStatus, Error> {
    let digest = state_digest(&Folder::at(&target.dir).read_log()?)?;
    match target.json {
        true => output::json(&digest)?,
        false => output::text(&format!("{}\n", digest.digest))?,
    }
    Ok(ExitStatus::Done)
}
