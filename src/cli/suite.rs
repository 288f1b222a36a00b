//! `gradus eval --suite`: policies of a run, measured by what no judge of its loop has a part in.

use super::eval::Arguments;
use super::{ExitStatus, output};
use clap::ValueEnum;
use gradus::assess::{
    AssessWishes, Assessor, ChoiceSuite, RankedPrompt, RankedSuite, SuiteSampling, VerifiedFigures,
    VerifiedSuite, damaged, read_questions, read_ranked,
};
use gradus::domain::evaluation::Estimate;
use gradus::domain::{Prompt, PromptOrigin};
use gradus::runtime::PolicyRow;
use gradus::{Code, Error, prompts};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// IFEval's 541 prompts, checked by a program; kinds of sentences and languages approximately.
    Ifeval,
    /// Prompts with constraints (--file; else those that the run holds out), checked by a program.
    Verifier,
    /// Questions with choices (--file, in ARC's or MMLU's format), by log-probability.
    Choices,
    /// Answers that people ranked (--file), judged by each policy; without ranks: canaries.
    Ranked,
    /// Good answers (--file, as for gradus init --ift) beside the same damaged, judged by each policy.
    Damaged,
}

/// How a suite asks, where not as the run draws held-out answers.
#[derive(clap::Args)]
pub struct Asking {
    /// What the suite asks.
    #[arg(long, requires = "suite")]
    file: Option<PathBuf>,
    /// Answers to each prompt.
    #[arg(long, default_value_t = 1, requires = "suite", value_parser = clap::value_parser!(u32).range(1..=1024))]
    answers: u32,
    /// Temperature of answers; 0 takes the likeliest token.
    #[arg(long, requires = "suite")]
    temperature: Option<f64>,
    /// Nucleus of answers.
    #[arg(long, requires = "suite")]
    top_p: Option<f64>,
    /// Bound on an answer, tokens.
    #[arg(long, requires = "suite")]
    max_new_tokens: Option<u32>,
    /// Same seed, same answers.
    #[arg(long, requires = "suite")]
    seed: Option<u64>,
    /// The first so many of what the suite asks.
    #[arg(long, requires = "suite")]
    limit: Option<usize>,
}

/// Runs a suite.
pub fn run(suite: Suite, arguments: &Arguments, mut run: Assessor) -> Result<ExitStatus, Error> {
    let named: Vec<&str> = arguments.policy.split(',').map(str::trim).collect();
    let policies = named.iter().map(|name| run.policy(name)).collect::<Result<Vec<_>, _>>()?;
    must_differ(&policies)?;
    let asking = &arguments.asking;
    match suite {
        Suite::Ifeval | Suite::Verifier => {
            let prompts = limited(constrained(suite, asking, &run)?, asking);
            let name = if suite == Suite::Ifeval { "ifeval" } else { "verifier" };
            let found = run.verify(name, &policies, prompts, sampling(&run, asking))?;
            shown(arguments, &found, verified)
        }
        Suite::Choices => {
            let questions = limited(read_questions(file(asking)?)?, asking);
            shown(arguments, &run.choose(&policies, &questions)?, chosen)
        }
        Suite::Ranked | Suite::Damaged => {
            let ranked = limited(ranked(suite, file(asking)?)?, asking);
            let panel = run.panel(&arguments.by.rubric)?;
            let wishes = AssessWishes { samples: arguments.by.samples };
            let name = if suite == Suite::Ranked { "ranked" } else { "damaged" };
            shown(arguments, &run.rank(name, &policies, &ranked, &panel, &wishes)?, judged)
        }
    }
}

fn must_differ(policies: &[PolicyRow]) -> Result<(), Error> {
    for (at, one) in policies.iter().enumerate() {
        if let Some(twin) = policies.iter().take(at).find(|before| before.policy == one.policy) {
            return Err(Error::refused(
                Code::PolicyUnknown,
                format!("{} and {} are the same weights: name each once", twin.name, one.name),
            ));
        }
    }
    Ok(())
}

fn limited<T>(mut all: Vec<T>, asking: &Asking) -> Vec<T> {
    all.truncate(asking.limit.unwrap_or(usize::MAX));
    all
}

fn file(asking: &Asking) -> Result<&Path, Error> {
    asking.file.as_deref().ok_or_else(|| {
        Error::refused(Code::SuiteUnreadable, "this suite asks what a file holds: --file FILE")
    })
}

fn sampling(run: &Assessor, asking: &Asking) -> SuiteSampling {
    let usual = run.sampling();
    SuiteSampling {
        samples: asking.answers,
        temperature: asking.temperature.unwrap_or(usual.temperature),
        top_p: asking.top_p.unwrap_or(usual.top_p),
        max_new_tokens: asking.max_new_tokens.unwrap_or(usual.max_new_tokens),
        seed: asking.seed.unwrap_or(usual.seed),
    }
}

fn constrained(suite: Suite, asking: &Asking, run: &Assessor) -> Result<Vec<Prompt>, Error> {
    let read = match (&asking.file, suite) {
        (Some(path), _) => {
            let read = prompts::read(path)?;
            eprintln!("{}: {}", path.display(), read.summary());
            read
        }
        (None, Suite::Ifeval) => prompts::ifeval_prompts()?,
        (None, _) => return run.held_out(),
    };
    Ok(read.prompts(PromptOrigin::HeldOut))
}

fn ranked(suite: Suite, path: &Path) -> Result<Vec<RankedPrompt>, Error> {
    if suite == Suite::Ranked {
        return read_ranked(path);
    }
    Ok(damaged(&prompts::read(path)?.answered(PromptOrigin::HeldOut), 1))
}

fn shown<T: Serialize>(
    arguments: &Arguments,
    found: &T,
    rendered: fn(&T) -> String,
) -> Result<ExitStatus, Error> {
    match arguments.json {
        true => output::json(found)?,
        false => output::text(&rendered(found))?,
    }
    Ok(ExitStatus::Done)
}

/// That a suite asks what was trained on, where it does.
fn contamination(trained_on: usize) -> String {
    match trained_on {
        0 => String::new(),
        some => format!(
            "{some} of them equal, or nearly, something that the run was trained on: they say less\n"
        ),
    }
}

/// `43.2 % [38.1, 48.0]`
fn percent(share: &Estimate) -> String {
    let ends = share.bounds().map_or_else(
        || "[?]".to_owned(),
        |(low, high)| format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high),
    );
    format!("{:.1} % {ends}", 100.0 * share.mean)
}

fn verified(found: &VerifiedSuite) -> String {
    let SuiteSampling { samples, temperature, top_p, max_new_tokens, .. } = found.sampling;
    let mut text = format!(
        "{} prompts, {samples} answers each at temperature {temperature}, top_p {top_p}, at most \
         {max_new_tokens} tokens; checked by a program\n",
        found.prompts
    );
    if found.left_out > 0 {
        text.push_str(&format!(
            "{} prompts left out: no constraint that the program reads\n",
            found.left_out
        ));
    }
    text.push_str(&contamination(found.trained_on));
    text.push_str(&format!(
        "{:<6} {:>23} {:>23} {:>7} {:>7} {:>7} {:>9}\n",
        "model", "met", "all of a prompt's met", "loosely", "tokens", "ended", "nats/token"
    ));
    for one in &found.policies {
        text.push_str(&format!(
            "{:<6} {:>23} {:>23} {:>7.1} {:>7.1} {:>6.0}% {:>9.2}\n",
            one.policy,
            percent(&one.met),
            percent(&one.prompt_strict),
            100.0 * one.prompt_loose.mean,
            one.tokens,
            100.0 * one.ended,
            one.base_nats
        ));
    }
    for difference in &found.differences {
        text.push_str(&format!("{}\n", difference.line()));
    }
    text.push_str(&by_kind(&found.policies));
    text
}

fn by_kind(policies: &[VerifiedFigures]) -> String {
    let Some(first) = policies.first() else { return String::new() };
    let mut text = format!("{:<46} {:>5}", "met, %, by kind", "n");
    policies.iter().for_each(|one| text.push_str(&format!(" {:>6}", one.policy)));
    text.push('\n');
    for (kind, figure) in &first.kinds {
        let note = if APPROXIMATE.contains(&kind.as_str()) { " (approximate)" } else { "" };
        text.push_str(&format!("{:<46} {:>5}", format!("{kind}{note}"), figure.n));
        for one in policies {
            let met = one.kinds.get(kind).map_or(0.0, |figure| figure.met);
            text.push_str(&format!(" {:>6.1}", 100.0 * met));
        }
        text.push('\n');
    }
    text
}

/// Kinds that the program decides otherwise than IFEval's own, which asks nltk and a language detector.
const APPROXIMATE: [&str; 5] = [
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "language:response_language",
    "length_constraints:number_sentences",
];

fn chosen(found: &ChoiceSuite) -> String {
    let mut text = format!(
        "{} questions\n{}{:<6} {:>23} {:>23}\n",
        found.questions,
        contamination(found.trained_on),
        "model",
        "right",
        "right, by length"
    );
    for one in &found.policies {
        text.push_str(&format!(
            "{:<6} {:>23} {:>23}\n",
            one.policy,
            percent(&one.accuracy),
            percent(&one.accuracy_by_length)
        ));
    }
    found.differences.iter().for_each(|one| text.push_str(&format!("{}\n", one.line())));
    text
}

fn judged(found: &RankedSuite) -> String {
    let mut text = format!(
        "{} prompts, judged under {}\n{}{:<6} {:>9} {:>7} {:>7} {:>7} {:>9} {:>8} {:>7} {:>11}\n",
        found.prompts,
        found.rubrics.join(", "),
        contamination(found.trained_on),
        "model",
        "scored",
        "pairs",
        "right",
        "exact",
        "best=best",
        "spearman",
        "kendall",
        "mean score"
    );
    for one in &found.policies {
        let best = one.best_score_is_best.map_or("-".to_owned(), |v| format!("{:.1}", 100.0 * v));
        text.push_str(&format!(
            "{:<6} {:>9} {:>7} {:>6.1}% {:>6.1}% {best:>9} {:>8.2} {:>7.2} {:>11.2}\n",
            one.policy,
            format!("{}/{}", one.scored, one.answers),
            one.pairs,
            100.0 * one.pairwise_accuracy,
            100.0 * one.exact_match,
            one.spearman,
            one.kendall,
            one.score
        ));
        for (kind, (right, pairs)) in &one.kinds {
            text.push_str(&format!("         {kind}: {:.1} % of {pairs}\n", 100.0 * right));
        }
        if let Some(rho) = one.spearman_with_first.filter(|_| found.policies.len() > 1) {
            text.push_str(&format!(
                "         its scores beside the first policy's: Spearman {rho:.2}\n"
            ));
        }
    }
    text
}
