//! `gradus report`: tables and plots as one HTML file, and the same as JSON.

use super::{ExitStatus, arms, drive, output};
use gradus::export::RunExport;
use gradus::report::{
    ArmReport, FullReport, Report, figures, iterations_table, judge_table, page, png,
    rubrics_table, time_table,
};
use gradus::runtime::Folder;
use gradus::{Code, Error};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Tables and plots of a run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run's folder.
    dir: PathBuf,
    /// Where to write the page; report.json goes beside it. Default: DIR/report.html.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write each plot of the page as PNG into this folder, too.
    #[arg(long, value_name = "FOLDER")]
    png: Option<PathBuf>,
    /// Print the JSON instead of writing files.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<ExitStatus, Error> {
    let folder = Folder::at(&arguments.dir);
    let full = full(&folder)?;
    if arguments.json {
        output::json(&full)?;
        return Ok(ExitStatus::Done);
    }
    let html = arguments.out.clone().unwrap_or_else(|| folder.path().join("report.html"));
    let json = html.with_extension("json");
    let body =
        serde_json::to_string_pretty(&full).map_err(|e| output::not_json("the report", &e))?;
    let marks = [(&html, &["gradus report"][..]), (&json, &["\"iterations\"", "\"policy\""])];
    marks.iter().try_for_each(|(path, marks)| must_be_ours(path, marks))?;
    for (path, text) in [(&html, page(&full)), (&json, body)] {
        std::fs::write(path, text).map_err(|e| refused(path, e))?;
    }
    let plots = arguments.png.as_ref().map(|folder| plots(&full, folder)).transpose()?;
    let plots = plots.map_or_else(String::new, |n| format!(" and {n} plots"));
    let report = &full.report;
    output::text(&format!(
        "{}\n\n{}\n{}\n{}\n{}\nwrote {} and {}{plots}\n",
        full.verdict.sentence,
        iterations_table(report),
        rubrics_table(report),
        judge_table(report),
        time_table(report),
        html.display(),
        json.display()
    ))?;
    Ok(ExitStatus::Done)
}

/// Writes the plots into a folder; how many they are. Plots that are there are of an earlier report.
fn plots(full: &FullReport, folder: &Path) -> Result<usize, Error> {
    std::fs::create_dir_all(folder).map_err(|error| refused(folder, error))?;
    let drawn = figures(full);
    for figure in &drawn {
        let path = folder.join(format!("{}.png", figure.id));
        let drawn = png(figure).map_err(|error| Error::refused(Code::Defect, error.to_string()))?;
        std::fs::write(&path, drawn).map_err(|error| refused(&path, error))?;
    }
    Ok(drawn.len())
}

/// Everything that is known of a run and of its control arms.
fn full(folder: &Folder) -> Result<FullReport, Error> {
    let run = RunExport::open(folder)?;
    let mut reports = Vec::new();
    for (name, _) in arms::ARMS {
        let arm = arms::folder(folder, name);
        if arm.holds_run() {
            let report = Report::of(&drive::known(&arm)?);
            reports.push(ArmReport { name: name.to_owned(), report });
        }
    }
    Ok(FullReport::of(run.report(), reports, run.evidence()?))
}

/// Refuses to write over a file that is no earlier report.
fn must_be_ours(path: &Path, marks: &[&str]) -> Result<(), Error> {
    let found = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| Error::io(path, error))?,
    };
    let text = String::from_utf8_lossy(&found);
    match found.is_empty() || marks.iter().all(|mark| text.contains(mark)) {
        true => Ok(()),
        false => Err(Error::refused(
            Code::OutputExists,
            format!(
                "{} is there already and is no report of gradus; it is not written over. Give another \
             name (--out FILE): report.json goes beside it, under the same name",
                path.display()
            ),
        )),
    }
}

/// Why a page could not be written, and where else it may go.
fn refused(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::refused(
            Code::OutputRefused,
            format!(
                "{}: {error}. Write the page to another place (--out FILE), or print the report (--json)",
                path.display()
            ),
        ),
        _ => Error::io(path, error),
    }
}
