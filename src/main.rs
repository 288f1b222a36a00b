//! The `gradus` command.

mod cli;

fn main() -> std::process::ExitCode {
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup();
    cli::main()
}
