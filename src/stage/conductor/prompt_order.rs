//! In which order prompts are answered: prompts of a run in, those that its iterations answer out.

use super::*;
use crate::domain::{BlobHash, Prompt, PromptOrigin, When};
use crate::log::Recorded;

fn settings(wanted: u32) -> Config {
    let mut config = Config { iterations: 2, ..Config::default() };
    config.prompts.generate = false;
    config.prompts.per_iteration = wanted;
    config.pairs.on_no_signal = OnNoSignal::Pause;
    config.judge.probes = 0;
    config
}

/// A run that has begun, and what its conductor decides.
struct PromptOrderRun {
    view: RunView,
    conductor: Conductor,
}

impl PromptOrderRun {
    fn begun(config: &Config) -> PromptOrderRun {
        let conductor = Conductor::new(Arc::new(config.clone()));
        let mut run = PromptOrderRun { view: RunView::default(), conductor };
        let panel = Panel::one(RubricId("r".to_owned()));
        run.tell(Event::RubricActivated { panel, when: When::NextIteration, trial: None });
        let base = PolicyRef::full(BlobHash("w".to_owned()));
        run.tell(Event::RunStarted { seed: 1, base, settings: config.recorded() });
        run
    }

    fn tell(&mut self, event: Event) {
        self.view.apply(&Recorded { offset: self.view.next, at_ms: 0, key: None, event });
    }

    /// Prompts by their ids, each with a priority behind `^` if it has one.
    fn admit(&mut self, prompts: &str) {
        for prompt in prompts.split_whitespace() {
            let (name, priority) = prompt.split_once('^').unwrap_or((prompt, "0"));
            let text = Prompt::user(name, PromptOrigin::Given);
            let prompt = Prompt { id: PromptId(name.to_owned()), ..text };
            let prompt = prompt.with_priority(priority.parse().unwrap());
            self.tell(Event::PromptAdmitted { prompt });
        }
    }

    /// Decides once, and what is decided happens; its kinds.
    fn decide(&mut self) -> Vec<&'static str> {
        let decided = self.conductor.next(&self.view);
        let events = decided.map(|(_, events)| events).unwrap_or_default();
        let kinds = events.iter().map(Event::kind).collect();
        events.into_iter().for_each(|event| self.tell(event));
        kinds
    }

    /// The prompts that the last iteration answers.
    fn sealed(&self) -> String {
        let (_, open) = self.view.iterations.last_key_value().expect("an iteration");
        open.prompts.iter().flatten().map(PromptId::as_str).collect()
    }
}

/// Prompts before the first iteration is opened and after it, how many it wants, which it answers, and
/// which the next one does.
const TAKEN: [(&str, &str, u32, &str, &str); 6] = [
    ("d b a c", "", 2, "ab", "cd"),
    ("d b", "a c", 3, "abd", "c"),
    ("d", "c b a", 2, "cd", "ab"),
    ("d b", "a^1 c", 1, "a", "b"),
    ("b^-1 a^-1 c", "d", 2, "cd", "ab"),
    ("a^7 b^8", "c^9", 9, "abc", ""),
];

#[test]
fn who_is_answered_first() {
    for (before, after, wanted, first, second) in TAKEN {
        let mut run = PromptOrderRun::begun(&settings(wanted));
        run.admit(before);
        assert_eq!(run.decide(), ["iteration_started"]);
        run.admit(after);
        assert_eq!(run.decide(), ["prompts_sealed"]);
        assert_eq!(run.sealed(), first, "of {before:?} and {after:?}");
        let outcome = IterationOutcome::Promoted;
        run.tell(Event::IterationFinished { iteration: Iteration(1), outcome });
        if second.is_empty() {
            assert!(run.decide().is_empty(), "nobody waits");
            continue;
        }
        assert_eq!(run.decide(), ["iteration_started"]);
        run.decide();
        assert_eq!(run.sealed(), second, "of {before:?} and {after:?}");
    }
}

/// With `prompts.reuse`, new prompts come first, and what is lacking is drawn from those that were
/// answered: other ones in each iteration, none twice in one, none that is held out.
#[test]
fn prompts_are_answered_again_where_that_is_wanted() {
    let config = Config { iterations: 40, ..settings(3) };
    let sealed = |reuse| {
        let mut config = config.clone();
        config.prompts.reuse = reuse;
        let mut run = PromptOrderRun::begun(&config);
        run.admit("a b c d");
        let held_out = Prompt::user("h", PromptOrigin::HeldOut);
        run.tell(Event::PromptAdmitted { prompt: Prompt { id: PromptId("h".into()), ..held_out } });
        let (mut all, mut reused) = (Vec::new(), Vec::new());
        for iteration in (1..=30).map(Iteration) {
            if run.decide() != ["iteration_started"] {
                break;
            }
            run.decide();
            all.push(run.sealed());
            reused.push(run.view.iterations[&iteration].reused);
            run.tell(Event::IterationFinished { iteration, outcome: IterationOutcome::Promoted });
        }
        (all, reused)
    };
    let (all, reused) = sealed(PromptReuse::Never);
    assert_eq!((all, reused), (vec!["abc".to_owned(), "d".to_owned()], vec![0, 0]));
    let (all, reused) = sealed(PromptReuse::WhenEmpty);
    assert_eq!((all.len(), &reused[..3]), (30, &[0, 2, 3][..]));
    assert!(all[1].contains('d') && all.iter().all(|sealed| sealed.len() == 3));
    let sets: std::collections::BTreeSet<&String> = all.iter().skip(2).collect();
    assert_eq!(sets.len(), 4, "all that there are of three in four: {sets:?}");
    assert!(all.iter().all(|sealed| !sealed.contains('h')));
}

#[test]
fn nothing_is_decided_while_nothing_can_come_of_it() {
    let mut run = PromptOrderRun::begun(&settings(1));
    run.tell(Event::PauseRequested);
    assert!(run.decide().is_empty(), "it pauses");
    run.tell(Event::ResumeRequested);
    assert!(run.decide().is_empty(), "no prompt waits");
    run.admit("a");
    assert_eq!(run.decide(), ["iteration_started"]);
    assert_eq!(run.decide(), ["prompts_sealed"]);
    assert!(run.decide().is_empty(), "it waits for the judge");
    for iteration in [1, 2].map(Iteration) {
        run.tell(Event::IterationFinished { iteration, outcome: IterationOutcome::Promoted });
        run.admit(if iteration == Iteration(1) { "b" } else { "c" });
        match iteration {
            Iteration(1) => assert_eq!(run.decide(), ["iteration_started"]),
            _ => assert!(run.decide().is_empty(), "the iterations are over"),
        }
    }
    run.tell(Event::IterationsRaised { total: 3 });
    assert_eq!(run.decide(), ["iteration_started"]);
}

/// A task that failed too often is given up once, and what failed in iterations that are over is
/// forgotten.
#[test]
fn what_failed_before_is_nothing_to_the_next_iteration() {
    let mut run = PromptOrderRun::begun(&settings(1));
    run.admit("a b");
    run.decide();
    run.decide();
    let (task, _) = Sampler.next(&run.view).expect("a prompt waits for answers");
    for attempt in 1..=ATTEMPTS_MAX {
        assert!(run.decide().is_empty(), "attempt {attempt}");
        let (stage, reason) = ("sampler".to_owned(), "no".to_owned());
        let (task, questions) = (task.clone(), false);
        run.tell(Event::TaskFailed { stage, task, attempt, reason, questions });
    }
    assert_eq!(run.decide(), ["prompt_quarantined"]);
    assert_eq!((run.view.failures.len(), run.view.failed_tasks()), (1, 1));
    assert_eq!(run.decide(), ["iteration_finished", "pause_requested"], "no pair is left");
    assert_eq!((run.view.failures.len(), run.view.failed_tasks()), (0, 1));
}
