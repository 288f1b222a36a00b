//! `gradus completions` and `gradus man`: what shells and `man` want to know of the command.

use super::{ExitStatus, output};
use clap::Command;
use gradus::Error;
use std::path::PathBuf;

const NAME: &str = "gradus";

/// Which shell.
#[derive(clap::Args)]
pub struct CompletionArguments {
    /// bash, elvish, fish, powershell or zsh.
    shell: clap_complete::Shell,
}

/// Where manual pages go.
#[derive(clap::Args)]
pub struct ManArguments {
    /// A folder for a page of every command. Default: the page of `gradus`, on standard output.
    #[arg(short, long)]
    out: Option<PathBuf>,
}

/// Prints what a shell is to read: `gradus completions bash > FILE`.
pub fn complete(
    arguments: &CompletionArguments,
    mut command: Command,
) -> Result<ExitStatus, Error> {
    let mut bytes = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, NAME, &mut bytes);
    output::text(&String::from_utf8_lossy(&bytes))?;
    Ok(ExitStatus::Done)
}

/// Writes manual pages.
pub fn man(arguments: &ManArguments, command: Command) -> Result<ExitStatus, Error> {
    let Some(folder) = &arguments.out else {
        let mut bytes = Vec::new();
        let rendered = clap_mangen::Man::new(command).render(&mut bytes);
        rendered.map_err(|error| Error::io(std::path::Path::new(NAME), error))?;
        output::text(&String::from_utf8_lossy(&bytes))?;
        return Ok(ExitStatus::Done);
    };
    let io = |error| Error::io(folder, error);
    std::fs::create_dir_all(folder).map_err(io)?;
    clap_mangen::generate_to(command, folder).map_err(io)?;
    Ok(ExitStatus::Done)
}
