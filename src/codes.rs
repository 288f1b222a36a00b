//! THE CODES: one table of everything that can go wrong, and of what is said about a run that is no
//! error. Every message that a person or a host meets begins with a code of this table, and nobody
//! writes a code by hand. `docs/errors.md` has cause and cure of each.
//!
//! A code that was released keeps its number and its meaning. A new meaning is a new number; numbers
//! in a block that are not in the table are free.

use crate::machine;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether the same call may succeed later, with nothing in it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before something is changed: the request, a setting, a file, the process.
    Never,
    /// When the machine or another process grants what it refused: space, memory, a handle, a
    /// folder that is away, a lock.
    Later,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $retry:ident, $summary:literal;)+) => {
        /// What happened, as programs tell it apart; as text `GRADUSnnnn`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum Code {
            $(#[doc = $summary] $name = $number,)+
        }

        impl Code {
            /// Every code, by number.
            pub const ALL: &[Code] = &[$(Code::$name,)+];

            /// Its name in the table.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)+ }
            }

            /// What it means, in one line.
            pub fn summary(self) -> &'static str {
                match self { $(Code::$name => $summary,)+ }
            }

            /// Whether the same call may succeed later.
            pub fn retry(self) -> Retry {
                match self { $(Code::$name => Retry::$retry,)+ }
            }
        }
    };
}

codes! {
    // 01: models, devices, memory.
    ModelNotFound = 101, Never, "What was given as a model is neither a model folder nor a .gguf file.";
    ModelIncomplete = 102, Never, "A file that every model needs is not in the model's folder.";
    ModelUnusable = 103, Never, "A model's files hold something that cannot be used, or a model was asked for what it cannot do.";
    ModelDequantised = 104, Never, "Notice: the weights were quantised, so what is trained is not the original model.";
    ModelConfig = 105, Never, "A model's config.json describes no network that gradus computes.";
    TokenizerFailed = 106, Never, "The tokenizer cannot be read, or refused a text.";
    NoChatTemplate = 107, Never, "Prompts are conversations, and the model has no chat template.";
    ChatTemplateFailed = 108, Never, "The model's chat template cannot be read, or refused a conversation.";
    TensorOperation = 109, Never, "Shapes or types of tensors do not fit each other.";
    NotEnoughMemory = 110, Never, "The run needs more memory than is free, on the machine or its device.";
    WeightsNotFinite = 111, Never, "Some of the weights are no finite numbers.";
    ModelChanged = 112, Never, "A model file of the run is not the one that the run began with.";
    TrainingRefused = 113, Never, "Training cannot begin or go on: gradients or losses are not what they must be.";
    DeviceUnavailable = 114, Never, "The device that was asked for cannot be had.";
    DeviceMemoryShort = 115, Later, "The device has no room for a computation just now.";
    DeviceLost = 116, Never, "The device stopped computing; this process cannot use it again.";
    NoThread = 117, Later, "The system gives no more threads to compute with.";
    Cancelled = 118, Never, "The caller asked to stop, and the work stopped.";
    ModelFilesAway = 119, Later, "The run's model files cannot be read just now; its work waits for them.";

    // 02: settings and files of prompts.
    SettingsUnreadable = 201, Never, "A line of gradus.yaml is not what it should be.";
    SettingOutOfRange = 202, Never, "A setting has a value that is not allowed.";
    PromptLineUnreadable = 203, Never, "A line of a prompt file is not what the file's other lines are.";
    SettingsEmpty = 204, Never, "The run's gradus.yaml holds no setting any more.";
    SeedChanged = 205, Never, "gradus.yaml has another seed than the run began with.";
    PromptFileEmpty = 206, Never, "A file of prompts holds no prompt.";
    PresetUnknown = 207, Never, "There is no preset of that name.";
    NothingToTrainOn = 208, Never, "Every prompt of a file is held out to measure on, so none is left to train on.";
    NoAnswers = 209, Never, "A file of examples to learn from has prompts without answers.";

    // 03: what came of an iteration.
    FewScores = 301, Never, "Notice: most judgments have no score, so too few pairs were formed.";
    NoPromptLeft = 302, Never, "Notice: the pool has no unused prompt, so the iteration could not begin its work.";
    TrainingDiverged = 303, Never, "Training met numbers that are not finite, also at half and a quarter of the learning rate.";
    FewPairs = 304, Never, "Notice: answers got scores that do not differ enough, so too few pairs were formed.";
    JudgeBelievesForgery = 305, Never, "Notice: the judge gives bad answers more when they carry a forged verdict or such a trick.";
    JudgeLikesBadAnswers = 306, Never, "Notice: the judge scores deliberately bad answers above the policy's own.";
    NothingCompared = 307, Never, "Notice: the gate stayed closed, for the new policy was compared with the one before on no prompt.";

    // 04: stages, their tasks, and why a run stopped.
    RecordMissing = 401, Never, "Something that the run's records name is not where it should be.";
    TaskGivenUp = 402, Never, "A task failed at every attempt, and its iteration ended.";
    TaskPanicked = 403, Never, "The code that did a task panicked; that is a defect of gradus.";
    SandboxShort = 404, Later, "The system did not give a rubric's sandbox what it needs.";
    RubricRefusedCase = 405, Never, "A rubric cannot ask about the answers that it was given.";
    RunPaused = 406, Never, "The run waits after an iteration that gave nothing to learn from.";
    IterationFailed = 407, Never, "An iteration ended in failure; the policy from before it stays.";
    StageHalted = 408, Never, "A stage failed again and again, and waits for somebody to say go on.";
    RunLost = 409, Never, "Something is gone that this process does not get back, so the run stopped.";

    // 05: rubrics and panels.
    RubricNoComponent = 501, Never, "A file is no WebAssembly component that compiles.";
    RubricWrongWorld = 502, Never, "A component is written for another version of the rubric interface.";
    RubricImports = 503, Never, "A component imports something that a rubric does not get.";
    RubricGoldenCase = 504, Never, "A component fails one of its own golden cases.";
    PanelLacksGeneralist = 505, Never, "Every rubric of a panel has tags, so some prompts would have no judge.";
    RubricJudgesJudgments = 506, Never, "A rubric that judges judgments was named where answers are to be judged.";
    RubricRolledBack = 507, Never, "A rubric was rolled back before, and is not activated again unless that is asked for.";
    RubricUnknown = 508, Never, "No installed rubric has that name, version or hash.";
    RubricOnPanel = 509, Never, "A rubric judges already, so it cannot judge beside the panel.";
    RubricUnspellable = 510, Never, "The model's vocabulary cannot spell the choices that a rubric reads scores from.";
    RubricNotJudging = 511, Never, "A rubric that does not judge was to be rolled back.";
    PanelChanged = 512, Never, "What judges is not what the caller thought; nothing was changed.";
    RubricMissing = 513, Never, "The component of an installed rubric is not there or is damaged.";
    RubricDescription = 514, Never, "A component describes itself in a way that makes no sense.";
    PanelWeight = 515, Never, "A rubric's weight on a panel is not above 0.";
    PanelTwice = 516, Never, "A rubric is on a panel twice.";
    RubricAmbiguous = 517, Never, "More than one rubric answers to that name, version or hash.";
    RubricHashShort = 518, Never, "The beginning of a rubric's hash is too short to mean one.";
    PanelContended = 519, Later, "Others changed what judges again and again at the same time.";
    NothingToRollBack = 520, Never, "No other panel judged before this one.";
    NobodyLeftToJudge = 521, Never, "Without that rubric nobody judges, and no panel without it judged before.";
    RubricTooLarge = 522, Never, "A component has more bytes than are compiled.";
    SandboxUnavailable = 523, Never, "The WebAssembly engine does not start on this machine.";
    RubricTrapped = 524, Never, "A rubric broke a limit of its sandbox, or itself.";
    RubricNotNewer = 525, Never, "Notice: a component in the watched folder is not newer than the one of its name that judges.";
    RubricFailsAndJudges = 526, Never, "Notice: a rubric fails and goes on judging, for no other panel can come back.";

    // 06: the log and the content-addressed files.
    LogInUse = 601, Later, "Another process works on the run.";
    LogLost = 602, Never, "Records that were written are in neither copy of the log.";
    NoSpace = 603, Later, "There is no space for the log, or less than it must leave free.";
    LogNotOpening = 604, Never, "The log does not open.";
    LogFormat = 605, Never, "The log was written in a format that this gradus does not read.";
    LogDropped = 606, Later, "Records that a reader wants were dropped when the log was compacted.";
    RecordDamaged = 607, Never, "A record of the log is not what was written.";
    EventTooLarge = 608, Never, "An event is larger than the log takes.";
    LogStopped = 609, Never, "A write failed, and the log takes nothing more until it is opened again.";
    LogUnreadable = 610, Later, "The log cannot be read just now.";
    BlobDamaged = 611, Never, "The bytes of a file under blobs/ are not what its name says.";
    FolderAway = 612, Later, "A folder of the run is not where it was.";
    FolderReplaced = 613, Never, "Another folder lies where the run's was.";
    BlobsReadOnly = 614, Never, "A store that was opened for reading alone was asked to write.";

    // 07: files, the run's folder, requests to a run.
    FileRefused = 701, Later, "The system refused a file or folder: a right, space, a handle, a failing disk.";
    FileMissing = 702, Never, "A file or folder is not there, or is something else than was expected.";
    NoRun = 703, Never, "The folder holds no run.";
    RunUnfinished = 704, Never, "The folder holds a run whose making was not finished.";
    RunExists = 705, Never, "The folder holds a run already.";
    RunBeingMade = 706, Later, "Another process makes a run in the folder at this moment.";
    FolderNotEmpty = 707, Never, "The folder holds something else, so no run is made in it.";
    FolderInsideRun = 708, Never, "A path that must lie outside a run's folder lies inside it.";
    RunNotBegun = 709, Never, "The run has not recorded yet what was asked for: a policy, prompts, a rubric.";
    RunClosed = 710, Never, "The run was shut down, or its log closed.";
    RequestUnreadable = 711, Never, "A request to a running process, or its answer, cannot be read.";
    NoAnswer = 712, Later, "The process that works on the run did not answer.";
    RecordsDropped = 713, Never, "What was asked for needs records that were dropped when the log was compacted.";
    RecordBeyondLog = 714, Never, "A record was named that the log does not have yet.";
    IterationUnknown = 715, Never, "That iteration made no model.";
    Defect = 716, Never, "gradus broke one of its own rules; that is a defect of gradus.";
    PolicyUnknown = 717, Never, "The run has no policy of that name or hash, or more than one.";
    NoEarlierPolicy = 718, Never, "No policy acted before the one that acts now.";
    PolicyGone = 719, Never, "A policy cannot act any more, for its weights were not kept.";
    NobodyWorks = 720, Never, "No process works on the run.";
    IterationsNotRaised = 721, Never, "The run has as many iterations already.";
    ProcessBusy = 722, Later, "The process that works on the run answers too many others at this moment.";

    // 08: judging again, and teaching to judge.
    NothingToJudge = 801, Never, "There is nothing recorded to judge again.";
    NothingTouched = 802, Never, "The rubric touched nothing, so there is nothing to rebuild.";
    NothingToTeach = 803, Never, "No prompt has a constraint of which seed data can be made.";
    RubricReadsOtherwise = 804, Never, "A rubric does not read the replies that seed data would teach.";
    SuiteInUse = 805, Later, "Another process measures the same policy under the same suite.";
    SuiteUnreadable = 806, Never, "A file of a suite, or of what it found before, is not what it should be.";

    // 09: the command line.
    OutputExists = 901, Never, "A file that is to be written is there already.";
    OutputRefused = 902, Never, "A file that is to be written cannot be written there.";
    DemoDiffers = 903, Never, "The folder holds a demo with another seed or other settings.";
    RubricName = 904, Never, "A text is no name for a rubric.";
    ToolMissing = 905, Never, "A program that builds rubrics is not installed.";
    BuildFailed = 906, Never, "Building a rubric failed.";
    RubricDefects = 907, Never, "Hostile inputs found defects in a rubric.";
    RubricSource = 908, Never, "A folder holds no sources of a rubric.";
    RubricArgument = 909, Never, "A rubric's weight or file is not written as it must be.";

    // 10: engines.
    EngineLacks = 1001, Never, "An engine cannot do what the settings ask of it.";
    EngineAnother = 1002, Never, "A plan names an engine that is not there, or that has become another.";
    EngineAway = 1003, Later, "An engine does not answer just now.";
    EngineUnknown = 1004, Never, "A setting names an engine that there is not, or an engine has a name that it cannot have.";
    SettingGone = 1005, Never, "gradus.yaml has a setting that moved elsewhere.";

    // 11: exports.
    NothingToExport = 1101, Never, "The run has nothing of what was to be exported.";
    AdapterNotAlone = 1102, Never, "A policy has no adapter that could be exported by itself.";
    PairUnknown = 1103, Never, "No pair has that id, or more than one.";

    // 12: a run that is served.
    PromptTooLong = 1201, Never, "A conversation has no room in the model's context.";
    RequestRefused = 1202, Never, "A request asks for something that there is not, or is not written as it must be.";
    NotAllowed = 1203, Never, "A request changes something, or asks for what is not public, without the token that it takes.";
    TooManyAnswers = 1204, Later, "So many answers are wanted at this moment that no more are begun.";
    NotListening = 1205, Never, "An address cannot be listened on.";
}

/// What every code begins with.
const PREFIX: &str = "GRADUS";
/// Digits of a code.
const DIGITS: usize = 4;

impl Code {
    /// The code with a number.
    pub fn numbered(number: u16) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| *code as u16 == number)
    }

    /// The code that is written in a text, if it is one of the table: `GRADUS0601`.
    pub fn parse(text: &str) -> Option<Code> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS)?;
        let all = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| all).and_then(Code::numbered)
    }

    /// The codes that a text names, each once, in order: of a message that holds another.
    pub fn named_in(text: &str) -> Vec<Code> {
        let mut found = Vec::new();
        for (at, _) in text.match_indices(PREFIX) {
            let code = text.get(at..at + PREFIX.len() + DIGITS).and_then(Code::parse);
            found.extend(code.filter(|code| !found.contains(code)));
        }
        found
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(self) -> bool {
        self.retry() == Retry::Later
    }

    /// What the system said of a file: that it refuses it for now, or that it is not there or is
    /// something else.
    pub fn of_io(error: &std::io::Error) -> Code {
        match machine::refuses(error) {
            true => Code::FileRefused,
            false => Code::FileMissing,
        }
    }

    /// A message with its code before it, as it is recorded and shown.
    pub fn says(self, message: impl fmt::Display) -> String {
        format!("{self} {message}")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:0DIGITS$}", *self as u16)
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no code of this gradus")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_one_number_and_one_meaning() {
        let pairs = Code::ALL.iter().zip(Code::ALL.iter().skip(1));
        for (code, next) in pairs {
            assert!(
                (*code as u16) < *next as u16,
                "{code} and {next} are out of order or the same"
            );
        }
        for (at, code) in Code::ALL.iter().enumerate() {
            let same = |other: &Code| other.summary() == code.summary();
            assert_eq!(
                Code::ALL.iter().position(same),
                Some(at),
                "{code} means what another means"
            );
            assert_eq!(Code::parse(&code.to_string()), Some(*code));
            assert!(code.summary().ends_with('.'), "{code}: {}", code.summary());
        }
    }

    #[test]
    fn codes_are_found_in_texts() {
        let text =
            "GRADUS0409 the run stops: GRADUS0603 no space (GRADUS0409); GRADUS9999 GRADUS06";
        assert_eq!(Code::named_in(text), [Code::RunLost, Code::NoSpace]);
        for none in ["", "GRADUS", "GRADUS601", "GRADUS06010", "gradus0601", "GRADUS+601"] {
            assert_eq!(Code::parse(none), None, "{none}");
        }
        assert_eq!(serde_json::to_string(&Code::NoSpace).unwrap(), "\"GRADUS0603\"");
        assert_eq!(serde_json::from_str::<Code>("\"GRADUS0603\"").unwrap(), Code::NoSpace);
        assert!(serde_json::from_str::<Code>("\"GRADUS0000\"").is_err());
    }

    #[test]
    fn a_file_that_is_refused_is_told_from_one_that_is_not_there() {
        let of = |number| Code::of_io(&std::io::Error::from_raw_os_error(number));
        assert_eq!((of(28), of(2)), (Code::FileRefused, Code::FileMissing));
        assert!(of(28).is_retryable() && !of(2).is_retryable());
    }
}
