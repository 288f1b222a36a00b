//! The evaluator's decisions as a table: given these events, this is measured next.

use super::*;
use crate::config::Config;
use crate::domain::PromptOrigin;
use crate::domain::evaluation::Verdict;
use crate::stage::testing::{Run, names, prompt, rubric, weights};

/// What is measured next, in words.
fn next(run: &Run) -> String {
    let Some((_, task)) = Evaluator.next(&run.view) else { return "nothing".to_owned() };
    let compared = policies(&task).into_iter().map(|one| {
        let policy = one.policy.weights.0;
        format!("{policy} as {}", one.roles.join("+"))
    });
    let referee = match &task.referee {
        Ok(None) => "",
        Ok(Some(_)) => ", refereed",
        Err(_) => ", without its referee",
    };
    let compared = compared.collect::<Vec<_>>().join(", ");
    format!("{compared} on {}{referee}", names(&task.prompts))
}

/// Four prompts that are trained on and three that are not.
fn begun() -> Run {
    let run = Run::begun(4).with(|c| c.train.dpo.num_train_epochs = 1);
    (7..10).fold(run, |run, at| run.admit(prompt(at), PromptOrigin::HeldOut))
}

#[test]
fn what_is_measured_next() {
    let trained = |run: Run| run.with_pairs().referenced().saved(4);
    let promoted = |run: Run, policy: &str| {
        let policy = weights(policy);
        run.tell(Event::CheckpointPromoted { iteration: Iteration(0), policy })
    };
    let named = |c: &mut Config| c.evaluate.rubrics = vec!["strict".to_owned()];
    let installed = |run: Run| {
        let (name, version) = ("strict".to_owned(), "1".to_owned());
        run.tell(Event::RubricInstalled { rubric: rubric("s"), name, version })
    };
    for (what, given, then) in [
        ("no iteration is open", begun(), "nothing"),
        ("nothing is trained", begun().with_pairs().referenced(), "nothing"),
        ("some steps are saved", begun().with_pairs().referenced().saved(2), "nothing"),
        ("all steps are saved", trained(begun()), {
            "step4 as checkpoint, base as previous on p7 p8"
        }),
        ("the first policy is the one before", trained(promoted(begun(), "m1")), {
            "step4 as checkpoint, m1 as previous+first on p7 p8"
        }),
        (
            "the first policy is another",
            trained(promoted(promoted(begun(), "m1"), "m2")),
            "step4 as checkpoint, m2 as previous, m1 as first on p7 p8",
        ),
        (
            "fewer prompts are wanted",
            trained(begun().with(|c| c.evaluate.prompts = 1)),
            "step4 as checkpoint, base as previous on p7",
        ),
        (
            "another rubric referees",
            trained(installed(begun()).with(named)),
            "step4 as checkpoint, base as previous on p7 p8, refereed",
        ),
        (
            "it is not installed: the task says so when it is done",
            trained(begun().with(named)),
            "step4 as checkpoint, base as previous on p7 p8, without its referee",
        ),
        ("it is measured", trained(begun()).evaluated(Verdict::Better), "nothing"),
    ] {
        assert_eq!(next(&given), then, "{what}");
    }
}

/// What is measured again after a rollback or a lost checkpoint has another key.
#[test]
fn keys_of_measuring() {
    let key = |run: &Run| Evaluator.next(&run.view).expect("it has a task").0;
    let trained = || begun().with_pairs().referenced().saved(4);
    let calm = key(&trained());
    let lost = |run: Run| {
        let (iteration, reason) = (run.iteration(), "gone".to_owned());
        let (blob, back_to) = (crate::domain::BlobHash("step4".to_owned()), Some(0));
        run.tell(Event::CheckpointLost { iteration, step: 4, blob, reason, back_to })
    };
    assert_ne!(key(&lost(trained()).saved(4)), calm);
    assert_eq!(key(&trained()), calm);
}
