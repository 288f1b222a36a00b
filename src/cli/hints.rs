//! WHICH COMMAND HELPS. The library says what is wrong and which setting or call mends it; a person
//! at a terminal is also told what to type. By code alone: whatever text names a code, an error or what
//! a run recorded, has the same hint.

use gradus::Code;
use std::path::{Path, PathBuf};

/// What to type, with `DIR` where the run's folder goes.
fn hint(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::ModelChanged => "make another run: gradus init NEW_DIR --model MODEL --prompts FILE",
        Code::NoChatTemplate => {
            "give one: gradus init DIR --chat-template chatml (or a Jinja file)"
        }
        Code::DeviceUnavailable => {
            "what this machine can compute on: gradus devices; the CPU: --device cpu"
        }
        Code::NotEnoughMemory => {
            "what it will take, measured: gradus doctor DIR; on the CPU: --device cpu"
        }
        Code::DeviceLost => "on the CPU: gradus run DIR --device cpu",
        Code::SettingsEmpty => {
            "the settings that it was started with: gradus log show --json --kind run_started DIR"
        }
        Code::SeedChanged => "a run with this seed: gradus init NEW_DIR --seed N",
        Code::NothingToTrainOn => "measure on a file of its own: --held-out FILE",
        Code::FewScores => "seed data that teaches the form, for a new run: gradus init --eft FILE",
        Code::JudgeBelievesForgery | Code::JudgeLikesBadAnswers => {
            "what was asked and said: gradus log show --kind judge_probed DIR"
        }
        Code::NothingCompared => {
            "what the referee said: gradus log show --kind held_out_judged DIR"
        }
        Code::TaskGivenUp | Code::StageHalted => {
            "all attempts: gradus log show --kind task_failed DIR; go on: gradus run DIR"
        }
        Code::RecordMissing => "check the log: gradus log verify DIR",
        Code::RunPaused | Code::RunLost => "go on: gradus run DIR",
        Code::RubricRolledBack => {
            "activate it all the same: gradus rubric activate DIR NAME --again"
        }
        Code::RubricUnknown | Code::RubricMissing => {
            "install it: gradus rubric install DIR FILE (or the name of a bundled rubric)"
        }
        Code::RubricAmbiguous | Code::RubricHashShort | Code::RubricNotJudging => {
            "names, versions and hashes: gradus rubric list DIR"
        }
        Code::PanelChanged | Code::NoAnswer => "what judges now: gradus rubric list DIR",
        Code::RubricFailsAndJudges | Code::RubricNotNewer => {
            "let another judge: gradus rubric activate DIR NAME"
        }
        Code::NobodyLeftToJudge => {
            "name one that is to judge instead: gradus rubric activate DIR NAME, or --rubric NAME"
        }
        Code::LogInUse => "what it is doing: gradus status DIR",
        Code::LogLost => {
            "keep what is before the lost records: gradus log rebuild --accept-loss DIR"
        }
        Code::NoSpace => "drop what old iterations left: gradus log compact DIR",
        Code::RecordDamaged => {
            "how much is damaged: gradus log verify DIR; mend it: gradus log rebuild DIR"
        }
        Code::NoRun => "make one: gradus init DIR --model MODEL --prompts FILE",
        Code::RunUnfinished => {
            "give the command again that began it: gradus init, gradus rejudge --into or gradus \
             rubric taint --rebuild"
        }
        Code::RunExists => "go on with it: gradus run DIR",
        Code::RunNotBegun => "start it: gradus run DIR",
        Code::RubricSource => "begin a rubric: gradus rubric new NAME",
        _ => return None,
    })
}

/// The hints for all codes that a text names, a line each; `run` is the run's folder, where it is
/// known.
pub fn of(text: &str, run: Option<&Path>) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in Code::named_in(text).into_iter().filter_map(hint) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let at = |line: &str| match run {
        None => line.to_owned(),
        Some(dir) => {
            let words = line.split(' ').map(|word| match word.strip_prefix("DIR") {
                Some(rest) if !rest.starts_with(char::is_alphanumeric) => {
                    format!("{}{rest}", dir.display())
                }
                _ => word.to_owned(),
            });
            words.collect::<Vec<_>>().join(" ")
        }
    };
    lines.into_iter().map(|line| format!("hint: {}\n", at(line))).collect()
}

/// The folder that a command was given.
pub fn folder(mut given: &clap::ArgMatches) -> Option<PathBuf> {
    while let Some((_, deeper)) = given.subcommand() {
        given = deeper;
    }
    given.try_get_one::<PathBuf>("dir").ok().flatten().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_knows_the_folder_and_is_given_once() {
        let text = "GRADUS0409 the run stops: GRADUS0607 record 3 is damaged; GRADUS0607";
        assert_eq!(
            of(text, Some(Path::new("my/run"))),
            "hint: go on: gradus run my/run\nhint: how much is damaged: gradus log verify my/run; \
             mend it: gradus log rebuild my/run\n"
        );
        assert_eq!(
            of("GRADUS0703 no run", None),
            format!("hint: {}\n", hint(Code::NoRun).unwrap())
        );
        assert_eq!(of("GRADUS0111 not finite", None), "");
    }

    /// A command line in a hint is one that there is.
    #[test]
    fn hints_name_commands_that_there_are() {
        let all: Vec<&str> = Code::ALL.iter().filter_map(|code| hint(*code)).collect();
        assert!(all.len() > 20);
        for hint in all {
            let unknown = super::super::known::unknown_in(hint);
            assert!(unknown.is_empty(), "{hint}: {unknown:?}");
        }
    }
}
