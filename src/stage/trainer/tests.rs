//! The trainer's decisions as a table: given these events, this is trained next.

use super::*;
use crate::config::Config;
use crate::domain::evaluation::Verdict;
use crate::domain::{AdapterRef, BlobHash};
use crate::stage::testing::{Run, weights};

/// What the trainer does next, in words.
fn next(run: &Run) -> String {
    match Trainer::default().next(&run.view) {
        None => "nothing".to_owned(),
        Some((_, TrainTask::Merge { .. })) => "merge".to_owned(),
        Some((_, TrainTask::Average { .. })) => "average".to_owned(),
        Some((_, TrainTask::Reference(task))) => format!("reference {}..{}", task.from, task.to),
        Some((_, TrainTask::Segment(plan))) => {
            format!("steps {}..{} of {}", plan.from, plan.to, plan.steps_total)
        }
    }
}

fn small(config: &mut Config) {
    config.train.dpo.num_train_epochs = 1;
    config.train.sft.per_device_train_batch_size = 1;
    config.train.sft.num_train_epochs = 1;
}

fn with_pairs() -> Run {
    Run::begun(4).with(small).with_pairs()
}

/// A policy acts that an iteration before made.
fn promoted(run: Run, policy: PolicyRef) -> Run {
    run.tell(Event::CheckpointPromoted { iteration: Iteration(0), policy })
}

#[test]
fn what_is_trained_next() {
    let undecided = Run::begun(4).with(small).opened().sealed(0..4).sampled(0..4);
    let none = |c: &mut Config| c.train.dpo.reference = ReferenceRule::None;
    let rows = Event::SeedDataAdmitted {
        name: "ift".to_owned(),
        rows: 3,
        blob: BlobHash("rows".to_owned()),
    };
    let setback = |run: Run, step| {
        let (iteration, reason) = (run.iteration(), "NaN".to_owned());
        run.tell(Event::TrainingRolledBack { iteration, step, scale: 0.5, reason })
    };
    let lost = |run: Run, step, back_to| {
        let (iteration, reason) = (run.iteration(), "gone".to_owned());
        let blob = BlobHash("step".to_owned());
        run.tell(Event::CheckpointLost { iteration, step, blob, reason, back_to: Some(back_to) })
    };
    let diverged = |run: Run| {
        let (iteration, reason) = (run.iteration(), "NaN".to_owned());
        run.tell(Event::TrainingDiverged { iteration, step: 0, reason })
    };
    let referenced = || with_pairs().referenced();
    for (what, given, then) in [
        ("no iteration is open", Run::begun(4), "nothing"),
        ("the pairs are not sealed", undecided, "nothing"),
        ("the pairs are sealed", with_pairs(), "reference 0..4"),
        ("the reference has scored them", referenced(), "steps 0..2 of 4"),
        ("a segment is saved", referenced().saved(2), "steps 2..4 of 4"),
        ("all steps are saved", referenced().saved(4), "nothing"),
        (
            "the loss has no reference",
            Run::begun(4).with(small).with(none).with_pairs(),
            "steps 0..2 of 4",
        ),
        ("seed rows are learned", Run::begun(4).with(small).tell(rows).opened(), "steps 0..2 of 3"),
        ("steps were skipped", setback(referenced(), 0), "steps 0..2 of 4"),
        ("the last checkpoint is lost", lost(referenced().saved(2).saved(4), 4, 2), {
            "steps 2..4 of 4"
        }),
        ("both are", lost(referenced().saved(2).saved(4), 4, 0), "steps 0..2 of 4"),
        ("training diverged", diverged(referenced()), "nothing"),
        ("it is measured", referenced().saved(4).evaluated(Verdict::Better), "nothing"),
    ] {
        assert_eq!(next(&given), then, "{what}");
    }
}

#[test]
fn what_comes_before_the_first_step() {
    let adapter = || PolicyRef {
        adapter: Some(AdapterRef { weights: BlobHash("adapter".to_owned()), shape: None }),
        ..weights("base")
    };
    let of_an_adapter = || promoted(Run::begun(4).with(small), adapter()).with_pairs().referenced();
    let merged = |run: Run| {
        let (iteration, policy) = (run.iteration(), adapter());
        run.tell(Event::AdapterMerged { iteration, policy, merged: weights("merged") })
    };
    let ema = |c: &mut Config| c.train.dpo.reference = ReferenceRule::Ema;
    let averaged = || {
        let run = promoted(Run::begun(4).with(small).with(ema), weights("first"));
        promoted(run, weights("second")).with_pairs()
    };
    let made = |run: Run| {
        let (iteration, policy) = (run.iteration(), weights("mean"));
        run.tell(Event::ReferenceMade { iteration, policy })
    };
    for (what, given, then) in [
        ("the policy's adapter is not one that is trained", of_an_adapter(), "merge"),
        ("it is merged", merged(of_an_adapter()), "steps 0..2 of 4"),
        ("the reference does not exist", averaged(), "average"),
        ("it is made", made(averaged()), "reference 0..4"),
    ] {
        assert_eq!(next(&given), then, "{what}");
    }
}

#[test]
fn an_epoch_sees_every_row_once_and_epochs_differ() {
    let seed = Seed::root(3);
    let epoch = |first: u32| -> Vec<u32> {
        (first..first + 4).flat_map(|step| batch_rows(seed, step, 10, 3)).collect()
    };
    let (one, two) = (epoch(0), epoch(4));
    let mut sorted = one.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10).collect::<Vec<_>>());
    assert_ne!(one, two);
    assert_eq!(one, epoch(0));
    assert_eq!(batch_rows(seed, 3, 10, 3).len(), 1, "the last batch is short, not dropped");
}
