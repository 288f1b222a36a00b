//! `gradus rubric build`: the component of a rubric's folder, by the tools of its language. What is
//! missing is named with the command that brings it.

use super::super::output;
use gradus::{Code, Error};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to build.
#[derive(clap::Args)]
pub struct Build {
    /// The rubric's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
}

/// Builds the component and says where it is.
pub fn run(arguments: &Build) -> Result<(), Error> {
    let dir =
        std::fs::canonicalize(&arguments.dir).map_err(|error| Error::io(&arguments.dir, error))?;
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let target = dir.join(format!("{name}.wasm"));
    let has = |file: &str| dir.join(file).is_file();
    match () {
        () if has("Cargo.toml") => rust(&dir, &target)?,
        () if has("package.json") => js(&dir, &target)?,
        () if has("app.py") => python(&dir, &target)?,
        () => {
            return Err(Error::refused(
                Code::RubricSource,
                format!(
                    "{} has neither Cargo.toml, package.json nor app.py: begin a rubric with gradus \
                 rubric new NAME",
                    dir.display()
                ),
            ));
        }
    }
    let bytes = std::fs::metadata(&target).map_err(|error| Error::io(&target, error))?.len();
    let shown = arguments.dir.join(format!("{name}.wasm"));
    output::text(&format!("{} ({bytes} bytes)\n", shown.display()))
}

/// Runs a tool; what it prints goes to standard error.
fn tool(command: &mut Command, missing: &str) -> Result<(), Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status =
        command.stdout(std::io::stderr()).status().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::refused(Code::ToolMissing, format!("{name} is not here: {missing}"))
            }
            _ => Error::io(&name, error),
        })?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::refused(
            Code::BuildFailed,
            format!("{name} failed ({status}); what it said is above"),
        )),
    }
}

fn said(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

const RUSTUP: &str = "install Rust from https://rustup.rs";
const TARGET: &str = "wasm32-unknown-unknown";

/// rustc's own component linker does the last step. Without the target, Debian's compiler and its
/// sources do, as in scripts/build-plugins.
fn rust(dir: &Path, target: &Path) -> Result<(), Error> {
    let no_rust = || Error::refused(Code::ToolMissing, format!("rustc is not here: {RUSTUP}"));
    let sysroot = said(Command::new("rustc").args(["--print", "sysroot"])).ok_or_else(no_rust)?;
    let host = said(Command::new("rustc").arg("-vV")).ok_or_else(no_rust)?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).ok_or_else(no_rust)?;
    let tools = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(dir).args(["build", "--release", "--target", TARGET]);
    if !Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        let debian = Path::new("/usr/lib/rustlib/src/rust/library").is_dir();
        if !debian || !Path::new("/usr/bin/rustc").is_file() {
            return Err(Error::refused(
                Code::ToolMissing,
                format!(
                    "the target {TARGET} is not here: rustup target add {TARGET}, or on Debian: apt \
                 install rustc-web rust-web-src"
                ),
            ));
        }
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        cargo.arg("-Zbuild-std=std,panic_abort");
    }
    let flags = format!("-Clink-arg=--wasm-ld-path={}/gcc-ld/wasm-ld", tools.display());
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", tools.join("wasm-component-ld"));
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags);
    cargo.env("CARGO_TARGET_DIR", dir.join("target"));
    tool(&mut cargo, RUSTUP)?;
    let built = dir.join("target").join(TARGET).join("release");
    let components: Vec<PathBuf> = std::fs::read_dir(&built)
        .map_err(|error| Error::io(&built, error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
        .collect();
    let [component] = components.as_slice() else {
        return Err(Error::refused(
            Code::BuildFailed,
            format!("{} holds {} components, one is wanted", built.display(), components.len()),
        ));
    };
    std::fs::copy(component, target).map(drop).map_err(|error| Error::io(target, error))
}

fn js(dir: &Path, target: &Path) -> Result<(), Error> {
    const NODE: &str = "install Node.js from https://nodejs.org";
    if !dir.join("node_modules").is_dir() {
        tool(Command::new("npm").current_dir(dir).args(["install", "--no-fund"]), NODE)?;
    }
    let mut jco = Command::new("npx");
    jco.current_dir(dir).args(["jco", "componentize", "rubric.js", "--wit", "wit/rubric.wit"]);
    jco.args(["--world-name", "rubric", "--backend", "quickjs", "--backend-qjs-stub-wasi"]);
    tool(jco.args(["--backend-qjs-disable-async", "-o"]).arg(target), NODE)
}

fn python(dir: &Path, target: &Path) -> Result<(), Error> {
    const PYTHON: &str = "install Python 3.10 or later";
    let venv = dir.join(".venv/bin");
    if !venv.join("componentize-py").is_file() {
        tool(Command::new("python3").current_dir(dir).args(["-m", "venv", ".venv"]), PYTHON)?;
        let pip = ["-m", "pip", "install", "-q", "-r", "requirements.txt"];
        tool(Command::new(venv.join("python")).current_dir(dir).args(pip), PYTHON)?;
    }
    let mut command = Command::new(venv.join("componentize-py"));
    command.current_dir(dir).args(["-d", "wit", "-w", "rubric", "componentize", "--stub-wasi"]);
    tool(command.args(["app", "-o"]).arg(target), PYTHON)
}
